"""The implicit reward of a policy: what DPO says it has learnt, beta (log pi - log ref) of each answer."""

from __future__ import annotations

import pytorch_lightning as pl

from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.trees import Completion
from dlma.records import Implicit
from dlma.trainer.runtime import Shard


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
