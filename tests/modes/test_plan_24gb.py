"""The recipe for one device of 24 GB: mode=plan confirms it for the two largest models of the presets that name it."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # half a minute of a quiet core for each

# Of config.json of Qwen/Qwen3-8B and meta-llama/Llama-3.1-8B-Instruct, what decides their size.
_SHARED = dict(hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, head_dim=128, tie_word_embeddings=False)
MODELS = {
    "qwen3_8b": dict(
        model_type="qwen3", num_hidden_layers=36, intermediate_size=12288, vocab_size=151936,
        max_position_embeddings=40960, **_SHARED,
    ),
    "llama3_1_8b_instruct": dict(
        model_type="llama", num_hidden_layers=32, intermediate_size=14336, vocab_size=128256,
        max_position_embeddings=131072, **_SHARED,
    ),
}  # fmt: skip


def planned(run_main, tmp_path, name, *words):
    (tmp_path / "config.json").write_text(json.dumps(MODELS[name]))
    model = [f"model={name}", f"model.path={tmp_path}", "data=jsonl", "data.path=prompts.jsonl", "trainer=gpu"]
    ran = run_main("mode=plan", *model, "mode.device=rtx_4090", "mode.prompts=1000", *words)
    assert ran.code == 0, ran.err
    return ran.out


@pytest.mark.parametrize("name", MODELS)
def test_the_recipe_fits_with_a_tenth_left_free(run_main, tmp_path, name):
    out = planned(run_main, tmp_path, name)
    assert "on 1 x rtx_4090 (24 GB" in out and "does not fit" not in out
    assert {line.split()[0] for line in out.splitlines() if line.startswith(("  sampling ", "  training "))} == {
        "sampling",
        "training",
    }


def test_with_half_more_answers_side_by_side_the_larger_one_does_not_fit(run_main, tmp_path):
    assert "sampling does not fit 24 GB" in planned(run_main, tmp_path, "qwen3_8b", "recipe.rows=36")
