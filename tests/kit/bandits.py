"""Bandits: one prompt, answers of one token each with a known reward, and the policy that is best for them."""

import torch
from small_models import small_model

from dlma.records import ScoredPair

ARMS = range(3, 11)  # the answers that a reward tells apart; every other token has reward -2
CONTEXT = [0, 5]


def rewards(model) -> torch.Tensor:
    """The planted reward of every token, (vocabulary,): 1, 0, -1, 1.5 ... on the arms."""
    table = torch.full((model.causal.config.vocab_size,), -2.0)
    table[list(ARMS)] = torch.tensor([1.0, 0.0, -1.0, 1.5, 0.5, -0.5, 2.0, -1.5])
    return table


def flat_model():
    """A small model whose answers are spread over all tokens, though not evenly."""
    return small_model(vocabulary=16, spread=0.12)


@torch.no_grad()
def policy(model, context=CONTEXT) -> torch.Tensor:
    """The distribution of the answer, (vocabulary,) float64, by a plain forward pass."""
    return model.network(torch.tensor([context])).logits[0, -1].double().softmax(-1)


def best(reference: torch.Tensor, reward: torch.Tensor, beta: float) -> torch.Tensor:
    """pi_ref * exp(r / beta), normalised."""
    weight = reference * (reward.double() / beta).exp()
    return weight / weight.sum()


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """KL(p || q), nats."""
    return (p * (p / q).log()).sum().item()


def pair(name, one, other, logp=None, margin=0.0, context=CONTEXT) -> ScoredPair:
    """A pair of one-token answers, the first one chosen."""
    return ScoredPair(
        name, name, "q", "w", context, context, context, [one], [other], False, False, "a", "b",
        *((0.0, 0.0) if logp is None else (logp[one].item(), logp[other].item())),
        None, None, None, None, margin, "positive",
    )  # fmt: skip
