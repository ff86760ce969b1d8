"""Instruction data in the Alpaca format: `instruction`, an optional `input`, and the answer in `output`."""

from __future__ import annotations

from dlma.data.split import Found
from dlma.data.text import BadRow, clean, column
from dlma.records import Turn


class Alpaca:
    """A row of the Alpaca format; instruction and input are joined by a blank, as safe-rlhf does."""

    def found(self, row: dict) -> Found:
        """The prompt and the answer; there is no second one, so no human pair."""
        instruction = clean(column(row, "instruction"), "instruction")
        given = row.get("input")
        extra = "" if given is None else clean(given, "input")
        answer = clean(column(row, "output"), "output")
        if not answer:
            raise BadRow("empty answer")
        return Found([Turn("user", f"{instruction} {extra}".strip())], chosen=answer)
