"""The costs of a sweep's rows: means over the runs, nothing for what nobody trained, the quotient to the baseline."""

import math

import pytest
from planted_runs import costing, rows_of

from dlma.report import tables as sweep_tables
from dlma.sweep import costs
from dlma.sweep.results import read_csv, write_csv


@pytest.fixture
def rows(tmp_path):
    spent = {("dlma", 0): 4e12, ("dlma", 1): 5e12, ("rlcd", 0): 2e12, ("rlcd", 1): 4e12}
    folders = [
        costing(tmp_path / f"{method}-{seed}", flops, labels=100.0 * seed, method=method, seed=seed, tag=method)
        for (method, seed), flops in spent.items()
    ]
    return rows_of(*folders)


def by_name(found):
    assert {one.statistic for one in found} == {"cost"}
    return {(one.label, one.metric, one.versus): one for one in found}


def test_a_cost_is_the_mean_over_runs_without_an_interval(rows):
    found = by_name(costs.results(rows, "rlcd"))
    one = found["dlma", "flops", ""]
    assert (one.value, one.n, one.seeds) == (4.5e12, 2, (0, 1)) and math.isnan(one.low) and math.isnan(one.high)
    assert found["dlma", "human_labels", ""].value == 50
    assert found["dlma", "flops", "rlcd"].value == 1.5 and found["rlcd", "flops", "rlcd"].value == 1
    for arm in ("base", "prompted"):
        own = [one for one in found.values() if one.arm == arm]
        assert len(own) == len(costs.HEADS) + 1 and all(one.value == 0 for one in own)


def test_without_a_trained_baseline_the_cheapest_row_is_the_measure(rows):
    assert by_name(costs.results(rows))["dlma", "flops", "rlcd"].value == 1.5


def test_what_a_run_does_not_say_is_not_made_up(tmp_path):
    half = rows_of(
        costing(tmp_path / "a", 2e12, seed=0),
        costing(tmp_path / "b", None, seed=1),
        costing(tmp_path / "c", 3e12, method="rlcd"),
    )
    found = by_name(costs.results(half))
    assert not any(label == "dlma" for label, *_ in found) and found["rlcd", "flops", ""].value == 3e12
    assert costs.results(rows_of(costing(tmp_path / "d", None))) == []


def test_the_table_is_made_of_the_rows_of_the_csv_alone(rows, tmp_path):
    found = costs.results(rows, "rlcd")
    (tmp_path / "results.csv").write_bytes(write_csv(found))
    (table,) = [t for t in sweep_tables.tables(read_csv(tmp_path / "results.csv")) if "cost" in t.title]
    assert table.heads == ["method", *costs.HEADS.values(), "FLOPs over rlcd"]
    assert {row[0]: (row[1], row[-2], row[-1]) for row in table.rows} == {
        "base": ("0", "0", "×0.00"),
        "prompted": ("0", "0", "×0.00"),
        "dlma": ("50", "4.5", "×1.50"),
        "rlcd": ("50", "3", "×1.00"),
    }
    assert "what each row cost" in sweep_tables.markdown(found) and "what each row cost" in sweep_tables.latex(found)
