"""From scored pairs to training labels: each option by hand, and the order in which they work."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlma.errors import UserError
from dlma.labels import ALIKE, BETWEEN, BEYOND, SPARE, TIED, WEAK, BestAndWorst, Labels, SelfMade
from dlma.records import ScoredPair
from dlma.training.preference_pair import order_agreement

DEFAULTS = dict(
    orientation="scored", per_token=False, min_margin=None, flips=0.0, max_pairs=None, strength="margin", seed=0
)


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


def test_flips_turn_labels_round_and_leave_r():
    """R is of the positive over the negative answer, whatever is chosen: a turned label has its margin turned."""
    rows, account = apply([2.0, -3.0], ["positive", "negative"], flips=1.0)
    assert seen(rows) == [(2.0, "negative"), (-3.0, "positive")]
    assert (account.read, account.kept, account.dropped) == (2, 2, {})


def test_flips_are_nested_fixed_by_pair_and_seed_and_as_many_as_stated():
    def turned(share, seed=0, rows=4000):
        labels = apply([1.0] * rows, flips=share, seed=seed)[0]
        return {row.id for row in labels if row.chosen == "negative"}

    tenth, half = turned(0.1), turned(0.5)
    assert tenth < half
    for share, found in ((0.1, tenth), (0.5, half)):
        assert abs(len(found) / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5
    assert turned(0.5, rows=100) == {name for name in half if int(name[1:]) < 100}
    assert turned(0.5, seed=1) != half


def test_flips_come_before_the_strength_of_a_margin():
    """Half of equal margins turned round: R of chosen over rejected is +1 or -1, and its mean what is left of it."""
    rows, _ = apply([1.0] * 4000, flips=0.5, strength="constant")
    over = {row.margin if row.chosen == "positive" else -row.margin for row in rows}
    turned = sum(row.chosen == "negative" for row in rows)
    assert len(over) == 1 and over.pop() == pytest.approx((4000 - 2 * turned) / 4000)
    assert {row.margin for row in apply([1.0] * 10, flips=0.5, strength="none")[0]} == {0.0}


def test_a_label_by_the_sign_of_r_cannot_be_turned_round():
    with pytest.raises(UserError, match=r"labels\.flips=0\.2: orientation=sign takes no label"):
        Labels(**{**DEFAULTS, "orientation": "sign", "flips": 0.2})
    Labels(**{**DEFAULTS, "orientation": "sign"})


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


def test_a_budget_takes_the_pairs_of_a_prompt_together():
    pairs = [dataclasses.replace(scored(f"p{i}-{n}", 1.0), prompt_id=f"p{i}") for i in range(40) for n in range(2)]
    kept = {budget: Labels(**{**DEFAULTS, "max_pairs": budget}).apply(pairs)[0] for budget in (6, 20, 21)}
    whole = {budget: {row.prompt_id for row in rows} for budget, rows in kept.items()}
    assert [len(whole[budget]) for budget in (6, 20, 21)] == [3, 10, 11]
    assert {row.id for row in kept[20]} == {f"{prompt}-{n}" for prompt in whole[20] for n in range(2)}
    assert whole[6] < whole[20] < whole[21]


def test_no_pairs_stay_no_pairs():
    for strength in ("margin", "none", "shuffled", "constant"):
        assert apply([], strength=strength)[0] == []


def several(prompt, scores, lengths):
    """The pairs of one prompt, whose answers have these scores and lengths in turn."""
    rows = []
    for n in range(0, len(scores), 2):
        pair = scored(f"{prompt}-{n // 2}", scores[n] - scores[n + 1])
        ids = [[10 * n + place + 4] * length for place, length in enumerate(lengths[n : n + 2])]
        rows.append(
            dataclasses.replace(
                pair, prompt_id=prompt, positive_ids=ids[0], negative_ids=ids[1],
                positive_score=scores[n], negative_score=scores[n + 1],
                positive_reference=-10.0 - n, negative_reference=-11.0 - n,
                positive_text=f"a{n}", negative_text=f"b{n}",
            )
        )  # fmt: skip
    return rows


def best(pairs, **options):
    return BestAndWorst(**{**dict(length_penalty=0.0, strength="margin"), **options}).apply(pairs)


def test_the_best_answer_of_a_prompt_is_chosen_over_its_worst():
    rows, account = best(
        several("p", [1.0, 4.0, 2.0, 0.5], [2, 3, 4, 5]) + several("q", [3.0, 1.0, 1.5, 2.0], [1, 1, 1, 1])
    )
    first, second = rows
    assert (first.id, first.prompt_id, first.chosen, first.margin) == ("p", "p", "positive", 3.5)
    assert (first.positive_text, first.negative_text) == (
        "b0",
        "b2",
    )  # the second answer of the first pair, and of the next
    assert (first.positive_reference, first.negative_reference) == (-11.0, -13.0)
    assert (len(first.positive_ids), len(first.negative_ids)) == (3, 5)
    assert (first.positive_score, first.negative_score) == (4.0, 0.5)
    assert (second.positive_text, second.negative_text, second.margin) == ("a0", "b0", 2.0)
    assert (account.read, account.kept, account.dropped) == (4, 2, {BETWEEN: 2})


def test_a_prompt_whose_answers_are_all_alike_is_left_out():
    rows, account = best(several("p", [1.0, 1.0], [2, 3]) + several("q", [1.0, 2.0], [2, 2]))
    assert [row.id for row in rows] == ["q"] and account.dropped == {TIED: 1}


def test_a_length_penalty_is_part_of_the_score_and_can_be_balanced():
    pairs = several("p", [9.0, 6.0], [6, 2]) + several("q", [8.0, 7.0], [5, 3])
    rows, _ = best(pairs, length_penalty=1.0)
    assert [(row.positive_text, row.margin) for row in rows] == [("b0", 1.0), ("b0", 1.0)]
    balanced, _ = best(pairs, length_penalty="balanced")
    assert sum(len(row.positive_ids) - len(row.negative_ids) for row in balanced) == pytest.approx(
        2
    )  # 4 - 2: one turned
    assert all(row.margin == 0 for row in best(pairs, strength="none")[0])


def test_without_a_score_of_its_own_an_answers_self_reward_counts():
    """r(a1) = -3 + 9 = 6 and r(a2) = -8 + 4 = -4."""
    rows, _ = best([scored("p", 10.0)])
    assert (rows[0].margin, rows[0].positive_text) == (10.0, "a")
    with pytest.raises(UserError, match=r"labels=best_and_worst: .*scorer=rating"):
        best([dataclasses.replace(scored("p", 10.0), positive_under_positive=None)])


def own(prompt, answers, chosen="positive"):
    """Pairs of a prompt whose answers are these token ids, two by two; people preferred `chosen` of the first."""
    made = []
    for n in range(0, len(answers), 2):
        pair = scored(f"{prompt}-{n // 2}", 3.0, chosen if n == 0 else "negative")
        made.append(
            dataclasses.replace(
                pair, prompt_id=prompt, positive_ids=answers[n], negative_ids=answers[n + 1],
                positive_reference=-float(n), negative_reference=-float(n + 1),
            )
        )  # fmt: skip
    return made


def test_the_preferred_answer_stands_against_answers_of_the_model_as_they_were_drawn():
    pairs = own("p", [[4, 5], [6], [7], [8], [9], [7]], chosen="negative") + own("q", [[4], [5], [6], [6]])
    rows, account = SelfMade(negatives=2, share=1.0).apply(pairs)
    found = [
        (row.id, row.positive_ids, row.negative_ids, row.positive_reference, row.negative_reference) for row in rows
    ]
    assert found == [
        ("p-0", [6], [7], -1.0, -5.0),  # the last answer with these tokens stands for both
        ("p-1", [6], [8], -1.0, -3.0),
        ("q-0", [4], [6], 0.0, -3.0),
    ]
    assert {(row.chosen, row.margin, row.verdict_first) for row in rows} == {("positive", 0.0, None)}
    assert (account.read, account.kept, account.dropped) == (5, 3, {SPARE: 2})


def test_of_the_models_answers_those_least_like_the_reference_are_taken():
    """Cosines with [4, 4, 5]: [4] 2/sqrt 5, [5] 1/sqrt 5, [6] 0, [4, 5] 3/sqrt 10; three quarters of four are three."""
    pairs = own("p", [[4, 4, 5], [9], [4], [5], [6], [4, 5]])
    rows, _ = SelfMade(negatives=9, share=0.75).apply(pairs)
    assert [row.negative_ids for row in rows] == [[4], [5], [6]]
    rows, _ = SelfMade(negatives=9, share=0.5).apply(pairs)
    assert [row.negative_ids for row in rows] == [[5], [6]]
    rows, _ = SelfMade(negatives=9, share=0.01).apply(pairs)
    assert [row.negative_ids for row in rows] == [[6]]


def test_a_prompt_whose_own_answers_are_the_reference_is_left_out():
    rows, account = SelfMade(negatives=1, share=1.0).apply(own("p", [[4], [5], [4], [4]]))
    assert rows == [] and account.dropped == {ALIKE: 2}
    rows, account = SelfMade(negatives=1, share=1.0).apply(own("p", [[4], [5], [6], [7], [8], [9]])[1:])
    assert rows == [] and account.dropped == {ALIKE: 2}  # people's pair was not usable


def test_two_scorings_are_held_against_each_other_by_what_labels_are_read_off():
    """R of two answers, 12 and 2 tokens long, is 6 and 4, then 3 and 4: per token both scorers prefer the second."""
    rows = []
    for first, second in ((6.0, 4.0), (3.0, 4.0)):
        under = dict(positive_under_positive=first, positive_under_negative=0.0)
        under |= dict(negative_under_positive=second, negative_under_negative=0.0, margin=first - second)
        rows.append([dataclasses.replace(scored("p", 0.0), positive_ids=[4] * 12, negative_ids=[5] * 2, **under)])
    for per_token, agreement in ((False, 0.0), (True, 1.0)):
        labels = Labels(**{**DEFAULTS, "per_token": per_token, "orientation": "sign"})
        assert order_agreement(*map(labels.measured, rows), by_margin=labels.by_margin) == agreement
        chosen = {labels.apply(some)[0][0].chosen for some in rows}
        assert (len(chosen) == 1) == (agreement == 1.0)


@pytest.mark.parametrize(("margin", "advice"), [(0.2, "lower it"), (0.0, "a scorer that gives margins")])
def test_a_threshold_above_all_margins_says_what_to_do(margin, advice):
    with pytest.raises(UserError, match=f"none of 2 pairs is above it, the largest .* is {margin:g}: {advice}"):
        apply([margin, -margin], min_margin=0.5)
