"""The lab's oracle as judge: the truth, in the lab only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dlma.errors import UserError
from dlma.evaluation.context import EvaluationContext
from dlma.judges.base import Judgement, Match, by_margin
from dlma.lab import oracle, world
from dlma.ranges import NotNegative


class OracleJudge:
    """The truth as judge. It has no liking for a position, so one look is both orders.

    criterion: what is compared, the sum of values (harmless) or of help (helpful), mean over an answer's sentences
    tie: a difference up to this is a tie
    """

    def __init__(
        self, bench: EvaluationContext, /, *, criterion: Literal["harmless", "helpful"], tie: NotNegative
    ) -> None:
        self.criterion = criterion
        self.tie = tie
        self.quality = {"harmless": "harmlessness", "helpful": "helpfulness"}[criterion]

    def identity(self) -> list[str]:
        """No model: the truth is code."""
        return ["oracle"]

    def judge(self, matches: Sequence[Match]) -> list[Judgement]:
        """A ruling per match; raises UserError for a prompt that is not of the lab's world."""
        return [self._rule(match) for match in matches]

    def report(self) -> dict:
        """Nothing beyond the configuration."""
        return {}

    def _rule(self, match: Match) -> Judgement:
        if world.parse_question(match.question) is None:
            raise UserError(
                f"judges: the oracle knows the lab's prompts only, not {match.question[:40]!r}: use data=lab"
            )
        one, two = (oracle.verdict(match.question, text) for text in (match.answer, match.other))
        margin = getattr(one, self.quality) - getattr(two, self.quality)
        return by_margin(margin, margin, self.tie)
