"""Agreement between annotators beyond chance: Cohen's kappa for two, Fleiss' for more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """(p_o - p_e) / (1 - p_e), p_e from each annotator's own shares (Cohen 1960).

    first, second: the labels of the same items, in one order
    returns: nan where both always say the same one label, since chance then explains everything
    raises: ValueError for no items, or lists of different lengths
    """
    if len(first) != len(second) or not first:
        raise ValueError("two lists of the same length, not empty, are needed")
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    one, two = Counter(first), Counter(second)
    return _beyond_chance(observed, sum(one[label] * two[label] for label in one) / n**2)


def fleiss_kappa(labels: Sequence[Sequence[Hashable]]) -> float:
    """(P - P_e) / (1 - P_e) (Fleiss 1971).

    P is the mean share of agreeing pairs of annotators per item, P_e the sum of squares of the pooled shares.
    labels: for each item the labels of its annotators, the same number (at least 2) for each
    returns: nan where only one label was ever given; raises: ValueError for no items, or ragged ones
    """
    raters = {len(row) for row in labels}
    if len(raters) != 1 or (r := raters.pop()) < 2:
        raise ValueError("every item needs the labels of the same two or more annotators")
    counts = [Counter(row) for row in labels]
    agreeing = [sum(k * (k - 1) for k in row.values()) / (r * (r - 1)) for row in counts]
    pooled = Counter(label for row in labels for label in row)
    expected = sum((k / (len(labels) * r)) ** 2 for k in pooled.values())
    return _beyond_chance(sum(agreeing) / len(labels), expected)


def _beyond_chance(observed: float, expected: float) -> float:
    return math.nan if expected == 1 else (observed - expected) / (1 - expected)
