"""The check of prefix sharing: whether a branch of a tree has the log-probs and gradient of a row of its own.

A row of its own is one under the model's own mask and positions, which dense.py holds against the network's own forward
pass. The probe is as long as the longest planned row, so longer than any window that matters, and lies beside a short
one. One of its two answers is compared, the one that has the other as a sibling before it; the gradient is that of one
weight matrix of the last layers, one of each kind, so that the check costs little more than a few forward passes; all
else is frozen meanwhile, so that the layers before it keep nothing for a backward pass. The short row is compared too:
rotary factors may follow the longest row of a pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlma.model import original, trees
from dlma.model.language import is_sharded
from dlma.model.masks import attention_kinds

if TYPE_CHECKING:
    from dlma.model.engine import Engine

_ANSWER = 16  # tokens compared
_SHORTEST = 4  # tokens of the shortest row's context, and of its answer


def reason_against_sharing(engine: Engine, longest: int, tolerance: float) -> str:
    """Why rows must not share prefixes, or nothing. longest: tokens of the probe's tree."""
    try:
        attention_kinds(engine.model.config)
        difference = _difference(engine, longest)
    except original.FAULTS as fault:
        return f"the architecture takes no such rows: {original.reason_of(fault)}"
    if difference <= tolerance:
        return ""
    return f"it differs from the dense path by {difference:.1e} (relative) on a row of {longest} tokens"


def _difference(engine: Engine, longest: int) -> float:
    vocabulary = engine.model.config.vocab_size
    answer = max(1, min(_ANSWER, longest // 4))
    draw = torch.Generator().manual_seed(0)
    length = max(1, longest - 2 * answer)
    ids = torch.randint(vocabulary, (length + 2 * answer,), generator=draw).tolist()
    first, second = sorted((ids[length : length + answer], ids[length + answer :]))
    if first == second:
        second = [(second[0] + 1) % vocabulary, *second[1:]]
    alone = [trees.Completion(ids[:length], second)]
    beside = [trees.Completion(ids[:length], first), *alone]
    short = [trees.Completion(ids[:_SHORTEST], first[:_SHORTEST])]
    with engine.forced("dense"):
        own, slopes = _probe(engine, [alone])
        own_short = torch.no_grad()(_logp)(engine, [short])
    with engine.forced("tree"):
        logp, tree_slopes = _probe(engine, [short, beside])
    compared = [(logp[0], own_short[0]), (logp[-1], own[-1]), *zip(tree_slopes, slopes, strict=True)]
    return max(original.relative(one, other) for one, other in compared)


def _probe(engine: Engine, groups: list[list[trees.Completion]]) -> tuple[Tensor, list[Tensor]]:
    """The log-prob of every sequence, and the gradient of the last one's."""
    watched = _watched(engine)
    with torch.set_grad_enabled(bool(watched)), _alone(watched, engine.model.network):
        logp = _logp(engine, groups)
        slopes = torch.autograd.grad(logp[-1], watched, allow_unused=True) if watched else ()
    return logp.detach(), [slope for slope in slopes if slope is not None]


def _logp(engine: Engine, groups: list[list[trees.Completion]]) -> Tensor:
    return engine.response_logp(engine.collate(engine.plan(groups)))


@contextmanager
def _alone(watched: list[nn.Parameter], network: nn.Module) -> Iterator[None]:
    """In the block no other weight is trained; weights that are spread over processes are left as they are."""
    kept = {id(parameter) for parameter in watched}
    others = [p for p in network.parameters() if p.requires_grad and id(p) not in kept]
    if any(map(is_sharded, others)):
        others = []
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def _watched(engine: Engine) -> list[nn.Parameter]:
    """A trained matrix of the last layers, early enough that a layer of each kind lies behind it."""
    config = engine.model.config
    trained = [p for p in engine.model.network.parameters() if p.requires_grad and p.dim() > 1]
    kinds = getattr(config, "layer_types", None) or ["all"]
    share = _reach(kinds) / max(1, config.num_hidden_layers)
    return trained[max(0, int(len(trained) * (1 - share))) :][:1]


def _reach(kinds: list[str]) -> int:
    """How many of the last layers hold one of each kind."""
    return max(kinds[::-1].index(kind) + 1 for kind in set(kinds))
