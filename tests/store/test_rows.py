"""Rows read from their file a part at a time are those of a list."""

import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlma import records
from dlma.records import Label
from dlma.store import rows, shards
from dlma.store.rows import StoredRows, taken
from dlma.store.store import Store

ROWS = [Label(f"row {i}", i / 7, "positive" if i % 3 else "negative") for i in range(23)]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(records.to_table(Label, ROWS), path, row_group_size=5)  # 5, 5, 5, 5 and 3 rows
    return StoredRows(path, Label)


BOUND = st.one_of(st.none(), st.integers(-30, 30))


@given(BOUND, BOUND, st.one_of(st.none(), st.integers(-7, 7).filter(bool)))
def test_every_slice_is_that_of_a_list(stored, start, stop, step):
    assert stored[start:stop:step] == ROWS[start:stop:step]


def test_it_is_a_sequence_like_a_list(stored):
    assert list(stored) == ROWS and len(stored) == 23
    assert [stored[i] for i in (-1, 7, 0)] == [ROWS[i] for i in (-1, 7, 0)]
    with pytest.raises(IndexError):
        stored[23]


@pytest.mark.parametrize("together", [1, 4, 5, 22, 23, 24])
def test_the_parts_are_the_rows_in_order(stored, monkeypatch, together):
    monkeypatch.setattr(rows, "_TOGETHER", together)
    parts = list(stored.parts())
    assert [row for part in parts for row in part] == ROWS
    assert {len(part) for part in parts[:-1]} <= {together} and 0 < len(parts[-1]) <= together


def test_rows_that_are_taken_are_those_of_a_list_and_may_be_taken_again(stored):
    places = list(range(1, 23, 3))
    for whole in (stored, ROWS):
        some = taken(whole, places)
        assert list(some) == [ROWS[place] for place in places] and some[2:4] == [ROWS[7], ROWS[10]]
        assert list(taken(some, [0, 2])) == [ROWS[1], ROWS[7]]
    assert list(taken(stored, [])) == []


def test_another_process_reads_the_same_by_the_path_alone(stored):
    some = taken(stored, range(0, 20))
    again = pickle.loads(pickle.dumps(some))
    assert list(again) == ROWS[:20] and np.array_equal(again.places, some.places)
    assert len(pickle.dumps(stored)) < 500


def test_one_row_group_is_held_at_a_time(stored):
    for row in stored:
        assert row == ROWS[int(row.id.split()[1])]
        assert stored._held[1].num_rows <= 5


def test_a_stage_is_read_by_another_process_which_makes_and_writes_nothing(tmp_path):
    store = Store(tmp_path / "store", notify=lambda line: None)
    stage = store.stage("pairs", {"seed": 0})
    store.make(stage, lambda folder: shards.write_table(folder / "rows.parquet", records.to_table(Label, ROWS)))
    there, its_store = pickle.loads(pickle.dumps((stage, Store(tmp_path / "store"))))
    assert (there.key, list(there.rows(Label))) == (stage.key, ROWS)
    assert (there.uses, there.writer, there.config) == ((), None, None)
    assert its_store.root == store.root and not its_store.writes
