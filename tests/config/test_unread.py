"""Overrides of the recipe that say nothing to a run: no component names them, straight or through another key."""

from pathlib import Path

import pytest

from dlma.config import compose
from dlma.config.unread import unread
from dlma.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
OF_SFT, OF_PPO = "recipe.sft.lr=1e-4", "recipe.ppo.clip=0.1"


def of(*words):
    """Those of the command line's overrides that nothing reads."""
    return unread(compose.plan(compose.search_path(CONF, None), list(words), False).cfg, words)


@pytest.mark.parametrize(
    ("method", "read", "nothing"),
    [
        ("dlma", ["recipe.beta=0.3", "recipe.lr=1e-4", "recipe.margin_low=-2"], [OF_SFT, OF_PPO]),
        ("simpo", ["recipe.lr=1e-4", "recipe.epochs=1"], ["recipe.beta=0.3", "recipe.margin_weight=1.0", OF_SFT]),
        ("sft", [OF_SFT, "recipe.sft.epochs=1", "recipe.optim.warmup=3"], ["recipe.lr=1e-4", "recipe.epochs=1"]),
        ("best_of_n", ["recipe.temperature=0.7", "recipe.top_p=0.9"], ["recipe.lr=1e-4", "recipe.margin_high=3.0"]),
        ("prompted", ["recipe.max_new_tokens=32", "recipe.dtype=float32"], ["recipe.beta=0.3", "recipe.batch_pairs=8"]),
    ],
)  # fmt: skip
def test_what_a_method_reads_of_the_recipe_and_what_it_does_not(method, read, nothing):
    assert of(f"method={method}", *read, *nothing) == nothing


def test_what_code_reads_and_what_is_no_key_of_the_recipe_is_left_alone():
    assert of("method=prompted", "recipe.max_prompt_tokens=64", "recipe.score_dtype=float32", "seed=3") == []
    assert of("method=rlhf", "objective=ppo", OF_PPO, "recipe.ppo.optim.schedule=cosine", "recipe.reward.lr=1e-4") == []


def test_a_run_says_it_before_its_stages(run_main, monkeypatch):
    def stopped(cfg):
        raise UserError("far enough")

    monkeypatch.setattr("dlma.pipeline.run", stopped)
    ran = run_main("method=best_of_n", "recipe.lr=1e-4", "recipe.temperature=0.7")
    first, *_, last = ran.err.splitlines()
    assert first == "warning: recipe.lr=1e-4: nothing in method=best_of_n reads it" and "far enough" in last
    assert ran.err.count("warning:") == 1
