"""Labels by a simulated annotator who knows the lab's truth: human feedback in the lab, never a label-free method.

The better answer is preferred with probability sigmoid(|d| / T), d the true difference (Bradley and Terry 1952); T is
such that over all pairs that are no ties the mean share of wrong labels is `flips`. A tie is decided by a coin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytorch_lightning as pl
import torch

from dlma.errors import UserError
from dlma.functional.labels import flip_probability, flip_temperature
from dlma.lab import oracle, world
from dlma.model.language import LanguageModel
from dlma.ranges import Count, Minority, Seed
from dlma.records import Pair, ScoredPair
from dlma.scorer.labelling import margin_scorer, uniform, with_label
from dlma.trainer.runtime import Shard


class Annotator(pl.LightningModule):
    """The truly better answer is chosen, with errors at a stated rate; for answers to the lab's questions only.

    flips: share of wrong labels among the pairs that are no ties
    """

    def __init__(
        self,
        model: LanguageModel,
        /,
        *,
        flips: Minority,
        criterion: Literal["harmless", "helpful"],
        margin: Literal["none", "self_reward"],
        seed: Seed,
        token_budget: Count = 8192,
    ) -> None:
        super().__init__()
        self.network = model.network
        self.flips = flips
        self.quality = {"harmless": "harmlessness", "helpful": "helpfulness"}[criterion]
        self.seed = seed
        self.beside = margin_scorer(model, margin, token_budget)
        self._temperature: float | None = None

    def predict_step(self, shard: Shard, index: int) -> list[ScoredPair]:
        """The labelled pairs of a shard; the error rate is calibrated over all pairs of the stage."""
        if self._temperature is None:
            self._temperature = flip_temperature(self.differences(shard.whole), self.flips)
        differences = self.differences(shard.rows)
        wrong = flip_probability(differences, self._temperature).tolist()
        rows = zip(self.beside.score(shard.rows), differences.tolist(), wrong, strict=True)
        return [self._labelled(*row) for row in rows]

    def differences(self, pairs: Sequence[Pair]) -> torch.Tensor:
        """How much better each pair's positive answer truly is, (pairs,) float64; differences of rounding are ties."""
        values = torch.tensor([self._difference(pair) for pair in pairs], dtype=torch.float64)
        return torch.where(values.abs() < 1e-9, 0.0, values)

    def _difference(self, pair: Pair) -> float:
        if world.parse_question(pair.question) is None:
            raise UserError(
                "scorer=annotator: simulated annotators know the lab's questions only, not "
                f"{pair.question[:60]!r}: use data=lab, or human pairs (pairs=human scorer=construction)"
            )
        verdicts = [oracle.verdict(pair.question, text) for text in (pair.positive_text, pair.negative_text)]
        return getattr(verdicts[0], self.quality) - getattr(verdicts[1], self.quality)

    def _labelled(self, pair: ScoredPair, difference: float, wrong: float) -> ScoredPair:
        flipped = difference != 0 and uniform(pair.id, self.seed, "flip") < wrong
        return with_label(pair, -difference if flipped else difference, self.seed)
