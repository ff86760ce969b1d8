"""Scores of a trained reward model for both answers of a pair that it was not trained on."""

from __future__ import annotations

import pytorch_lightning as pl

from dlma.model.reward_model import RewardModel
from dlma.model.trees import Completion
from dlma.records import Pair, Reward
from dlma.trainer.runtime import Shard


class RewardScorer(pl.LightningModule):
    """r(answer | plain prompt) of the positive and the negative answer; their difference is a margin, log-odds."""

    def __init__(self, reward: RewardModel, /) -> None:
        super().__init__()
        self.reward = reward

    def predict_step(self, shard: Shard, index: int) -> list[Reward]:
        """The rewards of a shard of pairs."""
        found = self.reward.score([_answers(pair) for pair in shard.rows])
        return [Reward(pair.id, *values) for pair, values in zip(shard.rows, found, strict=True)]


def _answers(pair: Pair) -> list[Completion]:
    return [Completion(pair.plain_context_ids, ids) for ids in (pair.positive_ids, pair.negative_ids)]
