"""Signals against the truth: by hand, and by counting over every combination of a verdict, a truth and a length."""

import itertools

import pytest

from dlma.metrics.signal_agreement import SignalAgreement, accuracy_rows


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
