"""The win rate at equal length: against an independent maximum-likelihood fit, and what it is for."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from dlma.statistics import length_control
from dlma.statistics.intervals import fraction_interval
from dlma.statistics.length_control import length_controlled


def drawn(rng, n, skill, slope):
    lengths = rng.normal(5, 10, n)
    return (rng.random(n) < expit(skill + slope * lengths / lengths.std())).astype(float), lengths


def independent_rate(points, lengths):
    z = lengths / lengths.std()

    def loss(w):
        line = w[0] + w[1] * z
        return np.sum(np.logaddexp(0, line) - points * line)

    return expit(minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-8}).x[0])


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_fit_of_another_optimiser_ties_included(seed):
    rng = np.random.default_rng(seed)
    points, lengths = drawn(rng, 200, 0.3, 0.8)
    points[:40] = 0.5
    assert length_controlled(points, lengths).value == pytest.approx(independent_rate(points, lengths), abs=1e-5)


def test_wins_that_length_alone_explains_go_away_and_the_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        points, lengths = drawn(rng, 300, 0.0, 1.5)
        found = length_controlled(points, lengths)
        covered += found.low <= 0.5 <= found.high
    assert covered / 400 >= 0.93
    assert fraction_interval(points).low > 0.5  # the plain rate is above one half: longer answers won


def test_without_an_effect_of_length_it_is_the_plain_rate():
    rng = np.random.default_rng(1)
    points, lengths = drawn(rng, 20_000, logit(0.6), 0.0)
    assert length_controlled(points, lengths).value == pytest.approx(points.mean(), abs=0.01)


@pytest.mark.parametrize(
    ("points", "lengths"),
    [
        ([1.0] * 20, list(range(20))),  # all won
        ([0.0, 1.0] * 10, [3.0] * 20),  # equal lengths
        ([0.0] * 10 + [1.0] * 10, list(range(20))),  # the longer one always won: no finite fit
        ([0.0, 1.0], [1.0, 2.0]),  # too few
    ],
)
def test_it_is_not_given_where_it_cannot_be_known(points, lengths):
    assert length_controlled(points, lengths) is None


def test_a_fit_that_has_not_settled_in_its_steps_is_none(monkeypatch):
    points, lengths = drawn(np.random.default_rng(0), 200, 0.3, 0.8)
    assert length_controlled(points, lengths) is not None
    monkeypatch.setattr(length_control, "_STEPS", 2)
    assert length_controlled(points, lengths) is None


def test_few_answers_that_differ_from_the_others_length_have_a_fit_or_none():
    """Mostly ties of equal length, as a policy that hardly moved has: the optimiser's fit, or one that runs off."""
    rng, fitted = np.random.default_rng(0), 0
    for _ in range(300):
        points, lengths = np.full(40, 0.5), np.zeros(40)
        moved = rng.choice(40, rng.integers(1, 20), replace=False)
        points[moved], lengths[moved] = rng.choice([0.0, 0.5, 1.0], len(moved)), rng.integers(-12, 13, len(moved))
        found = length_controlled(points, lengths)
        if found is not None:
            assert found.low <= found.value <= found.high
            assert found.value == pytest.approx(independent_rate(points, lengths), abs=1e-5)
            fitted += 1
    assert fitted > 200
