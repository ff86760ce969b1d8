"""Labels by a judge (RLAIF): the model is asked which of two answers is better, in both orders or in one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import pytorch_lightning as pl

from dlma.config.schema import Component
from dlma.judge_prompt import ABJudge, AnswerPair
from dlma.model.language import LanguageModel
from dlma.ranges import Count, Seed
from dlma.records import Pair, ScoredPair
from dlma.scorer.labelling import margin_scorer, uniform, with_label
from dlma.trainer.runtime import Shard


class Judge(pl.LightningModule):
    """The answer with the higher verdict is chosen.

    ab: the question, one of conf/judge
    orders: "both" averages the log-odds of the two orders; "one" asks in one order, drawn for each pair
    margin: "verdict" is the judge's log-odds; "self_reward" keeps R beside the judge's label; "none" is 0
    """

    def __init__(
        self,
        model: LanguageModel,
        /,
        *,
        ab: Component,
        orders: Literal["both", "one"],
        margin: Literal["verdict", "self_reward", "none"],
        seed: Seed,
        token_budget: Count = 8192,
    ) -> None:
        super().__init__()
        self.model = model
        self.network = model.network
        self.orders = orders
        self.margin = margin
        self.seed = seed
        self.judge = ABJudge(model, ab, seed=seed, token_budget=token_budget)
        self.beside = margin_scorer(model, "self_reward" if margin == "self_reward" else "none", token_budget)

    def predict_step(self, shard: Shard, index: int) -> list[ScoredPair]:
        """The labelled pairs of a shard."""
        return self.score(shard.rows)

    def score(self, pairs: Sequence[Pair]) -> list[ScoredPair]:
        """Pairs with the judge's label and log-odds."""
        verdicts = self.verdicts(pairs)
        return [self._scored(*row) for row in zip(self.beside.score(pairs), verdicts, strict=True)]

    def verdicts(self, pairs: Sequence[Pair]) -> list[tuple[float | None, float | None]]:
        """Log-odds that the positive answer is better, shown first and shown second; None where not asked."""
        comparisons = [self._comparison(pair) for pair in pairs]
        if self.orders == "both":
            return list(self.judge.both_orders(comparisons))
        swap = [uniform(pair.id, self.seed, "order") < 0.5 for pair in pairs]
        asked = [one.swapped() if swapped else one for one, swapped in zip(comparisons, swap, strict=True)]
        odds = zip(self.judge.log_odds(asked), swap, strict=True)
        return [(None, -value) if swapped else (value, None) for value, swapped in odds]

    def _comparison(self, pair: Pair) -> AnswerPair:
        conversation = self.model.decode(pair.plain_context_ids)
        return AnswerPair(pair.prompt_id, conversation, pair.question, pair.positive_text, pair.negative_text)

    def _scored(self, pair: ScoredPair, verdict: tuple[float | None, float | None]) -> ScoredPair:
        asked = [value for value in verdict if value is not None]
        odds = sum(asked) / len(asked)
        margin = odds if self.margin == "verdict" else pair.margin
        scored = dataclasses.replace(pair, margin=margin, verdict_first=verdict[0], verdict_second=verdict[1])
        return with_label(scored, odds, self.seed)
