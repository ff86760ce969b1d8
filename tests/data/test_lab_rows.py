"""Rows dealt out without removing duplicates: the leak is there, and as large as counting says."""

import collections

import pytest

from dlma.data.lab_rows import LabRows
from dlma.lab import world


def read(**changed):
    rows, account = LabRows(**{"train": 200, "validation": 40, "test": 60, "copies": 3, "seed": 0, **changed}).read()
    assert account.read == account.kept == len(rows)
    return rows


def questions(rows, split):
    return [row.turns[-1].content for row in rows if row.split == split]


def test_each_prompt_recurs_and_most_held_out_ones_are_trained_on():
    rows = read()
    assert {split: len(questions(rows, split)) for split in ("train", "validation", "test")} == {
        "train": 200, "validation": 40, "test": 60,
    }  # fmt: skip
    assert set(collections.Counter(row.turns[-1].content for row in rows).values()) == {3}
    assert len({row.id for row in rows}) == 300
    leaked = [text in set(questions(rows, "train")) for text in questions(rows, "test")]
    # a held-out row's two copies are both outside training with probability (99/299) (98/298)
    assert sum(leaked) / 60 == pytest.approx(1 - (99 * 98) / (299 * 298), abs=0.12)
    assert all(world.parse_question(row.turns[-1].content) for row in rows)


def test_one_copy_is_no_leak():
    rows = read(copies=1)
    assert not set(questions(rows, "train")) & set(questions(rows, "test"))


def test_the_seed_says_which_rows():
    assert read() == read() != read(seed=1)
