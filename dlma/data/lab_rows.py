"""The lab's prompts split by row, without removing duplicates: a fault of the official code, to see what it does."""

from __future__ import annotations

import dataclasses
import random

from dlma.lab import world
from dlma.ranges import Few, Seed, Whole
from dlma.records import Account, Prompt


class LabRows:
    """Rows of a data set in which every prompt recurs `copies` times, dealt out to the splits at random.

    Most held-out prompts were so trained on. The copies of a prompt have ids, and so answers, of their own.
    """

    artificial = True  # whether a report must say that its world is made up

    on_bad_row = "error"  # the world makes no bad rows
    max_dropped = 0.0

    def __init__(self, *, train: Whole, validation: Whole, test: Whole, copies: Few, seed: Seed) -> None:
        self.counts = {"train": train, "validation": validation, "test": test}
        self.copies = copies
        self.seed = seed

    def fingerprint(self) -> str:
        """No file to hash: the world is code, which the stage's VERSION stands for."""
        return "built-in"

    def read(self) -> tuple[list[Prompt], Account]:
        """All splits in one list; nothing is ever dropped."""
        wanted = sum(self.counts.values())
        distinct = world.prompts("train", -(-wanted // self.copies), self.seed)
        rows = [dataclasses.replace(p, id=f"{p.id}-{copy}") for p in distinct for copy in range(self.copies)]
        random.Random(f"rows {self.seed}").shuffle(rows)
        splits = [split for split, n in self.counts.items() for _ in range(n)]
        found = [dataclasses.replace(row, split=split) for row, split in zip(rows, splits, strict=False)]
        return found, Account(read=len(found), kept=len(found))
