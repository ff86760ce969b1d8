"""Pair generators: two answers to each prompt, each sampled under a side of the contrastive prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytorch_lightning as pl

from dlma.functional.noise import row_key
from dlma.model.language import LanguageModel
from dlma.ranges import Seed
from dlma.records import Account, Context, Pair
from dlma.sampler.local import LocalSampler, Request
from dlma.store.rows import taken
from dlma.trainer.runtime import Shard


class SampledPairs(pl.LightningModule):
    """Answers sampled by the frozen model: `first` side against `second` side.

    first, second: "positive", "negative" or "plain"; two equal sides give two samples of one prompt
    path: the user's own pairs file, which the pipeline then reads in place of sampling
    """

    def __init__(
        self,
        model: LanguageModel,
        sampler: LocalSampler,
        /,
        *,
        seed: Seed,
        first: Literal["positive", "negative", "plain"],
        second: Literal["positive", "negative", "plain"],
        path: str | None = None,
    ) -> None:
        super().__init__()
        self.path = path
        self.model = model
        self.network = model.network
        self.sampler = sampler
        self.seed = seed
        self.sides = (first, second)

    def predict_step(self, shard: Shard, index: int) -> list[Pair]:
        """The pairs of a shard of contexts; both sides go through the sampler as one stream."""
        requests = [self._request(row, place) for row in shard.rows for place in (0, 1)]
        answers = self.sampler.sample(self.model, requests)
        pairs = zip(shard.rows, answers[0::2], answers[1::2], strict=True)
        return [self._pair(row, positive, negative) for row, positive, negative in pairs]

    def _request(self, row: Context, place: int) -> Request:
        side = self.sides[place]
        sample = place if self.sides[0] == self.sides[1] else 0
        key = row_key(self.seed, row.prompt_id, side, sample)
        return Request(key, getattr(row, f"{side}_ids"), id=row.prompt_id)

    def _pair(self, row: Context, positive, negative) -> Pair:
        return Pair(
            id=row.prompt_id,
            prompt_id=row.prompt_id,
            question=row.question,
            wording=row.wording,
            plain_context_ids=row.plain_ids,
            positive_context_ids=row.positive_ids,
            negative_context_ids=row.negative_ids,
            positive_ids=positive.ids,
            negative_ids=negative.ids,
            positive_finished=positive.finished,
            negative_finished=negative.finished,
            positive_text=self.model.decode(positive.ids),
            negative_text=self.model.decode(negative.ids),
        )


class NoPairs(pl.LightningModule):
    """The null generator: no pairs, hence nothing to score or train on."""

    def __init__(self, model: LanguageModel, sampler: LocalSampler, /, *, path: str | None = None) -> None:
        super().__init__()
        self.path = path

    def predict_step(self, shard: Shard, index: int) -> list[Pair]:
        """No pairs."""
        return []


def usable(pairs: Sequence[Pair]) -> tuple[Sequence[Pair], Account]:
    """The pairs both of whose answers say something; the others are dropped and counted."""
    account = Account(read=len(pairs))
    kept = []
    for place, pair in enumerate(pairs):
        if pair.positive_text.strip() and pair.negative_text.strip():
            kept.append(place)
        else:
            account.drop("empty answer")
    account.kept = len(kept)
    return taken(pairs, kept), account
