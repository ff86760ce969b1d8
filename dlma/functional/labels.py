"""Labels of an imperfect annotator: Bradley-Terry flips, calibrated to a stated rate; and how alike two answers are."""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

_STEPS = 200  # halvings of the logarithm of the temperature; far below float64's resolution


def flip_probability(difference: Tensor, temperature: float) -> Tensor:
    """sigmoid(-|d| / T): how often a Bradley-Terry annotator prefers the worse of two answers.

    difference: (pairs,) float64, how much better one answer is; temperature 0 never flips, and a tie (d = 0) gives 1/2
    """
    if temperature == 0:
        return torch.where(difference == 0, 0.5, 0.0).double()
    return torch.sigmoid(-difference.abs() / temperature)


def agreement(first: Tensor, second: Tensor) -> float:
    """The share of pairs that two scorers put in the same order, a tie of one of them as half; 1 without pairs.

    (1 + tau) / 2 with Kendall's tau of the two answers of a pair, averaged over pairs (Wang et al. 2024, CREAM).
    first, second: (pairs,), margins of one answer over the other by each scorer
    """
    if not len(first):
        return 1.0
    return ((1 + first.sign() * second.sign()) / 2).mean().item()


def likeness(first: Sequence[int], second: Sequence[int]) -> float:
    """The cosine of how often two texts have each token, in [0, 1]; 0 where one of them has none."""
    one, two = Counter(first), Counter(second)
    sizes = math.sqrt(sum(n * n for n in one.values())) * math.sqrt(sum(n * n for n in two.values()))
    return sum(one[token] * two[token] for token in one) / sizes if sizes else 0.0


def flip_temperature(difference: Tensor, rate: float) -> float:
    """The temperature T at which the mean flip probability of the pairs that are no ties is `rate`.

    difference: (pairs,) float64; ties do not count. rate: in [0, 0.5); 0 gives T = 0
    raises: ValueError for another rate; returns 0 when every pair is a tie
    """
    if not 0 <= rate < 0.5:
        raise ValueError(f"a flip rate lies between 0 and 0.5, 0.5 left out, not {rate}")
    untied = difference[difference != 0].double()
    if rate == 0 or not len(untied):
        return 0.0
    low, high = -40.0, 40.0  # natural logarithms; the mean flip rate grows with T from 0 to 1/2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        flips = flip_probability(untied, float(torch.tensor(middle).double().exp())).mean().item()
        low, high = (middle, high) if flips < rate else (low, middle)
    return float(torch.tensor((low + high) / 2).double().exp())
