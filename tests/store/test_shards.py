"""Shards: their order, their damage, and bytes that do not depend on how the work was cut."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_kit import spoil

from dlma import files, records
from dlma.errors import UserError
from dlma.records import Label
from dlma.store import shards


def shard(index):
    return pa.table({"id": [f"{index}-{row}" for row in range(3)], "ids": [[index], [], [index, index]]})


def test_shards_join_in_index_order_whatever_the_order_of_writing(tmp_path):
    assert shards.missing_shards(tmp_path, 3) == [0, 1, 2]
    for index in (2, 0, 1):
        shards.write_shard(tmp_path, index, shard(index))
    path = shards.merge_shards(tmp_path, 3)
    assert pq.read_table(path).column("id").to_pylist() == [f"{i}-{r}" for i in range(3) for r in range(3)]
    assert list(tmp_path.rglob("shard-*")) == []


def test_equal_rows_give_equal_bytes_however_they_were_cut(tmp_path):
    whole = pa.concat_tables([shard(index) for index in range(4)])
    shards.write_table(tmp_path / "whole.parquet", whole)
    for total in (1, 2, 4):
        folder = tmp_path / str(total)
        size = whole.num_rows // total
        shards.missing_shards(folder, total)
        for index in range(total):
            shards.write_shard(folder, index, whole.slice(index * size, size))
        assert shards.merge_shards(folder, total).read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.parametrize("sizes", [[0], [0, 0], [7], [7, 0], [3, 9, 2, 7], [30], [1] * 15])
def test_a_part_of_the_shards_is_held_while_they_are_joined_and_the_bytes_are_those_of_the_whole(
    tmp_path, monkeypatch, sizes
):
    monkeypatch.setattr(shards, "_ROW_GROUP", 7)
    rows = range(sum(sizes))
    schema = pa.schema([("id", pa.string()), ("ids", pa.list_(pa.int32()))])
    whole = pa.table([[f"row {row % 5}" for row in rows], [[row] * (row % 4) for row in rows]], schema=schema)
    shards.missing_shards(tmp_path, len(sizes))
    begin = 0
    for index, size in enumerate(sizes):
        shards.write_shard(tmp_path, index, whole.slice(begin, size))
        begin += size
    path = shards.merge_shards(tmp_path, len(sizes))
    assert path.read_bytes() == shards.table_bytes(whole)
    assert pq.ParquetFile(path).num_row_groups in (-(-begin // 7), 1)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 6, 7, 8, 13, 14, 15, 21, 40])
def test_records_that_come_one_by_one_have_the_bytes_of_a_table_of_them(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(shards, "_ROW_GROUP", 7)
    monkeypatch.setattr(shards, "_TOGETHER", 3)
    labels = [Label(f"row {row % 5}", row / 7, "positive") for row in range(rows)]
    shards.write_rows(tmp_path / "rows.parquet", Label, iter(labels))
    assert (tmp_path / "rows.parquet").read_bytes() == shards.table_bytes(records.to_table(Label, labels))


@pytest.mark.parametrize("rows", [16383, 16384, 16385, 40000])
def test_rows_of_several_pages_and_groups_have_those_bytes_too(tmp_path, rows):
    ids = np.arange(64)
    tables = (pa.table({"ids": [ids + row for row in range(i, min(rows, i + 1024))]}) for i in range(0, rows, 1024))
    whole = pa.table({"ids": [ids + row for row in range(rows)]})
    shards._join(tables, tmp_path / "rows.parquet")
    assert (tmp_path / "rows.parquet").read_bytes() == shards.table_bytes(whole)


def test_no_more_is_asked_for_than_a_row_group_and_a_part_before_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_ROW_GROUP", 7)
    monkeypatch.setattr(shards, "_TOGETHER", 3)
    asked, held = [], []
    write = pq.ParquetWriter.write_table
    monkeypatch.setattr(
        pq.ParquetWriter,
        "write_table",
        lambda self, table, **options: (held.append(len(asked)), write(self, table, **options)),
    )
    rows = (asked.append(row) or Label(f"row {row}", 0.0, "positive") for row in range(40))
    shards.write_rows(tmp_path / "rows.parquet", Label, rows)
    assert held[:5] == [9, 15, 24, 30, 36]  # whole parts of three, one row at least beyond each group of seven
    assert len(held) == 6 and held[5] == 40


def test_an_error_among_the_records_leaves_no_file(tmp_path):
    def rows():
        yield Label("row", 0.0, "positive")
        raise UserError("too many are bad")

    with pytest.raises(UserError, match="too many are bad"):
        shards.write_rows(tmp_path / "rows.parquet", Label, rows())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["bit", "cut", "no seal", "empty seal"])
def test_a_damaged_shard_counts_as_missing(tmp_path, harm):
    shards.missing_shards(tmp_path, 3)
    for index in range(3):
        shards.write_shard(tmp_path, index, shard(index))
    assert shards.missing_shards(tmp_path, 3) == []
    path = next(tmp_path.rglob("shard-00001.parquet"))
    seal = path.with_name(path.name + ".sha256")
    if harm == "bit":
        spoil(path)
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "no seal":
        seal.unlink()
    else:
        seal.write_text("")
    assert shards.missing_shards(tmp_path, 3) == [1]
    with pytest.raises(FileNotFoundError):
        shards.merge_shards(tmp_path, 3)
    assert not (tmp_path / "rows.parquet").exists()


def test_shards_of_another_layout_are_discarded(tmp_path):
    shards.missing_shards(tmp_path, 2, layout={"rows": 6, "size": 3})
    shards.write_shard(tmp_path, 0, shard(0))
    assert shards.missing_shards(tmp_path, 2, layout={"rows": 6, "size": 3}) == [1]
    assert shards.missing_shards(tmp_path, 2, layout={"rows": 5, "size": 3}) == [0, 1]
    shards.write_shard(tmp_path, 0, shard(0))
    assert shards.missing_shards(tmp_path, 3, layout={"rows": 5, "size": 3}) == [0, 1, 2]


def test_after_a_merge_nothing_is_missing_and_a_spoilt_merge_starts_again(tmp_path):
    shards.missing_shards(tmp_path, 2)
    for index in range(2):
        shards.write_shard(tmp_path, index, shard(index))
    path = shards.merge_shards(tmp_path, 2)
    data = path.read_bytes()
    assert shards.missing_shards(tmp_path, 2) == []
    assert shards.merge_shards(tmp_path, 2).read_bytes() == data
    spoil(path)
    assert shards.missing_shards(tmp_path, 2) == [0, 1]


def test_shards_of_another_machine_are_waited_for_until_they_are_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "VISIBLE", -1.0)
    seen, awaited = [], files.awaited
    monkeypatch.setattr(files, "awaited", lambda paths, seconds: seen.append(awaited(paths, seconds)))
    shards.missing_shards(tmp_path, 2)
    for index in range(2):
        shards.await_shards(tmp_path, 2)
        shards.write_shard(tmp_path, index, shard(index))
    shards.await_shards(tmp_path, 2)
    assert seen == [False, False, True]
    shards.merge_shards(tmp_path, 2)  # which removes them: there is nothing to wait for
    shards.await_shards(tmp_path, 2)
    assert len(seen) == 3


def test_two_sets_of_shards_share_a_folder(tmp_path):
    for out in ("a.parquet", "b.parquet"):
        shards.missing_shards(tmp_path, 1, out=out)
    shards.write_shard(tmp_path, 0, shard(0), out="a.parquet")
    assert shards.missing_shards(tmp_path, 1, out="a.parquet") == []
    assert shards.missing_shards(tmp_path, 1, out="b.parquet") == [0]
