"""Rows of several answers to one prompt, of which some are right: a pair of each right one and each of the others.

RewardBench 2 holds the texts in lists, `chosen` and `rejected`; HHH alignment in `targets`: `choices`, and `labels`
that are 1 where a choice is right.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlma.data.jsonl import Category
from dlma.data.split import Found
from dlma.data.text import BadRow, column, conversation, is_blank, verbatim
from dlma.errors import UserError


class Choices:
    """A row with its prompt in one column and its category in another, if in any; category: as in `Columns`."""

    def __init__(self, *, prompt_column: str, category_column: str | None, category: str | None) -> None:
        self.prompt_column = prompt_column
        self.category_of = Category(category_column, category).found

    def found(self, row: dict) -> list[Found]:
        """The row's pairs; data.every_pair=true keeps all of them. raises: BadRow where there is none."""
        turns = conversation(column(row, self.prompt_column), self.prompt_column)
        right, wrong = _labelled(row) if "targets" in row else [_texts(row, name) for name in ("chosen", "rejected")]
        if not right or not wrong:
            raise BadRow("no right answer, or no other one")
        category = self.category_of(row)
        return [Found(turns, category=category, chosen=one, rejected=other) for one in right for other in wrong]


def _labelled(row: Mapping) -> tuple[list[str], list[str]]:
    targets = row["targets"]
    if not isinstance(targets, Mapping):
        raise UserError("targets does not hold choices and labels")
    texts, labels = _texts(targets, "choices"), column(targets, "labels")
    if not isinstance(labels, list) or len(labels) != len(texts):
        raise UserError("labels are not one for each of the choices")
    sides: tuple[list[str], list[str]] = ([], [])
    for text, label in zip(texts, labels):
        sides[label != 1].append(text)
    return sides


def _texts(row: Mapping, name: str) -> list[str]:
    values = column(row, name)
    if not isinstance(values, list):
        raise UserError(f"{name} is not a list of texts")
    texts = [verbatim(value, name) for value in values]
    if any(is_blank(text) for text in texts):
        raise BadRow("empty answer")
    return texts
