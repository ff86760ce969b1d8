"""An adapter taken into its base: what is written computes what the adapted model did, whatever the adapter touches."""

import pytest
import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig, TaskType, get_peft_model
from small_models import small_network, small_tokenizer
from transformers import AutoModelForCausalLM

from dlma.errors import UserError
from dlma.model import merge
from dlma.model.language import LanguageModel

LM = TaskType.CAUSAL_LM
IDS = torch.arange(3, 33).unsqueeze(0)
ADAPTERS = {
    "attention": lambda: LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type=LM),
    "all linear": lambda: LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type=LM),
    "head": lambda: LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "lm_head"], task_type=LM),
    "embedding": lambda: LoraConfig(r=4, lora_alpha=8, target_modules=["embed_tokens"], task_type=LM),
    "dora": lambda: LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "lm_head"], use_dora=True, task_type=LM),
    "head in full": lambda: LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type=LM),
    "some tokens": lambda: LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[5, 6], task_type=LM),
    "ia3": lambda: IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type=LM),
}


def adapted(config, tied):
    """A small model whose adapter changes its logits."""
    network = small_network(tied=tied)
    torch.manual_seed(1)
    network = get_peft_model(network, config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return LanguageModel(network, small_tokenizer(), "small")


def logits(network):
    with torch.no_grad():
        return network(input_ids=IDS).logits


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_what_is_written_computes_what_the_adapted_model_did(kind, tied, tmp_path):
    model = adapted(ADAPTERS[kind](), tied)
    wanted, before = logits(model.network), logits(small_network(tied=tied))
    merge.save_merged(model, tmp_path / "merged")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert (wanted - before).abs().max() > 0.1
    assert (logits(read) - wanted).abs().max() < 1e-4
    assert not hasattr(read, "peft_config")


def test_a_head_stays_tied_where_the_adapter_leaves_it_alone(tmp_path):
    merge.save_merged(adapted(ADAPTERS["attention"](), tied=True), tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert read.config.tie_word_embeddings and read.lm_head.weight is read.model.embed_tokens.weight


def test_an_adapter_that_is_no_change_of_weights_is_refused(tmp_path):
    model = LanguageModel(
        get_peft_model(small_network(), PrefixTuningConfig(num_virtual_tokens=3, task_type=LM)).eval(),
        small_tokenizer(),
        "small",
    )
    with pytest.raises(UserError, match="kind PREFIX_TUNING is no change of weights"):
        merge.save_merged(model, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_what_does_not_come_out_the_same_is_not_handed_out(tmp_path, monkeypatch):
    """Without the untying a tied head's adapter changes the embedding too: the comparison finds it."""
    monkeypatch.setattr(merge, "_untie", lambda causal: False)
    with pytest.raises(UserError, match="hand out the adapter itself"):
        merge.save_merged(adapted(ADAPTERS["head"](), tied=True), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_what_cannot_be_read_back_is_not_left_there(tmp_path, monkeypatch):
    def damaged(spec):
        raise UserError("no such code")

    monkeypatch.setattr(merge, "read_weights", damaged)
    with pytest.raises(UserError, match="no such code"):
        merge.save_merged(adapted(ADAPTERS["attention"](), tied=True), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(("module", "trusted"), [("transformers_modules.mine.modeling", True), (None, False)])
def test_code_that_came_with_a_model_and_ran_is_run_to_read_it_back(tmp_path, monkeypatch, module, trusted):
    model, asked = adapted(ADAPTERS["attention"](), tied=True), []
    read = merge.read_weights
    monkeypatch.setattr(merge, "read_weights", lambda spec: asked.append(spec.trust_remote_code) or read(spec))
    if module:
        monkeypatch.setattr(type(model.causal), "__module__", module)
    merge.save_merged(model, tmp_path / "merged")
    assert asked == [trusted]
