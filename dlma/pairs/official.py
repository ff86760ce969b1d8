"""Pairs as the official code trains on them (exlaw/DLMA at 6fceb3c): its faults as options, to see what they do.

Sampling and scoring see the prompts that this project gives them; what changes is the row that is trained on. R is of
that row's answers: an EOS that was added counts in it, where the official R counts no EOS at all.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from dlma.model.language import LanguageModel
from dlma.model.tokens import Characters, encode
from dlma.pairs.sampled import SampledPairs
from dlma.ranges import Count, Seed
from dlma.records import Pair
from dlma.sampler.local import LocalSampler
from dlma.trainer.runtime import Shard


class OfficialPairs(SampledPairs):
    """Sampled pairs, after which the training row is made as the official code makes it.

    bare: the policy is trained on the last question and the answer, without template or separator (a BOS stays)
    end_cut: an answer that was cut at the length limit is given an EOS, as if the model had ended it
    keep_start: a training context keeps its first so many tokens and loses its end; null keeps all
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
        bare: bool,
        end_cut: bool,
        keep_start: Count | None,
        path: str | None = None,
    ) -> None:
        super().__init__(model, sampler, seed=seed, first=first, second=second, path=path)
        self.bare = bare
        self.end_cut = end_cut
        self.keep_start = keep_start

    def predict_step(self, shard: Shard, index: int) -> list[Pair]:
        """The pairs of a shard of contexts."""
        return [self.trained_on(pair) for pair in super().predict_step(shard, index)]

    def trained_on(self, pair: Pair) -> Pair:
        """The pair with the row that the official code would train on."""
        context = self._bare(pair.question) if self.bare else pair.plain_context_ids
        return dataclasses.replace(
            pair,
            plain_context_ids=context[: self.keep_start],
            positive_ids=self._ended(pair.positive_ids, pair.positive_finished),
            negative_ids=self._ended(pair.negative_ids, pair.negative_finished),
            positive_finished=pair.positive_finished or self._ends,
            negative_finished=pair.negative_finished or self._ends,
        )

    def _bare(self, question: str) -> list[int]:
        tokenizer = self.model.tokenizer
        return encode(tokenizer, [Characters(tokenizer)(question)])[0]

    @property
    def _ends(self) -> bool:
        return self.end_cut and self.model.tokenizer.eos_token_id is not None

    def _ended(self, ids: list[int], finished: bool) -> list[int]:
        return ids if finished or not self._ends else [*ids, self.model.tokenizer.eos_token_id]
