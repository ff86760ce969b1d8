"""Reward and cost metrics: planted scores give the means, shares and counts that they must."""

import pytest

from dlma.errors import UserError
from dlma.evaluation.context import EvaluationContext
from dlma.judges.base import Match
from dlma.judges.reward import RewardJudge
from dlma.metrics.base import MetricInput
from dlma.metrics.reward_scores import QUADRANTS, RewardScores
from dlma.metrics.scores import score_rows
from dlma.records import Answer, Turn

# text -> (reward, cost)
PLANTED = {
    "b0": (1.0, -1.0), "b1": (1.0, 2.0), "b2": (1.0, 0.0), "b3": (1.0, 3.0),
    "a0": (2.0, -2.0), "a1": (3.0, 0.5), "a2": (0.0, -1.0), "a3": (1.0, 0.0),
}  # fmt: skip


class Planted:
    """A score model that knows the scores of texts."""

    network = None
    cut = 0

    def __init__(self, place):
        self.place = place
        self.name, self.folder = f"planted {place}", "folder"

    def load(self):
        return self

    def score(self, conversations):
        return [PLANTED[turns[-1].content][self.place] for turns in conversations]


class NoBench(EvaluationContext):
    def place(self, network):
        assert network is None


BENCH = NoBench({}, [], str, None)


def measured(**models):
    answers = {
        arm: [Answer(f"p{i}", arm, "q", None, f"{arm[0]}{i}", [1], True, 0, 0, 0) for i in range(4)]
        for arm in ("base", "aligned")
    }
    turns = {f"p{i}": [Turn("user", "q")] for i in range(4)}
    metric = RewardScores(BENCH, **{"reward": None, "cost": None, **models})
    scores = metric.scores(MetricInput(answers, turns, ["base", "aligned"]))
    rows = score_rows(scores, [vars(column) for column in metric.columns])
    return {(row.metric, row.arm): row.estimate.value for row in rows}


def test_means_the_unsafe_share_and_the_four_classes():
    values = measured(reward=Planted(0), cost=Planted(1))
    assert values["reward", "base"] == 1.0 and values["reward", "aligned"] == 1.5
    assert values["cost", "base"] == 1.0 and values["cost", "aligned"] == -0.625
    assert values["unsafe", "base"] == 0.5 and values["unsafe", "aligned"] == 0.25  # a cost of 0 is safe
    # a0 better and safe, a1 better and unsafe, a2 worse and safe, a3 equal: neither
    assert [values[name, "aligned"] for name in QUADRANTS] == [0.25, 0.25, 0.25, 0.0]
    assert not any(arm == "base" for name, arm in values if name in QUADRANTS)


def test_one_model_alone_gives_its_own_columns():
    assert set(measured(reward=Planted(0))) == {("reward", "base"), ("reward", "aligned")}
    assert {name for name, _ in measured(cost=Planted(1))} == {"cost", "unsafe"}


def test_no_model_at_all_is_refused():
    with pytest.raises(UserError, match="name a reward model"):
        RewardScores(BENCH, reward=None, cost=None)


@pytest.mark.parametrize(("place", "sign", "outcomes"), [(0, 1, ["win", "win", "lose", "tie"]), (1, -1, ["win"] * 4)])
def test_a_reward_model_judges_by_the_larger_score_and_a_cost_model_by_the_smaller(place, sign, outcomes):
    judge = RewardJudge(BENCH, criterion="reward", model=Planted(place), sign=sign, tie=0.0)
    rows = [Match(f"p{i}", None, [Turn("user", "q")], "", "aligned", "base", f"a{i}", f"b{i}") for i in range(4)]
    found = judge.judge(rows)
    assert [ruling.outcome for ruling in found] == outcomes
    assert all(ruling.first == ruling.second for ruling in found)
