"""What a stage computes and how long that takes: tokens, floating-point operations, seconds on a device.

Operations are those of the engine's own meter (dlma/model/rates.py): matrix products, a multiply-add is two, a
backward pass counts twice, recomputation once more. Prefixes that trees share are not taken off, so scoring is counted
at most. Decoding is bound by the larger of two times: its operations, and reading weights and cache once a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from dlma.modes.foresight import Length, Sizes

_FORWARD, _TRAINED, _CHECKPOINTED = 2, 6, 8  # operations per weight and token


@dataclass(frozen=True)
class Device:
    """A device: memory in bytes, peak operations per second in the run's dtype, bytes per second; and who says so."""

    name: str
    memory: float
    rate: float
    bandwidth: float
    source: str


@dataclass(frozen=True)
class Shape:
    """Of a model: parameters in all and trained; weights that every token meets; those of the head; attention's width.

    attention: layers times hidden size; position_bytes: keys and values of one token; bytes: of all weights
    """

    parameters: int
    trained: int
    body: int
    head: int
    attention: int
    position_bytes: int
    bytes: int


@dataclass(frozen=True)
class Load:
    """What a stage computes, in all.

    read, drawn: tokens run through the model, and decoded one by one
    targets: tokens that the head is used for (decoded ones aside); seen: pairs of a token and one it attends to
    factor: operations per weight and token
    """

    rows: int = 0
    read: float = 0.0
    drawn: float = 0.0
    targets: float = 0.0
    seen: float = 0.0
    factor: int = _FORWARD

    def __add__(self, other: Load) -> Load:
        names = ("read", "drawn", "targets", "seen")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Load(rows=max(self.rows, other.rows), factor=max(self.factor, other.factor), **sums)

    @property
    def tokens(self) -> float:
        return self.read + self.drawn

    def operations(self, shape: Shape) -> float:
        """Floating-point operations of the whole stage."""
        passes = shape.body * self.tokens + shape.head * (self.targets + self.drawn) + 2 * shape.attention * self.seen
        return self.factor * passes

    def seconds(
        self, shape: Shape, device: Device, *, compute: float, bandwidth: float, rows: int, width: float
    ) -> float:
        """Time on one device at these shares of its rates; `rows` answers of `width` tokens are decoded at once."""
        reading = Load(self.rows, self.read, 0.0, self.targets, self.seen, self.factor).operations(shape)
        rate = compute * device.rate
        moved = shape.bytes + rows * width * shape.position_bytes
        one = max(moved / (bandwidth * device.bandwidth), _FORWARD * rows * (shape.body + shape.head) / rate)
        return reading / rate + self.drawn / rows * one


def sampled(rows: int, context: Length, answer: Length) -> Load:
    """Answers drawn after contexts."""
    return Load(rows, rows * context.mean, rows * answer.mean, 0.0, rows * _seen(context.mean + answer.mean))


def scored(rows: int, contexts: Sequence[Length], answers: int, answer: Length) -> Load:
    """Log-probs of so many answers after each context."""
    nodes = sum(context.mean + answers * answer.mean for context in contexts)
    seen = sum(_seen(c.mean) + answers * (_seen(c.mean + answer.mean) - _seen(c.mean)) for c in contexts)
    return Load(rows, rows * nodes, 0.0, rows * answers * len(contexts) * answer.mean, rows * seen)


def trained(rows: int, epochs: int, context: Length, answers: int, answer: Length, *, checkpointing: bool) -> Load:
    """Log-probs of so many answers after the plain context, with their gradients, in every epoch."""
    one = scored(rows * epochs, [context], answers, answer)
    factor = _CHECKPOINTED if checkpointing else _TRAINED
    return Load(rows, one.read, 0.0, one.targets, one.seen, factor)


def _seen(tokens: float) -> float:
    return tokens * (tokens + 1) / 2


def load_of(name: str, cfg: DictConfig, sizes: Sizes, work: Mapping[str, dict], samples: int) -> Load | None:
    """The load of a stage, by what it is for in the pipeline; None for a component that `work` does not know."""
    name = name.split()[0]  # without the number of the round
    rows, answer, contexts = sizes.train, sizes.answer, sizes.contexts
    if name in ("base", "prompted", "aligned"):
        asked = contexts["positive" if name == "prompted" else "plain"]
        every = [asked, *contexts.values()] if name == "aligned" else list(contexts.values())
        drawn = sizes.held_out * (samples if name == "aligned" else 1)
        return sampled(drawn, asked, answer) + scored(drawn, every, 1, answer)
    group = _GROUPS.get(name)
    if group is None:
        return Load()
    known = work.get(cfg[group]._target_)
    if known is None:
        return None
    return _COMPONENTS[known["kind"]](rows, known, cfg, cfg[group], sizes)


_GROUPS = {
    "pairs": "pairs",
    "scored": "scorer",
    "scored_otherwise": "scorer",
    "reward": "reward",
    "policy": "objective",
}


def _pairs(rows: int, known: dict, cfg: DictConfig, node: DictConfig, sizes: Sizes) -> Load:
    if cfg.pairs.path or cfg.scored.path:
        return Load()
    one, other = (sampled(rows, sizes.contexts[side], sizes.answer) for side in (cfg.pairs.first, cfg.pairs.second))
    return one + other


def _labels(rows: int, known: dict, cfg: DictConfig, node: DictConfig, sizes: Sizes) -> Load:
    found = scored(rows, [sizes.contexts[side] for side in known["contexts"]], 2, sizes.answer)
    both = Length(sizes.contexts["plain"].mean + 2 * sizes.answer.mean, 0)
    asked = scored(rows * known.get("asked", 0), [both], 0, sizes.answer)
    return found + asked


def _training(rows: int, known: dict, cfg: DictConfig, node: DictConfig, sizes: Sizes) -> Load:
    again = "checkpointing" in node and node.checkpointing
    plain, answers = sizes.contexts["plain"], known["answers"]
    load = trained(rows, node.epochs, plain, answers, sizes.answer, checkpointing=again)
    if not known.get("reference"):
        return load
    teacher = scored(rows * node.epochs, [sizes.contexts["positive"]], answers, sizes.answer)
    third = _FORWARD / load.factor  # the teacher's pass has no gradient
    return load + Load(rows, third * teacher.read, 0.0, third * teacher.targets, third * teacher.seen)


def _nothing(rows: int, known: dict, cfg: DictConfig, node: DictConfig, sizes: Sizes) -> Load:
    return Load()


_COMPONENTS = {"none": _nothing, "sample": _pairs, "score": _labels, "train": _training}
