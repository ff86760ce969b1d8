"""PKU-SafeRLHF: a prompt, two answers, and which of them annotators found better and which safer.

The release of the paper and the present one share the columns that are read here: `prompt`, `response_0`,
`response_1`, `better_response_id`, `safer_response_id`; what else they hold (safety flags, harm categories, severity,
sources) is left alone. A prompt recurs once per annotated pair: it is kept once, with its first usable pair.
"""

from __future__ import annotations

from typing import Literal

from dlma.data.split import Found
from dlma.data.text import BadRow, clean, column
from dlma.errors import UserError
from dlma.records import Turn


class PkuSafeRlhf:
    """A row of either release; `prefer` says whose label makes the human pair."""

    def __init__(self, *, prefer: Literal["safer", "better"]) -> None:
        self.label = f"{prefer}_response_id"

    def found(self, row: dict) -> Found:
        """The prompt and the human pair of one row, without the pair where it has no label (null or -1)."""
        prompt = [Turn("user", clean(column(row, "prompt"), "prompt"))]
        answers = [clean(column(row, name), name) for name in ("response_0", "response_1")]
        if not all(answers):
            raise BadRow("empty answer")
        best = column(row, self.label)
        if best is None or best == -1:
            return Found(prompt)
        if isinstance(best, bool) or best not in (0, 1):
            raise UserError(f"{self.label} is {best!r:.60}, not 0 or 1")
        return Found(prompt, chosen=answers[int(best)], rejected=answers[1 - int(best)])
