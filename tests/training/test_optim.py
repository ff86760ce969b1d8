"""The optimizer as one node: its rates, its errors, and that nothing but itself and the recipes names its options."""

import dataclasses
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from scored_examples import OPTIM

from dlma.config.compose import plan, search_path
from dlma.config.help import conf_dir
from dlma.errors import UserError
from dlma.training.optim import Optim

PACKAGE = Path(__file__).parents[2] / "dlma"


def composed(*overrides):
    return plan(search_path(conf_dir(), None), list(overrides), False).cfg


def rates(steps, **changes):
    optim = dataclasses.replace(OPTIM, lr=2.0, **changes)
    return [optim.rate(step, steps) for step in range(steps)]


def test_a_share_of_the_steps_is_that_many_steps_of_warm_up():
    assert rates(8, warmup=0.5) == rates(8, warmup=4) == [0.5, 1, 1.5, 2, 2, 2, 2, 2]
    assert rates(7, warmup=0.5) == rates(7, warmup=3)
    assert rates(3, warmup=0) == [2, 2, 2] == rates(3, warmup=1)
    assert rates(2, warmup=0, schedule="cosine") == pytest.approx([2, 1])


@pytest.mark.parametrize("warmup", [-1, -0.1, 1.5, 20.25])
def test_a_warm_up_of_parts_of_a_step_is_refused(warmup):
    with pytest.raises(UserError, match=rf"optim\.warmup={warmup}: give whole steps, or a share"):
        dataclasses.replace(OPTIM, warmup=warmup)


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("rmsprop", torch.optim.RMSprop)])
def test_the_optimizer_is_torchs_own_with_these_options(name, kind):
    made = dataclasses.replace(OPTIM, optimizer=name, weight_decay=0.25).build(
        [{"params": [torch.zeros(2, requires_grad=True)]}], fused=False
    )
    assert type(made) is kind
    assert [(group["lr"], group["weight_decay"]) for group in made.param_groups] == [(OPTIM.lr, 0.25)]


def test_the_old_keys_set_the_rates_and_fine_tuning_follows_dpo_in_all_else():
    cfg = composed(
        "objective=ppo", "recipe.lr=0.5", "recipe.sft.lr=0.25", "recipe.reward.lr=0.125", "recipe.ppo.lr=0.75"
    )
    recipe = OmegaConf.to_container(cfg.recipe, resolve=True)
    assert [recipe["optim"]["lr"], recipe["sft"]["optim"]["lr"]] == [0.5, 0.25]
    assert [cfg.reward.optim.lr, cfg.objective.optim.lr] == [0.125, 0.75]
    other = {"optimizer": "rmsprop", "weight_decay": 0.5, "warmup": 7, "clip_norm": 3.0}
    cfg = composed("objective=sft", *(f"recipe.optim.{key}={value}" for key, value in other.items()))
    assert OmegaConf.to_container(cfg.objective.optim, resolve=True).items() >= other.items()
    assert composed("objective=dpo", "recipe.optim.warmup=7").objective.optim.warmup == 7


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("recipe.optim.optimizer=adam", "recipe.optim.optimizer: must be one of adamw, rmsprop, not 'adam'"),
        ("recipe.ppo.optim.betas=1", "recipe.ppo.optim.betas: unknown key"),
        ("recipe.optim._target_=dlma.objective.losses.Sigmoid", "recipe.optim.lr: unknown key"),
        ("recipe.reward={_target_: dlma.training.optim.Optim}", "recipe.reward: no component belongs here"),
    ],
)
def test_a_mistake_in_it_is_named_where_it_was_made(line, said):
    with pytest.raises(UserError) as reason:
        composed(line)
    assert said in str(reason.value)


def test_its_options_are_named_by_itself_and_by_configs_alone():
    """So a new option touches the class, its base in conf/recipe/base, and the recipes that want another value."""
    own = [field.name for field in dataclasses.fields(Optim) if field.name not in ("optimizer", "lr", "warmup")]
    naming = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(name in path.read_text() for name in (*own, "warmup_steps"))
    }
    others = {"lab/build.py", "functional/schedules.py"}  # the lab's bases have a plan of their own; an error's words
    assert naming - others == {"training/optim.py", "training/rule.py"}
    folders = {path.parent.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*.yaml")
               if any(f"{name}:" in path.read_text() for name in own)}  # fmt: skip
    assert folders <= {"recipe", "recipe/base", "sft"}
