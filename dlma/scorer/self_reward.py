"""The self-rewarding scorer: the model that answered rescores both answers under both prompts.

R = [log pi(a1|p+,q) - log pi(a1|p-,q)] - [log pi(a2|p+,q) - log pi(a2|p-,q)], with the very prompts that
generated the pair (the official code always scores with the harmless ones), summed over response tokens,
EOS included where it was produced. The reference log-probs come out of the same pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl
import torch

from dlma.functional.reward import self_reward_margin
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.trees import Completion
from dlma.ranges import Count
from dlma.records import Pair, ScoredPair
from dlma.trainer.runtime import Shard


class SelfReward(pl.LightningModule):
    """Scores pairs by self-reward; the positive answer stays chosen, as in the paper, whatever R's sign."""

    def __init__(self, model: LanguageModel, /, *, token_budget: Count = 8192) -> None:
        super().__init__()
        self.network = model.network
        self.engine = Engine(model, token_budget=token_budget)

    def predict_step(self, shard: Shard, index: int) -> list[ScoredPair]:
        """The scored pairs of a shard: one prefix tree per pair serves both sides and the reference."""
        return self.score(shard.rows)

    def score(self, pairs: Sequence[Pair]) -> list[ScoredPair]:
        """Pairs with margin, reference log-probs and label."""
        logp = self.engine.score([sequences(pair) for pair in pairs])
        return [scored(pair, values) for pair, values in zip(pairs, logp, strict=True)]


def sequences(pair: Pair) -> list[Completion]:
    """Both answers under the positive, the negative and the plain prompt, in this order."""
    contexts = (pair.positive_context_ids, pair.negative_context_ids, pair.plain_context_ids)
    return [Completion(c, answer) for c in contexts for answer in (pair.positive_ids, pair.negative_ids)]


def scored(pair: Pair, logp: list[float]) -> ScoredPair:
    """The pair with R and its reference, by the log-probs of `sequences`."""
    pos_under_pos, neg_under_pos, pos_under_neg, neg_under_neg, pos_plain, neg_plain = logp
    margin = self_reward_margin(*torch.tensor([[pos_under_pos], [pos_under_neg], [neg_under_pos], [neg_under_neg]]))
    return ScoredPair(
        **vars(pair),
        positive_reference=pos_plain,
        negative_reference=neg_plain,
        positive_under_positive=pos_under_pos,
        positive_under_negative=pos_under_neg,
        negative_under_positive=neg_under_pos,
        negative_under_negative=neg_under_neg,
        margin=margin.item(),
        chosen="positive",
    )
