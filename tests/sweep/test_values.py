"""The values of every seed and prompt, kept as numbers, give back what was estimated from the runs."""

import math

import pyarrow.parquet as pq
import pytest
from planted_runs import options, plant, rows_of

from dlma.metrics.summary import METRICS
from dlma.sweep import all_results, estimates, values

MEASURED = {metric.name: metric for metric in METRICS}


@pytest.fixture
def rows(tmp_path):
    return rows_of(*(plant(tmp_path / f"{seed}", seed=seed, method="a;b=c") for seed in (0, 1)))


@pytest.mark.parametrize("name", ["harmful", "kl", "perplexity"])
def test_an_estimate_and_a_comparison_are_the_same_from_the_file_alone(rows, tmp_path, name):
    values.write(tmp_path / "values.parquet", rows, MEASURED)
    again = values.read(tmp_path / "values.parquet")
    assert [(row.base, row.label, row.arm, sorted(row.runs)) for row in again] == [
        (row.base, row.label, row.arm, sorted(row.runs)) for row in rows
    ]
    one, other = (estimates.estimate(MEASURED[name], list(each[-1].arms.values())) for each in (rows, again))
    assert (one.value, one.low, one.high, one.n) == pytest.approx((other.value, other.low, other.high, other.n))
    one, other = (estimates.compare(each[-1], each[0], MEASURED[name]) for each in (rows, again))
    assert (one.estimate.value, one.p, one.needed) == pytest.approx((other.estimate.value, other.p, other.needed))


def test_only_the_metrics_asked_for_are_kept_and_no_text_of_a_run(rows, tmp_path):
    path = tmp_path / "values.parquet"
    values.write(path, rows, {"harmful"})
    table = pq.read_table(path)
    assert set(table["metric"].to_pylist()) == {"harmful"} and table.num_rows == 3 * 2 * 60
    assert not any(text in path.read_bytes() for text in (b"question", b"answers", b'"p1"'))
    assert len(set(table["prompt"].to_pylist())) == 60 and str(table.schema.field("prompt").type) == "uint64"
    assert not any(math.isnan(value) for value in table["value"].to_pylist())


def test_without_any_value_there_is_no_file(rows, tmp_path):
    values.write(tmp_path / "values.parquet", rows, {"skill_loss"})
    assert not (tmp_path / "values.parquet").exists()


def test_rows_that_were_read_are_held_against_their_base_and_written_as_they_were(rows, tmp_path):
    values.write(tmp_path / "values.parquet", rows, MEASURED)
    again = values.read(tmp_path / "values.parquet")
    one, other = (all_results.results(each, options(tested=["harmful"])) for each in (rows, again))
    assert [(a.key, a.seeds, a.n) for a in one] == [(b.key, b.seeds, b.n) for b in other]
    assert {a.versus for a in one if a.statistic == "difference"} == {"base"}
    assert [a.value for a in one] == pytest.approx([b.value for b in other], nan_ok=True)
    values.write(tmp_path / "again.parquet", again, MEASURED)
    first, second = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("values", "again"))
    assert first.equals(second)
