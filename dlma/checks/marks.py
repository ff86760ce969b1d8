"""Which keys were met among any number of rows, in eight bytes each."""

from __future__ import annotations

import hashlib
from array import array
from functools import cached_property

import numpy as np


class Marks:
    """Keys by 64 bits of their hash, in the order in which they were added: all of them before the first question.

    Of n keys two that differ are taken for one with a probability of n * n / 2**65: 3e-6 of ten million.
    """

    def __init__(self) -> None:
        self._added = array("Q")

    def add(self, *key: object) -> None:
        """One more key, of parts that are told apart by their `repr`: texts, numbers, lists of them."""
        self._added.append(_mark(key))

    def has(self, *key: object) -> bool:
        """Whether the key was added."""
        mark = np.uint64(_mark(key))
        place = np.searchsorted(self._sorted, mark)
        return bool(place < len(self._sorted) and self._sorted[place] == mark)

    def repeats(self) -> tuple[int, int]:
        """How many were added again, and the number of the first of them (from 0; 0 where there is none)."""
        again = np.ones(len(self), dtype=bool)
        again[np.unique(self._all, return_index=True)[1]] = False
        return _told(again)

    def shared(self, others: Marks) -> tuple[int, int]:
        """How many are among the others, and the number of the first of them (from 0; 0 where there is none)."""
        return _told(np.isin(self._all, others._all))

    def __len__(self) -> int:
        return len(self._added)

    @property
    def _all(self) -> np.ndarray:
        return np.array(self._added, dtype=np.uint64)

    @cached_property
    def _sorted(self) -> np.ndarray:
        return np.sort(self._all)


def _mark(key: tuple[object, ...]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest())


def _told(chosen: np.ndarray) -> tuple[int, int]:
    return int(chosen.sum()), int(chosen.argmax()) if len(chosen) else 0
