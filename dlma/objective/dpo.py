"""Margin DPO: L = -log sigmoid(beta*h - margin_weight*clamp(R, low, high)); margin_weight 0 is plain DPO.

`loss` puts another function of that logit in place of -log sigmoid (objective/losses.py, docs/methods.md).
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
from dlma.functional.losses import margin_weights
from dlma.functional.preference import margin_bounds, preference_logit
from dlma.model import trees
from dlma.model.engine import TOLERANCE, Engine
from dlma.model.language import LanguageModel
from dlma.ranges import Count, Few, NotNegative, Number, Positive, Seed
from dlma.records import ScoredPair
from dlma.trainer.runtime import Runtime
from dlma.training.preference_pair import chosen_first, margin, references, tokens
from dlma.training.rule import Step, TrainingRule


@dataclass(frozen=True)
class _Item:
    """A pair ready to train on: its trees, and a column (see _Micro) of what else its loss needs.

    weights: of the tokens of both answers, chosen first; None where all weigh the same
    """

    planned: list[trees.Tree]
    column: tuple[float, ...]
    id: str
    weights: list[float] | None = None


class _Micro:
    """A micro-batch: rows whose sequences alternate chosen, rejected, and a column per pair.

    reference, tokens: (pairs, 2) float32, log-prob (nats) and length of the chosen and the rejected answer
    margin, weight: (pairs,) float32, clamped margin of chosen over rejected (nats), and the loss's weight
    token_weight: (targets,) float32, or None
    """

    def __init__(self, rows: trees.Rows, items: Sequence[_Item]) -> None:
        self.rows = rows
        table = torch.tensor([item.column for item in items], device=rows.ids.device, dtype=torch.float32)
        self.reference, self.tokens = table[:, :2], table[:, 2:4]
        self.margin, self.weight = table[:, 4], table[:, 5]
        each = [weight for item in items for weight in item.weights or ()]
        self.token_weight = torch.tensor(each, device=rows.ids.device) if each else None


class DPO(TrainingRule):
    """DPO on scored pairs, with the self-reward as a margin.

    loss: one of objective/losses.py
    weighted: weigh each pair by clamp(R, 0, margin_high), divided by the mean over all pairs
    per_token: h is a difference of log-ratios per token: each is divided by its own answer's length
    reference_free: h is a difference of log-probs, as if the reference gave every answer the same (SimPO)
    token_weights: with them (objective/token_weights.py) every log-prob, those recorded and the NLL term's too, is a
        weighted sum over its answer's tokens
    nll_weight: adds nll_weight * -log pi(chosen|q) / |chosen| to each pair's loss
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
        self.margin_weight = margin_weight
        self.margin_low = margin_low
        self.margin_high = margin_high
        self.margin_unit = margin_unit
        self.pair_loss = loss
        self.weighted = weighted
        self.per_token = per_token
        self.reference_free = reference_free
        self.token_weights = token_weights
        self.nll_weight = nll_weight
        self.engine = Engine(model, token_budget=token_budget, checkpointing=checkpointing)

    def fit(
        self, rows: Sequence[ScoredPair], runtime: Runtime, folder: Path, listen: Callable[[dict], None]
    ) -> list[float]:
        """Train on scored pairs (see TrainingRule.train); returns the clamp's bounds, nats."""
        if not rows:
            raise UserError("objective: there is no pair to train on: choose pairs=, or take more prompts")
        self.train_on(self.items(rows), runtime, folder, listen)
        return list(self.bounds(rows))

    def bounds(self, pairs: Sequence[ScoredPair]) -> tuple[float, float]:
        """The clamp's bounds in nats, taken over all pairs."""
        margins = torch.tensor([margin(pair) for pair in pairs], dtype=torch.float64)
        return margin_bounds(margins, self.margin_low, self.margin_high, self.margin_unit)

    def items(self, pairs: Sequence[ScoredPair]) -> list[_Item]:
        """Pairs oriented by their label, with the clamped margin."""
        low, high = self.bounds(pairs)
        planned = self.engine.plan([chosen_first(pair) for pair in pairs])
        share = len(planned) // len(pairs)
        margins = [min(max(margin(pair), low), high) for pair in pairs]
        self._require_margins(margins)
        by_token = None if self.token_weights is None else [self.token_weights.of(pair) for pair in pairs]
        reference = [references(pair) for pair in pairs] if by_token is None else [one.reference for one in by_token]
        columns = [
            (*summed, *tokens(pair), clamped, weight)
            for summed, pair, clamped, weight in zip(reference, pairs, margins, self._weights(pairs, high), strict=True)
        ]
        return [
            _Item(planned[i * share : (i + 1) * share], column, pair.id, by_token and by_token[i].weights)
            for i, (column, pair) in enumerate(zip(columns, pairs, strict=True))
        ]

    def _require_margins(self, margins: list[float]) -> None:
        """Raises UserError, before any step, for margins that the loss cannot take."""
        try:
            self.pair_loss(torch.zeros(len(margins)), torch.tensor(margins))
        except ValueError as reason:
            raise UserError(f"objective.loss: {reason}: labels.orientation=sign labels.min_margin=0") from None

    def _weights(self, pairs: Sequence[ScoredPair], high: float) -> list[float]:
        if not self.weighted:
            return [1.0] * len(pairs)
        try:
            return margin_weights(torch.tensor([margin(pair) for pair in pairs]).double(), high=high).tolist()
        except ValueError as reason:
            raise UserError(f"objective.weighted: {reason}: choose a scorer that gives a margin") from None

    def micros(self, rows: list[_Item]) -> list[_Micro]:
        lengths = [max(len(t) for t in item.planned) for item in rows]
        batches = self.engine.batches(lengths, len(rows[0].planned))
        return [self._micro([rows[i] for i in batch]) for batch in batches]

    def _micro(self, items: list[_Item]) -> _Micro:
        return _Micro(self.engine.collate([t for item in items for t in item.planned]), items)

    def loss(self, micro: _Micro) -> tuple[torch.Tensor, dict[str, float]]:
        policy = self._policy(micro)
        logit = self._logit(policy, micro)
        ratio = (policy - micro.reference).detach()
        reward = (self.beta * ratio).sum(0)
        return self._pair_losses(policy, logit, micro).sum(), {
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

    def _logit(self, policy: torch.Tensor, micro: _Micro) -> torch.Tensor:
        """z = beta*h - margin_weight*margin per pair."""
        length = micro.tokens if self.per_token else 1.0
        policy, reference = (
            policy / length,
            torch.zeros_like(policy) if self.reference_free else micro.reference / length,
        )
        gap, reference_gap = policy[:, 0] - policy[:, 1], reference[:, 0] - reference[:, 1]
        return preference_logit(gap, reference_gap, micro.margin, beta=self.beta, margin_weight=self.margin_weight)

    def _pair_losses(self, policy: torch.Tensor, logit: torch.Tensor, micro: _Micro) -> torch.Tensor:
        losses = micro.weight * self.pair_loss(logit, micro.margin)
        if self.nll_weight:
            losses = losses - self.nll_weight * policy[:, 0] / micro.tokens[:, 0]
        return losses

    def check_first(self, step: Step, loss: float) -> None:
        """Before any update policy equals reference, so the loss has a closed form."""
        wanted = torch.cat([self._first_losses(micro) for micro in step.micros]).mean().item()
        allowed = TOLERANCE[self.model.dtype]
        drift = max(self._drift(micro) for micro in step.passes)
        if drift > allowed:
            raise UserError(
                f"step-0 check: policy and stored reference differ by {drift:.1e} nats per token "
                f"(allowed {allowed:.0e}): the pairs were scored by another model, dtype or template"
            )
        if abs(loss - wanted) > allowed * 100:
            raise UserError(f"step-0 check: the first loss is {loss:.5f}, its closed form is {wanted:.5f}")

    def _first_losses(self, micro: _Micro) -> torch.Tensor:
        """The closed form: the policy is the reference. With that in the loss h is 0, and plain DPO has ln 2."""
        return self._pair_losses(micro.reference, self._logit(micro.reference, micro), micro)

    @torch.no_grad()
    def _drift(self, micro: _Micro) -> float:
        policy = self._policy(micro)
        return ((policy - micro.reference).abs() / micro.tokens).max().item()
