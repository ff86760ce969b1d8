"""The loss of scored pairs: -log sigmoid(beta*h - margin_weight*clamp(R, low, high)), or another function of it.

One object for every loop: the training rule of a run hands it log-probs by the engine (objective/dpo.py), a loop of
somebody else's its model and a batch of `PairCollator`: `MarginDPO(...)(model, batch)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlma.config.schema import Component
from dlma.errors import UserError
from dlma.functional.logprob import token_logp
from dlma.functional.losses import margin_weights
from dlma.functional.preference import margin_bounds, preference_logit
from dlma.ranges import NotNegative, Number, Positive
from dlma.records import ScoredPair
from dlma.training.preference_pair import margin, references, tokens


@dataclass(frozen=True)
class PairColumns:
    """What the loss of each pair needs besides the policy's log-probs, all float32.

    reference, tokens: (pairs, 2), log-prob (nats) and length of the chosen and the rejected answer
    margin, weight: (pairs,), clamped margin of chosen over rejected (nats), and the loss's weight
    """

    reference: Tensor
    tokens: Tensor
    margin: Tensor
    weight: Tensor

    @classmethod
    def of(cls, table: Tensor) -> PairColumns:
        """The columns of a table of rows as `MarginDPO.rows` makes them, (pairs, 6) float32."""
        return cls(table[:, :2], table[:, 2:4], table[:, 4], table[:, 5])


class MarginDPO:
    """Margin DPO's loss; margin_weight 0 is plain DPO.

    loss: one of objective/losses.py
    weighted: weigh each pair by clamp(R, 0, margin_high), divided by the mean over all pairs
    per_token: h is a difference of log-ratios per token: each is divided by its own answer's length
    reference_free: h is a difference of log-probs, as if the reference gave every answer the same (SimPO)
    nll_weight: adds nll_weight * -log pi(chosen|q) / |chosen| to each pair's loss
    right: how often a label is taken to be right; below 1 a share of the loss is that of the opposite label (CREAM)
    """

    def __init__(
        self,
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
        nll_weight: NotNegative,
    ) -> None:
        self.beta = beta
        self.margin_weight = margin_weight
        self.margin_low = margin_low
        self.margin_high = margin_high
        self.margin_unit = margin_unit
        self.pair_loss = loss
        self.weighted = weighted
        self.per_token = per_token
        self.reference_free = reference_free
        self.nll_weight = nll_weight
        self.right = 1.0

    def bounds(self, pairs: Sequence[ScoredPair]) -> tuple[float, float]:
        """The clamp's bounds in nats, taken over all pairs."""
        margins = torch.tensor([margin(pair) for pair in pairs], dtype=torch.float64)
        return margin_bounds(margins, self.margin_low, self.margin_high, self.margin_unit)

    def rows(
        self, pairs: Sequence[ScoredPair], summed: Sequence[Sequence[float]] | None = None
    ) -> list[tuple[float, ...]]:
        """Of each of all training pairs: two references, two lengths, the clamped margin, the weight.

        summed: both references of each pair, chosen first, where they are no plain sums over tokens; nats
        raises: UserError for margins that the loss cannot take, or none above 0 where pairs are weighed by them
        """
        low, high = self.bounds(pairs)
        margins = [min(max(margin(pair), low), high) for pair in pairs]
        self._require_margins(margins)
        both = [references(pair) for pair in pairs] if summed is None else summed
        return [
            (*reference, *tokens(pair), clamped, weight)
            for reference, pair, clamped, weight in zip(both, pairs, margins, self._weights(pairs, high), strict=True)
        ]

    def _require_margins(self, margins: list[float]) -> None:
        """Raises UserError, before any step, for margins that the loss cannot take or cannot learn from."""
        clamped = torch.tensor(margins)
        logit = (-self.margin_weight * clamped).requires_grad_()  # where the policy is the reference
        try:
            with torch.enable_grad():
                loss = self.pair_loss(logit, clamped).sum()
        except ValueError as reason:
            raise UserError(f"objective.loss: {reason}: scorer=self_reward labels=sign_untied") from None
        (slope,) = torch.autograd.grad(loss, logit)
        if margins and not slope.any() and not self.reference_free and not self.nll_weight:
            raise UserError(
                f"objective.loss: {type(self.pair_loss).__name__} learns from margins alone, and no pair has one that "
                "counts: a scorer and labels= that give margins, recipe.margin_weight above 0, or objective=dpo"
            )

    def _weights(self, pairs: Sequence[ScoredPair], high: float) -> list[float]:
        if not self.weighted:
            return [1.0] * len(pairs)
        try:
            return margin_weights(torch.tensor([margin(pair) for pair in pairs]).double(), high=high).tolist()
        except ValueError as reason:
            raise UserError(f"objective.weighted: {reason}: choose a scorer that gives a margin") from None

    def losses(self, policy: Tensor, columns: PairColumns) -> Tensor:
        """The loss of each pair, (pairs,), nats; policy: (pairs, 2) float32, log-probs of chosen and rejected, nats."""
        return self._losses(policy, self._logit(policy, columns), columns)

    def first_losses(self, columns: PairColumns) -> Tensor:
        """The closed form before any update: the policy is the reference; with that in the loss plain DPO's is ln 2."""
        return self.losses(columns.reference, columns)

    def _logit(self, policy: Tensor, columns: PairColumns) -> Tensor:
        """z = beta*h - margin_weight*margin per pair."""
        length = columns.tokens if self.per_token else 1.0
        reference = torch.zeros_like(policy) if self.reference_free else columns.reference / length
        policy = policy / length
        gap, reference_gap = policy[:, 0] - policy[:, 1], reference[:, 0] - reference[:, 1]
        return preference_logit(gap, reference_gap, columns.margin, beta=self.beta, margin_weight=self.margin_weight)

    def _losses(self, policy: Tensor, logit: Tensor, columns: PairColumns) -> Tensor:
        losses = columns.weight * self._labelled(logit, columns.margin)
        if self.nll_weight:
            losses = losses - self.nll_weight * policy[:, 0] / columns.tokens[:, 0]
        return losses

    def _labelled(self, logit: Tensor, margin: Tensor) -> Tensor:
        own = self.pair_loss(logit, margin)
        return own if self.right == 1 else self.right * own + (1 - self.right) * self.pair_loss(-logit, -margin)

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean loss of a batch of `PairCollator`, a scalar; `model` is called once, as it comes, wrapped or not."""
        return self.losses(padded_logp(model, batch), PairColumns.of(batch["columns"])).mean()


class PairCollator:
    """Puts rows of `dlma.api.training_rows` together: all chosen answers, then all rejected ones, padded on the right.

    pad_id: what fills the rows up; nothing looks at it
    returns: input_ids, attention_mask and completion_mask, (2 pairs, width) int64, as TRL's own collator makes them,
        and columns, (pairs, 6) float32 (`MarginDPO.rows`)
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[Mapping]) -> dict[str, Tensor]:
        answers = [(row["context_ids"], row["answer_ids"][side]) for side in (0, 1) for row in rows]
        width = max(len(context) + len(answer) for context, answer in answers)
        ids = torch.full((len(answers), width), self.pad_id)
        seen, answered = torch.zeros_like(ids), torch.zeros_like(ids)
        for number, (context, answer) in enumerate(answers):
            end = len(context) + len(answer)
            ids[number, :end] = torch.tensor([*context, *answer])
            seen[number, :end] = 1
            answered[number, len(context) : end] = 1
        columns = torch.tensor([row["columns"] for row in rows], dtype=torch.float32)
        return {"input_ids": ids, "attention_mask": seen, "completion_mask": answered, "columns": columns}


def padded_logp(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Log-probs of a batch's answers by the model's own forward pass, (pairs, 2) float32, nats: chosen, rejected."""
    ids, answered = batch["input_ids"], batch["completion_mask"].bool()
    logits = model(input_ids=ids, attention_mask=batch["attention_mask"]).logits
    before = torch.roll(answered, -1, dims=1)  # a context is never empty: the token before predicts
    row = answered.nonzero()[:, 0]
    summed = logits.new_zeros(len(ids), dtype=torch.float32)
    return summed.index_add(0, row, token_logp(logits[before], ids[answered])).view(2, -1).T
