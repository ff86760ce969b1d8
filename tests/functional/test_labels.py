"""The simulated annotator's errors: Bradley-Terry, calibrated to the stated rate."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from dlma.functional.labels import agreement, flip_probability, flip_temperature, likeness

differences = st.lists(st.floats(-2, 2, allow_nan=False), min_size=1, max_size=30)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_flip_probability_is_bradley_terry():
    """P(worse preferred) = e^0 / (e^0 + e^(d/T)): d = 1, T = 0.5 gives 1/(1 + e^2)."""
    flips = flip_probability(tensor(1.0, -1.0, 0.0), 0.5)
    assert flips.tolist() == pytest.approx([1 / (1 + math.e**2), 1 / (1 + math.e**2), 0.5])


def test_without_temperature_only_ties_are_open():
    assert flip_probability(tensor(0.3, 0.0), 0.0).tolist() == [0.0, 0.5]


@given(differences.filter(lambda values: any(abs(v) > 1e-6 for v in values)), st.floats(0.01, 0.45))
def test_the_mean_flip_rate_of_the_untied_pairs_is_the_stated_one(values, rate):
    values = [v if abs(v) > 1e-6 else 0.0 for v in values]
    temperature = flip_temperature(tensor(*values), rate)
    untied = tensor(*[v for v in values if v])
    assert flip_probability(untied, temperature).mean().item() == pytest.approx(rate, abs=1e-6)


def test_one_difference_has_a_temperature_by_hand():
    """sigmoid(-1/T) = 1/4 gives T = 1/ln 3."""
    assert flip_temperature(tensor(1.0, 0.0), 0.25) == pytest.approx(1 / math.log(3))


def test_no_errors_and_nothing_but_ties_need_no_temperature():
    assert flip_temperature(tensor(1.0, 2.0), 0.0) == 0
    assert flip_temperature(tensor(0.0, 0.0), 0.2) == 0


@pytest.mark.parametrize("rate", [-0.1, 0.5, 1.0])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(ValueError, match="flip rate"):
        flip_temperature(tensor(1.0), rate)


def test_agreement_by_hand():
    """Alike, opposite, a tie of one, alike: (1 + 0 + 1/2 + 1) / 4."""
    first, second = torch.tensor([2.0, 1.0, 0.0, -3.0]), torch.tensor([0.1, -5.0, 4.0, -0.2])
    assert agreement(first, second) == agreement(second, first) == pytest.approx(0.625)
    assert agreement(first[:0], second[:0]) == 1.0
    assert agreement(first, -first) == pytest.approx(0.125)  # the tie of both counts a half


@given(st.lists(st.tuples(st.integers(-3, 3).filter(bool), st.integers(-3, 3).filter(bool)), min_size=1, max_size=9))
def test_agreement_is_kendalls_tau_of_two_answers_brought_to_0_and_1(margins):
    taus = [(kendalltau([one, 0], [other, 0]).statistic + 1) / 2 for one, other in margins]
    first, second = (torch.tensor(some, dtype=torch.float64) for some in zip(*margins, strict=True))
    assert agreement(first, second) == pytest.approx(sum(taus) / len(taus))


@given(st.lists(st.integers(0, 5), max_size=8), st.lists(st.integers(0, 5), max_size=8))
def test_likeness_is_the_cosine_of_token_counts(first, second):
    one, two = ([tokens.count(token) for token in range(6)] for tokens in (first, second))
    wanted = sum(a * b for a, b in zip(one, two, strict=True))
    sizes = math.hypot(*one) * math.hypot(*two)
    assert likeness(first, second) == pytest.approx(wanted / sizes if sizes else 0.0)
    assert likeness(first, second) == likeness(second, first)
