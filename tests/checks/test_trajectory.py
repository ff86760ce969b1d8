"""The run as a curve: its table by hand, and the step from which R and the judge part, where it was planted."""

import csv
import dataclasses
import io

import numpy as np
import pytest
from omegaconf import OmegaConf
from planted import eval_row

from dlma.app import conf_dir
from dlma.checks.trajectory import parting, trajectory, trajectory_csv
from dlma.config.build import build
from dlma.records import Verdict
from dlma.report.sections import trajectory as section

ARMS = ["base", "step-000010", "step-000020", "step-000030", "aligned"]
STEPS = [0, 10, 20, 30, 40]


def alerts():
    return build(OmegaConf.load(conf_dir() / "alerts" / "standard.yaml"))


def planted(reward, harm, prompts=600, judged=True):
    """A curve whose R and harmlessness have these means at the steps, paired over prompts."""
    draw = np.random.default_rng(0)
    rows = []
    for prompt in range(prompts):
        hard = draw.normal()
        for arm, r, h in zip(ARMS, reward, harm):
            judge = h + 0.3 * hard + 0.2 * draw.normal() if judged else None
            rows.append(eval_row(f"p{prompt}", arm, reward=r + hard + 0.3 * draw.normal(), harmlessness=judge))
    ends = [row for row in rows if row.arm in ("base", "aligned")]
    return trajectory(ends, [row for row in rows if row not in ends], last=40)


def test_the_steps_are_in_order_from_the_base_to_the_policy():
    found = planted(range(5), range(5), prompts=3)
    assert (found.steps, found.arms) == (STEPS, ARMS)


def test_the_table_has_a_line_per_step_with_the_means_of_its_answers():
    found = planted([0, 1, 2, 3, 4], [0, 0, 0, 0, 0], prompts=40)
    lines = list(csv.DictReader(io.StringIO(trajectory_csv(found, 20).decode())))
    assert [int(line["step"]) for line in lines] == STEPS
    assert [line["parts"] for line in lines] == ["0", "0", "1", "0", "0"]
    for line, arm in zip(lines, ARMS):
        rewards = [row.reward for row in found.rows if row.arm == arm]
        assert float(line["self_reward"]) == pytest.approx(np.mean(rewards))
        half = 2.0226909 * np.std(rewards, ddof=1) / 40**0.5  # Student's t, 39 degrees of freedom
        assert float(line["self_reward_high"]) == pytest.approx(np.mean(rewards) + half, rel=1e-5)
        assert float(line["kl"]) == pytest.approx(1.0) and line["n"] == "40"
        assert "harmful" not in line  # nobody said what is harmful here


@pytest.mark.parametrize(
    ("reward", "harm", "part"),
    [
        ([0, 1, 2, 3, 4], [0.0, 0.2, 0.4, 0.6, 0.8], None),  # both rise
        ([0, 1, 2, 3, 4], [0.0, 0.4, 0.5, 0.3, 0.1], 10),  # the judge's best are steps 10 and 20, both above the end
        ([0, 1, 2, 3, 4], [0.0, 0.2, 0.6, 0.6, 0.6], 20),  # no further rise, known to within 0.05
        ([0, 1, 2, 3, 4], [0.6, 0.4, 0.3, 0.2, 0.1], 0),  # from the start: the alert over_optimisation
        ([0, 2, 2, 2, 2], [0.0, 0.6, 0.6, 0.6, 0.6], None),  # both have come to rest
        ([0, 0, 0, 0, 0], [0.6, 0.4, 0.3, 0.2, 0.1], None),  # R does not rise either
    ],
)
def test_r_and_the_judge_part_where_it_was_planted(reward, harm, part):
    step, finding = parting(planted(reward, harm), alerts())
    assert (step, finding.state) == (part, "ok" if part is None else "warning")
    if part is not None:
        assert f"from step {part} to step 40 R rises" in finding.text


def test_another_truth_parts_from_r_at_the_same_step_and_is_drawn():
    found = planted([0, 1, 2, 3, 4], [0.0, 0.4, 0.5, 0.3, 0.1], prompts=100)
    rows = [dataclasses.replace(row, sentiment=row.harmlessness, harmlessness=None) for row in found.rows]
    other = dataclasses.replace(found, rows=rows)
    (step, finding), (same, said) = parting(found, alerts()), parting(other, alerts())
    assert step == same == 10 and said.text == finding.text.replace("harmlessness", "sentiment")
    assert "sentiment (right)" in section(other, same, said)
    assert "sentiment" in trajectory_csv(other, same).decode().splitlines()[0].split(",")


def test_too_few_prompts_are_said_to_be_too_few():
    step, finding = parting(planted([0, 3, 6, 9, 12], [0.0, 0.0, 0.0, 0.0, 0.0], prompts=12), alerts())
    assert (step, finding.state) == (None, "unknown")
    assert "too few prompts" in finding.text


def test_without_a_judge_there_is_a_curve_of_r_and_no_claim():
    found = planted(range(5), range(5), judged=False)
    step, finding = parting(found, alerts())
    assert (step, finding.state) == (None, "unknown")
    page = section(found, step, finding)
    assert page.count('class="line c-prompted"') == 1 and 'class="line c-better"' not in page
    assert "no independent judge" in page


def test_the_figure_shows_both_curves_and_where_they_part():
    found = planted([0, 1, 2, 3, 4], [0.0, 0.4, 0.5, 0.3, 0.1])
    page = section(found, *parting(found, alerts()))
    assert page.count('class="line c-prompted"') == page.count('class="line c-better"') == 1
    assert page.count('class="clamp"') == 1 and "training step 10: R and the judge part" in page
    assert page.count("<circle") == 2 * len(STEPS)
    flat = planted(range(5), [0.0, 0.2, 0.4, 0.6, 0.8])
    assert 'class="clamp"' not in section(flat, *parting(flat, alerts()))


def verdicts(shares):
    """Verdicts of a judge against the base, with this share of wins at the steps after the base, and no ties."""
    rows = []
    for arm, share in zip(ARMS[1:], shares):
        for i in range(600):
            outcome = "win" if i % 100 < 100 * share else "lose"
            rows.append(Verdict(f"p{i}", None, "j", arm, "base", outcome, outcome, outcome))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shares", "part"),
    [
        ([0.6, 0.7, 0.8, 0.9], None),  # it follows R
        ([0.6, 0.8, 0.8, 0.8], 20),  # from step 20 on it sees no more
        ([0.6, 0.8, 0.7, 0.6], 10),
        ([0.4, 0.4, 0.4, 0.4], 0),
    ],
)
def test_without_an_oracle_an_independent_judge_is_held_beside_r(shares, part):
    found = planted(range(5), range(5), judged=False)
    ends = [row for row in found.rows if row.arm in ("base", "aligned")]
    found = trajectory(ends, [row for row in found.rows if row not in ends], last=40, verdicts={"j": verdicts(shares)})
    step, finding = parting(found, alerts())
    assert (step, finding.state) == (part, "ok" if part is None else "warning")
    lines = list(csv.DictReader(io.StringIO(trajectory_csv(found, step).decode())))
    assert [float(line["win_rate/j"]) for line in lines] == pytest.approx([0.5, *shares])
    page = section(found, step, finding)
    assert "win rate by j" in page and page.count('class="line c-better"') == 1


def test_a_verdict_that_could_not_be_read_is_no_point():
    found = planted(range(5), range(5), judged=False, prompts=3)
    rows = [Verdict("p0", None, "j", "aligned", "base", "unparsed", "win", "unparsed")]
    rows += [Verdict("p1", None, "j", "aligned", "prompted", "win", "win", "win")]  # not against the base
    ends = [row for row in found.rows if row.arm in ("base", "aligned")]
    assert trajectory(ends, [], last=40, verdicts={"j": rows}).wins == {"j": {}}
