"""From scored pairs to training labels: each option by hand, and the order in which they work."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlma.errors import UserError
from dlma.labels import BEYOND, WEAK, Labels
from dlma.records import ScoredPair

DEFAULTS = dict(orientation="scored", per_token=False, min_margin=None, max_pairs=None, strength="margin", seed=0)


def scored(name, margin, chosen="positive"):
    return ScoredPair(
        id=name, prompt_id=name, question="q", wording="w",
        plain_context_ids=[1], positive_context_ids=[2], negative_context_ids=[3],
        positive_ids=[4, 5, 6], negative_ids=[7, 8], positive_finished=True, negative_finished=True,
        positive_text="a", negative_text="b", positive_reference=-1.0, negative_reference=-2.0,
        positive_under_positive=-3.0, positive_under_negative=-9.0,
        negative_under_positive=-8.0, negative_under_negative=-4.0,
        margin=margin, chosen=chosen,
    )  # fmt: skip


def apply(margins, chosen=None, **options):
    chosen = chosen or ["positive"] * len(margins)
    pairs = [scored(f"p{i}", m, c) for i, (m, c) in enumerate(zip(margins, chosen, strict=True))]
    return Labels(**{**DEFAULTS, **options}).apply(pairs)


def seen(rows):
    return [(row.margin, row.chosen) for row in rows]


margins = st.lists(st.floats(-9, 9, allow_nan=False), max_size=12)


@given(margins)
def test_the_default_changes_nothing(values):
    pairs = [scored(f"p{i}", m) for i, m in enumerate(values)]
    rows, account = Labels(**DEFAULTS).apply(pairs)
    assert rows == pairs
    assert (account.read, account.kept, account.dropped) == (len(values), len(values), {})


def test_by_sign_the_answer_that_r_prefers_is_chosen():
    """The margin of chosen over rejected is then |R|; at R = 0 the scorer's choice stays."""
    rows, _ = apply([2.0, -3.0, 0.0], ["negative", "positive", "negative"], orientation="sign")
    assert seen(rows) == [(2.0, "positive"), (-3.0, "negative"), (0.0, "negative")]
    over = [row.margin if row.chosen == "positive" else -row.margin for row in rows]
    assert over == [2.0, 3.0, 0.0]


def test_the_filter_is_strict_counts_what_it_drops_and_looks_at_the_size_of_r():
    rows, account = apply([0.5, -0.5, 0.6, -2.0], orientation="sign", min_margin=0.5)
    assert seen(rows) == [(0.6, "positive"), (-2.0, "negative")]
    assert (account.read, account.kept, account.dropped) == (4, 2, {WEAK: 2})


def test_r_per_token_divides_each_log_ratio_by_its_own_length():
    """(-3 + 9)/3 - (-8 + 4)/2 = 4; the filter then speaks of nats per token."""
    rows, _ = apply([10.0], per_token=True)
    assert seen(rows) == [(4.0, "positive")]
    with pytest.raises(UserError, match=r"labels.min_margin=4: none of 1 pairs is above it, the largest |R| is"):
        apply([10.0], per_token=True, min_margin=4.0)


def test_r_per_token_needs_r():
    bare = dataclasses.replace(scored("p", 1.0), positive_under_positive=None)
    with pytest.raises(UserError, match=r"labels\.per_token"):
        Labels(**{**DEFAULTS, "per_token": True}).apply([bare])


@given(margins.filter(bool), st.booleans())
def test_a_constant_margin_is_the_mean_of_chosen_over_rejected(values, by_sign):
    rows, _ = apply(values, strength="constant", orientation="sign" if by_sign else "scored")
    mean = sum(abs(v) if by_sign else v for v in values) / len(values)
    assert [row.margin if row.chosen == "positive" else -row.margin for row in rows] == pytest.approx(
        [mean] * len(rows)
    )


def test_shuffled_margins_are_the_same_values_in_another_order_that_the_seed_fixes():
    values = [float(i) for i in range(30)]
    first, second, other = (apply(values, strength="shuffled", seed=seed)[0] for seed in (0, 0, 1))
    assert first == second != other
    assert sorted(row.margin for row in first) == values
    assert [row.margin for row in first] != values
    assert {row.chosen for row in first} == {"positive"}


def test_shuffling_after_orientation_keeps_every_margin_positive():
    rows, _ = apply([1.0, -2.0, 3.0, -4.0], orientation="sign", strength="shuffled")
    assert [row.chosen for row in rows] == ["positive", "negative", "positive", "negative"]
    assert sorted(row.margin if row.chosen == "positive" else -row.margin for row in rows) == [1.0, 2.0, 3.0, 4.0]


def test_no_strength_leaves_labels_and_no_margin():
    rows, _ = apply([1.0, -2.0], orientation="sign", strength="none")
    assert [(row.margin, row.chosen) for row in rows] == [(0.0, "positive"), (0.0, "negative")]


def test_budgets_are_nested_and_counted():
    values = [float(i) for i in range(40)]
    taken = {n: {row.id for row in apply(values, max_pairs=n)[0]} for n in (0, 5, 20, 100)}
    assert [len(taken[n]) for n in (0, 5, 20, 100)] == [0, 5, 20, 40]
    assert taken[5] < taken[20] < taken[100]
    assert apply(values, max_pairs=5)[1].dropped == {BEYOND: 35}


def test_no_pairs_stay_no_pairs():
    for strength in ("margin", "none", "shuffled", "constant"):
        assert apply([], strength=strength)[0] == []
