"""Which sampler draws a model's answers, and what it needs for that: weights that are served where it has to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlma.config.build import build, scientific
from dlma.config.recorded import LOCAL
from dlma.config.signatures import signature
from dlma.model.load import ModelSpec
from dlma.redaction import redact
from dlma.store.fingerprint import key_of
from dlma.trainer.ranks import Ranks


def key(node: dict, *, trained: bool) -> dict:
    """The part in a stage's key of what draws the answers of the base, or of trained weights; node: the sampler's."""
    drawn = _drawn_by(node, trained=trained)
    # apart from what is in stores of before, when policies were always sampled in process
    served = {"policy": "served"} if trained and drawn["_target_"] != LOCAL else {}
    # the command says how the weights are served, in few bits for one; hashed, as it may hold what is not to be written
    started = {"start": key_of(redact(drawn["start"]))} if drawn.get("start") else {}
    return scientific(drawn) | served | started


def _drawn_by(node: dict, *, trained: bool) -> dict:
    if not (trained and node.get("policy") == "local"):
        return node
    return {"_target_": LOCAL, **{name: node[name] for name in signature(LOCAL).fields if name in node}}


@contextmanager
def sampling(
    sampler: Any, node: dict, spec: ModelSpec, log: Path, ranks: Ranks, *, held: bool, trained: bool, to_come: bool
) -> Iterator[Any]:
    """In the block what samples a model: the run's sampler, or the local one in its place.

    node: the sampler's; spec: of the model
    log: where a started server's words go
    held: whether the servers of sampler.urls hold its folder's weights; trained: whether it is a policy
    to_come: whether an adapter on it will be sampled from later
    """
    drawn = _drawn_by(node, trained=trained)
    if drawn["_target_"] == LOCAL:
        yield build(drawn) if trained else sampler
        return
    from dlma.sampler.server import Weights

    weights = Weights(spec.folder, spec.adapter, held, to_come and node.get("policy") == "server")
    with sampler.serving(weights, log, ranks) as ready:
        yield ready
