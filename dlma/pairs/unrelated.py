"""Pairs against an unrelated prompt (MIPO): a prompt's own answer, and one that was given to another prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from dlma.errors import UserError
from dlma.functional.noise import row_key
from dlma.model.language import LanguageModel
from dlma.pairs.sampled import SampledPairs
from dlma.ranges import Seed
from dlma.records import Context, Pair
from dlma.sampler.local import LocalSampler
from dlma.trainer.runtime import Shard


class UnrelatedPairs(SampledPairs):
    """Sampled pairs whose negative context is another prompt's, drawn for each prompt by its id and the seed.

    side: the side of the prompt under which both are answered
    With scorer=self_reward R is how much more the answers say of the prompt than of the other one: a difference of
    pointwise mutual informations.
    """

    def __init__(
        self,
        model: LanguageModel,
        sampler: LocalSampler,
        /,
        *,
        seed: Seed,
        side: Literal["positive", "negative", "plain"],
        path: str | None = None,
    ) -> None:
        super().__init__(model, sampler, seed=seed, first="positive", second="negative", path=path)
        self.side = side

    def predict_step(self, shard: Shard, index: int) -> list[Pair]:
        """The pairs of a shard of contexts; the other prompts are drawn from all of the stage."""
        rows = [self._against(row, self._other(row, shard.whole)) for row in shard.rows]
        return super().predict_step(Shard(shard.index, rows, shard.whole, shard.size), index)

    def _against(self, row: Context, other: Context) -> Context:
        own, foreign = (getattr(one, f"{self.side}_ids") for one in (row, other))
        return dataclasses.replace(row, positive_ids=own, negative_ids=foreign)

    def _other(self, row: Context, whole: Sequence[Context]) -> Context:
        """Another prompt: counted on from a drawn place to the first that asks something else."""
        start = row_key(self.seed, row.prompt_id, "unrelated", 0) % len(whole)
        order = (whole[(start + step) % len(whole)] for step in range(len(whole)))
        found = next((other for other in order if other.plain_ids != row.plain_ids), None)
        if found is None:
            raise UserError("pairs=unrelated: all training prompts are the same: take more of them")
        return found
