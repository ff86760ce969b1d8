"""A language model as judge, by the log-probs of its A/B verdicts: the run's own model, or any other local one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from dlma.config.schema import Component
from dlma.evaluation.context import EvaluationContext
from dlma.judge_prompt import ABJudge, AnswerPair
from dlma.judges.base import Judgement, Match, by_margin
from dlma.ranges import Count, NotNegative, Seed


class ModelJudge:
    """Which answer a model prefers, nats of log-odds, asked in both orders.

    criterion: what the question asks for, in a word
    model: the model that is asked; None is the run's own base, whose verdicts are self-reported
    ab: the question, one of conf/judge
    tie: a mean of both orders' log-odds up to this is a tie
    seed: of the instruction drawn for a prompt where the question has several
    """

    def __init__(
        self,
        bench: EvaluationContext,
        /,
        *,
        criterion: str,
        model: Component | None,
        ab: Component,
        tie: NotNegative,
        seed: Seed,
        token_budget: Count = 8192,
    ) -> None:
        self.bench = bench
        self.criterion = criterion
        self.spec = model
        self.ab = ab
        self.tie = tie
        self.seed = seed
        self.token_budget = token_budget

    def identity(self) -> list[str]:
        """The fingerprints of the weights that judge."""
        if self.spec is None:
            return list(self.bench.weights)
        return [self.bench.fingerprint(folder) for folder in self.spec.folders]

    @cached_property
    def asked(self) -> ABJudge:
        model = self.bench.base() if self.spec is None else self.spec.load()
        return ABJudge(model, self.ab, seed=self.seed, token_budget=self.token_budget)

    @property
    def network(self):
        """What has to be moved to the device."""
        return self.asked.model.network

    def judge(self, matches: Sequence[Match]) -> list[Judgement]:
        """A ruling per match, by the mean of both orders."""
        rows = [AnswerPair(m.prompt_id, m.conversation, m.question, m.answer, m.other) for m in matches]
        return [by_margin(first, second, self.tie) for first, second in self.asked.both_orders(rows)]

    def report(self) -> dict:
        """The engine's choices and rates."""
        return self.asked.engine.report()
