"""Perplexity of every arm's answers under a model that had no part in the run: whether the text is still ordinary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlma.config.schema import Component
from dlma.evaluation.context import EvaluationContext
from dlma.metrics.base import MetricColumn, MetricInput
from dlma.model.tokens import Characters, encode
from dlma.ranges import Count
from dlma.records import Answer, MetricValue

if TYPE_CHECKING:
    from dlma.model.language import LanguageModel

_SPEAKERS = {"user": "USER", "assistant": "ASSISTANT"}


class ReferencePerplexity:
    """exp of the mean negative log-prob per token of the answers, given their conversations as plain text.

    model: the reference model
    """

    def __init__(self, bench: EvaluationContext, /, *, model: Component, token_budget: Count = 8192) -> None:
        self.bench = bench
        self.spec = model
        self.token_budget = token_budget
        self.cut = self.left_out = 0
        label = f"perplexity under {model.name}"
        self.columns = (MetricColumn("perplexity_reference", label, "exp_ratio", better="lower"),)

    def identity(self) -> list[str]:
        """The fingerprints of the reference model."""
        return [self.bench.fingerprint(folder) for folder in self.spec.folders]

    def report(self) -> dict:
        """The reference model's name, and how many answers were cut at its context or had no token within it."""
        return {"model": self.spec.name, "cut": self.cut, "left_out": self.left_out}

    def scores(self, scene: MetricInput) -> list[MetricValue]:
        """The negative log-prob of each answer, nats, with its tokens (the reference model's) as weight."""
        model = self.spec.load()
        self.bench.place(model.network)
        return [score for arm, rows in scene.answers.items() for score in self._arm(model, arm, rows, scene)]

    def _arm(self, model: LanguageModel, arm: str, answers: Sequence[Answer], scene: MetricInput) -> list[MetricValue]:
        from dlma.model.engine import Engine
        from dlma.model.trees import Completion as Row
        from dlma.model.trees import common_prefix

        characters = Characters(model.tokenizer)
        contexts = [characters(plain_text(scene.turns[row.prompt_id])) for row in answers]
        texts = [text + characters(row.text) for text, row in zip(contexts, answers, strict=True)]
        whole = encode(model.tokenizer, texts)
        begun = encode(model.tokenizer, contexts)
        rows = []
        for row, ids, start in zip(answers, whole, begun, strict=True):
            read = ids[: model.context]
            shared = common_prefix(read, start)  # what a merge over the boundary changed counts as answer
            if 0 < shared < len(read):
                rows.append((row, Row(read[:shared], read[shared:])))
                self.cut += len(read) < len(ids)
            else:
                self.left_out += 1
        logp = Engine(model, token_budget=self.token_budget).score([[sequence] for _, sequence in rows])
        return [
            MetricValue(row.prompt_id, row.category, arm, "perplexity_reference", -value, float(len(sequence.response)))
            for (row, sequence), (value,) in zip(rows, logp, strict=True)
        ]


def plain_text(turns: Sequence) -> str:
    """A conversation up to where the answer stands, in the plain form `USER: ... ASSISTANT:`."""
    return "\n".join([*(f"{_SPEAKERS[turn.role]}: {turn.content}" for turn in turns), "ASSISTANT: "])
