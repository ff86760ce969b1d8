"""Answers of one arm to held-out prompts, with their log-probs under the arm and under the base.

From these come KL(arm || base) per answer (the mean of the log-ratio over the arm's own samples),
the perplexity of the answers under the base, and the base's self-reward of each answer.

Where the sampler draws from another distribution than the model's own (temperature, top_k, top_p), the log-probs under
what was drawn from stand beside those at temperature 1 (model/drawn.py). A cut may rule out under the base what the arm
drew, and KL to the base so cut is then infinite; to the base at the same temperature with nothing cut it is finite.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytorch_lightning as pl

from dlma.functional.noise import row_key
from dlma.functional.reward import best_of_n_divergence
from dlma.model.drawn import Drawing, drawn
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.trees import Completion
from dlma.ranges import Count, Few, Seed
from dlma.records import Answer, Context
from dlma.sampler.local import LocalSampler, Request
from dlma.trainer.runtime import Shard


class Answers(pl.LightningModule):
    """Samples answers to each context with `model` under `side`, and scores them with `model` and with `base`.

    samples: of so many answers to a prompt the one with the largest self-reward is given. Its log-prob is that of a
        plain sample plus what best of n adds on average (functional.reward.best_of_n_divergence).
    """

    def __init__(
        self,
        model: LanguageModel,
        base: LanguageModel,
        sampler: LocalSampler,
        /,
        *,
        arm: str,
        side: str,
        seed: Seed,
        samples: Few = 1,
        token_budget: Count = 8192,
    ) -> None:
        super().__init__()
        self.model = model
        self.network = model.network
        self.base_network = base.network
        self.sampler = sampler
        self.drawing = Drawing(float(sampler.temperature), sampler.top_k, float(sampler.top_p))
        self.arm = arm
        self.side = side
        self.seed = seed
        self.samples = samples
        self.token_budget = token_budget
        self.own = Engine(model, token_budget=token_budget)
        self.base = Engine(base, token_budget=token_budget)

    def predict_step(self, shard: Shard, index: int) -> list[Answer]:
        """The answers to a shard of contexts."""
        rows = [row for row in shard.rows for _ in range(self.samples)]
        contexts = [getattr(row, f"{self.side}_ids") for row in rows]
        keys = [row_key(self.seed, row.prompt_id, "held-out", i % self.samples) for i, row in enumerate(rows)]
        asked = [Request(k, c, id=row.prompt_id) for k, c, row in zip(keys, contexts, rows, strict=True)]
        sampled = self.sampler.sample(self.model, asked)
        groups = [
            [Completion(c, s.ids) for c in (context, row.plain_ids, row.positive_ids, row.negative_ids)]
            for context, row, s in zip(contexts, rows, sampled, strict=True)
        ]
        base = self.base.score(groups)
        own = base if self.model is self.base.model else self.own.score([group[:1] for group in groups])
        answers = [self._answer(*columns) for columns in zip(rows, sampled, own, base, strict=True)]
        groups_of = [range(start, start + self.samples) for start in range(0, len(answers), self.samples)]
        best = [max(group, key=lambda i: answers[i].reward) for group in groups_of]
        if self.drawing.plain:
            return [answers[i] for i in best]
        return self._with_drawn([(contexts[i], rows[i], answers[i]) for i in best])

    def _with_drawn(self, chosen: list[tuple[list[int], Context, Answer]]) -> list[Answer]:
        """The answers with their log-probs under what was drawn from, and under the base drawn from alike and uncut."""
        own = drawn(
            self.model,
            [Completion(context, answer.ids) for context, _, answer in chosen],
            [self.drawing],
            token_budget=self.token_budget,
            keep=True,
        )
        base = drawn(
            self.base.model,
            [Completion(row.plain_ids, answer.ids) for _, row, answer in chosen],
            [self.drawing, self.drawing.uncut],
            token_budget=self.token_budget,
            keep=self.model is self.base.model and self.side == "plain",
        )
        gain = best_of_n_divergence(self.samples)
        return [
            replace(
                answer,
                logp_drawn=mine + gain,
                logp_base_drawn=alike if math.isfinite(alike) else None,
                logp_base_uncut=uncut,
            )
            for (_, _, answer), (mine,), (alike, uncut) in zip(chosen, own, base, strict=True)
        ]

    def _answer(self, row: Context, sampled, own: list[float], base: list[float]) -> Answer:
        _, plain, positive, negative = base
        return Answer(
            prompt_id=row.prompt_id,
            arm=self.arm,
            question=row.question,
            category=row.category,
            text=self.model.decode(sampled.ids),
            ids=sampled.ids,
            finished=sampled.finished,
            logp=own[0] + best_of_n_divergence(self.samples),
            logp_base=plain,
            reward=positive - negative,
        )
