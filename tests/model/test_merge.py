"""An adapter taken into the weights: the merged model gives the logits of base and adapter; not quantised ones."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import small_model
from transformers import AutoModelForCausalLM

from dlma.errors import UserError
from dlma.model.language import LanguageModel
from dlma.model.merge import check, save_merged


def test_the_merged_model_gives_the_logits_of_base_and_adapter(tmp_path):
    plain = small_model()
    network = get_peft_model(plain.network, LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lora_B" in name:  # an adapter that changes something
                weight.copy_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    ids = torch.tensor([[0, 5, 6, 7, 8]])
    with torch.no_grad():
        both = network.eval()(ids).logits
        with network.disable_adapter():
            base = network(ids).logits
    save_merged(LanguageModel(network, plain.tokenizer, "small"), tmp_path)
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path).eval()(ids).logits
    torch.testing.assert_close(merged, both, atol=1e-4, rtol=1e-4)
    assert (merged - base).abs().max() > 0.01


def test_quantised_weights_are_refused():
    model = small_model()
    model.causal.quantization_method = "bitsandbytes"
    with pytest.raises(UserError, match="cannot be merged into quantised"):
        check(model)
