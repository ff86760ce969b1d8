"""A study: what a cell is worth, and one that was stopped goes on to as many trials as were asked for."""

import importlib.util
import json
import math
from types import SimpleNamespace

import pytest
import yaml
from command_line import MODE, statuses

from dlma.errors import UserError
from dlma.runs import study

HAS_OPTUNA = all(importlib.util.find_spec(name) for name in ("optuna", "hydra_plugins"))
needs_optuna = pytest.mark.skipif(
    not HAS_OPTUNA, reason="Optuna's sweeper is not installed: pip install 'dlma[optuna]'"
)


def options(objective="self_reward", kl_cap=1.0):
    return SimpleNamespace(objective=objective, kl_cap=kl_cap)


def result(better="", **means):
    """What a run returns: the base has other numbers, which count for nothing."""
    arms = {"aligned": means, "base": {name: 99.0 for name in means}}
    found = [(arm, name, value) for arm, row in arms.items() for name, value in row.items()]
    estimates = [{"value": value, "low": value, "high": value, "n": 4} for *_, value in found]
    rows = [{"arm": a, "metric": m, "estimate": e, "better": better} for (a, m, _), e in zip(found, estimates)]
    return {"summary": rows, "counts": {"run": {}, "reused": {}}}


def test_the_label_free_rule_is_the_largest_self_reward_within_the_cap_else_the_smallest_kl():
    cells = [(0.5, 2.0), (1.0, 3.0), (0.9, -4.0), (1.01, 9.0), (2.0, 50.0)]  # KL and self-reward
    worth = {kl: study.worth(options(), result(kl=kl, self_reward=reward)) for kl, reward in cells}
    assert sorted(worth, key=worth.get, reverse=True) == [1.0, 0.5, 0.9, 1.01, 2.0]
    assert (worth[1.0], worth[0.9]) == (3.0, -4.0)


def test_any_metric_may_be_named_and_what_is_wanted_low_counts_negative():
    assert study.worth(options("harmful"), result(kl=0.2, harmful=0.3)) == -0.3
    assert study.worth(options("helpfulness", None), result(kl=7.0, helpfulness=0.3)) == 0.3
    assert study.worth(options("mine", None), result("lower", mine=0.3)) == -0.3


@pytest.mark.parametrize("means", [{"kl": 0.5}, {"kl": 0.5, "self_reward": math.nan}, {"self_reward": 1.0}])
def test_a_number_that_the_run_has_not_is_told_with_those_that_it_has(means):
    with pytest.raises(UserError, match=r"^sweep.objective: the run has no number for (self_reward|kl); it has "):
        study.worth(options(), result(**means))


def test_a_cells_worth_is_a_float_and_survives_another_process():
    import pickle

    done = {"name": "a", "status": "done", "reason": None, "result": result(kl=0.5, self_reward=2.0)}
    told = pickle.loads(pickle.dumps(study.Told(done, options())))
    assert float(told) == 2.0 and told == done
    failed = study.Told({**done, "status": "failed", "reason": "no disk", "result": None}, options())
    with pytest.raises(ValueError, match="a: no disk"):
        float(failed)


@pytest.mark.skipif(HAS_OPTUNA, reason="Optuna's sweeper is installed")
def test_without_optuna_the_line_says_what_to_install(run_main):
    ran = run_main("-m", MODE, "hydra/sweeper=optuna", "recipe.beta=interval(0.1,1)")
    assert ran.code == 2 and "no such option: pip install 'dlma[optuna]' (there are basic)" in ran.err
    assert not list(ran.folder.rglob("status.json"))


STUDY = ["-m", MODE, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=5", "recipe.beta=interval(0.1,1.0)", "name=trial"]


@needs_optuna
@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on_with_the_trial_that_was_under_way(run_main, mode):
    seen: list[float] = []

    def cell(cfg, /):
        seen.append(cfg.recipe.beta)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return result(kl=cfg.recipe.beta, self_reward=-((cfg.recipe.beta - 0.4) ** 2))

    mode(cell)
    first = run_main(*STUDY)
    assert first.code == 130 and len(seen) == 3
    again = run_main(*STUDY)
    assert again.code == 0, again.err
    assert len(seen) == 6 and seen[3] == seen[2]
    done = [found for found in statuses(again.folder).values() if found["status"] == "done"]
    assert len(done) == 5 and len(set(seen)) == 5
    assert again.out.count("finished at an earlier start") == 2
    best = yaml.safe_load((again.folder / "outputs" / "trial" / "optimization_results.yaml").read_text())
    assert best["best_value"] == pytest.approx(max(-((beta - 0.4) ** 2) for beta in seen))
    over = run_main(*STUDY)  # nothing is left to be done
    assert over.code == 0 and len(seen) == 6


@needs_optuna
@pytest.mark.slow
def test_a_trial_that_fails_ends_no_study_and_says_why(run_main, mode):
    mode(lambda cfg, /: {"summary": [], "counts": {"run": {}, "reused": {}}})
    ran = run_main(*[word.replace("n_trials=5", "n_trials=2") for word in STUDY])
    assert ran.code == 2 and "Traceback" not in ran.err
    reasons = {found["reason"] for found in statuses(ran.folder).values()}
    assert reasons == {"sweep.objective: the run has no number for self_reward; it has "}
    assert json.dumps(sorted(statuses(ran.folder)))  # both cells have a folder
