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
