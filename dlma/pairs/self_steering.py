"""Pairs of Self-Steering Optimization: an answer under either side, and a plain one against the positive one."""

from __future__ import annotations

import dataclasses

from dlma.functional.noise import row_key
from dlma.model.language import LanguageModel
from dlma.pairs.sampled import SampledPairs
from dlma.ranges import Seed
from dlma.records import Pair
from dlma.sampler.local import LocalSampler, Request
from dlma.trainer.runtime import Shard

_SIDES = ("positive", "negative", "plain")


class SelfSteeringPairs(SampledPairs):
    """Of each prompt the contrastive pair (a+, a-), then the pair (a0, a+) with a plain answer a0.

    A prompt two of whose three answers are equal is left out, as in the published code. The first pair has the answers
    of SampledPairs with these sides.
    """

    def __init__(self, model: LanguageModel, sampler: LocalSampler, /, *, seed: Seed, path: str | None = None) -> None:
        super().__init__(model, sampler, seed=seed, first="positive", second="negative", path=path)

    def predict_step(self, shard: Shard, index: int) -> list[Pair]:
        """The pairs of a shard of contexts, both of a prompt one after the other."""
        requests = [
            Request(row_key(self.seed, row.prompt_id, side, 0), getattr(row, f"{side}_ids"), id=row.prompt_id)
            for row in shard.rows
            for side in _SIDES
        ]
        answers = self.sampler.sample(self.model, requests)
        found = []
        for place, row in enumerate(shard.rows):
            positive, negative, plain = answers[3 * place : 3 * place + 3]
            if len({tuple(answer.ids) for answer in (positive, negative, plain)}) == len(_SIDES):
                made = [self._pair(row, positive, negative), self._pair(row, plain, positive)]
                found += [dataclasses.replace(pair, id=f"{row.prompt_id}-{n}") for n, pair in enumerate(made)]
        return found
