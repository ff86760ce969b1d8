"""Answers of one arm to held-out prompts, with their log-probs under the arm and under the base.

From these come KL(arm || base) per answer (the mean of the log-ratio over the arm's own samples),
the perplexity of the answers under the base, and the base's self-reward of each answer.

Where the sampler draws from another distribution than the model's own (temperature, top_k, top_p), the log-probs under
what was drawn from stand beside those at temperature 1 (model/drawn.py). A cut may rule out under the base what the arm
drew, and KL to the base so cut is then infinite; to the base at the same temperature with nothing cut it is finite.

With a contrast (model/contrast.py) the arm is the distribution that both sides of the prompt make together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytorch_lightning as pl

from dlma.functional.noise import row_key
from dlma.functional.reward import best_of_n_divergence
from dlma.model.contrast import Contrast, contrasted
from dlma.model.drawn import Drawing, drawn
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.trees import Completion
from dlma.ranges import Count, Few, Seed
from dlma.records import Answer, Context
from dlma.sampler.contrastive import ContrastiveSampler
from dlma.sampler.local import LocalSampler, Request, Sampled
from dlma.trainer.runtime import Shard


class Answers(pl.LightningModule):
    """Samples answers to each context with `model` under `side`, and scores them with `model` and with `base`.

    samples: of so many answers to a prompt the one with the largest self-reward is given. Its log-prob is that of a
        plain sample plus what best of n adds on average (functional.reward.best_of_n_divergence).
    contrast: the values of a Contrast; `side` is then the positive one, and its other side the negative
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
        contrast: Mapping | None = None,
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
        self.contrast = None if contrast is None else Contrast(**contrast)
        self.token_budget = token_budget
        self.own = Engine(model, token_budget=token_budget)
        self.base = Engine(base, token_budget=token_budget)

    def predict_step(self, shard: Shard, index: int) -> list[Answer]:
        """The answers to a shard of contexts."""
        rows = [row for row in shard.rows for _ in range(self.samples)]
        contexts = [getattr(row, f"{self.side}_ids") for row in rows]
        keys = [row_key(self.seed, row.prompt_id, "held-out", i % self.samples) for i, row in enumerate(rows)]
        asked = [Request(k, c, id=row.prompt_id) for k, c, row in zip(keys, contexts, rows, strict=True)]
        sampled = self._sampled(asked, rows)
        groups = [
            [Completion(c, s.ids) for c in (context, row.plain_ids, row.positive_ids, row.negative_ids)]
            for context, row, s in zip(contexts, rows, sampled, strict=True)
        ]
        base = self.base.score(groups)
        own = self._own(rows, groups, base)
        answers = [self._answer(*columns) for columns in zip(rows, sampled, own, base, strict=True)]
        groups_of = [range(start, start + self.samples) for start in range(0, len(answers), self.samples)]
        best = [max(group, key=lambda i: answers[i].reward) for group in groups_of]
        if self.drawing.plain:
            return [answers[i] for i in best]
        return self._with_drawn([(rows[i], answers[i]) for i in best])

    def _sampled(self, asked: list[Request], rows: Sequence[Context]) -> list[Sampled]:
        if self.contrast is None:
            return self.sampler.sample(self.model, asked)
        sampler = ContrastiveSampler(self.sampler, self.contrast)
        return sampler.sample(self.model, asked, [row.negative_ids for row in rows])

    def _own(
        self, rows: Sequence[Context], groups: list[list[Completion]], base: list[list[float]]
    ) -> list[list[float]]:
        """Of each answer, first its log-prob under the arm itself."""
        if self.contrast is not None:
            return self._under_arm([(row, group[0].response) for row, group in zip(rows, groups)], Drawing(1.0, 0, 1.0))
        return base if self.model is self.base.model else self.own.score([group[:1] for group in groups])

    def _under_arm(self, answers: list[tuple[Context, Sequence[int]]], way: Drawing) -> list[list[float]]:
        """Log-probs of answers under what the arm draws them from, in this way."""
        sides = [
            [Completion(getattr(row, f"{side}_ids"), ids) for row, ids in answers] for side in (self.side, "negative")
        ]
        if self.contrast is None:
            return drawn(self.model, sides[0], [way], token_budget=self.token_budget, keep=True)
        both = list(zip(*sides, strict=True))
        return contrasted(self.model, self.contrast, both, [way], token_budget=self.token_budget)

    def _with_drawn(self, chosen: list[tuple[Context, Answer]]) -> list[Answer]:
        """The answers with their log-probs under what was drawn from, and under the base drawn from alike and uncut."""
        own = self._under_arm([(row, answer.ids) for row, answer in chosen], self.drawing)
        base = drawn(
            self.base.model,
            [Completion(row.plain_ids, answer.ids) for row, answer in chosen],
            [self.drawing, self.drawing.uncut],
            token_budget=self.token_budget,
            keep=self.model is self.base.model and self.side == "plain",  # what the arm drew is then what the base drew
        )
        gain = best_of_n_divergence(self.samples)
        return [
            replace(
                answer,
                logp_drawn=mine + gain,
                logp_base_drawn=alike if math.isfinite(alike) else None,
                logp_base_uncut=uncut,
            )
            for (_, answer), (mine,), (alike, uncut) in zip(chosen, own, base, strict=True)
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
