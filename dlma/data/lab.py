"""The prompts of the built-in lab: drawn from its world, no file needed."""

from __future__ import annotations

from dlma.lab import world
from dlma.ranges import Seed, Whole
from dlma.records import Account, Prompt


class LabPrompts:
    """Distinct prompts whose (verb, object) combinations differ from split to split.

    untouched: test prompts that are none of the others, for evaluation.split=untouched
    """

    artificial = True  # whether a report must say that its world is made up

    on_bad_row = "error"  # the world makes no bad rows
    max_dropped = 0.0

    def __init__(self, *, train: Whole, validation: Whole, test: Whole, seed: Seed, untouched: Whole = 0) -> None:
        self.counts = {"train": train, "validation": validation, "test": test}
        self.untouched = untouched
        self.seed = seed

    def fingerprint(self) -> str:
        """No file to hash: the world is code, which the stage's VERSION stands for."""
        return f"built-in, {self.untouched} untouched" if self.untouched else "built-in"

    def read(self) -> tuple[list[Prompt], Account]:
        """All splits in one list; nothing is ever dropped."""
        rows = [row for split, n in self.counts.items() for row in world.prompts(split, n, self.seed)]
        rows += world.untouched_prompts(self.untouched, self.seed, self.counts["test"])
        return rows, Account(read=len(rows), kept=len(rows))
