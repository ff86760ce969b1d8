"""Labels by a coin: a control, from which nothing about harm or help can be learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytorch_lightning as pl

from dlma.model.language import LanguageModel
from dlma.ranges import Count, Seed
from dlma.records import Pair, ScoredPair
from dlma.scorer.labelling import margin_scorer, uniform, with_label
from dlma.trainer.runtime import Shard


class RandomLabels(pl.LightningModule):
    """Either answer is chosen with probability 1/2, fixed by the pair and the seed."""

    def __init__(
        self, model: LanguageModel, /, *, margin: Literal["none", "self_reward"], seed: Seed, token_budget: Count = 8192
    ) -> None:
        super().__init__()
        self.network = model.network
        self.seed = seed
        self.beside = margin_scorer(model, margin, token_budget)

    def predict_step(self, shard: Shard, index: int) -> list[ScoredPair]:
        """The labelled pairs of a shard."""
        return self.score(shard.rows)

    def score(self, pairs: Sequence[Pair]) -> list[ScoredPair]:
        """Pairs with the coin's label."""
        return [
            with_label(pair, uniform(pair.id, self.seed, "label") - 0.5, self.seed) for pair in self.beside.score(pairs)
        ]
