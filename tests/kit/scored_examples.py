"""Scored pairs of random ids whose references are true, and settings of DPO and its optimizer, for tests."""

import dataclasses

import torch

from dlma.model.engine import Engine
from dlma.model.trees import Completion
from dlma.objective.losses import Sigmoid
from dlma.records import ScoredPair
from dlma.training.optim import Optim

OPTIM = Optim(optimizer="adamw", lr=1e-3, weight_decay=0.0, warmup=2, schedule="constant", clip_norm=1.0)
OPTIONS = dict(
    beta=0.5,
    margin_weight=0.25,
    margin_low=-4.0,
    margin_high=4.0,
    margin_unit="nats",
    loss=Sigmoid(),
    weighted=False,
    per_token=False,
    reference_free=False,
    token_weights=None,
    nll_weight=0.0,
    optim=OPTIM,
    epochs=2,
    batch_pairs=4,
    seed=0,
)
TRAINING = {name: OPTIONS[name] for name in ("optim", "epochs", "batch_pairs", "seed")}
REWARD_OPTIONS = {
    name: OPTIONS[name] for name in ("margin_low", "margin_high", "margin_unit", "epochs", "batch_pairs", "seed")
} | {"margin_weight": 0.0, "optim": dataclasses.replace(OPTIM, warmup=1)}


def changed(options, **changes):
    """A training's options with changes, those of the optimizer put into it."""
    inside = {field.name: changes.pop(field.name) for field in dataclasses.fields(Optim) if field.name in changes}
    return {**options, "optim": dataclasses.replace(options["optim"], **inside), **changes}


def prompted_pairs(model, n=5, chosen="positive"):
    """Scored pairs whose positive context differs from the plain one."""
    pairs = scored_pairs(model, n=n, chosen=chosen)
    return [dataclasses.replace(p, positive_context_ids=[*p.plain_context_ids, 5, 6]) for p in pairs]


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
