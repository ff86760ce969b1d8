"""The Anthropic pair format: `chosen` and `rejected` texts of `Human:` and `Assistant:` turns.

The last assistant turns are the human pair's answers; what precedes them is the prompt, and must be the same.
"""

from __future__ import annotations

from dlma.data.split import Found, check_shares, read_prompts
from dlma.data.text import BadRow, Tally, clean, column, fingerprint, hh_turns, read_rows
from dlma.errors import UserError
from dlma.records import Account, Prompt, Turn


class HHPrompts:
    """Prompts and human pairs from a file, or a folder of files, in the Anthropic format."""

    artificial = False  # whether a report must say that its world is made up

    def __init__(
        self,
        *,
        path: str,
        max_prompts: int | None,
        validation_share: float,
        test_share: float,
        on_bad_row: str,
        max_dropped: float,
    ) -> None:
        self.sizes = {
            "max_prompts": max_prompts,
            "validation_share": validation_share,
            "test_share": test_share,
        }
        check_shares(**self.sizes)
        Tally(on_bad_row=on_bad_row, max_dropped=max_dropped)
        self.path = path
        self.on_bad_row = on_bad_row
        self.max_dropped = max_dropped

    def fingerprint(self) -> str:
        """sha256 of the files' bytes."""
        return fingerprint(self.path)

    def read(self) -> tuple[list[Prompt], Account]:
        """All prompts with their splits, in file order, and the account of the rows."""
        tally = Tally(on_bad_row=self.on_bad_row, max_dropped=self.max_dropped)
        return read_prompts(read_rows(self.path), found_in, tally, source=self.path, **self.sizes)


def found_in(row: dict) -> Found:
    """The prompt and human pair of one row; raises BadRow when it has none."""
    prompt, chosen = _parted(row, "chosen")
    other, rejected = _parted(row, "rejected")
    if prompt != other:
        raise BadRow("prompts differ within the pair")
    if not chosen or not rejected:
        raise BadRow("empty answer")
    return Found(prompt, chosen=chosen, rejected=rejected)


def in_columns(row: dict) -> dict:
    """A row in the columns prompt, chosen and rejected, which readers of any preference file know."""
    found = found_in(row)
    turns = [{"role": turn.role, "content": turn.content} for turn in found.turns]
    return {"prompt": turns, "chosen": found.chosen, "rejected": found.rejected}


def _parted(row: dict, name: str) -> tuple[list[Turn], str]:
    value = column(row, name)
    if isinstance(value, list):
        raise UserError(f"{name} is a list of turns; read such a file with data=jsonl")
    turns = hh_turns(clean(value, name))
    if turns[-1].role != "assistant":
        raise BadRow("no answer after the last Human: turn")
    return turns[:-1], turns[-1].content
