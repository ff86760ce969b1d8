"""The rows of a stage's record file, read a row group at a time: what is held does not grow with the file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dlma import records

_TOGETHER = 256  # rows that are records at once while all are gone through


class StoredRows(Sequence[Any]):
    """The records of a Parquet file, as a list has them; a slice is a list, and only the present row group is held.

    places: of the rows that are taken, (rows,) int64, rising; None: all of the file
    """

    def __init__(self, path: Path, record: type, places: np.ndarray | None = None) -> None:
        self.path, self.record, self.places = path, record, places
        self._held: tuple[int, pa.Table] | None = None
        self._open()

    def _open(self) -> None:
        self._file = pq.ParquetFile(self.path)
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._begins = [0, *itertools.accumulate(sizes)]

    def __getstate__(self) -> dict[str, Any]:
        """As another process reads it: without what is open and held."""
        return {"path": self.path, "record": self.record, "places": self.places}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _held=None)
        self._open()

    def __len__(self) -> int:
        return self._begins[-1] if self.places is None else len(self.places)

    @overload
    def __getitem__(self, place: int) -> Any: ...

    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...

    def __getitem__(self, place: int | slice) -> Any:
        chosen = range(len(self))[place]
        if isinstance(chosen, range):
            return self._at(np.arange(chosen.start, chosen.stop, chosen.step))
        return self._at(np.array([chosen]))[0]

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(self.parts())

    def parts(self) -> Iterator[list[Any]]:
        """The rows in order, some hundreds at a time."""
        for start in range(0, len(self), _TOGETHER):
            yield self[start : start + _TOGETHER]

    def taken(self, places: Sequence[int]) -> StoredRows:
        """Some of these rows, by their places here, which rise."""
        chosen = np.array(places, dtype=np.int64)
        return StoredRows(self.path, self.record, chosen if self.places is None else self.places[chosen])

    def _at(self, places: np.ndarray) -> list[Any]:
        wanted = places if self.places is None else self.places[places]
        groups = np.searchsorted(self._begins, wanted, side="right") - 1
        found: list[Any] = []
        for group, members in itertools.groupby(zip(groups.tolist(), wanted.tolist(), strict=True), lambda one: one[0]):
            inside = [place - self._begins[group] for _, place in members]
            found += records.from_table(self.record, self._group(group).take(inside))
        return found

    def _group(self, number: int) -> pa.Table:
        if self._held is None or self._held[0] != number:
            self._held = None  # before the next one is read
            self._held = number, self._file.read_row_group(number)
        return self._held[1]


def taken(rows: Sequence[Any], places: Sequence[int]) -> Sequence[Any]:
    """Some of the rows of a list or of a file, by their places, which rise."""
    return rows.taken(places) if isinstance(rows, StoredRows) else [rows[place] for place in places]
