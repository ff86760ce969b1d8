"""PPO on a reward model: the last step of RLHF, RLAIF and RLCD as they were published.

Over and over: sample a rollout of answers with the policy; give each the reward model's score at its last token and
each token a KL penalty to the reference; whiten, estimate advantages (GAE), and take several clipped steps on policy
and value head (functional/ppo.py, docs/methods.md). The optimum of the objective is pi_ref * exp(score / kl_weight).
The value head reads the policy's own states; AlpacaFarm and safe-rlhf train a critic of its own instead.
Resume points lie between rollouts, so that no answer needs to be stored. Records, per step: both losses, the mean
(logp - old)^2 / 2, clipped shares and ratio per token; score, KL to the reference, entropy (-log pi), their sums
and the length per answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dlma.config.schema import Component
from dlma.errors import UserError
from dlma.functional import ppo
from dlma.model import trees
from dlma.model.engine import TOLERANCE, Engine
from dlma.model.language import LanguageModel
from dlma.model.reference import Reference
from dlma.model.reward_model import RewardModel, value_head
from dlma.objective.rollouts import Episode, RolloutLoader, distinct, requests
from dlma.ranges import Count, Few, NotNegative, Positive, PositiveShare, Seed, Share
from dlma.records import ScoredPair
from dlma.store.shards import SCRATCH
from dlma.trainer.runtime import Runtime
from dlma.training import finite
from dlma.training.rule import Recorded, Step, Supplies, TrainingRule


class _Micro:
    """A micro-batch of episodes: their rows, and their columns one after another, (tokens,) or (episodes,)."""

    def __init__(self, rows: trees.Rows, episodes: Sequence[Episode]) -> None:
        self.rows = rows
        self.scale = episodes[0].scale
        columns = ("logp", "reference", "value", "advantage", "target")
        moved = [torch.cat([getattr(e, name) for e in episodes]).to(rows.ids.device) for name in columns]
        self.logp, self.reference, self.value, self.advantage, self.target = moved
        self.facts = {
            "scores": sum(e.score for e in episodes),
            "kl": sum(e.kl for e in episodes),
            "entropy": sum(e.entropy for e in episodes),
            "length": float(sum(len(e.logp) for e in episodes)),
            "eos_share": float(sum(e.finished for e in episodes)),
        }


class PPO(TrainingRule):
    """PPO with a value head on the policy's states.

    sampler: what draws the answers; at temperature 1 and uncut, else they are not the policy's own
    rollouts, rollout: how many rollouts, and the answers of each; batch: answers of one update, a divisor of it
    kl_weight: of the KL to the reference inside the reward; clip, value_clip, value_weight, gamma, lam: as in PPO
    whiten_rewards: divide rewards by their standard deviation, the mean left in place; whiten_advantages: fully
    """

    shares_steps = False  # each process would sample a rollout of its own
    rate = "recipe.ppo.lr"

    def __init__(
        self,
        model: LanguageModel,
        /,
        *,
        sampler: Component,
        rollouts: Few,
        rollout: Count,
        batch: Count,
        epochs: Few,
        kl_weight: NotNegative,
        clip: PositiveShare,
        value_clip: Positive,
        value_weight: NotNegative,
        gamma: Share,
        lam: Share,
        whiten_rewards: bool,
        whiten_advantages: bool,
        optim: Component,
        seed: Seed,
        token_budget: Count = 4096,
        target_kl: Positive | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(model, optim=optim, epochs=epochs, batch=batch, seed=seed, target_kl=target_kl)
        if rollout % batch:
            raise UserError(f"objective.batch={batch}: must divide objective.rollout={rollout}")
        self.sampler = sampler
        self.rollouts = rollouts
        self.rollout = rollout
        self.kl_weight = kl_weight
        self.clip = clip
        self.value_clip = value_clip
        self.value_weight = value_weight
        self.gamma = gamma
        self.lam = lam
        self.whiten_rewards = whiten_rewards
        self.whiten_advantages = whiten_advantages
        self.token_budget = token_budget
        self.engine = Engine(model, token_budget=token_budget, checkpointing=checkpointing)
        self.value_head = value_head(model)
        self.reference = Reference(model)
        self.reference_network = self.reference.network
        self.prompts: list[ScoredPair] = []
        self.reward: RewardModel | None = None
        self.scratch = Path()  # for weights that a server is to have

    def supply(self, supplies: Supplies) -> None:
        """Prompts to sample from, and the reward model."""
        self.refuse_moved(supplies)
        if supplies.reward is None:
            raise UserError("objective=ppo: needs a reward model: reward=bradley_terry")
        self.prompts = distinct(supplies.prompts)
        self.reward = supplies.reward()

    def fit(
        self, rows: Sequence[ScoredPair], runtime: Runtime, folder: Path, listen: Callable[[dict], None]
    ) -> list[None]:
        """Train on rollouts (see TrainingRule.train_through); the labelled pairs speak through the reward model."""
        self.scratch = folder / SCRATCH / "rollout"
        loader = RolloutLoader(
            self, rollouts=self.rollouts, size=self.rollout, epochs=self.epochs, batch=self.batch, seed=self.seed
        )
        self.train_through(loader, runtime, folder, listen)
        return [None, None]

    def point_every(self, steps: int) -> int:
        """The first end of a rollout at or after `steps` steps."""
        each = self.epochs * (self.rollout // self.batch)
        return -(-steps // each) * each

    @torch.no_grad()
    def roll_out(self, number: int) -> list[Episode]:
        """Sample a rollout with the present policy, and work out what its updates need."""
        assert self.reward is not None  # supplied
        asked = requests(self.prompts, number, self.rollout, self.seed)
        answers = self.sampler.sample_trained(self.model, asked, self.scratch)
        groups = [[trees.Completion(r.context_ids, a.ids)] for r, a in zip(asked, answers, strict=True)]
        scores = torch.tensor([score for (score,) in self.reward.score(groups)])
        planned = self.engine.plan(groups)
        logp, values = self._policy_columns(planned)
        reference = self._reference_column(groups)
        found: dict[str, Iterable[Tensor]] = {
            "scores": scores,
            "log-probs": logp,
            "reference log-probs": reference,
            "values": values,
        }
        finite.require_columns(found, [r.id for r in asked], f"rollout {number}")
        mask = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in logp], batch_first=True)
        padded = [pad_sequence(rows, batch_first=True) for rows in (logp, reference, values)]
        gains, targets = self._gains(scores, mask, *padded)
        scale = len(mask) / mask.sum().item()
        return [
            Episode(
                *(planned[i], logp[i], reference[i], values[i]),
                *(gains[i, : len(logp[i])], targets[i, : len(logp[i])]),
                score=scores[i].item(),
                kl=(logp[i] - reference[i]).sum().item(),
                entropy=-logp[i].sum().item(),
                finished=answers[i].finished,
                scale=scale,
                id=asked[i].id,
            )
            for i in range(len(answers))
        ]

    def _gains(
        self, scores: Tensor, mask: Tensor, logp: Tensor, reference: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advantages and returns, (answers, width)."""
        rewards = ppo.token_rewards(scores, logp, reference, mask, kl_weight=self.kl_weight)
        if self.whiten_rewards:
            rewards = ppo.whitened(rewards, mask, shift_mean=False)
        gains = ppo.advantages(rewards, values, mask, gamma=self.gamma, lam=self.lam)
        targets = gains + values
        return ppo.whitened(gains, mask, shift_mean=True) if self.whiten_advantages else gains, targets

    def _policy_columns(self, planned: Sequence[trees.Tree]) -> tuple[list[Tensor], list[Tensor]]:
        """Log-prob and value of every token of every answer, on the CPU."""
        logp: dict[int, Tensor] = {}
        values: dict[int, Tensor] = {}
        for batch in self.engine.batches([len(tree) for tree in planned]):
            rows = self.engine.collate([planned[i] for i in batch])
            found, states = self.engine.token_logp_and_states(rows)
            lengths = [len(planned[i].responses[0]) for i in batch]
            logp |= zip(batch, found.cpu().split(lengths), strict=True)
            values |= zip(batch, self._value(states).cpu().split(lengths), strict=True)
        return [logp[i] for i in range(len(planned))], [values[i] for i in range(len(planned))]

    def _reference_column(self, groups: Sequence[Sequence[trees.Completion]]) -> list[Tensor]:
        """Log-prob of every token under the reference, on the CPU."""
        found: dict[int, Tensor] = {}
        with self.reference.model() as model:
            engine = Engine(model, token_budget=self.token_budget)
            planned = engine.plan(groups)
            for batch in engine.batches([len(tree) for tree in planned]):
                logp = engine.token_logp(engine.collate([planned[i] for i in batch]))
                lengths = [len(planned[i].responses[0]) for i in batch]
                found |= zip(batch, logp.cpu().split(lengths), strict=True)
        return [found[i] for i in range(len(groups))]

    def _value(self, states: Tensor) -> Tensor:
        return self.value_head(states.float()).squeeze(-1)

    def micros(self, rows: list[Episode]) -> list[_Micro]:
        return [
            _Micro(self.engine.collate([rows[i].tree for i in batch]), [rows[i] for i in batch])
            for batch in self.engine.batches([len(episode.tree) for episode in rows])
        ]

    def loss(self, micro: _Micro) -> tuple[Tensor, Recorded]:
        logp, states = self.engine.token_logp_and_states(micro.rows)
        value = self._value(states)
        policy = ppo.policy_losses(logp, micro.logp, micro.advantage, clip=self.clip).sum()
        worth = ppo.value_losses(value, micro.value, micro.target, clip=self.value_clip).sum()
        return micro.scale * (policy + self.value_weight * worth), self._recorded(micro, logp, value, policy, worth)

    @torch.no_grad()
    def _recorded(self, micro: _Micro, logp: Tensor, value: Tensor, policy: Tensor, worth: Tensor) -> Recorded:
        ratio = (logp - micro.logp).exp()
        per_token = {
            "policy_loss": policy,
            "value_loss": worth,
            "approx_kl": 0.5 * (logp - micro.logp).square().sum(),
            "clip_fraction": ((ratio - 1).abs() > self.clip).float().sum(),
            "value_clip_fraction": ((value - micro.value).abs() > self.value_clip).float().sum(),
            "ratio": ratio.sum(),
        }
        penalty = -self.kl_weight * micro.facts["kl"]
        return {
            **{name: micro.scale * total for name, total in per_token.items()},
            **micro.facts,
            "non_score_reward": penalty,
            "rlhf_reward": micro.facts["scores"] + penalty,
        }

    @torch.no_grad()
    def check_first(self, step: Step, loss: float) -> None:
        """Before any update the policy is the one that sampled, and the reference: the loss has a closed form."""
        allowed = TOLERANCE[self.model.dtype]
        wanted = drift = 0.0
        for micro in step.micros:
            logp = self.engine.token_logp(micro.rows)
            gaps = torch.stack([logp - micro.logp, logp - micro.reference])
            drift = max(drift, gaps.abs().max().item())
            worth = 0.5 * (micro.value - micro.target).square()
            wanted += micro.scale * (self.value_weight * worth - micro.advantage).sum().item() / step.rows
        if drift > allowed or abs(loss - wanted) > 100 * allowed * max(1.0, abs(wanted)):
            raise UserError(
                f"step-0 check: policy, sampler and reference differ by {drift:.1e} nats per token (allowed "
                f"{allowed:.0e}); the first loss is {loss:.5f}, its closed form {wanted:.5f}"
            )
