"""Floating-point operations of a pass over tokens, by the one formula of plans and of reports of cost.

Operations are those of the engine's own meter (dlma/model/meter.py): matrix products, a multiply-add is two, a
backward pass counts twice, recomputation once more. With N weights that every token meets, H weights of the head, and
attention A wide (layers times the width of all heads), a forward pass over T tokens is
    2 * (N * T + H * targets + 2 * A * seen)
with `seen` the pairs of a token and one it attends to. Answers to one context share it; nothing else is taken off.
Frozen weights under LoRA, which have no gradient, are counted as trained: training's products are half too many there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from dlma.errors import UserError

FORWARD, TRAINED, CHECKPOINTED = 2, 6, 8  # operations per weight and token
KINDS = ("sample", "score", "train", "rollouts", "steer", "none")


@dataclass(frozen=True)
class Device:
    """A device: memory in bytes, peak operations per second in the run's dtype, bytes per second; and who says so.

    link: bytes per second to another device of its machine, one way
    """

    name: str
    memory: float
    rate: float
    bandwidth: float
    source: str
    link: float = 0.0


@dataclass(frozen=True)
class ModelSize:
    """Of a model: parameters in all and trained; weights that every token meets; those of the head; attention's width.

    attention: layers times the width of all heads; bytes: of all weights
    """

    parameters: int
    trained: int
    body: int
    head: int
    attention: int
    bytes: int


@dataclass(frozen=True)
class Workload:
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
    factor: int = FORWARD

    def __add__(self, other: Workload) -> Workload:
        names = ("read", "drawn", "targets", "seen")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Workload(rows=max(self.rows, other.rows), factor=max(self.factor, other.factor), **sums)

    @property
    def tokens(self) -> float:
        return self.read + self.drawn

    def operations(self, shape: ModelSize) -> float:
        """Floating-point operations of the whole stage."""
        passes = shape.body * self.tokens + shape.head * (self.targets + self.drawn) + 2 * shape.attention * self.seen
        return self.factor * passes

    def seconds(
        self, shape: ModelSize, device: Device, *, compute: float, bandwidth: float, rows: int, cache: float
    ) -> dict[str, float]:
        """Time on one device at these shares of its rates, by what it is bound by: compute or bandwidth.

        rows, cache: so many answers of so many bytes are decoded at once
        """
        reading = Workload(self.rows, self.read, 0.0, self.targets, self.seen, self.factor).operations(shape)
        rate = compute * device.rate
        moved = shape.bytes + rows * cache
        steps = self.drawn / rows
        fetched = steps * moved / (bandwidth * device.bandwidth)
        computed = steps * FORWARD * rows * (shape.body + shape.head) / rate
        if fetched > computed:
            return {"compute": reading / rate, "bandwidth": fetched}
        return {"compute": reading / rate + computed}


def sampled(context: ArrayLike, answer: ArrayLike, times: float = 1) -> Workload:
    """Answers drawn after contexts: tokens of each row's context and answer; every row so many times."""
    context, answer = _tokens(context, answer)
    read, drawn, seen = context.sum(), answer.sum(), _seen(context + answer).sum()
    return _times(times, len(context), read, drawn, 0.0, seen)


def scored(contexts: Sequence[ArrayLike], answers: Sequence[ArrayLike], times: float = 1) -> Workload:
    """Log-probs of every answer of a row after every context of it: tokens of each row; every row so many times."""
    sides, answered = _tokens(*contexts), _tokens(*answers)
    read = seen = targets = 0.0
    for context in sides:
        read += context.sum() + sum(answer.sum() for answer in answered)
        seen += _seen(context).sum()
        seen += sum((_seen(context + answer) - _seen(context)).sum() for answer in answered)
        targets += sum(answer.sum() for answer in answered)
    return _times(times, len(sides[0]), read, 0.0, targets, seen)


def trained(context: ArrayLike, answers: Sequence[ArrayLike], times: float, *, checkpointing: bool) -> Workload:
    """Log-probs of every answer of a row after its context, with their gradients; every row so many times."""
    one = scored([context], answers, times)
    return replace(one, factor=CHECKPOINTED if checkpointing else TRAINED)


def _times(times: float, rows: int, *counts: float) -> Workload:
    read, drawn, targets, seen = (float(times * one) for one in counts)
    return Workload(round(times * rows), read, drawn, targets, seen)


def _tokens(*lengths: ArrayLike) -> list[np.ndarray]:
    return [np.atleast_1d(np.asarray(one, dtype=float)) for one in lengths]


def _seen(tokens: np.ndarray) -> np.ndarray:
    return tokens * (tokens + 1) / 2


def slots_of(sides: Sequence[str | None], per_prompt: int | str) -> list[str | None]:
    """Under which side each answer of a prompt's pairs is drawn, pair by pair; None for one that is not drawn.

    sides: of one pair, which all of a prompt are like, however many; or of several, those beyond being like the last
    """
    count = len(sides) if len(sides) == 2 else max(len(sides), 2 * int(per_prompt))
    return [sides[n] if n < len(sides) else sides[n % 2 - 2] for n in range(count)]


def work_of(node: Mapping) -> Mapping:
    """What a component computes, as its YAML says under `_work_`; nothing where it says nothing.

    kind: sample, under the sides `contexts` where no keys `first` and `second` name them, `per_prompt` pairs to each
        prompt (whose answers it may name one by one, null for one that is not drawn); score: log-probs of answers after
        `contexts`, `asked` questions put to a judge about both answers and `rated` about one; train: log-probs of so
        many `answers` with their gradients; rollouts: PPO; steer: activations of both answers after `contexts`; none
    base: of a scorer, the base reads every answer too, after the plain prompt
    under: of train, the sides after which the answers of each of a prompt's pairs are read; else the plain prompt
    reference: a live reference reads every answer too; head: false where no log-prob is wanted of what is read
    pairs: of labels, how many they make of a prompt's
    labels: who says which answer is better: human, model, or pairs: the order in which they came; of labels, first: of
        a prompt's pairs the first one's label alone is read
    """
    work = node.get("_work_", {})
    if work and work["kind"] not in KINDS:
        raise UserError(f"_work_ of {node['_target_']}: kind must be one of {', '.join(KINDS)}, not {work['kind']!r}")
    return work
