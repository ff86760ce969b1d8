"""The lab's unrelated skill before and after alignment: what alignment costs where it was not asked to change anything.

An item counts as solved where the model's likeliest next token is the right one at every token of the ending.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlma.evaluation.context import EvaluationContext
from dlma.lab import skills
from dlma.metrics.base import MetricColumn, MetricInput
from dlma.model.tokens import encode
from dlma.records import MetricValue

if TYPE_CHECKING:
    from dlma.model.language import LanguageModel

BATCH = 128


class LabSkills:
    """Counting and facts, for the base and for a trained policy."""

    columns = (
        MetricColumn("skill_counting", "skill: counting", "share", "share", "higher", tax=True),
        MetricColumn("skill_facts", "skill: facts of the world", "share", "share", "higher", tax=True),
        MetricColumn("skill_loss", "skill: loss of the endings", "ratio", "nats/token", "lower", tax=True),
    )

    def __init__(self, bench: EvaluationContext, /) -> None:
        self.bench = bench
        self.items = skills.items()

    def identity(self) -> list[str]:
        """The weights of the base; those of a policy are in the stages that this one uses."""
        return list(self.bench.weights)

    def report(self) -> dict:
        """Nothing beyond the configuration."""
        return {}

    def scores(self, scene: MetricInput) -> list[MetricValue]:
        """Solved or not, and the loss, of each item and each arm with weights of its own."""
        return [score for arm in scene.models for score in self._arm(arm, self.bench.load[arm]())]

    def _arm(self, arm: str, model: LanguageModel) -> list[MetricValue]:
        self.bench.place(model.network)
        found = []
        for start in range(0, len(self.items), BATCH):
            found += self._batch(arm, model, self.items[start : start + BATCH])
        return found

    def _batch(self, arm: str, model: LanguageModel, items: Sequence[skills.Item]) -> list[MetricValue]:
        import torch

        from dlma.model.predictions import predictions
        from dlma.model.trees import Completion as Row

        whole = encode(model.tokenizer, [item.beginning + item.end for item in items])
        starts = [len(ids) for ids in encode(model.tokenizer, [item.beginning for item in items])]
        rows = [Row(ids[:start], ids[start:]) for ids, start in zip(whole, starts, strict=True)]
        with torch.no_grad(), model.precision():
            states, head = predictions(model, rows)
            logp = head(states).float().log_softmax(-1)
        wanted = torch.tensor([token for row in rows for token in row.response], device=logp.device)
        right = (logp.argmax(-1) == wanted).tolist()
        losses = (-logp.gather(1, wanted[:, None])[:, 0]).tolist()
        scores, at = [], 0
        for item, row in zip(items, rows, strict=True):
            part = slice(at, at := at + len(row.response))
            scores.append(MetricValue(item.name, None, arm, f"skill_{item.skill}", float(all(right[part]))))
            scores.append(MetricValue(item.name, None, arm, "skill_loss", sum(losses[part]), float(len(row.response))))
        return scores
