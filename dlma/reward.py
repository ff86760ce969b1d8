"""The reward model, trained on labelled pairs in a stage of its own: L = -log sigmoid(r(c) - r(r) - margin_weight*m).

m is the clamped margin of chosen over rejected, as in margin DPO; with margin_weight 0, or labels without a margin,
it is the Bradley-Terry likelihood. Label-free where the labels are. Records, per step: the loss, the share of pairs
whose chosen answer has the larger reward before the step (accuracy), both mean rewards and their difference. In the
first epoch these pairs were not seen before, so the accuracy is an honest one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dlma import records
from dlma.config.schema import Component
from dlma.errors import UserError
from dlma.functional.bradley_terry import bradley_terry_loss
from dlma.functional.preference import margin_bounds
from dlma.model import trees
from dlma.model.engine import TOLERANCE
from dlma.model.language import LanguageModel
from dlma.model.reward_model import RewardModel
from dlma.ranges import Count, Few, NotNegative, Number, Seed
from dlma.records import Reward, ScoredPair
from dlma.store import shards
from dlma.store.owned import ROWS
from dlma.trainer import collectives
from dlma.trainer.runtime import Runtime, Shard
from dlma.training.planned import passes
from dlma.training.preference_pair import both_answers, chosen_first, margin
from dlma.training.rule import Recorded, Step, TrainingRule


@dataclass(frozen=True)
class _Item:
    """A pair ready to train on: its trees, chosen first, and its clamped margin (nats)."""

    planned: list[trees.Tree]
    margin: float
    id: str


class _Micro:
    """A micro-batch of pairs. margin: (pairs,) float32, nats."""

    def __init__(self, rows: trees.Rows, items: Sequence[_Item]) -> None:
        self.rows = rows
        self.planned = [tree for item in items for tree in item.planned]
        self.margin = torch.tensor([item.margin for item in items], device=rows.ids.device)


class BradleyTerry(TrainingRule):
    """A reward model from labelled pairs; leaves `reward/`, and the rewards of all pairs in rows.parquet."""

    rate = "recipe.reward.lr"

    def __init__(
        self,
        model: LanguageModel,
        /,
        *,
        margin_weight: NotNegative,
        margin_low: Number,
        margin_high: Number,
        margin_unit: str,
        optim: Component,
        epochs: Few,
        batch_pairs: Count,
        seed: Seed,
        token_budget: Count = 4096,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(model, optim=optim, epochs=epochs, batch=batch_pairs, seed=seed)
        self.margin_weight = margin_weight
        self.margin_low = margin_low
        self.margin_high = margin_high
        self.margin_unit = margin_unit
        self.reward = RewardModel(model, token_budget=token_budget)
        self.engine = self.reward.engine
        self.engine.checkpointing = checkpointing  # of training; nothing is kept where there is no gradient

    def fit(
        self, rows: Sequence[ScoredPair], runtime: Runtime, folder: Path, listen: Callable[[dict], None]
    ) -> list[float]:
        """Train on labelled pairs (see TrainingRule.train_on); returns the clamp's bounds, nats."""
        if not rows:
            raise UserError("reward: there is no pair to train on: choose pairs=, or take more prompts")
        self.train_on(self.items(rows), runtime, folder, listen)
        self.centre(rows, runtime, folder)
        return list(self.bounds(rows))

    def centre(self, pairs: Sequence[ScoredPair], runtime: Runtime, folder: Path) -> None:
        """Move the head's bias so that the mean reward of the pairs' answers is 0; the loss leaves it open."""
        runtime.predict(self, pairs, Reward, folder, "rewards")
        if collectives.rank():
            return
        given = records.from_table(Reward, shards.read_table(folder / ROWS))
        values = torch.tensor([(row.positive, row.negative) for row in given], dtype=torch.float64)
        with torch.no_grad():
            self.reward.head.bias.sub_(values.mean().item())
        self.reward.save(folder / "reward")

    def predict_step(self, shard: Shard, index: int) -> list[Reward]:
        """The rewards of a shard of pairs."""
        found = self.reward.score([both_answers(pair) for pair in shard.rows])
        return [Reward(pair.id, *values) for pair, values in zip(shard.rows, found, strict=True)]

    def save(self, folder: Path) -> None:
        """Nothing yet: `centre` comes first."""

    def bounds(self, pairs: Sequence[ScoredPair]) -> tuple[float, float]:
        """The clamp's bounds in nats, taken over all pairs."""
        margins = torch.tensor([margin(pair) for pair in pairs], dtype=torch.float64)
        return margin_bounds(margins, self.margin_low, self.margin_high, self.margin_unit)

    def items(self, pairs: Sequence[ScoredPair]) -> list[_Item]:
        """Pairs oriented by their label."""
        low, high = self.bounds(pairs)
        planned = self.engine.plan([chosen_first(pair) for pair in pairs])
        share = len(planned) // len(pairs)
        margins = [min(max(margin(pair), low), high) for pair in pairs]
        return [
            _Item(planned[i * share : (i + 1) * share], value, pair.id)
            for i, (value, pair) in enumerate(zip(margins, pairs, strict=True))
        ]

    def micros(self, rows: list[_Item]) -> list[_Micro]:
        return [_Micro(*one) for one in passes(self.engine, rows)]

    def loss(self, micro: _Micro) -> tuple[torch.Tensor, Recorded]:
        chosen, rejected = self.reward.rewards(micro.planned, micro.rows).view(-1, 2).unbind(1)
        losses = bradley_terry_loss(chosen, rejected, micro.margin, margin_weight=self.margin_weight)
        ours, theirs = chosen.detach(), rejected.detach()
        return losses.sum(), {
            "accuracy": (ours > theirs).float().sum(),
            "chosen_reward": ours.sum(),
            "rejected_reward": theirs.sum(),
            "reward_margin": (ours - theirs).sum(),
        }

    def check_first(self, step: Step, loss: float) -> None:
        """Before any update every reward is 0, so the loss has a closed form: ln 2 without a margin."""
        zero = torch.zeros(())
        margins = torch.cat([micro.margin for micro in step.micros])
        wanted = bradley_terry_loss(zero, zero, margins, margin_weight=self.margin_weight).mean().item()
        if abs(loss - wanted) > TOLERANCE[self.model.dtype]:
            raise UserError(f"step-0 check: the reward model's first loss is {loss:.5f}, its closed form {wanted:.5f}")
