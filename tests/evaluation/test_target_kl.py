"""Training to a KL: the rule on planted curves, and a run of the lab whose policy is measured again by other code."""

import csv
import json
import math
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from small_models import plain_logp
from transformers import AutoModelForCausalLM

from dlma.app import main
from dlma.errors import UserError
from dlma.evaluation.target_kl import curve_of, kept_at, line, nearest, search
from dlma.lab.bases import base_folder
from dlma.statistics.intervals import Estimate, mean_interval


def answers(kl, n=4):
    """Answers whose log-ratios have that mean."""
    ratios = [kl - 0.1, kl + 0.1] * (n // 2)
    return [
        SimpleNamespace(
            **dict.fromkeys(("prompt_id", "arm", "question", "category", "text", "reward")),
            ids=[1],
            finished=True,
            logp=ratio - 3.0,
            logp_base=-3.0,
            logp_drawn=None,
            logp_base_drawn=None,
            logp_base_uncut=None,
        )
        for ratio in ratios
    ]


def curve(**kls):
    return {int(step[1:]): Estimate(kl, kl - 0.1, kl + 0.1, 8) for step, kl in kls.items()}


@pytest.mark.parametrize("target", [0.01, 0.3, 1.0, 2.5, 7.9, 8.0, 9.0])
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_of_a_growing_kl_the_nearest_step_in_log_is_found_in_few_looks(target, count):
    """Against all steps looked at, with the nearest of all taken."""
    kls = {10 * i: 8.0 * (i / count) ** 2 for i in range(1, count + 1)}
    seen = []

    def answered(step):
        seen.append(step)
        return answers(kls[step])

    found = search(list(kls), target, answered)
    step, reached = nearest(found, target)
    assert len(seen) == len(set(seen)) <= 2 + math.ceil(math.log2(count))
    assert reached is (max(kls.values()) > target)
    if reached:
        assert step == min(kls, key=lambda at: abs(math.log(kls[at]) - math.log(target)))
    else:
        assert step == 10 * count and seen == [step]
    assert list(found) == sorted(found)
    assert all(kl.value == pytest.approx(kls[at]) and kl.n == 4 for at, kl in found.items())


@pytest.mark.parametrize(
    ("found", "target", "expected"),
    [
        (curve(s4=0.5, s8=2.0), 1.0, (4, True)),  # equally near in log: the earlier
        (curve(s4=0.5, s8=1.9), 1.0, (8, True)),
        (curve(s4=0.6, s8=1.9), 1.0, (4, True)),
        (curve(s4=5.0, s8=9.0), 1.0, (4, True)),  # the base before it is infinitely far in log
        (curve(s4=-0.01, s8=3.0), 1.0, (8, True)),  # an estimate of about 0 is as far
        (curve(s4=0.2, s8=0.9), 1.0, (8, False)),
        (curve(s8=1.0), 1.0, (8, False)),
    ],
)
def test_the_nearer_of_the_two_steps_beside_the_target_is_taken(found, target, expected):
    assert nearest(found, target) == expected


def test_fewer_than_two_answers_are_no_estimate():
    with pytest.raises(UserError, match=r"^objective\.target_kl: .* the data have 0$"):
        search([1], 1.0, lambda step: [])


def test_the_kept_policies_come_in_the_order_of_their_steps_and_the_last_one_last():
    assert kept_at(["step-000002", "step-000010"], b"step,loss\n1.0,2\n12.0,1\n") == {
        2: "step-000002",
        10: "step-000010",
        12: "aligned",
    }


# A run of the lab

SIZES = ["data.train=32", "data.validation=24", "data.test=8", "recipe.max_new_tokens=24", "recipe.batch_pairs=8"]
FAST = ["recipe.lr=1e-3", "recipe.epochs=2", "kl_points=3", "kl_prompts=16", "judges=[]", "metrics=[]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs in one store: to a KL out of reach, to a third of the KL at its end, and without a target."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name, *more):
        assert main([f"name={name}", *SIZES, *FAST, *more]) == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("far", "objective.target_kl=500")
        (last,) = chosen_in(folder / "outputs" / "far")["curve"]
        run("to", f"objective.target_kl={last['value'] / 3}")
        run("kept", "intermediate=3")
    return folder / "outputs"


def manifest(run):
    return json.loads((run / "manifest.json").read_text())


def chosen_in(run):
    return manifest(run)["policy"]["notes"]["target_kl"]


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_policy_is_one_that_was_kept_and_the_choice_stands_everywhere(place):
    chosen = chosen_in(place / "to")
    assert chosen["reached"] and chosen["target"] == pytest.approx(chosen_in(place / "far")["curve"][0]["value"] / 3)
    assert nearest(curve_of(chosen), chosen["target"]) == (chosen["step"], True) and len(chosen["curve"]) == 3
    (trained,) = (place.parent / "store" / "policy").glob("*/intermediate")
    steps = {int(path.name.removeprefix("step-")): path for path in trained.iterdir()}
    steps[chosen["steps"]] = trained.parent / "policy"
    assert weights(place / "to" / "policy") == weights(steps[chosen["step"]])
    assert len({weights(path) for path in steps.values()}) == len(steps) == 4
    rows = list(csv.DictReader((place / "to" / "train.csv").open()))
    assert [float(row["step"]) for row in rows] == list(range(1, chosen["step"] + 1))
    report = (place / "to" / "report.html").read_text()
    assert "Along training" in report and line(chosen) in report


@pytest.mark.slow
def test_the_same_training_without_a_target_is_not_made_again(place):
    """The key of the training is that of `intermediate=3`, and without either it is what it always was."""
    status = json.loads((place / "kept" / "status.json").read_text())
    assert "policy" not in status["result"]["counts"]["run"]
    used = {one["name"]: one["key"] for one in manifest(place / "to")["policy"]["uses"]}
    assert used["policy"] == manifest(place / "kept")["policy"]["key"]


@pytest.mark.slow
def test_a_kl_out_of_reach_keeps_the_last_policy_and_says_so(place):
    chosen = chosen_in(place / "far")
    assert not chosen["reached"] and chosen["step"] == chosen["steps"] == len(chosen["curve"]) * 8
    assert weights(place / "far" / "policy") == weights(place / "kept" / "policy")
    largest = chosen["curve"][0]["value"]
    assert "was never reached: the largest is" in line(chosen) and f"{largest:.3f}"[:4] in line(chosen)
    assert "target_kl" in json.loads((place / "far" / "status.json").read_text())["result"]["alerts"]


def rows_of(store, stage):
    return [row for path in store.glob(f"{stage}/*/rows.parquet") for row in pq.read_table(path).to_pylist()]


@pytest.mark.slow
@torch.no_grad()
def test_the_kl_that_was_read_is_that_of_a_plain_loop_over_the_same_answers(place):
    chosen = chosen_in(place / "to")
    policy = AutoModelForCausalLM.from_pretrained(place / "to" / "policy").double().eval()
    base = AutoModelForCausalLM.from_pretrained(base_folder("standard")).double().eval()
    store = place.parent / "store"
    arm = "aligned" if chosen["step"] == chosen["steps"] else f"step-{chosen['step']:06d}"
    asked = pq.read_table(place / "to" / "prompts.parquet").to_pylist()
    validation = {row["id"] for row in asked if row["split"] == "validation"}
    contexts = {row["prompt_id"]: row["plain_ids"] for row in rows_of(store, "contexts")}
    answered = [row for row in rows_of(store, "answers") if row["arm"] == arm and row["prompt_id"] in validation]
    drawn = {row["prompt_id"]: row["ids"] for row in answered}
    assert len(drawn) == 16
    ratios = [
        plain_logp(policy, contexts[name], ids) - plain_logp(base, contexts[name], ids) for name, ids in drawn.items()
    ]
    (read,) = [row for row in chosen["curve"] if row["step"] == chosen["step"]]
    again = mean_interval(ratios)
    assert (read["value"], read["low"], read["n"]) == pytest.approx((again.value, again.low, 16), abs=1e-3)
