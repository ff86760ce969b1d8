"""A reward model as judge: the answer that it scores higher is the better one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from dlma.config.schema import Component
from dlma.evaluation.context import EvaluationContext
from dlma.judges.base import Judgement, Match, by_margin
from dlma.model.score_model import ScoreModel
from dlma.ranges import NotNegative
from dlma.records import Turn


class RewardJudge:
    """A reward model as judge: the answer with the larger score. It sees one answer at a time, so both orders agree.

    sign: 1 where larger is better (a reward), -1 where smaller is (a cost)
    tie: a difference up to this is a tie
    """

    def __init__(
        self, bench: EvaluationContext, /, *, criterion: str, model: Component, sign: Literal[-1, 1], tie: NotNegative
    ) -> None:
        self.bench = bench
        self.criterion = criterion
        self.spec = model
        self.sign = sign
        self.tie = tie

    def identity(self) -> list[str]:
        """The fingerprint of the model's weights."""
        return [self.bench.fingerprint(self.spec.folder)]

    @cached_property
    def model(self) -> ScoreModel:
        return self.spec.load()

    @property
    def network(self):
        """What has to be moved to the device."""
        return self.model.network

    def judge(self, matches: Sequence[Match]) -> list[Judgement]:
        """A ruling per match, by the difference of the scores."""
        texts = [[*m.turns, Turn("assistant", text)] for m in matches for text in (m.answer, m.other)]
        scores = self.model.score(texts)
        margins = [self.sign * (one - two) for one, two in zip(scores[0::2], scores[1::2], strict=True)]
        return [by_margin(margin, margin, self.tie) for margin in margins]

    def report(self) -> dict:
        """How many texts were too long for the model."""
        return {"cut": self.model.cut}
