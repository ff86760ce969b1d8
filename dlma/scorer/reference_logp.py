"""Reference log-probs by another model for pairs that are scored: margins and labels stay."""

from __future__ import annotations

import dataclasses

import pytorch_lightning as pl

from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.trees import Completion
from dlma.records import ScoredPair
from dlma.trainer.runtime import Shard


class Rereference(pl.LightningModule):
    """Fills the reference columns anew, under the plain prompt."""

    def __init__(self, model: LanguageModel, /, *, token_budget: int = 8192) -> None:
        super().__init__()
        self.network = model.network
        self.engine = Engine(model, token_budget=token_budget)

    def predict_step(self, shard: Shard, index: int) -> list[ScoredPair]:
        """The pairs of a shard."""
        if all(pair.positive_token_reference is None for pair in shard.rows):
            logp = self.engine.score([_sequences(pair) for pair in shard.rows])
            return [_with_reference(pair, *both) for pair, both in zip(shard.rows, logp, strict=True)]
        tokens = self.engine.score_tokens([_sequences(pair) for pair in shard.rows])
        return [
            dataclasses.replace(
                _with_reference(pair, sum(first), sum(second)),
                positive_token_reference=first,
                negative_token_reference=second,
            )
            for pair, (first, second) in zip(shard.rows, tokens, strict=True)
        ]


def _with_reference(pair: ScoredPair, positive: float, negative: float) -> ScoredPair:
    return dataclasses.replace(pair, positive_reference=positive, negative_reference=negative)


def _sequences(pair: ScoredPair) -> list[Completion]:
    return [Completion(pair.plain_context_ids, ids) for ids in (pair.positive_ids, pair.negative_ids)]
