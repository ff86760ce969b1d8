"""Accuracy of signals (R, a judge, a reward model, the construction): how often each names the better answer.

Every figure is a ratio of sums over pairs, so that its interval over prompts, whose pairs hang together, and seeds is
`crossed_ratio`'s:
    agreement        pairs that differ in truth on which the signal prefers the better answer, undecided ones as half
    agreement_all    prompts with several pairs among them: the better answer is preferred in every pair of the prompt
                     (RewardBench 2's accuracy); of one that ties with k others, 1 / (k + 1)
    agreement_half   the same over all pairs, a tie of the truth as half: what a coin on ties would come to
    agreement_A_B    over the pairs whose true difference is in (A, B]
    ties, unparsed   pairs that the signal leaves undecided, or of which nothing could be read
    longer           length bias: pairs of unequal length on which the signal prefers the longer answer, less those on
                     which the truth does; pairs that tie in truth, of which half would be fair, are `longer_on_ties`
    first            position bias: looks in which the answer shown first is preferred; half is fair
    inconsistent     pairs whose verdict turns with the order
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlma.metrics.categories import CategoryRow
from dlma.metrics.summary import Row
from dlma.statistics.intervals import Estimate, crossed_fraction, crossed_ratio


@dataclass(frozen=True)
class SignalAgreement:
    """One signal's view of one pair beside the truth.

    truth: how much better the first answer of the pair truly is, 0 a tie
    longer: tokens of the first answer less those of the second
    points: 1 where the signal prefers the first answer, 0 the second, 0.5 neither; None where it could not be read
    shown_first, shown_second: the same of a judge's look with the pair's first answer shown first, and second
    prompt: what the pairs of one prompt share; None: the pair is its prompt's only one
    """

    pair: str
    signal: str
    label: str
    truth: float
    longer: int
    points: float | None
    shown_first: float | None = None
    shown_second: float | None = None
    prompt: str | None = None
    category: str | None = None

    @property
    def right(self) -> float:
        """Whether the better answer is preferred; a half where either is undecided."""
        assert self.points is not None
        return 0.5 + (self.points - 0.5) * float(np.sign(self.truth))

    @property
    def for_the_longer(self) -> float:
        """How much more than the truth the signal is for the longer answer, where they differ in length."""
        assert self.points is not None
        return (self.points - 0.5) * float(np.sign(self.longer))


def accuracy_rows(seeds: Sequence[Sequence[SignalAgreement]], sizes: Sequence[float]) -> list[Row]:
    """The figures of every signal over the pairs of every seed; pairs that not all seeds have are left out.

    sizes: bounds between small and large true differences; what no pair speaks of has no row
    """
    signals = dict.fromkeys((held.signal, held.label) for held in seeds[0])
    return [row for signal, label in signals for row in _of_signal(_aligned(seeds, signal), signal, label, sizes)]


def category_agreements(signals: Sequence[Sequence[SignalAgreement]]) -> list[CategoryRow]:
    """The agreement of every signal in every category of one seed's pairs; nothing where there are fewer than two."""
    categories = {held.category for held in signals[0] if held.category is not None} if signals else set()
    if len(categories) < 2:
        return []
    return [
        CategoryRow(row.metric, row.label, row.arm, category, row.estimate, row.unit)
        for signal in signals
        for category in sorted(categories)
        for row in accuracy_rows([[held for held in signal if held.category == category]], [])
        if row.metric.startswith("agreement/")
    ]


def _aligned(seeds: Sequence[Sequence[SignalAgreement]], signal: str) -> list[list[SignalAgreement]]:
    """(prompts, seeds) of one signal."""
    tables = [{held.pair: held for held in seed if held.signal == signal} for seed in seeds]
    return [[table[pair] for table in tables] for pair in tables[0] if all(pair in table for table in tables)]


def _of_signal(table: list[list[SignalAgreement]], signal: str, label: str, sizes: Sequence[float]) -> Iterator[Row]:
    def row(metric: str, estimate: Estimate | None, unit: str = "share") -> Iterator[Row]:
        if estimate is not None:
            yield Row(f"{metric}/{signal}", "base", estimate, unit, label)

    def read(held: SignalAgreement) -> bool:
        return held.points is not None

    def decided(held: SignalAgreement) -> bool:
        return read(held) and held.truth != 0

    def unequal(held: SignalAgreement) -> bool:
        return decided(held) and held.longer != 0

    yield from row("agreement", _share(table, lambda held: held.right, decided))
    prompts = _by_prompt(table)
    if len(prompts) < len(table):
        whole = [line for line in map(_whole, prompts) if all(read(held) for held in line)]
        yield from row("agreement_all", _share(whole, lambda held: held.right, decided))
    if any(held.truth == 0 for line in table for held in line):
        yield from row("agreement_half", _share(table, lambda held: held.right, read))
    for low, high in zip([0.0, *sizes], [*sizes, math.inf]) if sizes else ():
        found = _share(table, lambda held: held.right, _between(low, high))
        yield from row(f"agreement_{low:g}_{high:g}", found)
    yield from row("ties", _share(table, lambda held: float(held.points == 0.5), read))
    yield from row("unparsed", _share(table, lambda held: float(not read(held)), lambda held: True))
    beyond = _mean(table, lambda h: h.for_the_longer - 0.5 * float(np.sign(h.longer * h.truth)), unequal)
    yield from row("longer", beyond)
    level = _share(table, lambda h: 0.5 + h.for_the_longer, lambda h: read(h) and h.truth == 0 and h.longer != 0)
    yield from row("longer_on_ties", level)
    yield from row("first", _share(table, _first, lambda held: bool(_looks(held))))
    both = _share(table, lambda h: float(h.shown_first != h.shown_second), lambda h: len(_looks(h)) == 2)
    yield from row("inconsistent", both)


def _by_prompt(table: list[list[SignalAgreement]]) -> list[list[list[SignalAgreement]]]:
    """The pairs' lines, those of a prompt together."""
    found: dict[str, list[list[SignalAgreement]]] = {}
    for line in table:
        found.setdefault(line[0].prompt or line[0].pair, []).append(line)
    return list(found.values())


def _whole(lines: list[list[SignalAgreement]]) -> list[SignalAgreement]:
    """The pairs of a prompt as one, in every seed: lost where one is lost, else shared with those that tie."""
    return [_all_of([held for held in pairs if held.truth != 0] or pairs[:1]) for pairs in zip(*lines, strict=True)]


def _all_of(pairs: Sequence[SignalAgreement]) -> SignalAgreement:
    if any(held.points is None for held in pairs):
        return replace(pairs[0], points=None)
    lost = any(held.right == 0 for held in pairs)
    right = 0.0 if lost else 1 / (1 + sum(held.right == 0.5 for held in pairs))
    return replace(pairs[0], truth=float(pairs[0].truth != 0), points=right)


def _between(low: float, high: float) -> Callable[[SignalAgreement], bool]:
    return lambda held: held.points is not None and low < abs(held.truth) <= high


def _looks(held: SignalAgreement) -> list[float]:
    """In each order in which a judge looked: 1 where the answer shown first was preferred."""
    second = None if held.shown_second is None else 1 - held.shown_second
    return [value for value in (held.shown_first, second) if value is not None]


def _first(held: SignalAgreement) -> float:
    return sum(_looks(held)) / len(_looks(held))


def _share(
    table: list[list[SignalAgreement]],
    value: Callable[[SignalAgreement], float],
    among: Callable[[SignalAgreement], bool],
) -> Estimate | None:
    """The mean of values within [0, 1] over the pairs that are meant; None where there is none."""
    found = _mean(table, value, among)
    if found is None:
        return None
    values = {value(held) for line in table for held in line if among(held)}
    if len(values) == 1:  # a ratio of equal values would claim certainty
        return crossed_fraction(np.full((found.n, found.seeds), values.pop()))
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def _mean(
    table: list[list[SignalAgreement]],
    value: Callable[[SignalAgreement], float],
    among: Callable[[SignalAgreement], bool],
) -> Estimate | None:
    lines = [line for line in table if any(among(held) for held in line)]
    if not lines:
        return None

    def summed(each: Callable[[SignalAgreement], float]) -> np.ndarray:
        sums = [np.array([[each(held) for held in line] for line in pairs]).sum(axis=0) for pairs in _by_prompt(lines)]
        return np.array(sums)

    return crossed_ratio(summed(lambda held: value(held) if among(held) else 0.0), summed(lambda h: float(among(h))))
