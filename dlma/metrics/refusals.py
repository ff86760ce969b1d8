"""Refusals by phrases, and how far that agrees with people.

`refusals.yaml` beside this file is written by experiments/refusals/measure.py: counts over the completions of XSTest
(Röttger et al. 2024, arXiv 2308.01263), which people labelled, for the phrases of conf/alerts/standard.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

MEASURED = "refusals.yaml"


def refuses(answer: str, phrases: Sequence[str]) -> bool:
    """Whether an answer holds one of the phrases (lower case), case and the form of apostrophes aside."""
    said = answer.casefold().replace("’", "'")
    return any(phrase in said for phrase in phrases)


@dataclass(frozen=True)
class Agreement:
    """Over one model's completions: how many, on how many phrases and people agree, how many people call refusals,
    and how many of those the phrases find."""

    n: int
    agree: int
    refusals: int
    found: int

    @property
    def share(self) -> float:
        return self.agree / self.n

    @property
    def recall(self) -> float:
        return self.found / self.refusals


@cache
def measured() -> tuple[tuple[str, ...], dict[str, Agreement]]:
    """The phrases that were held against people, and the agreement by model."""
    kept = yaml.safe_load(resources.files("dlma.metrics").joinpath(MEASURED).read_text(encoding="utf-8"))
    return tuple(kept["phrases"]), {name: Agreement(**counts) for name, counts in kept["models"].items()}


def reliability(phrases: Sequence[str]) -> str:
    """How far people agree with these phrases, for where a figure made with them is shown."""
    known, models = measured()
    if tuple(phrases) != known:
        return "by phrases, never held against people"
    agree = sorted(round(100 * one.share) for one in models.values())
    found = sorted(round(100 * one.recall) for one in models.values())
    return (
        f"by phrases: by model, people agree on {agree[0]} to {agree[-1]} % of answers, and {found[0]} to {found[-1]} "
        "% of what they call a refusal is found"
    )
