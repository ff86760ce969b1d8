"""Memory of a pass by part, counted on a model without content (meta_model.py): training, scoring, sampling.

The counted passes are those of the engine and the sampler themselves, on rows of a given size. Bytes are per device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from dlma.cost.flops import ModelSize
from dlma.cost.meta_model import Blueprint, drawn
from dlma.cost.wire import Exchanged
from dlma.functional.noise import draw
from dlma.model.engine import Engine
from dlma.model.load import ModelSpec
from dlma.model.meter import attention_width, body_weights
from dlma.model.trees import Rows, padded_width
from dlma.sampler.decode import CHUNK, READ_ROWS
from dlma.sampler.kv_cache import Slots, cache_width, row_attention

_BUCKET_BYTES = 64 << 20  # of gradients that are sent at once (trainer/collectives.py), and their sum
_STATE_COPIES = {"adamw": 2, "rmsprop": 1}  # tensors that an optimizer keeps for each trained one


def state_share(optimizer: str, dtype: torch.dtype) -> int:
    """Bytes that an optimizer keeps to a byte of a trained weight: its state, and a copy where that is not float32."""
    states = _STATE_COPIES[optimizer]
    return states if dtype == torch.float32 else (states + 1) * (torch.float32.itemsize // dtype.itemsize)


@dataclass(frozen=True)
class Footprint:
    """Bytes by part, at the moment at which most is held.

    activations: what the body keeps or needs; head: logits and what the head adds; cache: keys and values of sampling
    reference: a second model held beside the first; exchange: buffers in which processes add their gradients
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    head: int = 0
    cache: int = 0
    reference: int = 0
    exchange: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))


@dataclass(frozen=True)
class Pass:
    """The size of a pass: rows, nodes of each (padded), and response tokens of each."""

    rows: int
    width: int
    targets: int

    @property
    def tokens(self) -> int:
        return self.rows * padded_width(self.width)


def largest_pass(token_budget: int, width: int, targets: int, items: int) -> Pass:
    """The widest pass that the engine makes of rows that are all as long as the longest: at least one row."""
    rows = max(1, min(items, token_budget // padded_width(width)))
    return Pass(rows, width, targets)


def training(
    spec: ModelSpec,
    config,
    size: Pass,
    *,
    optimizer: str,
    passes: int,
    checkpointing: bool,
    processes: int = 1,
    spread: bool = False,
) -> Footprint:
    """Of an optimizer step of `passes` micro-batches of this size; from the second on all gradients are held too.

    processes: so many share the step, and add their gradients
    spread: each holds its part of the layers (trainer/fsdp.py), and two of them whole at a time
    """
    with drawn(spec, config) as model:
        weights = model.live.live
        engine, rows = _engine(model, checkpointing), _rows(size)
        made = _count_gradients(model)
        for _ in range(min(2, passes)):
            held = sum(made.values())
            model.live.restart()
            with model.adding_gradients(processes == 1):
                engine.token_logp(rows).sum().backward()
        gradients = model.live.watched
        rest = model.live.peak - weights - gradients
        body = min(rest, model.after_body - weights - held)
        trained = sum(p.nbytes for p in model.trained)
        found = Footprint(
            weights=weights,
            gradients=gradients,
            optimizer=sum(state_share(optimizer, p.dtype) * p.nbytes for p in model.trained),
            activations=body,
            head=rest - body,
        )
        if processes == 1:
            return found
        return _in_parts(found, model, processes) if spread else replace(found, exchange=2 * trained)


def _count_gradients(model: Blueprint) -> dict[int, int]:
    """Bytes of each gradient that there is, kept up to date; the count at a peak is `live.watched`."""
    made: dict[int, int] = {}

    def note(parameter: torch.nn.Parameter) -> None:
        made[id(parameter)] = parameter.nbytes

    for parameter in model.trained:
        parameter.register_post_accumulate_grad_hook(note)
    model.live.watch = lambda: sum(made.values())
    return made


def _layer_modules(model: Blueprint) -> list[torch.nn.Module]:
    return [module for module in model.network.modules() if isinstance(module, GradientCheckpointingLayer)]


def _layers(model: Blueprint) -> tuple[list[int], list[int]]:
    """Bytes of each layer's weights, and of those of them that are trained."""
    layers = _layer_modules(model)
    held = [sum(p.nbytes for p in layer.parameters()) for layer in layers]
    return held, [sum(p.nbytes for p in layer.parameters() if p.requires_grad) for layer in layers]


def exchanged_of(model: Blueprint) -> Exchanged:
    """What processes that train this model have to tell each other."""
    held, trained = _layers(model)
    return Exchanged(sum(p.nbytes for p in model.trained), sum(held), sum(trained))


def _in_parts(found: Footprint, model: Blueprint, processes: int) -> Footprint:
    """The same where each process holds its part of the layers, and two of them whole while they run."""
    held, trained = _layers(model)
    gone = 1 - 1 / processes
    whole = sum(p.nbytes for p in model.trained) - sum(trained)
    copies = found.optimizer / max(1, whole + sum(trained))
    return replace(
        found,
        weights=round(found.weights - gone * sum(held)) + 2 * max(held),
        gradients=round(found.gradients - gone * min(sum(trained), found.gradients)) + max(trained),
        optimizer=round(found.optimizer - gone * copies * sum(trained)),
        exchange=min(whole, _BUCKET_BYTES + _largest_outside(model)),
    )


def _largest_outside(model: Blueprint) -> int:
    """Bytes of the largest trained weight that is in no layer: a bucket ends with the gradient that fills it."""
    inside = {id(weight) for layer in _layer_modules(model) for weight in layer.parameters()}
    return max((p.nbytes for p in model.trained if id(p) not in inside), default=0)


def with_reference(found: Footprint, models: int = 1, whole: int | None = None) -> Footprint:
    """The same with so many frozen copies of the model held beside it.

    whole: bytes of a copy, where the model's own weights are spread over processes, as a copy's are not
    """
    return replace(found, reference=found.reference + models * (found.weights if whole is None else whole))


def fitting(cost: Callable[[Pass], int], size: Pass, most: int, room: float) -> Pass | None:
    """The most rows of a pass, up to `most`, whose cost is within `room` bytes; None if one row is too many.

    cost: bytes of a pass; all but the rows are fixed, so it rises with the rows, nearly in proportion
    """
    first = cost(replace(size, rows=1))
    if first > room:
        return None
    each = max(1, cost(replace(size, rows=2)) - first)
    rows = max(1, min(most, 1 + int((room - first) // each)))
    while rows > 1 and cost(replace(size, rows=rows)) > room:
        rows -= max(1, rows // 20)
    return replace(size, rows=rows)


def shape_of(model: Blueprint, config, *, trains: bool = True) -> ModelSize:
    """The sizes of a model; config: its transformers config; trains: whether anything of it is trained."""
    return ModelSize(
        parameters=sum(p.numel() for p in model.network.parameters()),
        trained=sum(p.numel() for p in model.trained) if trains else 0,
        body=body_weights(model.causal, model.head_layer),
        head=config.vocab_size * config.hidden_size,
        attention=attention_width(config),
        bytes=model.live.live,
    )


def position_bytes(model: Blueprint) -> int:
    """Bytes of the keys and values of one token, in the cache that the architecture itself fills."""
    with torch.no_grad():
        cache = model.causal.base_model(torch.zeros(1, 1).long(), use_cache=True).past_key_values
    return sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))


def scoring(spec: ModelSpec, config, size: Pass, *, models: int = 1) -> Footprint:
    """Of a pass that gives log-probs, with so many models held."""
    with drawn(spec, config) as model, torch.no_grad():
        weights = model.live.live
        engine = _engine(model)
        rows = _rows(size)
        model.live.restart()
        engine.token_logp(rows)
        rest = model.live.peak - weights
        body = min(rest, max(0, model.after_body - weights))
        found = Footprint(weights=weights, activations=body, head=rest - body)
        return with_reference(found, models - 1)


def sampling(
    spec: ModelSpec,
    config,
    *,
    rows: int,
    tile: int,
    context: int,
    answer: int,
    temperature: float,
    top_k: int,
    top_p: float,
    models: int = 1,
) -> Footprint:
    """Of decoding `rows` answers side by side, `tile` of them a pass, with so many models held.

    context, answer: tokens of the longest of each
    """
    with drawn(spec, config) as model, torch.no_grad(), row_attention(model):
        weights, width = model.live.live, cache_width(context + answer)
        reader = Slots(READ_ROWS, width)
        tiles = [Slots(tile, width) for _ in range(-(-rows // tile))]
        _decoded(model, reader, min(width, -(-context // CHUNK) * CHUNK))
        for slots in tiles:
            logits = _decoded(model, slots, width)
            body = model.after_body
        cache = sum(t.nbytes for slots in (reader, *tiles) for pair in slots.stored.values() for t in pair)
        draw(logits, np.zeros(len(logits)), temperature=temperature, top_k=top_k, top_p=top_p)
        rest = model.live.peak - weights - cache
        kept = min(rest, max(0, body - weights - cache))
        found = Footprint(weights=weights, cache=cache, activations=kept, head=rest - kept)
        return with_reference(found, models - 1)


def _decoded(model: Blueprint, slots: Slots, width: int) -> torch.Tensor:
    """The logits after one new token in every row, with all slots in use."""
    place = torch.full((slots.rows,), width - 1)
    slots.at_places(place, width)
    mask = torch.zeros(slots.rows, 1, 1, width, dtype=model.dtype)
    return model.head(model.states(torch.zeros(slots.rows, 1).long(), mask, place[:, None], slots)[:, -1])


def _engine(model: Blueprint, checkpointing: bool = False) -> Engine:
    return Engine(model, layout="tree", checkpointing=checkpointing, notice=lambda line: None)


def _rows(size: Pass) -> Rows:
    """Rows of a size, their content of no account."""
    width, targets = padded_width(size.width), size.rows * size.targets
    row, each = torch.zeros(size.rows, width).long(), torch.zeros(targets).long()
    return Rows(
        ids=row,
        position=row,
        lengths=torch.zeros(size.rows).long(),
        end=row,
        predictor=each,
        target=each,
        owner=each,
        slot=each,
        sequences=size.rows,
        nodes=size.rows * size.width,
        seen=size.rows * size.width * size.width,
    )
