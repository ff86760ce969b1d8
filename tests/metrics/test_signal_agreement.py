"""Signals against the truth: by hand, and by counting over every combination of a verdict, a truth and a length."""

import itertools

import pytest

from dlma.metrics.signal_agreement import SignalAgreement, accuracy_rows, category_agreements
from dlma.statistics.intervals import ratio_interval


def figures(seeds, sizes=()):
    rows = accuracy_rows(seeds, sizes)
    return {row.metric: row.estimate for row in rows}


def every(points, signal="s"):
    """A pair of each true difference and each difference in length; points: of both."""
    grid = itertools.product((-1.0, -0.5, 0.0, 0.5, 1.0), (-3, 0, 3))
    return [SignalAgreement(f"{t},{n}", signal, signal, t, n, points(t, n)) for t, n in grid]


def sign(x):
    return 0.5 if x == 0 else float(x > 0)


def test_the_truth_agrees_with_itself_at_every_size_and_has_no_liking_for_length():
    found = figures([every(lambda t, n: sign(t))], sizes=[0.7])
    for name in ("agreement/s", "agreement_0_0.7/s", "agreement_0.7_inf/s"):
        assert found[name].value == 1.0 and found[name].low < 1.0
    assert found["agreement_half/s"].value == pytest.approx(13.5 / 15)  # 3 of 15 pairs tie
    assert found["longer/s"].value == pytest.approx(0.0, abs=1e-12)
    assert found["longer_on_ties/s"].value == 0.5


def test_who_always_prefers_the_longer_one_is_caught_for_it():
    """The truth is for the longer one in half of the pairs here, so half of the preference is beyond it."""
    found = figures([every(lambda t, n: sign(n))])
    assert found["agreement/s"].value == pytest.approx(0.5)
    assert found["longer/s"].value == pytest.approx(0.5)
    assert found["longer_on_ties/s"].value == 1.0
    assert found["ties/s"].value == pytest.approx(5 / 15)


def test_a_signal_that_follows_a_truth_which_likes_length_is_not_called_biased():
    held = [SignalAgreement(str(i), "s", "s", truth=1.0, longer=2, points=1.0) for i in range(5)]
    held.append(SignalAgreement("x", "s", "s", truth=-1.0, longer=2, points=0.0))
    assert figures([held])["longer/s"].value == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("looks", "first", "turned"),
    [
        ([(1.0, 0.0)] * 4, 1.0, 1.0),  # whoever is shown first: for the first answer when first, against it when second
        ([(0.0, 1.0)] * 4, 0.0, 1.0),
        ([(1.0, 1.0), (0.0, 0.0)], 0.5, 0.0),  # one opinion in both orders
        ([(1.0, 0.0), (1.0, 1.0)], 0.75, 0.5),
        ([(1.0, None), (None, 0.0), (0.0, None), (None, 0.0)], 0.75, None),  # one look each
    ],
)
def test_liking_for_a_place(looks, first, turned):
    held = [SignalAgreement(str(i), "j", "j", 1.0, 1, 1.0, *both) for i, both in enumerate(looks)]
    found = figures([held])
    assert found["first/j"].value == pytest.approx(first)
    assert ("inconsistent/j" in found) == (turned is not None)
    assert turned is None or found["inconsistent/j"].value == pytest.approx(turned)


def test_what_could_not_be_read_counts_as_that_and_as_nothing_else():
    held = [
        SignalAgreement("a", "s", "s", 1.0, 1, 1.0),
        SignalAgreement("b", "s", "s", 1.0, 1, None),
        SignalAgreement("c", "s", "s", -1.0, 1, 1.0),
    ]
    found = figures([held])
    assert found["unparsed/s"].value == pytest.approx(1 / 3)
    assert (found["agreement/s"].value, found["agreement/s"].n) == (0.5, 2)
    assert "agreement/s" not in figures([[held[1]]])


def test_seeds_are_weighed_by_their_pairs_and_a_pair_that_one_lacks_is_left_out():
    one = [
        SignalAgreement("a", "s", "s", 1.0, 1, 1.0),
        SignalAgreement("b", "s", "s", 1.0, 1, 0.0),
        SignalAgreement("c", "s", "s", 1.0, 1, 0.0),
    ]
    other = [SignalAgreement("b", "s", "s", 0.0, 1, 1.0), SignalAgreement("a", "s", "s", 1.0, 1, 1.0)]
    found = figures([one, other])["agreement/s"]
    assert found.value == pytest.approx(2 / 3)  # a and b of the first seed, a of the second, where b is a tie
    assert found.seeds == 2


# Several pairs of a prompt


def of_prompts(table, category="c"):
    """A signal's view of the pairs of several prompts; table: the points of each pair, by prompt."""
    return [
        SignalAgreement(f"{prompt}.{n}", "s", "s", 1.0, 0, points, prompt=str(prompt), category=category)
        for prompt, pairs in enumerate(table)
        for n, points in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("pairs", "whole"),
    [((1, 1, 1), 1.0), ((1, 0, 1), 0.0), ((0.5, 1, 1), 1 / 2), ((0.5, 0.5, 0.5), 1 / 4), ((0.5, 0, 0.5), 0.0)],
)
def test_a_prompt_is_right_where_its_best_answer_is_above_all_others_and_shares_with_those_that_tie(pairs, whole):
    """As RewardBench 2 counts: 1 over the number of answers that are level with the best, 0 where one is above it."""
    found = figures([of_prompts([pairs, (1, 1, 1)])])
    assert found["agreement_all/s"].value == pytest.approx((whole + 1) / 2)
    assert found["agreement_all/s"].n == 2
    assert found["agreement/s"].value == pytest.approx((sum(pairs) + 3) / 6)


def test_with_one_pair_each_there_is_nothing_to_say_of_all_pairs_of_a_prompt():
    assert "agreement_all/s" not in figures([of_prompts([(1,), (0,)])])


def test_an_interval_is_over_prompts_whose_pairs_hang_together():
    """Pairs that repeat their prompt's say nothing new: the interval is that of one pair each."""
    one = figures([of_prompts([(float(n % 3 > 0),) for n in range(12)])])["agreement/s"]
    many = figures([of_prompts([(float(n % 3 > 0),) * 5 for n in range(12)])])["agreement/s"]
    assert (many.value, many.low, many.high) == pytest.approx((one.value, one.low, one.high))
    uneven = [(1.0,), (0.0, 0.0, 1.0), (1.0, 0.0), (1.0,) * 4]
    found = figures([of_prompts(uneven)])["agreement/s"]
    expected = ratio_interval([sum(pairs) for pairs in uneven], [len(pairs) for pairs in uneven])
    assert (found.value, found.low, found.n) == pytest.approx((expected.value, max(0.0, expected.low), 4))


def test_each_category_has_its_own_agreement_and_one_alone_has_none():
    views = [[*of_prompts([(1,), (1,), (0,)], "a"), *of_prompts([(0, 1)], "b")]]
    found = {row.category: (row.metric, row.estimate.value, row.estimate.n) for row in category_agreements(views)}
    assert found == {"a": ("agreement/s", pytest.approx(2 / 3), 3), "b": ("agreement/s", 0.5, 1)}
    assert category_agreements([of_prompts([(1,), (0,)])]) == []
