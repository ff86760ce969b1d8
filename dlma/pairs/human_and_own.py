"""The human pair of a prompt, then pairs of the model's own answers to it: what Self-Play and Self-Contrast take."""

from __future__ import annotations

from itertools import islice
from typing import Literal

import pytorch_lightning as pl

from dlma.model.language import LanguageModel
from dlma.pairs.human import HumanPairs
from dlma.pairs.several import SeveralPairs
from dlma.ranges import Count, Few, Seed
from dlma.records import Pair
from dlma.sampler.local import LocalSampler
from dlma.trainer.runtime import Shard


class HumanAndOwnPairs(pl.LightningModule):
    """The human pair of each prompt that has one, and `per_prompt - 1` pairs of answers of the model after it.

    max_answer_tokens: of human answers, as in HumanPairs; seed, side, per_prompt: of the others, as in SeveralPairs
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
        max_answer_tokens: Count,
        path: str | None = None,
    ) -> None:
        super().__init__()
        self.path = path
        self.network = model.network
        self.sampler = sampler
        self.per_prompt = per_prompt
        self.human = HumanPairs(model, sampler, max_answer_tokens=max_answer_tokens)
        self.own = SeveralPairs(model, sampler, seed=seed, side=side, per_prompt=per_prompt)

    def predict_step(self, shard: Shard, index: int) -> list[Pair]:
        """The pairs of a shard of contexts, those of a prompt one after the other."""
        human = {pair.prompt_id: pair for pair in self.human.predict_step(shard, index)}
        asked = [row for row in shard.rows if row.prompt_id in human]
        own = iter(self.own.further(asked))
        found = []
        for row in asked:
            found += [human[row.prompt_id], *islice(own, self.per_prompt - 1)]
        return found
