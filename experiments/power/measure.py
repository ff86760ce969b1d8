"""How often a difference at matched KL is found, by simulation: size, and power for 3 points, at the designs in use.

    python experiments/power/measure.py     # -> power.csv (minutes); then: python experiments/tables.py render power

A comparison is one of fourteen with one trained baseline, over the lab's 1,000 prompts. Two tests are made of each:
with the seeds' variance of the comparison's own, and with that pooled over the table (dlma/statistics/pooled_seeds.py),
which takes seeds to move all methods alike; so it is also drawn what it comes to where they move the one tested more.
"""

from __future__ import annotations

import csv
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from dlma.statistics import pooled_seeds  # noqa: E402
from dlma.statistics.intervals import ALONE, crossed_half  # noqa: E402

FOUND = HERE / "power.csv"
PROMPTS, SEEDS, COMPARISONS = 1000, (3, 5, 10), 14
EFFECT, MARGIN = 0.03, 0.03
OF_PROMPT, OF_REST = 0.05, 0.1  # ours: variances of a paired difference of two shares near a third
MOVED = (0.005, 0.015)  # standard deviation of what a seed does to a method: committed intervals allow about as much
UNEVEN = (1.0, 2.0)  # how much more it does to the method that is tested
TRIALS = 4000
COLUMNS = ("moved", "seeds", "uneven", "test", "size", "power", "within", "trials")


def tables(rng: np.random.Generator, seeds: int, sd: float, uneven: float) -> list[np.ndarray]:
    """(prompts, seeds) differences of as many methods from a baseline, none of which is true; the first is uneven.

    Only the first is drawn prompt by prompt; of the others the means of each seed, which are all that is pooled.
    """
    moved = rng.normal(0, sd, (COMPARISONS + 1, seeds))
    moved[1] *= uneven
    means = moved + rng.normal(0, math.sqrt(OF_REST / 2 / PROMPTS), moved.shape)
    first = rng.standard_normal((PROMPTS, seeds)) * math.sqrt(OF_REST)
    first += means[1] - means[0] - first.mean(axis=0)
    first += rng.standard_normal((PROMPTS, 1)) * math.sqrt(OF_PROMPT)
    return [first, *((row - means[0])[None, :] for row in means[2:])]


def trial(drawn: Sequence[np.ndarray]) -> Iterator[tuple[str, tuple[bool, bool, bool]]]:
    """By test: whether nothing is called something, 3 points are found, and nothing is shown to be within 3 points."""
    first, mean = drawn[0], float(drawn[0].mean())
    for name, beside in (("its own", ALONE), ("pooled", pooled_seeds.pooled(drawn))):
        half = crossed_half(first, 0.025, beside)
        yield name, (abs(mean) > half, abs(mean + EFFECT) > half, abs(mean) + half < MARGIN)


def simulate(rng: np.random.Generator, seeds: int, sd: float, uneven: float, trials: int) -> dict[str, np.ndarray]:
    """The shares of these three over so many trials, by test."""
    hits = {"its own": np.zeros(3), "pooled": np.zeros(3)}
    for _ in range(trials):
        for name, said in trial(tables(rng, seeds, sd, uneven)):
            hits[name] += said
    return {name: count / trials for name, count in hits.items()}


def measure() -> Iterator[list[object]]:
    for i, (sd, uneven, seeds) in enumerate(itertools.product(MOVED, UNEVEN, SEEDS)):
        for name, said in simulate(np.random.default_rng(i), seeds, sd, uneven, TRIALS).items():
            yield [sd, seeds, uneven, name, *(f"{share:.4f}" for share in said), TRIALS]


if __name__ == "__main__":
    with FOUND.open("w", newline="") as target:
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(measure())
