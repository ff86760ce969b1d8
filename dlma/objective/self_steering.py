"""Self-Steering Optimization (Xiang et al. 2024): DPO on an answer pair, and two further pairs under p+ and p-.

    L = l(a+, a- | q) + W * G * [l(a+, a- | p+, q) + l(a0, a+ | p-, q)],    l = -log sigmoid(beta*h)
    W = sigmoid(-(alpha * log pi(a+|q)/|a+| + (1 - alpha) * log pi(a-|q)/|a-|))

a0 is a plain answer (pairs=self_steering). As in the published code (icip-cas/SSO), W is a function of the policy
through which the gradient flows. Records, per step: as of DPO, of the pair under q, and the mean of W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dlma.config.schema import Component
from dlma.errors import UserError
from dlma.functional.losses import steering_weight
from dlma.functional.preference import sigmoid_loss
from dlma.model import trees
from dlma.model.engine import TOLERANCE, Engine, say_once
from dlma.model.language import LanguageModel
from dlma.ranges import Count, Few, NotNegative, Positive, PositiveShare, Seed
from dlma.records import ScoredPair
from dlma.trainer.runtime import Runtime
from dlma.training.planned import passes, require_reference
from dlma.training.rule import Recorded, Step, Supplies, TrainingRule

_ANSWERS = 6  # of a prompt: chosen and rejected under q, under p+ and under p-


@dataclass(frozen=True)
class _Item:
    """A prompt's three pairs: their trees, and (6,) references (nats) and tokens, chosen first."""

    planned: list[trees.Tree]
    reference: list[float]
    tokens: list[int]
    id: str


class _Micro:
    """A micro-batch of prompts; reference and tokens: (prompts, 6)."""

    def __init__(self, rows: trees.Rows, items: Sequence[_Item]) -> None:
        self.rows = rows
        self.reference = torch.tensor([item.reference for item in items], device=rows.ids.device)
        self.tokens = torch.tensor([item.tokens for item in items], device=rows.ids.device)


class SelfSteering(TrainingRule):
    """Trains on the pairs of `pairs=self_steering`, two of a prompt, scored by self-reward.

    weight: G, of the pairs under p+ and p-; alpha: the share of a+ in W
    """

    rate = "recipe.lr"

    def __init__(
        self,
        model: LanguageModel,
        /,
        *,
        beta: Positive,
        weight: NotNegative,
        alpha: PositiveShare,
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
        self.weight = weight
        self.alpha = alpha
        self.engine = Engine(model, token_budget=token_budget, checkpointing=checkpointing)

    def supply(self, supplies: Supplies) -> None:
        """Nothing but a reference that is the model itself: log-probs under p+ and p- are the scorer's."""
        self.refuse_moved(supplies)

    def fit(
        self, rows: Sequence[ScoredPair], runtime: Runtime, folder: Path, listen: Callable[[dict], None]
    ) -> list[None]:
        """Train on scored pairs (see TrainingRule.train_on); there is no clamp."""
        self.train_on(self.items(rows), runtime, folder, listen)
        return [None, None]

    def items(self, pairs: Sequence[ScoredPair]) -> list[_Item]:
        """Of each prompt whose both pairs are there, what it is trained on; raises UserError where there is none."""
        groups: dict[str, list[ScoredPair]] = {}
        for pair in pairs:
            groups.setdefault(pair.prompt_id, []).append(pair)
        both = [group for group in groups.values() if len(group) == 2]
        if any(pair.chosen != "positive" for group in both for pair in group):
            raise UserError(
                "objective=self_steering: scorer or labels turn pairs round, and it goes by how they came: "
                "scorer=self_reward labels=none"
            )
        if alone := len(groups) - len(both):
            say_once(f"objective: {alone:,} prompts have one of their two pairs alone, and are not trained on")
        if not both:
            raise UserError("objective: no prompt has both pairs of pairs=self_steering: choose these, or more prompts")
        planned = self.engine.plan([_sequences(*group) for group in both])
        share = len(planned) // len(both)
        return [
            _Item(planned[i * share : (i + 1) * share], _references(*group), _tokens(*group), group[0].prompt_id)
            for i, group in enumerate(both)
        ]

    def micros(self, rows: list[_Item]) -> list[_Micro]:
        return [_Micro(*one) for one in passes(self.engine, rows)]

    def loss(self, micro: _Micro) -> tuple[Tensor, Recorded]:
        policy = self._policy(micro)
        ratio = (policy - micro.reference).detach()[:, :2]
        losses, weight = self.losses(policy, micro.reference, micro.tokens)
        reward = (self.beta * ratio).sum(0)
        return losses.sum(), {
            "accuracy": (ratio[:, 0] > ratio[:, 1]).float().sum(),
            "chosen_reward": reward[0],
            "rejected_reward": reward[1],
            "reward_margin": reward[0] - reward[1],
            "weight": weight.detach().sum(),
        }

    def losses(self, policy: Tensor, reference: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and W of each prompt, (prompts,); policy, reference: (prompts, 6), nats; tokens: (prompts, 6)."""
        ratio = policy - reference
        own, positive, negative = sigmoid_loss(self.beta * (ratio[:, 0::2] - ratio[:, 1::2])).unbind(1)
        mean = policy[:, :2] / tokens[:, :2]
        weight = steering_weight(mean[:, 0], mean[:, 1], alpha=self.alpha)
        return own + self.weight * weight * (positive + negative), weight

    def _policy(self, micro: _Micro) -> Tensor:
        """Log-probs of the six answers of each prompt, (prompts, 6), nats."""
        return self.engine.response_logp(micro.rows).view(-1, _ANSWERS)

    def check_first(self, step: Step, loss: float) -> None:
        """Before any update policy equals reference, so the loss has a closed form."""
        firsts = [self.losses(micro.reference, micro.reference, micro.tokens)[0] for micro in step.micros]
        wanted, allowed = torch.cat(firsts).mean().item(), TOLERANCE[self.model.dtype]
        drift = max(self._drift(micro) for micro in step.passes)
        require_reference(drift=drift, loss=loss, wanted=wanted, allowed=allowed)

    @torch.no_grad()
    def _drift(self, micro: _Micro) -> float:
        return ((self._policy(micro) - micro.reference).abs() / micro.tokens).max().item()


def _sequences(contrastive: ScoredPair, plain: ScoredPair) -> list[trees.Completion]:
    """a+ and a- after q, a+ and a- after p+ and q, a0 and a+ after p- and q."""
    pairs = [(contrastive, "plain"), (contrastive, "positive"), (plain, "negative")]
    return [
        trees.Completion(getattr(pair, f"{side}_context_ids"), ids)
        for pair, side in pairs
        for ids in (pair.positive_ids, pair.negative_ids)
    ]


def _references(contrastive: ScoredPair, plain: ScoredPair) -> list[float]:
    """The reference log-probs of `_sequences`, nats; raises UserError for pairs not scored under both prompts."""
    found = [
        *(contrastive.positive_reference, contrastive.negative_reference),
        *(contrastive.positive_under_positive, contrastive.negative_under_positive),
        *(plain.positive_under_negative, plain.negative_under_negative),
    ]
    known = [value for value in found if value is not None]
    if len(known) < _ANSWERS:
        raise UserError("objective=self_steering: the pairs have no log-probs under p+ and p-: scorer=self_reward")
    return known


def _tokens(contrastive: ScoredPair, plain: ScoredPair) -> list[int]:
    pairs = (contrastive, contrastive, plain)
    return [len(ids) for pair in pairs for ids in (pair.positive_ids, pair.negative_ids)]
