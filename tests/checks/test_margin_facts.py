"""What is said of the margins, by hand."""

import pytest

from dlma.checks.margin_facts import margin_facts


def test_clamp_sign_and_ties_by_hand():
    facts = margin_facts([-3.0, -1.0, 1.0, 5.0], [1.0, -2.0, 0.0, 0.5], -2.0, 4.0)
    assert facts.clamped.value == 0.5 and facts.negative.value == 0.5
    assert facts.ties == 1
    assert facts.sign_accuracy.value == pytest.approx(2 / 3)  # -3 against +1 is wrong; -1 and 5 are right
    assert facts.sign_ties_half.value == pytest.approx(2.5 / 4)
    assert facts.construction_accuracy.value == pytest.approx(2 / 3)  # the positive is better in two of three


def test_a_margin_on_the_bound_is_not_clamped_and_without_a_clamp_none_is():
    assert margin_facts([-2.0, 4.0], [None, None], -2.0, 4.0).clamped.value == 0
    assert margin_facts([-99.0, 99.0], [None, None], None, None).clamped.value == 0


def test_without_truth_nothing_is_said_of_accuracy():
    facts = margin_facts([1.0, 2.0], [None, None], None, None)
    assert facts.sign_accuracy is facts.sign_ties_half is facts.construction_accuracy is facts.spearman is None
    assert facts.bins == [] and facts.ties == 0


def test_a_zero_margin_is_half_right():
    assert margin_facts([0.0, 1.0], [1.0, 1.0], None, None).sign_accuracy.value == 0.75


def test_reliability_bins_are_of_equal_count_and_rise_in_size():
    margins = [(-1) ** i * (i + 1) / 10 for i in range(60)]
    truth = [1.0 if abs(m) <= 2 else m for m in margins]  # among |R| <= 2 the truth is always +: half are right
    first, second, third = margin_facts(margins, truth, None, None).bins
    assert [b.accuracy.n for b in (first, second, third)] == [20, 20, 20]
    assert first.accuracy.value == 0.5 and second.accuracy.value == third.accuracy.value == 1.0
    assert first.size == pytest.approx(1.05) and third.size == pytest.approx(5.05)


def test_spearman_is_of_ranks_and_has_an_interval():
    margins = [float(i) for i in range(50)]
    facts = margin_facts(margins, [m**3 + 100 * (m % 2) for m in margins], None, None)
    assert facts.spearman.low < facts.spearman.value < facts.spearman.high <= 1.0
    assert margin_facts(margins, [m**3 for m in margins], None, None).spearman.value == pytest.approx(1.0)
    assert margin_facts(margins, [1.0] * 50, None, None).spearman is None  # a constant has no ranks


@pytest.mark.parametrize("n", [4, 6, 50])
def test_a_perfect_rank_correlation_of_few_rows_is_no_certainty(n):
    """By chance alone four rows are in order once in 24: the interval then holds 0."""
    rising = [float(i) for i in range(n)]
    up, down = (margin_facts(rising, [sign * m for m in rising], None, None).spearman for sign in (1, -1))
    assert (up.value, up.high, -down.value, -down.low) == pytest.approx((1.0,) * 4)
    assert up.low == pytest.approx(-down.high)
    assert (up.low <= 0) == (n == 4) and up.low < 1


def test_truth_must_match_the_pairs():
    with pytest.raises(ValueError, match="one truth"):
        margin_facts([1.0], [], None, None)
