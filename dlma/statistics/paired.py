"""Changes from one arm to another, paired over prompts: what both answered, and the difference with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dlma.records import EvalRow
from dlma.statistics.intervals import Estimate, linearised_ratio, paired_difference, with_exact_bounds


def paired(
    evals: Sequence[EvalRow], value: Callable[[EvalRow], float | None], arms: tuple[str, str] = ("aligned", "base")
) -> tuple[list[float], list[float]] | None:
    """A value under two arms on the prompts that both answered, averaged over a prompt's answers; None below two."""
    found: dict[str, dict[str, list[float]]] = {arm: {} for arm in arms}
    for row in evals:
        measured = value(row) if row.arm in found else None
        if measured is not None:
            found[row.arm].setdefault(row.prompt_id, []).append(float(measured))
    common = [prompt for prompt in found[arms[0]] if prompt in found[arms[1]]]
    if len(common) < 2:
        return None
    first, second = ([sum(found[arm][prompt]) / len(found[arm][prompt]) for prompt in common] for arm in arms)
    return first, second


def change(
    evals: Sequence[EvalRow], value: Callable[[EvalRow], float | None], arms: tuple[str, str] = ("aligned", "base")
) -> Estimate | None:
    """The first arm less the second, paired over prompts."""
    both = paired(evals, value, arms)
    if both is None:
        return None
    are_shares = {*both[0], *both[1]} <= {0.0, 1.0}
    return bounded_difference(*both, unit=1.0 if are_shares else None)


def bounded_difference(first: Sequence[float], second: Sequence[float], *, unit: float | None) -> Estimate:
    """`paired_difference` of one seed, with bounds also where all prompts differ alike (`with_exact_bounds`)."""
    return with_exact_bounds(paired_difference(first, second), np.subtract(first, second), unit)


def difference_of_ratios(values: tuple, weights: tuple) -> Estimate:
    """sum(values)/sum(weights) of the first arm less that of the second, paired by the delta method."""
    each = [linearised_ratio(np.array(value), np.array(weight)) for value, weight in zip(values, weights, strict=True)]
    (first, mine), (second, theirs) = each
    noise, value = paired_difference(mine, theirs), first - second
    return replace(noise, value=value, low=value + noise.low, high=value + noise.high)
