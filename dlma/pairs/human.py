"""Human pairs: the two answers that came with a prompt, the preferred one on the positive side."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl

from dlma.model.language import LanguageModel
from dlma.ranges import Count
from dlma.records import Context, Pair, content_id
from dlma.sampler.local import LocalSampler
from dlma.trainer.runtime import Shard


class HumanPairs(pl.LightningModule):
    """The human pair of every prompt that has one; nothing is sampled.

    max_answer_tokens: a longer answer is cut there, and then does not count as finished
    """

    def __init__(
        self,
        model: LanguageModel,
        sampler: LocalSampler,
        /,
        *,
        max_answer_tokens: Count,
        path: str | None = None,
    ) -> None:
        super().__init__()
        self.path = path
        self.model = model
        self.max_answer_tokens = max_answer_tokens

    def predict_step(self, shard: Shard, index: int) -> list[Pair]:
        """The pairs of a shard of contexts."""
        return [self._pair(row) for row in shard.rows if row.chosen_ids and row.rejected_ids]

    def _pair(self, row: Context) -> Pair:
        assert row.chosen_ids is not None and row.rejected_ids is not None
        chosen, rejected = (list(ids[: self.max_answer_tokens]) for ids in (row.chosen_ids, row.rejected_ids))
        texts = [self.model.decode(ids) for ids in (chosen, rejected)]
        return Pair(
            id=content_id(row.prompt_id, *texts),
            prompt_id=row.prompt_id,
            question=row.question,
            wording=row.wording,
            plain_context_ids=row.plain_ids,
            positive_context_ids=row.positive_ids,
            negative_context_ids=row.negative_ids,
            positive_ids=chosen,
            negative_ids=rejected,
            positive_finished=self._finished(chosen),
            negative_finished=self._finished(rejected),
            positive_text=texts[0],
            negative_text=texts[1],
        )

    def _finished(self, ids: Sequence[int]) -> bool:
        return ids[-1] in self.model.eos_ids
