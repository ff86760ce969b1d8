"""Labels by ratings (Self-Rewarding): the model gives each answer by itself a number of points.

Where the published judge writes a text that ends with its points, ours is asked for the points at once, and takes their
mean under its own probabilities: what many sampled verdicts without a reason would average to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytorch_lightning as pl
import torch

from dlma.config.schema import Component
from dlma.functional.reward import expected_points
from dlma.judge_prompt import RatedAnswer, RatingJudge
from dlma.model.language import LanguageModel
from dlma.ranges import Count, Seed
from dlma.records import Pair, ScoredPair
from dlma.scorer.construction import Construction
from dlma.scorer.labelling import with_label
from dlma.trainer.runtime import Shard


class Rating(pl.LightningModule):
    """The answer with more points is chosen; the margin is the difference of the points, no nats.

    rating: the question (judge_prompt.RatingPrompt)
    """

    def __init__(self, model: LanguageModel, /, *, rating: Component, seed: Seed, token_budget: Count = 8192) -> None:
        super().__init__()
        self.model = model
        self.network = model.network
        self.seed = seed
        self.judge = RatingJudge(model, rating, token_budget=token_budget)
        self.beside = Construction(model, token_budget=token_budget)

    def predict_step(self, shard: Shard, index: int) -> list[ScoredPair]:
        """The rated pairs of a shard."""
        return self.score(shard.rows)

    def score(self, pairs: Sequence[Pair]) -> list[ScoredPair]:
        """Pairs with both answers' points, and the label that follows from them."""
        asked = [
            RatedAnswer(self.model.decode(p.plain_context_ids), p.question, text) for p in pairs for text in _texts(p)
        ]
        logp = torch.tensor(self.judge.logp(asked), dtype=torch.float64)
        points = expected_points(logp).view(-1, 2).tolist()
        rows = zip(self.beside.score(pairs), points, strict=True)
        return [self._rated(pair, *both) for pair, both in rows]

    def _rated(self, pair: ScoredPair, first: float, second: float) -> ScoredPair:
        rated = dataclasses.replace(pair, positive_score=first, negative_score=second, margin=first - second)
        return with_label(rated, first - second, self.seed)


def _texts(pair: Pair) -> tuple[str, str]:
    return pair.positive_text, pair.negative_text
