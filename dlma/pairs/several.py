"""Several pairs of answers to each prompt, all under one side of it: what best and worst are chosen from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from dlma.functional.noise import row_key
from dlma.model.language import LanguageModel
from dlma.pairs.sampled import SampledPairs
from dlma.ranges import Few, Seed
from dlma.records import Context, Pair
from dlma.sampler.local import LocalSampler, Request
from dlma.trainer.runtime import Shard


class SeveralPairs(SampledPairs):
    """Twice `per_prompt` answers to each prompt, paired in the order in which they are drawn.

    side: the side of the prompt under which all are sampled
    The first pair of a prompt has the answers of SampledPairs with this side twice.
    """

    def __init__(
        self,
        model: LanguageModel,
        sampler: LocalSampler,
        /,
        *,
        seed: Seed,
        side: Literal["positive", "negative", "plain"],
        per_prompt: Few,
        path: str | None = None,
    ) -> None:
        super().__init__(model, sampler, seed=seed, first=side, second=side, path=path)
        self.per_prompt = per_prompt

    def predict_step(self, shard: Shard, index: int) -> list[Pair]:
        """The pairs of a shard of contexts, those of a prompt one after the other."""
        return self._drawn(shard.rows, range(self.per_prompt))

    def further(self, rows: Sequence[Context]) -> list[Pair]:
        """The same without the first pair of each prompt, which is not drawn."""
        return self._drawn(rows, range(1, self.per_prompt))

    def _drawn(self, rows: Sequence[Context], numbers: range) -> list[Pair]:
        side = self.sides[0]
        requests = [
            Request(row_key(self.seed, row.prompt_id, side, place), getattr(row, f"{side}_ids"), id=row.prompt_id)
            for row in rows
            for place in range(2 * numbers.start, 2 * numbers.stop)
        ]
        answers = iter(self.sampler.sample(self.model, requests))
        return [
            dataclasses.replace(self._pair(row, next(answers), next(answers)), id=f"{row.prompt_id}-{n}")
            for row in rows
            for n in numbers
        ]
