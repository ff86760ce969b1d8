"""Rows with several answers: a pair of each right one and each other one, whichever way they are spelt."""

import itertools

import pytest

from dlma.data.choices import Choices
from dlma.errors import BadRow, UserError

COLUMNS = Choices(prompt_column="prompt", category_column="subset", category=None)


def pairs(row):
    return [(found.chosen, found.rejected) for found in COLUMNS.found(row)]


@pytest.mark.parametrize("labels", [row for row in itertools.product((0, 1), repeat=3) if 0 < sum(row) < 3])
def test_both_spellings_are_the_product_of_right_and_wrong_answers(labels):
    texts = [" a", "b", "c"]
    right, wrong = ([text for text, one in zip(texts, labels, strict=True) if one == side] for side in (1, 0))
    expected = list(itertools.product(right, wrong))
    assert pairs({"prompt": "q", "chosen": right, "rejected": wrong}) == expected
    assert pairs({"prompt": "q", "targets": {"choices": texts, "labels": list(labels)}}) == expected


def test_every_pair_has_the_prompt_and_category_of_its_row():
    (one, other) = COLUMNS.found({"prompt": "q", "chosen": ["a"], "rejected": ["b", "c"], "subset": "Ties"})
    assert one.turns == other.turns and one.turns[0].content == "q" and one.category == other.category == "Ties"


@pytest.mark.parametrize(
    ("row", "reason", "kind"),
    [
        ({"chosen": [], "rejected": ["b"]}, "no right answer, or no other one", BadRow),
        ({"chosen": ["a"], "rejected": []}, "no right answer, or no other one", BadRow),
        ({"targets": {"choices": ["a"], "labels": [1]}}, "no right answer, or no other one", BadRow),
        ({"chosen": ["a"], "rejected": [" "]}, "empty answer", BadRow),
        ({"chosen": "a", "rejected": ["b"]}, "chosen is not a list of texts", UserError),
        ({"chosen": ["a"], "rejected": [3]}, "rejected is of type int, not text", UserError),
        ({"targets": ["a"]}, "targets does not hold choices and labels", UserError),
        ({"targets": {"choices": ["a", "b"], "labels": [1]}}, "labels are not one for each", UserError),
        ({"chosen": ["a"]}, "no column 'rejected'", UserError),
    ],
)
def test_what_holds_no_pair_says_why(row, reason, kind):
    with pytest.raises(kind, match=reason):
        COLUMNS.found({"prompt": "q", **row})
