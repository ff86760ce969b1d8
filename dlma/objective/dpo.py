"""Margin DPO: L = -log sigmoid(beta*h - margin_weight*clamp(R, low, high)); margin_weight 0 is plain DPO.

`loss` puts another function of that logit in place of -log sigmoid (objective/losses.py, docs/methods.md); the
formula stands in objective/margin_dpo.py.
The reference is a column of the scored pairs, so one model is held. Records, per step: the loss, the share
of pairs with h > 0, log-probs summed (accuracy), the DPO rewards beta*(policy - reference) of both answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dlma.config.schema import Component
from dlma.errors import UserError
from dlma.functional.logprob import sum_by_owner
from dlma.model import trees
from dlma.model.engine import TOLERANCE, Engine
from dlma.model.language import LanguageModel
from dlma.objective.margin_dpo import MarginDPO, PairColumns
from dlma.ranges import Count, Few, NotNegative, Number, Positive, Seed
from dlma.records import ScoredPair
from dlma.trainer.runtime import Runtime
from dlma.training.planned import passes
from dlma.training.preference_pair import chosen_first
from dlma.training.rule import Recorded, Step, Supplies, TrainingRule


@dataclass(frozen=True)
class _Item:
    """A pair ready to train on: its trees, and what else its loss needs (MarginDPO.rows).

    weights: of the tokens of both answers, chosen first; None where all weigh the same
    """

    planned: list[trees.Tree]
    column: tuple[float, ...]
    id: str
    weights: list[float] | None = None


class _Micro:
    """A micro-batch: rows whose sequences alternate chosen, rejected, and the columns of its pairs.

    token_weight: (targets,) float32, or None
    """

    def __init__(self, rows: trees.Rows, items: Sequence[_Item]) -> None:
        self.rows = rows
        table = torch.tensor([item.column for item in items], device=rows.ids.device, dtype=torch.float32)
        self.columns = PairColumns.of(table)
        each = [weight for item in items for weight in item.weights or ()]
        self.token_weight = torch.tensor(each, device=rows.ids.device) if each else None


class DPO(TrainingRule):
    """DPO on scored pairs, with the self-reward as a margin; the loss's options are those of `MarginDPO`.

    token_weights: with them (objective/token_weights.py) every log-prob, those recorded and the NLL term's too, is a
        weighted sum over its answer's tokens
    """

    def __init__(
        self,
        model: LanguageModel,
        /,
        *,
        beta: Positive,
        margin_weight: NotNegative,
        margin_low: Number,
        margin_high: Number,
        margin_unit: str,
        loss: Component,
        weighted: bool,
        per_token: bool,
        reference_free: bool,
        token_weights: Component | None,
        nll_weight: NotNegative,
        optim: Component,
        epochs: Few,
        batch_pairs: Count,
        seed: Seed,
        token_budget: Count = 4096,
        target_kl: Positive | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(model, optim=optim, epochs=epochs, batch=batch_pairs, seed=seed, target_kl=target_kl)
        self.beta = beta
        self.margin_dpo = MarginDPO(
            beta=beta,
            margin_weight=margin_weight,
            margin_low=margin_low,
            margin_high=margin_high,
            margin_unit=margin_unit,
            loss=loss,
            weighted=weighted,
            per_token=per_token,
            reference_free=reference_free,
            nll_weight=nll_weight,
        )
        self.token_weights = token_weights
        self.engine = Engine(model, token_budget=token_budget, checkpointing=checkpointing)

    def supply(self, supplies: Supplies) -> None:
        """Besides what every rule takes: how often a label is taken to be right, 1 unless `iteration.consistency`."""
        super().supply(supplies)
        self.margin_dpo.right = 1.0 if supplies.agreement is None else supplies.agreement

    def fit(
        self, rows: Sequence[ScoredPair], runtime: Runtime, folder: Path, listen: Callable[[dict], None]
    ) -> list[float]:
        """Train on scored pairs (see TrainingRule.train); returns the clamp's bounds, nats."""
        if not rows:
            raise UserError("objective: there is no pair to train on: choose pairs=, or take more prompts")
        self.train_on(self.items(rows), runtime, folder, listen)
        return list(self.margin_dpo.bounds(rows))

    def items(self, pairs: Sequence[ScoredPair]) -> list[_Item]:
        """Pairs oriented by their label, with the clamped margin."""
        planned = self.engine.plan([chosen_first(pair) for pair in pairs])
        share = len(planned) // len(pairs)
        weighted = None if self.token_weights is None else [self.token_weights.of(pair) for pair in pairs]
        columns = self.margin_dpo.rows(pairs, weighted and [one.reference for one in weighted])
        return [
            _Item(planned[i * share : (i + 1) * share], column, pair.id, weighted and weighted[i].weights)
            for i, (column, pair) in enumerate(zip(columns, pairs, strict=True))
        ]

    def micros(self, rows: list[_Item]) -> list[_Micro]:
        return [_Micro(*one) for one in passes(self.engine, rows)]

    def loss(self, micro: _Micro) -> tuple[torch.Tensor, Recorded]:
        policy = self._policy(micro)
        ratio = (policy - micro.columns.reference).detach()
        reward = (self.beta * ratio).sum(0)
        return self.margin_dpo.losses(policy, micro.columns).sum(), {
            "accuracy": (ratio[:, 0] > ratio[:, 1]).float().sum(),
            "chosen_reward": reward[0],
            "rejected_reward": reward[1],
            "reward_margin": reward[0] - reward[1],
        }

    def _policy(self, micro: _Micro) -> torch.Tensor:
        """Log-probs of the chosen and the rejected answers, (pairs, 2), summed over tokens by their weights."""
        logp = self.engine.token_logp(micro.rows)
        weighted = logp if micro.token_weight is None else micro.token_weight * logp
        return sum_by_owner(weighted, micro.rows.owner, micro.rows.slot, micro.rows.sequences).view(-1, 2)

    def check_first(self, step: Step, loss: float) -> None:
        """Before any update policy equals reference, so the loss has a closed form."""
        wanted = torch.cat([self.margin_dpo.first_losses(micro.columns) for micro in step.micros]).mean().item()
        allowed = TOLERANCE[self.model.dtype]
        drift = max(self._drift(micro) for micro in step.passes)
        if drift > allowed:
            raise UserError(
                f"step-0 check: policy and stored reference differ by {drift:.1e} nats per token "
                f"(allowed {allowed:.0e}): the pairs were scored by another model, dtype or template"
            )
        if abs(loss - wanted) > allowed * 100:
            raise UserError(f"step-0 check: the first loss is {loss:.5f}, its closed form is {wanted:.5f}")

    @torch.no_grad()
    def _drift(self, micro: _Micro) -> float:
        policy = self._policy(micro)
        return ((policy - micro.columns.reference).abs() / micro.columns.tokens).max().item()
