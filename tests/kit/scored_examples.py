"""Scored pairs of random ids whose references are true, and settings of training rules, for tests."""

import dataclasses

import torch

from dlma.model.engine import Engine
from dlma.model.trees import Completion
from dlma.objective.losses import Sigmoid
from dlma.records import ScoredPair

OPTIONS = dict(
    beta=0.5,
    margin_weight=0.25,
    margin_low=-4.0,
    margin_high=4.0,
    margin_unit="nats",
    loss=Sigmoid(),
    weighted=False,
    per_token=False,
    nll_weight=0.0,
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.0,
    warmup_steps=2,
    clip_norm=1.0,
    epochs=2,
    batch_pairs=4,
    seed=0,
)
REWARD_OPTIONS = dict(
    margin_weight=0.0,
    margin_low=-4.0,
    margin_high=4.0,
    margin_unit="nats",
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.0,
    warmup_steps=1,
    clip_norm=1.0,
    epochs=2,
    batch_pairs=4,
    seed=0,
)

SHARED = ("optimizer", "lr", "weight_decay", "warmup_steps", "clip_norm", "epochs", "batch_pairs", "seed")
TRAINING = {name: OPTIONS[name] for name in SHARED}


def scored_pairs(model, n=10, chosen="positive"):
    draw = torch.Generator().manual_seed(1)

    def ids(low, high):
        length = int(torch.randint(low, high, (1,), generator=draw))
        return torch.randint(3, 40, (length,), generator=draw).tolist()

    rows = []
    for i in range(n):
        context, one, two = [0, *ids(2, 9)], [*ids(1, 8), 1], ids(1, 8)
        reference = Engine(model, layout="dense").score([[Completion(context, one), Completion(context, two)]])[0]
        margin = float(torch.randn((), generator=draw)) * 4
        rows.append(
            ScoredPair(
                f"p{i}", f"p{i}", "q", "w", context, context, context, one, two, True, False, "a", "b",
                *reference, None, None, None, None, margin, chosen,
            )
        )  # fmt: skip
    return rows


def prompted_pairs(model, n=5, chosen="positive"):
    """Scored pairs whose positive context differs from the plain one."""
    pairs = scored_pairs(model, n=n, chosen=chosen)
    return [dataclasses.replace(p, positive_context_ids=[*p.plain_context_ids, 5, 6]) for p in pairs]
