"""Shards: the finished parts of a long stage, from which it goes on after a kill.

A stage that writes `total` tables one by one asks `missing_shards` what is left, writes each with
`write_shard`, and ends with `merge_shards`. Shards live in `<folder>/scratch/<name>/`, each with its sha256;
a truncated or damaged one counts as missing. The merged file has the same bytes however often the work was
interrupted, because shards are whole (a row is never appended) and their order is their index.
"""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dlma import files, records
from dlma.store.fingerprint import canonical
from dlma.store.owned import ROWS

SCRATCH = "scratch"  # never part of a finished stage
_ROW_GROUP = 16384
_TOGETHER = 1024  # records that are rows of a table at once while a file of them is written
# The Arrow schema is left out: it holds names that differ between a table in memory and one read back.
_OPTIONS: dict[str, Any] = {"compression": "zstd", "compression_level": 3, "store_schema": False}


def table_bytes(table: pa.Table) -> bytes:
    """The table as Parquet; equal tables give equal bytes, whatever their chunks."""
    buffer = io.BytesIO()
    pq.write_table(_plain(table), buffer, row_group_size=_ROW_GROUP, **_OPTIONS)
    return buffer.getvalue()


def _plain(table: pa.Table) -> pa.Table:
    return table.combine_chunks().replace_schema_metadata(None)


def _join(tables: Iterator[pa.Table], path: Path) -> None:
    """Write tables of one schema as one: the bytes of `table_bytes`, with no more held than a row group and a table."""
    held = _plain(next(tables))
    with pq.ParquetWriter(path, held.schema, **_OPTIONS) as out:
        for table in tables:
            held = pa.concat_tables([held, table.replace_schema_metadata(None)])
            while held.num_rows > _ROW_GROUP:
                out.write_table(held.slice(0, _ROW_GROUP).combine_chunks(), row_group_size=_ROW_GROUP)
                held = held.slice(_ROW_GROUP)
        out.write_table(held.combine_chunks(), row_group_size=_ROW_GROUP)


def write_table(path: Path, table: pa.Table) -> None:
    """Writes the table atomically, with deterministic bytes."""
    files.write_bytes(path, table_bytes(table))


def write_rows(path: Path, record: type, rows: Iterable[Any]) -> None:
    """Writes records as `write_table` does a table of them, with no more held than a row group.

    record: a class without sparse fields: whether one is filled is known at the last row
    """
    with files.atomic(path) as draft:
        _join(_tables(record, iter(rows)), draft)


def _tables(record: type, rows: Iterator[Any]) -> Iterator[pa.Table]:
    yield records.to_table(record, [])  # the columns, where there is no row
    while some := list(itertools.islice(rows, _TOGETHER)):
        yield records.to_table(record, some)


def read_table(path: Path) -> pa.Table:
    return table_of(path.read_bytes())


def table_of(content: bytes) -> pa.Table:
    """The rows of a Parquet file; not by `pq.read_table`, which imports pandas and takes half a second to do so."""
    return pq.ParquetFile(pa.BufferReader(content)).read()


def missing_shards(folder: Path, total: int, *, layout: object = None, out: str = ROWS) -> list[int]:
    """The indices still to be written, in order; empty once `out` is merged.

    `layout` is any JSON value that says what a shard holds (rows, shard size): shards that were written
    under another layout or another total are discarded, because they would not join up with new ones.
    """
    plan = {"total": total, "layout": canonical(layout)}
    if _merged(folder, plan, out):
        return []
    place = _place(folder, out)
    if files.read_json(place / "plan.json") != plan:
        shutil.rmtree(place, ignore_errors=True)
        files.write_json(place / "plan.json", plan)
    return [index for index in range(total) if not files.sealed(_shard(folder, index, out))]


def write_shard(folder: Path, index: int, table: pa.Table, *, out: str = ROWS) -> None:
    path = _shard(folder, index, out)
    write_table(path, table)
    files.seal(path)


def read_shard(folder: Path, index: int, *, out: str = ROWS) -> pa.Table:
    """One shard, verified; raises FileNotFoundError if it is missing or damaged."""
    path = _shard(folder, index, out)
    if not files.sealed(path):
        raise FileNotFoundError(f"{path} is missing or damaged")
    return read_table(path)


def await_shards(folder: Path, total: int, *, out: str = ROWS) -> None:
    """Return when all shards are seen, or the merged file: another machine may have written them just now."""
    if not (_place(folder, out) / "merged.json").is_file():
        files.awaited([_shard(folder, index, out) for index in range(total)], files.VISIBLE)


def merge_shards(folder: Path, total: int, *, layout: object = None, out: str = ROWS) -> Path:
    """Joins all shards in index order into `folder/out`, removes them, and returns the path; idempotent."""
    plan = {"total": total, "layout": canonical(layout)}
    if not _merged(folder, plan, out):
        with files.atomic(folder / out) as draft:
            _join((read_shard(folder, index, out=out) for index in range(total)), draft)
        # The mark is written before the shards go, so that a kill in between loses no work.
        files.write_json(_place(folder, out) / "merged.json", {**plan, "sha256": files.sha256_file(folder / out)})
    for path in _place(folder, out).glob("shard-*"):
        path.unlink()
    return folder / out


def _merged(folder: Path, plan: dict, out: str) -> bool:
    mark = files.read_json(_place(folder, out) / "merged.json")
    if {**plan, "sha256": mark.get("sha256")} != mark or not (folder / out).is_file():
        return False
    return files.sha256_file(folder / out) == mark["sha256"]


def _place(folder: Path, out: str) -> Path:
    return folder / SCRATCH / out


def _shard(folder: Path, index: int, out: str) -> Path:
    return _place(folder, out) / f"shard-{index:05d}.parquet"
