"""The failure signatures: each fires on a run with that fault planted, alone, and none on a healthy run."""

import dataclasses
import io
import math

import numpy as np
import pytest
from omegaconf import OmegaConf
from planted import eval_row, scored_pair
from rich.console import Console

from dlma.app import conf_dir
from dlma.checks import finding as findings
from dlma.checks.alerts import Alerts, Outcome, similarity
from dlma.config.build import build
from dlma.report import run_tables
from dlma.report.table import html
from dlma.statistics.intervals import Estimate, mean_interval
from dlma.statistics.paired import change, difference_of_ratios, paired

NAMES = [
    "unfaithful_reward", "low_contrast", "low_diversity", "over_optimisation", "likelihood_displacement",
    "length_drift", "over_refusal", "perplexity_rise", "malformed_rise", "large_kl",
]  # fmt: skip


def alerts(**changes) -> Alerts:
    return build({**OmegaConf.load(conf_dir() / "alerts" / "standard.yaml"), **changes})


def states(run: Outcome, **changes) -> dict[str, str]:
    return {one.name: one.state for one in alerts(**changes).check(run)}


def fired(run: Outcome, **changes) -> set[str]:
    return {name for name, state in states(run, **changes).items() if state == "warning"}


def planted_evals(draw, prompts: int, *, aligned: dict) -> list:
    """Answers of three arms; prompts differ much more than arms do, so only pairing can tell the arms apart."""
    arms = {
        "base": dict(reward=0.0, harm=0.0, kl=0.0, nll=1.4, length=25, help=0.2, malformed=0.02, refused=0.1),
        "prompted": dict(reward=0.5, harm=0.2, kl=0.01, nll=1.4, length=25, help=0.2, malformed=0.02, refused=0.1),
    }
    arms["aligned"] = {**arms["prompted"], "reward": 1.2, "harm": 0.4, "kl": 0.04, "length": 26, **aligned}
    rows = []
    for prompt in range(prompts):
        hard = draw.normal()
        for arm, mean in arms.items():
            tokens = max(2, round(mean["length"] + 4 * hard + 2 * draw.normal()))
            nll = tokens * (mean["nll"] + 0.2 * hard + 0.1 * draw.normal())
            judged = draw.normal()  # what R and the judge both see of an answer
            rows.append(
                eval_row(
                    f"p{prompt}",
                    arm,
                    category="benign" if prompt % 2 else "risky",
                    answer="i can't do that ." if draw.random() < mean["refused"] else "take care .",
                    tokens=tokens,
                    logp_base=-nll,
                    logp=-nll + tokens * mean["kl"] * (1 + draw.normal()),
                    reward=mean["reward"] + hard + judged,
                    harmlessness=mean["harm"] + 0.4 * hard + 0.3 * (judged + 0.5 * draw.normal()),
                    helpfulness=mean["help"] + 0.1 * hard + 0.1 * draw.normal(),
                    malformed=float(draw.random() < mean["malformed"]),
                )
            )
    return rows


def planted_pairs(draw, n: int, *, faith=1.0, contrast=1.0, same=0.0, alike=0.2) -> tuple[list, list]:
    """Pairs whose truth is R times `faith` plus noise; `same` of them are equal, others share `alike` of the tokens."""
    pairs, truth = [], []
    for i in range(n):
        margin = contrast * (1.0 + 1.4 * draw.normal())
        one = draw.integers(5, 5000, 30).tolist()
        kept = round(30 * alike)
        two = list(one) if draw.random() < same else [*one[:kept], *draw.integers(5, 5000, 30 - kept).tolist()]
        pairs.append(dataclasses.replace(scored_pair(i, margin), positive_ids=one, negative_ids=two))
        truth.append(faith * margin + 0.8 * draw.normal())
    return pairs, truth


def planted_train(draw, steps: int, *, chosen=-0.25, margin=1.7) -> list[dict]:
    return [
        {
            "step": step,
            "chosen_reward": chosen * step / steps + 0.2 * draw.normal(),
            "reward_margin": margin * step / steps + 0.2 * draw.normal(),
        }
        for step in range(1, steps + 1)
    ]


def planted(seed=0, prompts=600, n_pairs=600, steps=120, *, aligned=None, train=None, **pairs) -> Outcome:
    draw = np.random.default_rng(seed)
    made, truth = planted_pairs(draw, n_pairs, **pairs)
    evals = planted_evals(draw, prompts, aligned=aligned or {})
    return Outcome("lab-planted", evals, made, truth, planted_train(draw, steps, **(train or {})))


@pytest.mark.parametrize("seed", range(8))
def test_a_healthy_run_fires_nothing_and_leaves_nothing_unchecked(seed):
    assert states(planted(seed)) == dict.fromkeys(NAMES, "ok")


@pytest.mark.parametrize("size", [3, 12, 40])
@pytest.mark.parametrize("seed", range(10))
def test_noise_of_few_prompts_and_pairs_fires_nothing(seed, size):
    assert fired(planted(seed, prompts=size, n_pairs=size, steps=size)) == set()


FAULTS = {
    "unfaithful_reward": dict(faith=0.0),
    "low_contrast": dict(contrast=0.2, faith=5.0),
    "low_diversity": dict(same=0.15),
    "over_optimisation": dict(aligned=dict(harm=-0.1)),
    "likelihood_displacement": dict(train=dict(chosen=-3.0, margin=1.5)),
    "length_drift": dict(aligned=dict(length=32)),
    "over_refusal": dict(aligned=dict(refused=0.3)),
    "perplexity_rise": dict(aligned=dict(nll=1.9)),
    "malformed_rise": dict(aligned=dict(malformed=0.12)),
    "large_kl": dict(aligned=dict(kl=0.3)),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_each_planted_fault_fires_its_own_alert_and_no_other(name, seed):
    assert fired(planted(seed, **FAULTS[name])) == {name}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("unfaithful_reward", dict(faith=-1.0)),  # R against the truth
        ("low_diversity", dict(alike=0.95)),
        ("length_drift", dict(aligned=dict(length=18))),
        ("over_refusal", dict(aligned=dict(help=-0.1))),  # no refusal, but no help
    ],
)
def test_the_other_face_of_a_fault_fires_too(name, fault):
    assert fired(planted(**fault)) == {name}


def test_a_rise_of_the_reward_that_the_judge_does_not_see_at_all_fires_as_often_as_the_interval_covers():
    runs = [planted(seed, aligned=dict(harm=0.0)) for seed in range(20)]
    assert sum(fired(run) == {"over_optimisation"} for run in runs) >= 17


def test_a_chosen_reward_that_falls_by_little_of_the_margin_is_ordinary():
    assert fired(planted(train=dict(chosen=-0.6, margin=2.0))) == set()
    assert fired(planted(train=dict(chosen=-1.4, margin=2.0))) == {"likelihood_displacement"}


def test_the_alert_on_the_reward_names_the_base_its_figure_and_its_threshold():
    (found,) = [one for one in alerts().check(planted(faith=0.0)) if one.name == "unfaithful_reward"]
    assert "on lab-planted" in found.text and "alert below 60 % or 0.2" in found.text and "[" in found.text


# What cannot be checked


def without_oracle(run: Outcome) -> Outcome:
    blank = dict(harmlessness=None, helpfulness=None, harmful=None, malformed=None)
    evals = [dataclasses.replace(row, **blank) for row in run.evals]
    return dataclasses.replace(run, evals=evals, truth=[None] * len(run.truth))


def test_without_an_oracle_the_alerts_that_need_it_say_so_and_the_others_work():
    run = without_oracle(planted(aligned=dict(harm=0.0, malformed=0.3, kl=0.3)))
    found = {one.name: one for one in alerts().check(run)}
    needing = {"unfaithful_reward", "over_optimisation", "malformed_rise"}
    assert {name for name, one in found.items() if one.state == "unknown"} == needing
    assert all("no oracle" in found[name].text for name in needing)
    assert fired(run) == {"large_kl"}


def with_sentiment(run: Outcome) -> Outcome:
    """The same run, its truth under the other name."""
    evals = [
        dataclasses.replace(row, sentiment=row.harmlessness, harmlessness=None, harmful=None, helpfulness=None)
        for row in run.evals
    ]
    return dataclasses.replace(run, evals=evals)


@pytest.mark.parametrize("aligned", [{}, dict(harm=0.0, reward=3.0)], ids=["healthy", "over-optimised"])
@pytest.mark.parametrize("known", [True, False], ids=["pairs known", "pairs unknown"])
def test_an_alert_asks_the_truth_whatever_it_is_called(aligned, known):
    run = planted(aligned=aligned)
    run = run if known else dataclasses.replace(run, truth=[None] * len(run.truth))
    asking = ("unfaithful_reward", "over_optimisation")
    first, second = ({f.name: f for f in alerts().check(one)} for one in (run, with_sentiment(run)))
    for name in asking:
        assert second[name].state == first[name].state != "unknown"
        assert second[name].text == first[name].text.replace("harmlessness", "sentiment")
    assert first["over_optimisation"].state == ("warning" if aligned else "ok")


def test_without_known_pairs_the_judge_of_the_answers_is_asked_about_the_reward():
    healthy, bad = planted(), planted(seed=1)
    draw = np.random.default_rng(5)
    random = [dataclasses.replace(row, harmlessness=draw.normal()) for row in bad.evals]
    unknown = [None] * len(healthy.truth)
    assert states(dataclasses.replace(healthy, truth=unknown))["unfaithful_reward"] == "ok"
    assert "unfaithful_reward" in fired(dataclasses.replace(bad, truth=unknown, evals=random))


def test_without_a_policy_only_the_pairs_are_checked():
    run = planted(contrast=0.2, faith=5.0)
    bare = dataclasses.replace(run, evals=[row for row in run.evals if row.arm != "aligned"], train=[])
    found = states(bare)
    assert found["low_contrast"] == "warning" and found["unfaithful_reward"] == "ok"
    assert {name for name, state in found.items() if state == "unknown"} == set(NAMES[3:])


def test_without_pairs_and_policy_nothing_can_be_checked_but_the_prompted_base():
    run = planted()
    evals = [row for row in run.evals if row.arm != "aligned"]
    found = states(Outcome("m", evals, [], [], []))
    assert {name for name, state in found.items() if state != "unknown"} == {"unfaithful_reward"}


def test_without_prompts_of_a_safe_category_refusals_cannot_be_told():
    run = planted(aligned=dict(refused=0.9))
    assert states(run, safe_categories=["easy"])["over_refusal"] == "unknown"


def test_labels_by_construction_are_held_against_the_truth_and_have_no_contrast():
    run = planted()
    pairs = [dataclasses.replace(pair, margin=0.0) for pair in run.pairs]
    found = {one.name: one for one in alerts().check(dataclasses.replace(run, pairs=pairs))}
    assert found["low_contrast"].state == "unknown"
    assert found["unfaithful_reward"].state == "ok" and "the label" in found["unfaithful_reward"].text
    flipped = dataclasses.replace(run, pairs=pairs, truth=[-value for value in run.truth])
    assert "unfaithful_reward" in fired(flipped)


@pytest.mark.parametrize("said", [{"verdict_first": 0.1}, {"verdict_second": -0.1}, {"positive_score": 3.0}])
def test_margins_of_a_judge_or_of_ratings_are_no_self_reward(said):
    run = planted(contrast=0.05)
    judged = dataclasses.replace(run, pairs=[dataclasses.replace(pair, **said) for pair in run.pairs])
    found = {one.name: one for one in alerts().check(judged)}
    assert states(run)["low_contrast"] == "warning" and found["low_contrast"].state == "unknown"
    assert "the sign of the margin" in found["unfaithful_reward"].text


def test_the_reward_is_taken_from_the_four_log_probs_where_they_are_there():
    """Margins made for training (shuffled, constant, given) say nothing of the prompt pair."""
    parts = ("positive_under_positive", "positive_under_negative", "negative_under_positive", "negative_under_negative")
    run = planted()
    pairs = [
        dataclasses.replace(pair, margin=0.001 * i, **dict(zip(parts, (-1.0, -1.0 - pair.margin, -2.0, -2.0))))
        for i, pair in enumerate(run.pairs)
    ]
    assert states(dataclasses.replace(run, pairs=pairs)) == dict.fromkeys(NAMES, "ok")


def test_too_few_prompts_to_see_a_rise_of_harmlessness_is_no_alert():
    state = states(planted(prompts=60, aligned=dict(harm=0.0, reward=3.0)))["over_optimisation"]
    assert state == "unknown"


def test_a_train_table_of_another_objective_is_no_mistake():
    run = dataclasses.replace(planted(), train=[{"step": 1.0, "loss": 0.5}] * 50)
    assert states(run)["likelihood_displacement"] == "unknown"


# The numbers


def test_a_change_is_paired_over_prompts_and_averages_a_prompts_answers():
    rows = [
        eval_row("a", "base", tokens=10), eval_row("a", "aligned", tokens=13), eval_row("a", "aligned", tokens=15),
        eval_row("b", "base", tokens=20), eval_row("b", "aligned", tokens=22), eval_row("c", "aligned", tokens=99),
    ]  # fmt: skip
    assert paired(rows, lambda row: row.tokens) == ([14.0, 22.0], [10.0, 20.0])
    found, wanted = change(rows, lambda row: row.tokens), mean_interval([4.0, 2.0])
    assert (found.value, found.low, found.high, found.n) == (wanted.value, wanted.low, wanted.high, 2)


def test_the_difference_of_ratios_covers_the_truth_about_95_percent_of_the_time():
    draw, hits = np.random.default_rng(0), 0
    for _ in range(400):
        weights = [draw.integers(5, 40, 200).astype(float) for _ in range(2)]
        shared = draw.normal(size=200)
        values = [w * (rate + 0.3 * shared + 0.2 * draw.normal(size=200)) for w, rate in zip(weights, (1.5, 1.2))]
        found = difference_of_ratios(values, weights)
        hits += found.low <= 0.3 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_similarity_is_dices_coefficient_of_adjacent_tokens():
    assert similarity([1, 2, 3], [1, 2, 3]) == 1 == similarity([7], [7])
    assert similarity([1, 2], [3, 4]) == 0 == similarity([1], [2])
    assert math.isclose(similarity([1, 2, 3, 4], [9, 2, 3, 4, 5]), 2 * 2 / (3 + 4))


# How it is shown


def test_the_terminal_shows_each_alert_with_its_figure_and_groups_what_cannot_be_checked():
    console = Console(file=io.StringIO(), width=80, soft_wrap=True)
    run = dataclasses.replace(without_oracle(planted(aligned=dict(kl=0.3))), model="[red]m[/red]")
    findings.print_findings("alerts", alerts().check(run), console)
    text = console.file.getvalue()
    assert "alerts: 7 checked, 1 to look at" in text
    assert "large_kl: KL to the base is 0.298 [" in text and "alert above 0.2" in text
    assert "not checked: unfaithful_reward, over_optimisation, malformed_rise (no oracle" in text


def test_numbers_for_a_tracker_are_1_for_what_fired_and_absent_for_what_cannot_be_checked():
    found = findings.numbers({"alerts": alerts().check(without_oracle(planted(aligned=dict(kl=0.3))))})
    assert found["alerts/large_kl"] == 1.0 and found["alerts/length_drift"] == 0.0
    assert "alerts/over_optimisation" not in found and len(found) == 7


def test_the_reports_table_escapes_what_it_shows_and_lists_every_check():
    run = dataclasses.replace(planted(faith=0.0), model="<script>x</script>")
    page = str(html(run_tables.findings({"after": alerts().check(run)})))
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert page.count("<tr>") == 1 + len(NAMES)


def judged(rate, prompts=4000):
    """A win rate over the base on so many prompts."""
    half = 1.96 * (rate * (1 - rate) / prompts) ** 0.5
    return Estimate(rate, rate - half, rate + half, prompts)


@pytest.mark.parametrize(
    ("wins", "state"),
    [
        ({"j": judged(0.6)}, "ok"),
        ({"j": judged(0.5)}, "warning"),
        ({"j": judged(0.4)}, "warning"),
        ({"j": judged(0.5, prompts=100)}, "unknown"),
        ({"j": judged(0.5), "k": judged(0.6)}, "ok"),  # one judge that sees a gain is enough
        ({"j": judged(0.4), "k": judged(0.5, prompts=100)}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_without_an_oracle_the_independent_judges_say_whether_r_was_over_optimised(wins, state):
    run = planted(0)
    blind = [dataclasses.replace(row, harmlessness=None) for row in run.evals]
    assert states(dataclasses.replace(run, evals=blind, wins=wins))["over_optimisation"] == state
