"""Rollouts of PPO: answers that the policy samples, a fixed number at a time, and the order of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlma.errors import UserError
from dlma.functional.noise import row_key
from dlma.model import trees
from dlma.records import ScoredPair
from dlma.sampler.local import Request
from dlma.trainer import collectives
from dlma.training.rule import Step

if TYPE_CHECKING:
    from dlma.objective.ppo import PPO


@dataclass(frozen=True)
class Episode:
    """A sampled answer, and what its updates need; tensors are (tokens,) float32, as they were at sampling time.

    score: the reward model's; kl, entropy: log pi - log pi_ref and -log pi of the answer, nats
    scale: one over the mean tokens of an answer, over the whole rollout
    """

    tree: trees.Tree
    logp: Tensor
    reference: Tensor
    value: Tensor
    advantage: Tensor
    target: Tensor
    score: float
    kl: float
    entropy: float
    finished: bool
    scale: float
    id: str


def distinct(pairs: Sequence[ScoredPair]) -> list[ScoredPair]:
    """One pair of each prompt."""
    return list({pair.prompt_id: pair for pair in pairs}.values())


def requests(prompts: Sequence[ScoredPair], number: int, size: int, seed: int) -> list[Request]:
    """What rollout `number` samples: the next `size` prompts of an endless row of permutations.

    The noise of an answer depends on the seed, its prompt and its place in that row.
    """
    places = range(number * size, (number + 1) * size)
    orders = {place // len(prompts) for place in places}
    order = {turn: _permutation(len(prompts), seed, turn) for turn in orders}
    chosen = [prompts[order[place // len(prompts)][place % len(prompts)]] for place in places]
    return [
        Request(row_key(seed, prompt.prompt_id, "rollout", place), prompt.plain_context_ids, id=prompt.prompt_id)
        for prompt, place in zip(chosen, places, strict=True)
    ]


def _permutation(n: int, seed: int, turn: int) -> list[int]:
    return torch.randperm(n, generator=torch.Generator().manual_seed((seed << 20) + turn)).tolist()


class RolloutLoader:
    """All steps of a PPO run: each rollout's answers are visited `epochs` times in steps of `batch`.

    A rollout is sampled when its first step is asked for, by the policy as it then is. Resumable between rollouts.
    """

    def __init__(self, rule: PPO, *, rollouts: int, size: int, epochs: int, batch: int, seed: int) -> None:
        self.rule = rule
        self.rollouts = rollouts
        self.size = size
        self.batch = batch
        self.seed = seed
        self.per_epoch = size // batch
        self.per_rollout = self.per_epoch * epochs
        self.next_step = 0

    def __len__(self) -> int:
        return self.rollouts * self.per_rollout

    def __iter__(self) -> Iterator[Step]:
        if collectives.world() > 1:
            raise UserError(f"objective=ppo: samples in one process: trainer.devices=1, not {collectives.world()}")
        if self.next_step % self.per_rollout:
            raise RuntimeError(f"a resume point inside a rollout: step {self.next_step}")
        for rollout in range(self.next_step // self.per_rollout, self.rollouts):
            episodes = self.rule.roll_out(rollout)
            for inside in range(self.per_rollout):
                epoch, part = divmod(inside, self.per_epoch)
                self.next_step = rollout * self.per_rollout + inside + 1
                order = _permutation(self.size, self.seed + 1, rollout * self.per_rollout + epoch)
                members = [episodes[i] for i in order[part * self.batch : (part + 1) * self.batch]]
                yield Step(self.rule.micros(members), self.batch, members)

    def state_dict(self) -> dict:
        return {"next_step": self.next_step}

    def load_state_dict(self, state: dict) -> None:
        self.next_step = state["next_step"]
