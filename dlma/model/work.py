"""Tokens of a stage: those that were computed and those to come, told by whoever computes to whoever shows it.

A stage works on shards, one after the other, and on each in parts (an answer is sampled, then scored). An engine or a
sampler says how many tokens its part will take when it begins, and counts them as it goes; nobody has to listen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


class Work:
    """The count of one stage in one process.

    sizes: of the shards to come, in tokens of their rows; what a shard takes is in proportion to it
    parts: how often a shard's work is foreseen; until then the shard may take more than was said
    show: called with the tokens done and those in all, whenever one of them changes
    """

    def __init__(self, sizes: Sequence[int], parts: int, show: Callable[[int, int], object]) -> None:
        self._sizes = list(sizes)
        self._parts = max(1, parts)
        self._show = show
        self._past = self._past_size = 0  # of the shards that are done
        self._done = self._foreseen = self._begun = 0  # of the present one

    @property
    def done(self) -> int:
        return self._past + self._done

    @property
    def total(self) -> int:
        """Tokens of the whole stage, as far as is known."""
        if not self._sizes:
            return self.done
        size, later = self._sizes[0], sum(self._sizes[1:])
        whole = self._begun >= self._parts
        known, known_size = (self._foreseen, size) if whole else (0, 0)
        rate = (self._past + known) / max(1, self._past_size + known_size) if self._past or known else 1.0
        present = max(self._done, self._foreseen, 0 if whole else round(rate * size))
        return self._past + present + round(rate * later)

    def foresee(self, tokens: int) -> None:
        """A part of the present shard begins, of so many tokens."""
        self._foreseen += tokens
        self._begun += 1
        self._show(self.done, self.total)

    def did(self, tokens: int) -> None:
        """So many of them are computed."""
        self._done += tokens
        self._show(self.done, self.total)

    def spare(self, tokens: int) -> None:
        """So many that were foreseen are not needed: an answer has ended."""
        self._foreseen -= tokens
        self._show(self.done, self.total)

    def end_shard(self) -> None:
        """The present shard is done, whatever was foreseen."""
        self._past, self._past_size = self.done, self._past_size + self._sizes.pop(0)
        self._done = self._foreseen = self._begun = 0
        self._show(self.done, self.total)


_NOBODY = Work([0], 1, lambda done, total: None)
_listening: list[Work] = []


def work() -> Work:
    """The count that is kept now; one that nobody looks at where there is none."""
    return _listening[-1] if _listening else _NOBODY


@contextmanager
def counted(into: Work) -> Iterator[None]:
    """What is computed in the block is counted there."""
    _listening.append(into)
    try:
        yield
    finally:
        _listening.remove(into)
