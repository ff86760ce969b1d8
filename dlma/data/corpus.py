"""A corpus: the source of its rows, the format of a row, and which of its prompts are taken."""

from __future__ import annotations

from typing import Any

from dlma.config.schema import Component
from dlma.data.sources import Source
from dlma.data.split import Prompts, read_prompts
from dlma.data.text import Tally
from dlma.ranges import Count, InnerShare, PartialShare, Share, TwoOrMore
from dlma.records import Account


class Corpus:
    """Prompts, with human pairs where there are any, from files or a data set on the hub.

    path: a file, a folder, or `owner/name` on the hub; revision: the hub's branch, tag or commit
    subset: a configuration that the data set's card names, or a folder in it
    hub_split: the split to read where the data set has a card; ours are made by prompt hash, whatever it is
    format: what turns a row into a prompt (hh, pku_saferlhf, alpaca, jsonl, choices in dlma/data)
    only: values that columns must have, by column; other rows are not read
    max_words: a conversation over it loses its oldest turns; one whose last turn alone is over it is dropped
    every_pair: of a prompt that recurs each human pair is taken, as a prompt of its own; otherwise the first
    """

    artificial = False  # whether a report must say that its world is made up

    def __init__(
        self,
        *,
        path: str,
        revision: str,
        subset: str | None,
        hub_split: str,
        only: dict[str, Any] | None,
        format: Component,
        max_words: Count | None,
        max_prompts: TwoOrMore | None,
        every_pair: bool,
        validation_share: PartialShare,
        test_share: InnerShare,
        on_bad_row: str,
        max_dropped: Share,
    ) -> None:
        self.sizes: dict[str, Any] = {
            "every_pair": every_pair,
            "max_words": max_words,
            "max_prompts": max_prompts,
            "validation_share": validation_share,
            "test_share": test_share,
        }
        Tally(on_bad_row=on_bad_row, max_dropped=max_dropped)
        self.source = Source(path, revision=revision, subset=subset, split=hub_split, only=only)
        self.format = format
        self.on_bad_row = on_bad_row
        self.max_dropped = max_dropped

    def fingerprint(self) -> str:
        """The hub's commit, or the sha256 of the files' bytes."""
        return self.source.fingerprint()

    def read(self) -> tuple[Prompts, Account]:
        """All prompts with their splits, in file order, read anew as they are gone through; the account of the rows."""
        tally = Tally(on_bad_row=self.on_bad_row, max_dropped=self.max_dropped)
        return read_prompts(self.source.rows, self.format.found, tally, source=self.source.path, **self.sizes)
