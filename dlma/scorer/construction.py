"""Labels by construction (RLCD): the answer of the positive prompt is chosen, with no margin."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_lightning as pl

from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.trees import Completion
from dlma.ranges import Count
from dlma.records import Label, Pair, ScoredPair
from dlma.trainer.runtime import Shard


class Construction(pl.LightningModule):
    """Margin 0 for every pair; only the reference log-probs are computed."""

    def __init__(self, model: LanguageModel, /, *, token_budget: Count = 8192) -> None:
        super().__init__()
        self.network = model.network
        self.engine = Engine(model, token_budget=token_budget)

    def predict_step(self, shard: Shard, index: int) -> list[ScoredPair]:
        """The labelled pairs of a shard."""
        return self.score(shard.rows)

    def score(self, pairs: Sequence[Pair]) -> list[ScoredPair]:
        """Pairs with margin 0, reference log-probs and the label by construction."""
        logp = self.engine.score([_sequences(pair) for pair in pairs])
        return [with_margin(pair, p, n, 0.0, "positive") for pair, (p, n) in zip(pairs, logp, strict=True)]


class GivenMargins(pl.LightningModule):
    """Margins and labels that came with the user's file; the reference log-probs are computed."""

    def __init__(self, model: LanguageModel, labels: list[Label], /, *, token_budget: Count = 8192) -> None:
        super().__init__()
        self.network = model.network
        self.labels = {label.id: (label.margin, label.chosen) for label in labels}
        self.engine = Engine(model, token_budget=token_budget)

    def predict_step(self, shard: Shard, index: int) -> list[ScoredPair]:
        """The pairs of a shard with the margin and label their id stands for."""
        logp = self.engine.score([_sequences(pair) for pair in shard.rows])
        return [with_margin(pair, p, n, *self.labels[pair.id]) for pair, (p, n) in zip(shard.rows, logp)]


def _sequences(pair: Pair) -> list[Completion]:
    return [Completion(pair.plain_context_ids, answer) for answer in (pair.positive_ids, pair.negative_ids)]


def with_margin(
    pair: Pair, positive_reference: float, negative_reference: float, margin: float, chosen: str
) -> ScoredPair:
    """A scored pair whose margin did not come from the four contrastive log-probs."""
    return ScoredPair(
        **vars(pair),
        positive_reference=positive_reference,
        negative_reference=negative_reference,
        positive_under_positive=None,
        positive_under_negative=None,
        negative_under_positive=None,
        negative_under_negative=None,
        margin=margin,
        chosen=chosen,
    )
