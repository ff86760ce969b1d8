"""The implicit reward of a policy: what DPO says it has learnt, beta (log pi - log ref) of each answer.

As the scorer of a later round it is DICE's: the last policy grades by how much likelier it has made an answer.
"""

from __future__ import annotations

from dataclasses import replace

import pytorch_lightning as pl

from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.trees import Completion
from dlma.ranges import Count, Positive, Seed
from dlma.records import Implicit, Pair, ScoredPair
from dlma.scorer.construction import with_margin
from dlma.scorer.labelling import with_label
from dlma.trainer.runtime import Shard


class ImplicitScorer(pl.LightningModule):
    """Each answer's score is beta * (log pi(a|q) - log ref(a|q)); the one with more is chosen, a coin decides ties."""

    def __init__(
        self,
        policy: LanguageModel,
        reference: LanguageModel,
        /,
        *,
        beta: Positive,
        seed: Seed,
        token_budget: Count = 8192,
    ) -> None:
        super().__init__()
        self.network = policy.network
        self.beta = beta
        self.seed = seed
        self.both = ImplicitReward(policy, reference, token_budget=token_budget)

    def predict_step(self, shard: Shard, index: int) -> list[ScoredPair]:
        """The scored pairs of a shard."""
        known = self.both.predict_step(shard, index)
        return [self._scored(pair, logp) for pair, logp in zip(shard.rows, known, strict=True)]

    def _scored(self, pair: Pair, logp: Implicit) -> ScoredPair:
        first = self.beta * (logp.positive_policy - logp.positive_reference)
        second = self.beta * (logp.negative_policy - logp.negative_reference)
        row = with_margin(pair, logp.positive_policy, logp.negative_policy, first - second, "positive")
        return with_label(replace(row, positive_score=first, negative_score=second), first - second, self.seed)


class ImplicitReward(pl.LightningModule):
    """Log-probs of both answers to the plain prompt, under a policy and under the model that it came from."""

    def __init__(self, policy: LanguageModel, reference: LanguageModel, /, *, token_budget: int = 8192) -> None:
        super().__init__()
        self.policy_network, self.reference_network = policy.network, reference.network
        self.policy = Engine(policy, token_budget=token_budget)
        self.reference = Engine(reference, token_budget=token_budget)

    def predict_step(self, shard: Shard, index: int) -> list[Implicit]:
        """The log-probs of a shard of pairs."""
        groups = [
            [Completion(pair.plain_context_ids, ids) for ids in (pair.positive_ids, pair.negative_ids)]
            for pair in shard.rows
        ]
        both = zip(shard.rows, self.policy.score(groups), self.reference.score(groups), strict=True)
        return [Implicit(pair.id, *policy, *reference) for pair, policy, reference in both]
