"""A pair as training sees it: the chosen answer first, and a margin that is that of chosen over rejected."""

from dataclasses import replace

from scored_examples import scored_pairs
from small_models import small_model

from dlma.training import preference_pair as seen


def test_turning_the_label_turns_everything_but_the_pair_itself():
    (one,) = scored_pairs(small_model(), n=1, chosen="positive")
    other = replace(one, chosen="negative")
    assert seen.sides(one) == ("positive", "negative") == seen.sides(other)[::-1]
    assert seen.margin(one) == one.margin == -seen.margin(other)
    assert seen.references(one) == [one.positive_reference, one.negative_reference] == seen.references(other)[::-1]
    assert seen.tokens(one) == [len(one.positive_ids), len(one.negative_ids)] == seen.tokens(other)[::-1]
    assert [c.response for c in seen.chosen_first(one)] == [one.positive_ids, one.negative_ids]
    assert seen.chosen_first(other) == seen.chosen_first(one)[::-1]
    assert seen.both_answers(one) == seen.both_answers(other) == seen.chosen_first(one)
    assert {tuple(c.context) for c in seen.both_answers(one)} == {tuple(one.plain_context_ids)}


def test_the_order_of_two_scorings_is_that_by_which_labels_are_made():
    """Four pairs: what each scorer chose, and R by it; a tie of R counts half."""
    (one,) = scored_pairs(small_model(), n=1)

    def scored(chosen, margins):
        sides = {"+": "positive", "-": "negative"}
        return [replace(one, chosen=sides[c], margin=m) for c, m in zip(chosen, margins, strict=True)]

    first, again = scored("++--", [1.0, 2.0, 3.0, 0.0]), scored("+++-", [1.0, -2.0, 3.0, -1.0])
    assert seen.order_agreement(first, again, by_margin=True) == (1 + 0 + 1 + 1 / 2) / 4
    assert seen.order_agreement(first, again, by_margin=False) == 3 / 4
    built = scored("++++", [0.0] * 4)  # by construction, without R: both scorers always agree
    assert seen.order_agreement(built, built, by_margin=False) == 1
