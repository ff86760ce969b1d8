"""The Lightning module of judges, for `Runtime.predict`: shards, resume, devices and the progress bar."""

from __future__ import annotations

import pytorch_lightning as pl

from dlma.judges.base import Match, PairwiseJudge, verdicts
from dlma.records import Verdict
from dlma.trainer.runtime import Shard


class JudgeModule(pl.LightningModule):
    """A judge over shards of matches; a judge with a `network` has it moved to the device."""

    def __init__(self, judge: PairwiseJudge, /, *, name: str) -> None:
        super().__init__()
        self.judge = judge
        self.name = name
        self.network = getattr(judge, "network", None)

    def predict_step(self, shard: Shard, index: int) -> list[Verdict]:
        """The verdicts on a shard of matches."""
        rows: list[Match] = list(shard.rows)
        return verdicts(self.name, self.judge, rows)
