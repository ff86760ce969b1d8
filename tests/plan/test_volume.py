"""What a stage's rows take in memory and in the shared folder, against what Python and Arrow hold."""

import gc
import tracemalloc

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
