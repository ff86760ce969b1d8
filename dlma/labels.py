"""Training labels from scored pairs: margins per token, filters, orientation, a label budget, strength controls.

A pure function of the scored pairs, so every variant shares one scoring stage. `Labels` works in this order: R per
token, filter by |R|, noise, orientation by the sign of R, budget, strength. `BestAndWorst` makes one pair of several,
`SelfMade` several of an answer by people and the model's own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from dlma.errors import UserError
from dlma.functional.labels import likeness
from dlma.functional.margin import balancing_penalty, best_and_worst, constant, per_token_margin, shuffled
from dlma.functional.noise import row_key
from dlma.functional.reward import answer_reward
from dlma.ranges import Count, NotNegative, PositiveShare, Seed, Share
from dlma.records import Account, ScoredPair

WEAK = "|R| not above labels.min_margin"
BEYOND = "beyond labels.max_pairs"
BETWEEN = "answers between a prompt's best and worst"
SPARE = "answers beyond labels.negatives"
ALIKE = "no answer by people, or none of the model but that"
TIED = "all answers to a prompt have the same score"


class Labels:
    """Which answer of a scored pair is chosen, which pairs are kept, and with which margin.

    orientation: "scored" keeps the scorer's choice; "sign" chooses the answer that R prefers (R = 0 keeps the choice)
    per_token: R with each log-ratio divided by its own answer's length, nats per token
    min_margin: keep the pairs with |R| above it; null keeps all
    flips: the share of labels that is turned round, by a coin fixed by the pair and the seed: the labels turned at one
        share are turned at every larger one
    max_pairs: keep so many pairs, those of a prompt together, fixed by their ids, a subset of any larger budget; null
        keeps all
    strength: "margin" is R of chosen over rejected; "none" 0; "shuffled" R permuted over the pairs; "constant" its mean
    by_margin: the chosen answer is the one that the margin prefers, whatever the scorer chose
    """

    def __init__(
        self,
        *,
        orientation: Literal["scored", "sign"],
        per_token: bool,
        min_margin: NotNegative | None,
        flips: Share,
        max_pairs: Count | None,
        strength: Literal["margin", "none", "shuffled", "constant"],
        seed: Seed,
    ) -> None:
        if flips and orientation == "sign":
            raise UserError(
                f"labels.flips={flips:g}: orientation=sign takes no label from the scorer, so that there is none to "
                "turn round: labels.orientation=scored, or labels.flips=0"
            )
        self.orientation = orientation
        self.by_margin = orientation == "sign"
        self.per_token = per_token
        self.min_margin = min_margin
        self.flips = flips
        self.max_pairs = max_pairs
        self.strength = strength
        self.seed = seed

    def apply(self, pairs: Sequence[ScoredPair]) -> tuple[list[ScoredPair], Account]:
        """The pairs to train on, in the order given, and the account of those left out."""
        account = Account(read=len(pairs))
        kept = self.measured(pairs)
        if self.min_margin is not None:
            limit = self.min_margin
            largest = max((abs(pair.margin) for pair in kept), default=0.0)
            kept = _keep(kept, lambda pair: abs(pair.margin) > limit, account, WEAK)
            if pairs and not kept:
                what = "lower it" if largest else "a scorer that gives margins, such as self_reward, or labels=none"
                raise UserError(
                    f"labels.min_margin={limit:g}: none of {len(pairs):,} pairs is above it, the largest |R| is "
                    f"{largest:.3g}: {what}"
                )
        if self.flips:
            limit = self.flips * 2**64
            noisy = [row_key(self.seed, pair.id, "label noise", 0) < limit for pair in kept]
            kept = [_turned(pair) if turned else pair for pair, turned in zip(kept, noisy, strict=True)]
        if self.orientation == "sign":
            kept = [_by_sign(pair) for pair in kept]
        if self.max_pairs is not None:
            order = sorted((row_key(0, pair.prompt_id, "budget", 0), pair.id) for pair in kept)
            taken = {name for _, name in order[: self.max_pairs]}
            kept = _keep(kept, lambda pair: pair.id in taken, account, BEYOND)
        account.kept = len(kept)
        return self._with_strength(kept) if kept else [], account

    def measured(self, pairs: Sequence[ScoredPair]) -> list[ScoredPair]:
        """The pairs with the margin that labels are read off, R or R per token."""
        if not self.per_token:
            return list(pairs)
        if any(pair.positive_under_positive is None for pair in pairs):
            raise UserError("labels.per_token: needs a scorer that gives R (scorer=self_reward, or its margin)")
        if not pairs:
            return []
        under = [
            torch.tensor([(getattr(p, f"positive_{side}"), getattr(p, f"negative_{side}")) for p in pairs]).double()
            for side in ("under_positive", "under_negative")
        ]
        lengths = torch.tensor([(len(p.positive_ids), len(p.negative_ids)) for p in pairs])
        margins = per_token_margin(answer_reward(*under), lengths).tolist()
        return [dataclasses.replace(pair, margin=margin) for pair, margin in zip(pairs, margins, strict=True)]

    def _with_strength(self, pairs: list[ScoredPair]) -> list[ScoredPair]:
        change: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "margin": lambda margin: margin,
            "none": torch.zeros_like,
            "shuffled": lambda margin: shuffled(margin, seed=self.seed),
            "constant": constant,
        }
        oriented = torch.tensor([_sign(pair) * pair.margin for pair in pairs], dtype=torch.float64)
        margins = change[self.strength](oriented).tolist()
        return [dataclasses.replace(p, margin=_sign(p) * value) for p, value in zip(pairs, margins, strict=True)]


class _AsScored:
    """Labels that are read off the pairs as the scorer gives them."""

    def measured(self, pairs: Sequence[ScoredPair]) -> list[ScoredPair]:
        """The pairs with the margin that labels are read off."""
        return list(pairs)


class BestAndWorst(_AsScored):
    """One pair to each prompt: its best answer, chosen, against its worst, of those in all its scored pairs.

    An answer's score is what the scorer gives it by itself, else its self-reward log pi(a|p+,q) - log pi(a|p-,q). The
    margin is the scores' difference.
    by_margin: the chosen answer is the one that the margin prefers
    length_penalty: taken off a score per token; "balanced": such that best answers are on average as long as worst ones
    strength: "margin" keeps that margin, "none" sets it to 0
    """

    by_margin = True

    def __init__(
        self, *, length_penalty: NotNegative | Literal["balanced"], strength: Literal["margin", "none"]
    ) -> None:
        self.length_penalty = length_penalty
        self.strength = strength

    def apply(self, pairs: Sequence[ScoredPair]) -> tuple[list[ScoredPair], Account]:
        """The pairs to train on, in the order of their prompts, and the account of those left out."""
        account = Account(read=len(pairs))
        answers: dict[str, list[_ScoredAnswer]] = {}
        for pair in pairs:
            answers.setdefault(pair.prompt_id, []).extend(_answers(pair))
        scored = [([one.score for one in group], [one.tokens for one in group]) for group in answers.values()]
        penalty = balancing_penalty(scored) if self.length_penalty == "balanced" else self.length_penalty
        kept = []
        for group, each in zip(answers.values(), scored, strict=True):
            for _ in range(len(group) // 2 - 1):
                account.drop(BETWEEN)
            ends = best_and_worst(each, penalty=penalty)
            if ends is None:
                account.drop(TIED)
            else:
                kept.append(self._pair(group[ends[0]], group[ends[1]], penalty))
        account.kept = len(kept)
        return kept, account

    def _pair(self, best: _ScoredAnswer, worst: _ScoredAnswer, penalty: float) -> ScoredPair:
        margin = best.score - worst.score - penalty * (best.tokens - worst.tokens)
        parts = best.parts("positive") | worst.parts("negative") | {"verdict_first": None, "verdict_second": None}
        kept: dict[str, Any] = {
            "margin": 0.0 if self.strength == "none" else margin,
            "chosen": "positive",
            "id": best.pair.prompt_id,
        }
        return dataclasses.replace(best.pair, **parts, **kept)


class SelfMade(_AsScored):
    """Pairs of the answer that people prefer against answers of the model itself (Self-Play, Self-Contrast); no margin.

    The reference is the chosen answer of a prompt's first pair; the answers of its further pairs are the candidates,
    each once, and without the reference.
    negatives: at most so many of the candidates, as they were drawn, each in a pair of its own
    share: of the candidates only so large a share, those least like the reference; one at least
    """

    by_margin = False

    def __init__(self, *, negatives: Count, share: PositiveShare) -> None:
        self.negatives = negatives
        self.share = share

    def apply(self, pairs: Sequence[ScoredPair]) -> tuple[list[ScoredPair], Account]:
        """The pairs to train on, in the order of their prompts, and the account of those left out."""
        account = Account(read=len(pairs))
        groups: dict[str, list[ScoredPair]] = {}
        for pair in pairs:
            groups.setdefault(pair.prompt_id, []).append(pair)
        kept = []
        for first, *further in groups.values():
            made = self._pairs(first, further)
            for _ in range(1 + len(further) - len(made)):
                account.drop(SPARE if made else ALIKE)
            kept += made
        account.kept = len(kept)
        return kept, account

    def _pairs(self, first: ScoredPair, further: Sequence[ScoredPair]) -> list[ScoredPair]:
        if first.id.startswith(f"{first.prompt_id}-") and first.id != f"{first.prompt_id}-0":
            return []  # the pair that people saw is gone: what is left is the model's own
        reference = _ScoredAnswer(first, first.chosen, 0.0, 0)
        answers = {tuple(one.ids): one for pair in further for one in _sides(pair)}
        answers.pop(tuple(reference.ids), None)
        near = {ids: likeness(reference.ids, ids) for ids in answers}
        least = sorted(near, key=lambda ids: near[ids])[: max(1, math.floor(self.share * len(near)))]
        taken = [answers[ids] for ids in answers if ids in least][: self.negatives]
        shared: dict[str, Any] = {"verdict_first": None, "verdict_second": None, "margin": 0.0, "chosen": "positive"}
        return [
            dataclasses.replace(
                first, **reference.parts("positive"), **one.parts("negative"), **shared, id=f"{first.prompt_id}-{n}"
            )
            for n, one in enumerate(taken)
        ]


def _sides(pair: ScoredPair) -> list[_ScoredAnswer]:
    return [_ScoredAnswer(pair, side, 0.0, 0) for side in ("positive", "negative")]


@dataclasses.dataclass(frozen=True)
class _ScoredAnswer:
    """One of a scored pair's answers: its pair and side, its score and its tokens."""

    pair: ScoredPair
    side: str
    score: float
    tokens: int

    @property
    def ids(self) -> list[int]:
        return getattr(self.pair, f"{self.side}_ids")

    def parts(self, side: str) -> dict[str, Any]:
        """All that the pair says of the answer, under the names of a side; its contexts stay."""
        names = [f.name for f in dataclasses.fields(self.pair) if f.name.startswith(f"{self.side}_")]
        ends = [name.removeprefix(f"{self.side}_") for name in names if not name.endswith("_context_ids")]
        return {f"{side}_{end}": getattr(self.pair, f"{self.side}_{end}") for end in ends}


def _answers(pair: ScoredPair) -> list[_ScoredAnswer]:
    found = []
    for side in ("positive", "negative"):
        score, ids = getattr(pair, f"{side}_score"), getattr(pair, f"{side}_ids")
        if score is None:
            under = [getattr(pair, f"{side}_under_{prompt}") for prompt in ("positive", "negative")]
            if None in under:
                raise UserError(
                    "labels=best_and_worst: the scorer gives answers no score of their own: scorer=rating, "
                    "implicit_reward or self_reward"
                )
            score = under[0] - under[1]
        found.append(_ScoredAnswer(pair, side, score, len(ids)))
    return found


def _sign(pair: ScoredPair) -> int:
    return 1 if pair.chosen == "positive" else -1


def _turned(pair: ScoredPair) -> ScoredPair:
    return dataclasses.replace(pair, chosen="negative" if pair.chosen == "positive" else "positive")


def _by_sign(pair: ScoredPair) -> ScoredPair:
    if pair.margin == 0:
        return pair
    return dataclasses.replace(pair, chosen="positive" if pair.margin > 0 else "negative")


def _keep(
    pairs: list[ScoredPair], wanted: Callable[[ScoredPair], bool], account: Account, reason: str
) -> list[ScoredPair]:
    kept = [pair for pair in pairs if wanted(pair)]
    for _ in range(len(pairs) - len(kept)):
        account.drop(reason)
    return kept
