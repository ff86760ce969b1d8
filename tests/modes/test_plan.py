"""mode=plan: what is counted agrees with hand counts and real models; stages are found as a run would find them."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import small_network, small_tokenizer

from dlma.cost import memory as memory_model
from dlma.cost.memory import Footprint, Pass
from dlma.cost.meta_model import LiveBytes, drawn, read_config
from dlma.errors import UserError
from dlma.model.language import LanguageModel
from dlma.model.load import Lora, ModelSpec

LAB = ["data.train=24", "data.validation=4", "data.test=6", "recipe.max_new_tokens=16", "recipe.epochs=1"]
MIB = 2**20


@pytest.fixture
def folder(tmp_path):
    """A model folder without weights: a config and a tokenizer."""
    small_network("llama", context=512).config.save_pretrained(tmp_path / "shape")
    small_tokenizer().save_pretrained(tmp_path / "shape")
    return tmp_path / "shape"


def spec(folder, dtype="float32", lora=None):
    return ModelSpec("small", folder, dtype, lora=lora)


def bytes_of(network):
    return sum(p.nbytes for p in {id(p): p for p in network.parameters()}.values())


# Memory


@pytest.mark.parametrize(("optimizer", "copies"), [("adamw", 2), ("rmsprop", 1)])
def test_training_holds_weights_gradients_and_the_optimizers_copies(folder, optimizer, copies):
    network = small_network("llama", context=512)
    buffers = sum(b.nbytes for b in network.buffers())
    options = dict(optimizer=optimizer, checkpointing=False)
    found = memory_model.training(spec(folder), network.config, Pass(4, 64, 32), passes=2, **options)
    assert found.weights == bytes_of(network) + buffers
    assert found.gradients == bytes_of(network)
    assert found.optimizer == copies * bytes_of(network)
    assert found.activations > 0 and found.head > 0
    assert found.cache == found.reference == found.exchange == 0
    parts = (found.weights, found.gradients, found.optimizer, found.activations, found.head)
    assert found.total == sum(parts)
    once = memory_model.training(spec(folder), network.config, Pass(4, 64, 32), passes=1, **options)
    assert once.gradients < found.gradients and once.total < found.total
    both = memory_model.training(spec(folder), network.config, Pass(4, 64, 32), passes=2, processes=2, **options)
    assert both.exchange == 2 * bytes_of(network)
    assert both.total - both.exchange == found.total


def test_spread_layers_leave_each_process_its_part_and_what_is_in_no_layer(folder):
    network = small_network("llama", context=512)
    layers = [sum(p.nbytes for p in layer.parameters()) for layer in network.model.layers]
    options = dict(optimizer="adamw", checkpointing=False, passes=2)
    whole = memory_model.training(spec(folder), network.config, Pass(4, 64, 32), **options)
    part = memory_model.training(spec(folder), network.config, Pass(4, 64, 32), processes=4, spread=True, **options)
    assert part.optimizer == whole.optimizer - 2 * 0.75 * sum(layers)
    assert part.weights == whole.weights - 0.75 * sum(layers) + 2 * max(layers)
    assert part.gradients == whole.gradients - 0.75 * sum(layers) + max(layers)
    assert part.activations == whole.activations
    ends = [network.model.embed_tokens.weight.nbytes, network.lm_head.weight.nbytes, network.model.norm.weight.nbytes]
    assert part.exchange == min(sum(ends), (64 << 20) + max(ends))  # a bucket is full with the gradient that fills it


def test_a_frozen_reference_is_whole_in_every_process(folder):
    network = small_network("llama", context=512)
    options = dict(optimizer="adamw", checkpointing=False, passes=2, processes=4, spread=True)
    part = memory_model.training(spec(folder), network.config, Pass(4, 64, 32), **options)
    assert part.weights != bytes_of(network)
    assert memory_model.with_reference(part, whole=bytes_of(network)).reference == bytes_of(network)


def test_checkpointing_holds_less_and_more_rows_hold_more(folder):
    config = small_network("llama", context=512).config
    options = dict(optimizer="adamw", passes=2)
    plain = memory_model.training(spec(folder), config, Pass(8, 128, 32), checkpointing=False, **options)
    again = memory_model.training(spec(folder), config, Pass(8, 128, 32), checkpointing=True, **options)
    wider = memory_model.training(spec(folder), config, Pass(16, 128, 32), checkpointing=False, **options)
    assert again.activations < plain.activations < wider.activations
    assert wider.activations == pytest.approx(2 * plain.activations, rel=0.01)


def test_lora_trains_its_own_weights_only(folder):
    lora = Lora(rank=4, alpha=8.0, targets="all-linear")
    network = small_network("llama", context=512)
    options = dict(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(network, LoraConfig(**options))
    own = sum(p.nbytes for p in adapted.parameters() if p.requires_grad)
    found = memory_model.training(
        spec(folder, lora=lora), network.config, Pass(2, 64, 16), optimizer="adamw", passes=2, checkpointing=False
    )
    assert (found.gradients, found.optimizer) == (own, 2 * own)


def test_half_precision_halves_the_weights(folder):
    config = small_network("llama", context=512).config
    config.dtype = "bfloat16"  # what was saved says nothing about what is loaded
    full, half = (
        memory_model.scoring(spec(folder, dtype), config, Pass(2, 64, 16)).weights for dtype in ("float32", "bfloat16")
    )
    buffers = sum(b.nbytes for b in small_network("llama", context=512).buffers())
    assert full - buffers == 2 * (half - buffers)


def test_sampling_holds_keys_and_values_of_every_row_and_of_those_being_read(folder):
    config = small_network("llama", context=512).config
    draws = dict(temperature=1.0, top_k=0, top_p=1.0)
    lengths = dict(rows=128, tile=64, context=60, answer=40)
    one, two = (memory_model.sampling(spec(folder), config, **lengths, **draws, models=n) for n in (1, 2))
    head_size = config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_size * 4
    assert one.cache == token * (128 * 128 + 16 * 64)  # 100 tokens are 128 slots; 16 rows of 60 are read at a time
    assert two.total - one.total == two.reference == one.weights
    with drawn(spec(folder), config) as model:
        assert memory_model.position_bytes(model) == token


def test_scoring_with_two_models_holds_both(folder):
    config = small_network("llama", context=512).config
    one, two = (memory_model.scoring(spec(folder), config, Pass(4, 64, 16), models=n) for n in (1, 2))
    assert two.total - one.total == one.weights == two.reference


def test_the_widest_pass_keeps_within_the_budget_but_has_a_row():
    assert memory_model.largest_pass(4096, 100, 40, 64) == Pass(36, 100, 40)  # of 112 places each
    assert memory_model.largest_pass(4096, 100, 40, 8).rows == 8
    assert memory_model.largest_pass(64, 100, 40, 8).rows == 1


@pytest.mark.parametrize(("room", "rows"), [(99, None), (100, 1), (119, 1), (120, 2), (299, 10), (300, 11), (9000, 64)])
def test_the_largest_micro_batch_is_the_last_that_fits(room, rows):
    found = memory_model.fitting(lambda size: 80 + 20 * size.rows, Pass(3, 10, 4), 64, room)
    assert (found and found.rows) == rows


def test_a_cost_that_rises_faster_than_a_line_is_still_within_the_room():
    def cost(size):
        return 10 * size.rows + size.rows**2

    found = memory_model.fitting(cost, Pass(1, 10, 4), 64, 500)
    assert cost(found) <= 500 < cost(Pass(found.rows + 2, 10, 4))


def test_live_bytes_rise_with_what_is_made_and_fall_with_what_goes():
    with LiveBytes() as live:
        one = torch.zeros(1000)
        view = one[:10]
        two = torch.ones(500)
        del one
        assert live.live == 6000  # the view still holds it
        del view, two
        assert (live.live, live.peak) == (0, 6000)
        assert live.restart() == live.peak == 0


def test_what_an_operation_holds_within_itself_counts_at_the_peak():
    with LiveBytes() as live:
        one = torch.zeros(10, 100)
        one.logsumexp(-1)
        assert (live.live, live.peak) == (4000, 8000 + 40)


# The command


@pytest.fixture
def plan(run_main, monkeypatch):
    """Run mode=plan wide, with a load of weights forbidden; its output."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*argv, code=0):
        with monkeypatch.context() as forbidden:
            forbidden.setattr(LanguageModel, "load", lambda spec: pytest.fail("weights were loaded"))
            before = sorted(Path().rglob("*"))
            ran = run_main("mode=plan", "mode.device=a100_80gb", *argv)
            after = sorted(Path().rglob("*"))
        assert ran.code == code, ran.err
        assert before == after
        return ran.out if code == 0 else ran.err

    return call


def row(text, name):
    """The columns "cached" and "to run" of a stage."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    (found,) = [line for line in cells if line[0] == name and len(line) > 2]
    return int(found[1]), int(found[2])


STAGES = (
    "prompts",
    "contexts",
    "held_out",
    "pairs",
    "scored",
    "tokens",
    "preflight",
    "policy",
    "base",
    "prompted",
    "aligned",
)


def test_before_a_run_all_is_to_do_and_after_it_nothing(plan, run_main):
    before = plan(*LAB)
    assert {row(before, name) for name in (*STAGES, "evaluated")} == {(0, 1)}
    assert "lengths: prompts as read; answers at the limit" in before
    assert run_main(*LAB).code == 0
    after = plan(*LAB)
    assert {row(after, name) for name in (*STAGES, "evaluated")} == {(1, 0)}
    assert "lengths: prompts in the store; answers in the store" in after
    several = plan(*LAB, "trainer=ddp", "trainer.devices=2")  # devices are in no key: all is there, and nothing moves
    assert row(several, "policy") == (1, 0) and "moved," not in several
    assert "refused: iterations=2: later rounds" in plan(*LAB, "trainer=ddp", "trainer.devices=2", "iterations=2")
    other = plan(*LAB, "recipe.beta=0.3")
    assert {row(other, name) for name in ("pairs", "scored", "base")} == {(1, 0)}
    assert {row(other, name) for name in ("policy", "aligned", "evaluated")} == {(0, 1)}


@pytest.mark.slow
def test_a_sweep_counts_shared_stages_once(plan):
    text = plan("-m", *LAB, "recipe.beta=0.5,1.0", "seed=0,1")
    assert "4 cells" in text
    assert {row(text, name) for name in ("pairs", "scored", "base")} == {(0, 2)}
    assert row(text, "policy") == row(text, "aligned") == (0, 4)


@pytest.mark.slow
def test_policies_at_several_kls_are_one_training(plan, run_main):
    several = [*LAB, "objective.target_kl=0.01,0.02,0.03"]
    text = plan("-m", *several)
    assert row(text, "policy") == (0, 1) and row(text, "aligned") == (0, 3)
    assert row(plan(*LAB, "objective.target_kl=0.01"), "policy") == (0, 1)
    assert run_main(*LAB, "objective.target_kl=0.01", "kl_points=2").code == 0
    text = plan("-m", *several, "kl_points=2")
    assert row(text, "policy")[1] == 0 and row(text, "aligned") == (1, 2)


def test_a_config_is_enough_and_the_data_need_not_be_there(plan, folder):
    text = plan("model=hf", f"model.path={folder}", "data=jsonl", "data.path=absent.jsonl", "mode.prompts=1000")
    count = sum(p.numel() for p in small_network("llama", context=512).parameters())
    assert f"{count:,} parameters, {count:,} trained" in text
    assert "the weights are not on this machine" in text
    assert "largest micro-batch in 80 GB with 10% left free" in text
    assert row(text, "pairs") == (0, 1)


@pytest.mark.slow
def test_every_round_and_the_reward_model_are_stages_of_their_own(plan):
    text = plan(*LAB, "iterations=2")
    assert row(text, "policy") == row(text, "pairs") == row(text, "base") == (0, 1)
    assert row(text, "policy 1") == row(text, "scored_otherwise") == (0, 1)
    assert row(plan(*LAB, "reward=bradley_terry"), "reward") == (0, 1)


def test_a_method_that_trains_nothing_needs_no_training_memory(plan):
    text = plan("method=base", *LAB)
    assert "nothing is trained" in text
    assert row(text, "policy") == (0, 1)
    assert not any(line.split()[:1] == ["training"] for line in text.splitlines())


def test_too_small_a_device_is_told_in_words(plan):
    assert "does not fit" in plan(*LAB, "mode.memory_gb=0.001")


def test_this_machine_is_a_device_with_measured_rates(plan):
    text = plan(*LAB, "mode.device=here")
    assert "measured now" in text and "1 x here" in text


def test_an_unknown_device_is_named_with_the_known_ones(plan):
    assert "h100_sxm" in plan(*LAB, "mode.device=abacus", code=2)


def test_an_absent_model_gives_one_line(plan):
    assert "config.json cannot be read" in plan("model=hf", "model.path=/no/where", "mode.prompts=9", code=2)


@pytest.mark.parametrize("tokens", [600, 10**9])
def test_lengths_that_a_run_would_refuse_are_refused_with_its_own_line(plan, tokens):
    said = plan(*LAB, f"recipe.max_new_tokens={tokens}", code=2)
    assert f"+ {tokens} tokens do not fit the 512 of lab-standard: lower one of them" in said
    said = plan(*LAB, f"mode.answer_tokens={tokens}", code=2)
    assert f"mode.answer_tokens={tokens}: answers end at recipe.max_new_tokens=" in said


def test_a_component_is_counted_as_its_yaml_says(plan):
    own = ["method=dlma", "objective=ppo", "reward=bradley_terry"]
    assert "not counted (their components are not known): policy" in plan(*LAB, *own)
    said = ["objective._work_.kind=score", "+objective._work_.contexts=[plain]"]
    assert "not counted (" not in plan(*LAB, *own, *said)
    assert "kind must be one of sample, score" in plan(*LAB, "objective._work_.kind=magic", code=2)


def test_a_config_that_is_no_json_gives_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_config(str(tmp_path), "main", False)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 64}))
    assert read_config(str(tmp_path), "main", False).hidden_size == 64


def test_the_parts_of_a_footprint_add_up():
    assert Footprint(1, 2, 3, 4, 5, 6, 7, 8).total == 36
