"""A scored pair as training sees it: the chosen answer first, and the margin of chosen over rejected."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dlma.functional.labels import agreement
from dlma.model import trees
from dlma.records import ScoredPair

_CHOICE = {"positive": 1.0, "negative": -1.0}


def sides(pair: ScoredPair) -> tuple[str, str]:
    """The chosen side and the rejected one."""
    return ("positive", "negative") if pair.chosen == "positive" else ("negative", "positive")


def margin(pair: ScoredPair) -> float:
    """The margin of chosen over rejected, nats."""
    return pair.margin if pair.chosen == "positive" else -pair.margin


def order_agreement(pairs: Sequence[ScoredPair], again: Sequence[ScoredPair], by_margin: bool) -> float:
    """The share of pairs whose answers two scorings put in the same order (functional.labels.agreement).

    by_margin: the order is the sign of the margin, R; else it is the scorer's choice, which R need not share
    """
    orders = [[pair.margin if by_margin else _CHOICE[pair.chosen] for pair in some] for some in (pairs, again)]
    return agreement(*(torch.tensor(order, dtype=torch.float64) for order in orders))


def both_answers(pair: ScoredPair) -> list[trees.Completion]:
    """The positive and the negative answer after the plain prompt, whatever was chosen."""
    return [trees.Completion(pair.plain_context_ids, ids) for ids in (pair.positive_ids, pair.negative_ids)]


def chosen_first(pair: ScoredPair) -> list[trees.Completion]:
    """Both answers after the plain prompt."""
    return [trees.Completion(pair.plain_context_ids, getattr(pair, f"{side}_ids")) for side in sides(pair)]


def references(pair: ScoredPair) -> list[float]:
    """Log-probs of both answers under the reference, nats."""
    return [getattr(pair, f"{side}_reference") for side in sides(pair)]


def tokens(pair: ScoredPair) -> list[int]:
    """Lengths of both answers, EOS included where it was produced."""
    return [len(getattr(pair, f"{side}_ids")) for side in sides(pair)]
