"""The self-reward with every token's share of it, for losses that weigh tokens; R itself is as in self_reward.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dlma.records import Pair, ScoredPair
from dlma.scorer.self_reward import SelfReward, scored, sequences


class SelfRewardByToken(SelfReward):
    """Scores pairs by self-reward, and keeps R and the reference of every token beside the sums."""

    def score(self, pairs: Sequence[Pair]) -> list[ScoredPair]:
        """Pairs with margin, reference log-probs and label, and both by token."""
        tokens = self.engine.score_tokens([sequences(pair) for pair in pairs])
        return [_with_tokens(pair, columns) for pair, columns in zip(pairs, tokens, strict=True)]


def _with_tokens(pair: Pair, tokens: list[list[float]]) -> ScoredPair:
    first_pos, second_pos, first_neg, second_neg, first_plain, second_plain = tokens
    return dataclasses.replace(
        scored(pair, [sum(each) for each in tokens]),
        positive_token_rewards=[a - b for a, b in zip(first_pos, first_neg, strict=True)],
        negative_token_rewards=[a - b for a, b in zip(second_pos, second_neg, strict=True)],
        positive_token_reference=first_plain,
        negative_token_reference=second_plain,
    )
