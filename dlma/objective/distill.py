"""Context distillation by divergence: the policy without a prompt learns the frozen model's distributions under p+.

L = mean over the tokens of the positive answers of KL at that token, exact over the vocabulary; `reverse` is
KL(policy || prompted base), as in the official code's unused branch, `forward` the other way round. A step's sum is
divided as in objective/sft.py. The labels of the pairs play no part. The teacher is a live reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from dlma.config.schema import Component
from dlma.errors import UserError
from dlma.functional.logprob import token_logp
from dlma.functional.losses import chunked_divergence
from dlma.model import trees
from dlma.model.dense import reason_against_padding
from dlma.model.engine import TOLERANCE
from dlma.model.language import LanguageModel
from dlma.model.predictions import predictions
from dlma.model.reference import Reference
from dlma.ranges import Count, Few, Positive, Seed
from dlma.records import ScoredPair
from dlma.trainer.runtime import Runtime
from dlma.training.rule import Recorded, Step, Supplies, TrainingRule


@dataclass(frozen=True)
class _Item:
    """A positive answer after the plain prompt and after p+, with its log-prob under the plain reference (nats).

    scale: one over the mean tokens of an answer, over all of training
    """

    plain: trees.Completion
    prompted: trees.Completion
    reference: float
    scale: float
    id: str


@dataclass(frozen=True)
class _Micro:
    """A micro-batch of answers."""

    items: list[_Item]


def _length(item: _Item) -> int:
    """Tokens of the longer of an item's two rows."""
    return max(len(row.context) for row in (item.plain, item.prompted)) + len(item.plain.response)


class ContextDistillation(TrainingRule):
    """Per-token KL to the prompted base on the positive answers."""

    rate = "recipe.sft.lr"

    def __init__(
        self,
        model: LanguageModel,
        /,
        *,
        direction: Literal["reverse", "forward"],
        optim: Component,
        epochs: Few,
        batch_pairs: Count,
        seed: Seed,
        token_budget: Count = 4096,
        target_kl: Positive | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(model, optim=optim, epochs=epochs, batch=batch_pairs, seed=seed, target_kl=target_kl)
        self.direction = direction
        self.token_budget = token_budget
        self.checkpointing = checkpointing
        self.reference = Reference(model)
        self.reference_network = self.reference.network

    def supply(self, supplies: Supplies) -> None:
        """Nothing but a reference that is the model itself."""
        self.refuse_moved(supplies)

    def fit(
        self, rows: Sequence[ScoredPair], runtime: Runtime, folder: Path, listen: Callable[[dict], None]
    ) -> list[None]:
        """Train on the positive answers (see TrainingRule.train_on); there is no clamp."""
        if not rows:
            raise UserError("objective: there is no pair to train on: choose pairs=, or take more prompts")
        items = self.items(rows)
        longest = max(map(_length, items))
        reason_against_padding(self.model, trees.padded_width(longest))  # while each process holds the model whole
        self.train_on(items, runtime, folder, listen)
        return [None, None]

    def items(self, pairs: Sequence[ScoredPair]) -> list[_Item]:
        """The positive answer of each pair, after both prompts."""
        scale = len(pairs) / sum(len(pair.positive_ids) for pair in pairs)
        return [
            _Item(
                trees.Completion(pair.plain_context_ids, pair.positive_ids),
                trees.Completion(pair.positive_context_ids, pair.positive_ids),
                pair.positive_reference,
                scale,
                pair.id,
            )
            for pair in pairs
        ]

    def micros(self, rows: list[_Item]) -> list[_Micro]:
        batches = trees.token_budget_batches(list(map(_length, rows)), self.token_budget)
        return [_Micro([rows[i] for i in batch]) for batch in batches]

    def loss(self, micro: _Micro) -> tuple[torch.Tensor, Recorded]:
        with self.reference.model() as teacher:
            wanted, teacher_head = predictions(teacher, [item.prompted for item in micro.items])
            if self.reference_network is None:  # under LoRA the head may be adapted too: take the frozen one's logits
                wanted, teacher_head = teacher_head(wanted), _same
        with self.model.checkpointed(self.checkpointing):
            ours, head = predictions(self.model, [item.plain for item in micro.items])
        ends = [(ours, head), (wanted, teacher_head)]
        (first, first_head), (second, second_head) = ends if self.direction == "reverse" else ends[::-1]
        each = chunked_divergence(first, second, first_head, second_head)
        return micro.items[0].scale * each.sum(), {}

    @torch.no_grad()
    def check_first(self, step: Step, loss: float) -> None:
        """Before any update the policy's log-probs of the answers are the stored reference's."""
        allowed = TOLERANCE[self.model.dtype]
        drift = max(self._drift(micro) for micro in step.passes)
        if drift > allowed:
            raise UserError(
                f"step-0 check: policy and stored reference differ by {drift:.1e} nats per token "
                f"(allowed {allowed:.0e}): the pairs were scored by another model, dtype or template"
            )

    def _drift(self, micro: _Micro) -> float:
        states, head = predictions(self.model, [item.plain for item in micro.items])
        target = [token for item in micro.items for token in item.plain.response]
        logp = token_logp(head(states), torch.tensor(target, device=states.device))
        lengths = [len(item.plain.response) for item in micro.items]
        gaps = zip(logp.split(lengths), micro.items, strict=True)
        return max(abs(part.sum().item() - item.reference) / len(part) for part, item in gaps)


def _same(logits: torch.Tensor) -> torch.Tensor:
    return logits
