"""What a stage's rows take in memory and in the shared folder, against what Python and Arrow hold."""

import gc
import tracemalloc

import pyarrow as pa
import pytest

from dlma import records
from dlma.plan import volume
from dlma.plan.dry_run import Length, Sizes
from dlma.records import Context, Pair, ScoredPair

SIZES = Sizes(
    train=1000,
    held_out=10,
    contexts={"plain": Length(30, 50), "positive": Length(44, 50), "negative": Length(41, 50)},
    answer=Length(25, 50),
    source="",
)


@pytest.mark.parametrize(
    ("stage", "record"), [("pairs", Context), ("scored", Pair), ("policy", ScoredPair)], ids=lambda one: str(one)
)
def test_rows_in_memory_are_counted_within_a_tenth_of_what_python_allocates(stage, record):
    write = {"pairs": volume._context, "scored": volume._pair, "policy": volume._scored}[stage]
    table = records.to_table(record, [write(SIZES)] * 200)
    gc.collect()
    tracemalloc.start()
    rows = records.from_table(record, table)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert volume.row_bytes(stage, SIZES)[1] * len(rows) == pytest.approx(held, rel=0.1)


def test_a_written_row_is_its_ids_in_four_bytes_its_text_and_a_little_more():
    """A pair: three contexts of 30, 44 and 41 ids, two answers of 25; a question and two texts of four a token."""
    written, _ = volume.row_bytes("pairs", SIZES)
    ids, text = 30 + 44 + 41 + 2 * 25, 4 * (30 + 2 * 25)
    assert 0 < written - (4 * ids + text) < 150
    assert volume.row_bytes("preflight", SIZES) == (0, 0)


def test_rows_are_of_held_out_prompts_of_training_prompts_or_of_pairs():
    found = {name: volume.rows_of(name, SIZES, per_prompt=3) for name in ("base", "contexts", "pairs", "policy")}
    assert found == {"base": 10, "contexts": 1000, "pairs": 3000, "policy": 3000}


def test_the_longest_column_says_how_many_prompts_a_table_holds():
    assert volume.most_prompts(SIZES, per_prompt=2) == (2**31 - 1) // (2 * 44)


@pytest.mark.slow  # 400 MB
def test_a_column_holds_so_many_ids_and_no_more():
    half = (volume.MOST_IDS + 1) // 2
    child = pa.Array.from_buffers(pa.bool_(), half, [None, pa.py_buffer(bytes(half // 8 + 1))])

    def column(*lengths):
        return pa.chunked_array([pa.ListArray.from_arrays(pa.array([0, n], pa.int32()), child) for n in lengths])

    fits = pa.table({"ids": column(half, half - 1)}).combine_chunks()
    assert fits["ids"].num_chunks == 1
    with pytest.raises(pa.ArrowInvalid, match="offset overflow"):
        pa.table({"ids": column(half, half)}).combine_chunks()
