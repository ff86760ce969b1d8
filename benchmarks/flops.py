"""Floating-point operations of a Llama shape, counted by hand from the architecture; a multiply-add is two.

`forward` counts what a dense pass computes, masked places included, and is held to torch's own counter by a test.
`Work` counts what is needed at least: each distinct token once, attention to visible tokens only, the head on
predicted tokens only. Training is three forward passes' worth; recomputation is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.shapes import Shape
from dlma.records import Pair

OFFICIAL_ROWS = 4  # a batch of the official way (peers.py)
OFFICIAL_PAIRS = {"40M": 4, "135M": 2}  # it takes long: the first few pairs are enough for its rate
TRAINING = 3  # the forward pass, and twice its operations for the gradients of inputs and weights
FROZEN_TRAINING = 2  # of which frozen weights get none; the adapter's own products are left out


@dataclass(frozen=True)
class Work:
    """tokens: distinct ones; visible: over all tokens, how many each attends to, itself included; targets: predicted"""

    tokens: int
    visible: int
    targets: int

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.visible + other.visible, self.targets + other.targets)

    def forward(self, shape: Shape) -> int:
        """Operations of one forward pass over this work."""
        linear = 2 * self.tokens * shape.layer_weights * shape.layers
        attention = 4 * self.visible * shape.query_width * shape.layers
        return linear + attention + 2 * self.targets * shape.hidden * shape.vocabulary


def forward(shape: Shape, rows: int, width: int, targets: int) -> int:
    """Operations of a dense forward pass over (rows, width) tokens, with the head on `targets` of them."""
    return Work(rows * width, rows * width * width, targets).forward(shape)


def shared(sequences: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Work:
    """The work of (context, response) sequences when every common prefix of any two is computed once."""
    rows = sorted(sequences, key=lambda pair: [*pair[0], *pair[1]])
    previous: list[int] = []
    total = Work(0, 0, 0)
    for context, response in rows:
        tokens = [*context, *response]
        kept = _common(previous, tokens)
        total += Work(len(tokens) - kept, _triangle(len(tokens)) - _triangle(kept), len(response))
        previous = tokens
    return total


def apart(sequences: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Work:
    """The work of the same sequences when nothing is shared and nothing is padded."""
    total = Work(0, 0, 0)
    for context, response in sequences:
        length = len(context) + len(response)
        total += Work(length, _triangle(length), len(response))
    return total


def training_sequences(pair: Pair) -> list[tuple[Sequence[int], Sequence[int]]]:
    """The two sequences of a pair that DPO trains on."""
    return [(pair.plain_context_ids, answer) for answer in (pair.positive_ids, pair.negative_ids)]


def scoring_sequences(pair: Pair) -> list[tuple[Sequence[int], Sequence[int]]]:
    """The six sequences whose log-probs are a pair's margin and reference."""
    contexts = (pair.positive_context_ids, pair.negative_context_ids, pair.plain_context_ids)
    return [(context, answer) for context in contexts for answer in (pair.positive_ids, pair.negative_ids)]


def training_work(pairs: Sequence[Pair]) -> Work:
    """The least work of one pass over the pairs: each pair's prompt once, nothing shared between pairs."""
    return sum((shared(training_sequences(pair)) for pair in pairs), Work(0, 0, 0))


def scoring_bound(shape: Shape, pairs: Sequence[Pair]) -> float:
    """By how much sharing prefixes over the whole data set can at most beat unpadded, unshared scoring."""
    sequences = [sequence for pair in pairs for sequence in scoring_sequences(pair)]
    return apart(sequences).forward(shape) / shared(sequences).forward(shape)


def official_bound(shape: Shape, pairs: Sequence[Pair], *, few: int) -> float:
    """By how much sharing can at most beat the official way: what that computes more is padding, and the head.

    few: pairs that the official way is given; its operations over unpadded, unshared ones are theirs
    """
    ways = list(zip(*(scoring_sequences(pair) for pair in pairs[:few]), strict=True))
    spent = sum(_padded(shape, rows[start : start + OFFICIAL_ROWS]) for rows in ways for start in _starts(rows))
    return spent / apart(sequence for rows in ways for sequence in rows).forward(shape) * scoring_bound(shape, pairs)


def sampling_work(contexts: Sequence[Sequence[int]], drawn: Sequence[int]) -> tuple[Work, Work]:
    """The least work of reading the contexts, and of drawing so many tokens after each; nothing is shared.

    A context's last token belongs to the drawing: it gives the first one.
    """
    read = sum((Work(len(c) - 1, _triangle(len(c) - 1), 0) for c in contexts), Work(0, 0, 0))
    steps = [
        Work(n, _triangle(len(c) + n - 1) - _triangle(len(c) - 1), n) for c, n in zip(contexts, drawn, strict=True)
    ]
    return read, sum(steps, Work(0, 0, 0))


def sampling_seconds(
    shape: Shape, work: tuple[Work, Work], *, rows: int, rate: float, reading: float, bytes_each: int = 4
) -> float:
    """What sampling takes at least: reading at the rate of products, drawing at the slower of that and the memory's.

    rows: answers that share a pass, which reads every weight once; rate: operations a second; reading: bytes a second;
    bytes_each: of a weight
    """
    read, drawn = (part.forward(shape) / rate for part in work)
    weights = bytes_each * (shape.layers * shape.layer_weights + shape.hidden * shape.vocabulary)
    return read + max(drawn, work[1].tokens / rows * weights / reading)


def _starts(rows: Sequence) -> range:
    return range(0, len(rows), OFFICIAL_ROWS)


def _padded(shape: Shape, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
    """A batch padded to its longest row, with the head on every place."""
    width = max(len(context) + len(answer) for context, answer in rows)
    return forward(shape, len(rows), width, len(rows) * width)


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    for place, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return place
    return min(len(left), len(right))


def _triangle(length: int) -> int:
    return length * (length + 1) // 2
