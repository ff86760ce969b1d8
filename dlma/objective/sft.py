"""Supervised fine-tuning on the chosen answers, under the plain prompt.

On contrastive pairs labelled by construction this is context distillation in RLCD's form: the answers given under
the positive prompt are learnt without it. The loss is the mean negative log-prob per token: a step's sum is divided by
its answers and by the mean length of an answer over all of training, so that each token weighs the same in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dlma.config.schema import Component
from dlma.errors import UserError
from dlma.model import trees
from dlma.model.engine import TOLERANCE, Engine
from dlma.model.language import LanguageModel
from dlma.ranges import Count, Few, Positive, Seed
from dlma.records import ScoredPair
from dlma.trainer.runtime import Runtime
from dlma.training.planned import require_reference
from dlma.training.rule import Recorded, Step, TrainingRule


@dataclass(frozen=True)
class _Item:
    """A chosen answer ready to train on: its tree, its log-prob under the reference (nats) and its tokens.

    scale: one over the mean tokens of an answer, over all of training
    """

    tree: trees.Tree
    reference: float
    tokens: int
    scale: float
    id: str


class _Micro:
    """A micro-batch of answers."""

    def __init__(self, rows: trees.Rows, items: Sequence[_Item]) -> None:
        self.rows = rows
        self.scale = items[0].scale
        self.reference = torch.tensor([i.reference for i in items], device=rows.ids.device)
        self.tokens = torch.tensor([i.tokens for i in items], device=rows.ids.device)


class SFT(TrainingRule):
    """Fine-tuning on the chosen answer of each pair."""

    rate = "recipe.sft.lr"

    def __init__(
        self,
        model: LanguageModel,
        /,
        *,
        optim: Component,
        epochs: Few,
        batch_pairs: Count,
        seed: Seed,
        token_budget: Count = 4096,
        target_kl: Positive | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(model, optim=optim, epochs=epochs, batch=batch_pairs, seed=seed, target_kl=target_kl)
        self.engine = Engine(model, token_budget=token_budget, checkpointing=checkpointing)

    def fit(
        self, rows: Sequence[ScoredPair], runtime: Runtime, folder: Path, listen: Callable[[dict], None]
    ) -> list[None]:
        """Train on the chosen answers (see TrainingRule.train_on); there is no clamp."""
        if not rows:
            raise UserError("objective: there is no pair to train on: choose pairs=, or take more prompts")
        self.train_on(self.items(rows), runtime, folder, listen)
        return [None, None]

    def items(self, pairs: Sequence[ScoredPair]) -> list[_Item]:
        """The chosen answers after the plain prompt."""
        answers = [getattr(pair, f"{pair.chosen}_ids") for pair in pairs]
        references = [getattr(pair, f"{pair.chosen}_reference") for pair in pairs]
        contexts = [pair.plain_context_ids for pair in pairs]
        planned = self.engine.plan([[trees.Completion(c, a)] for c, a in zip(contexts, answers, strict=True)])
        scale = len(answers) / sum(map(len, answers))
        columns = zip(planned, references, answers, pairs, strict=True)
        return [_Item(tree, reference, len(ids), scale, pair.id) for tree, reference, ids, pair in columns]

    def micros(self, rows: list[_Item]) -> list[_Micro]:
        batches = self.engine.batches([len(item.tree) for item in rows])
        return [self._micro([rows[i] for i in batch]) for batch in batches]

    def _micro(self, items: list[_Item]) -> _Micro:
        return _Micro(self.engine.collate([item.tree for item in items]), items)

    def loss(self, micro: _Micro) -> tuple[torch.Tensor, Recorded]:
        policy = self.engine.response_logp(micro.rows)
        ratio = (policy - micro.reference).detach().sum().item()
        return -micro.scale * policy.sum(), {"chosen_reward": ratio}

    def check_first(self, step: Step, loss: float) -> None:
        """Before any update policy equals reference: the loss is the reference's own, per token."""
        allowed = TOLERANCE[self.model.dtype]
        wanted = -sum(micro.scale * micro.reference.sum().item() for micro in step.micros) / step.rows
        drift = max(self._drift(micro) for micro in step.passes)
        require_reference(drift=drift, loss=loss, wanted=wanted, allowed=allowed)

    @torch.no_grad()
    def _drift(self, micro: _Micro) -> float:
        policy = self.engine.response_logp(micro.rows)
        return ((policy - micro.reference).abs() / micro.tokens).max().item()
