"""The costs of a sweep's rows: means over the runs, nothing for what nobody trained, the quotient to the baseline."""

import dataclasses
import json
import math

import pytest
from planted_runs import plant

from dlma.cost.spent import Costs
from dlma.report import tables as sweep_tables
from dlma.runs import folder as run_folders
from dlma.sweep import costs
from dlma.sweep import estimates as sweep_results
from dlma.sweep import settings as sweep_settings


def run(folder, flops, *, labels=0.0, **options):
    """A planted run that noted down what it cost; flops None: nothing noted down."""
    plant(folder, **options)
    if flops is not None:
        (folder / "costs.json").write_text(json.dumps(dataclasses.asdict(Costs(human_labels=labels, flops=flops))))
    return folder


def rows_of(*folders):
    return sweep_settings.settings([run_folders.read_cell(folder) for folder in folders])


@pytest.fixture
def rows(tmp_path):
    spent = {("dlma", 0): 4e12, ("dlma", 1): 5e12, ("rlcd", 0): 2e12, ("rlcd", 1): 4e12}
    folders = [
        run(tmp_path / f"{method}-{seed}", flops, labels=100.0 * seed, method=method, seed=seed, tag=method)
        for (method, seed), flops in spent.items()
    ]
    return rows_of(*folders)


def by_name(found):
    return {(row.method, row.metric): row for row in found}


def test_a_cost_is_the_mean_over_runs_without_an_interval(rows):
    found = by_name(costs.results(rows, "rlcd"))
    one = found["dlma", "cost flops"]
    assert (one.mean, one.n, one.seed) == (4.5e12, 2, "0+1") and math.isnan(one.low) and math.isnan(one.high)
    assert found["dlma", "cost human labels"].mean == 50
    assert found["dlma", "cost flops over rlcd"].mean == 1.5 and found["rlcd", "cost flops over rlcd"].mean == 1
    for arm in ("base", "prompted"):
        assert all(row.mean == 0 for (name, _), row in found.items() if name == arm)
        assert sum(name == arm for name, _ in found) == len(costs.NAMES) + 1


def test_without_a_trained_baseline_the_cheapest_row_is_the_measure(rows):
    assert by_name(costs.results(rows))["dlma", "cost flops over rlcd"].mean == 1.5


def test_what_a_run_does_not_say_is_not_made_up(tmp_path):
    half = rows_of(
        run(tmp_path / "a", 2e12, seed=0), run(tmp_path / "b", None, seed=1), run(tmp_path / "c", 3e12, method="rlcd")
    )
    found = by_name(costs.results(half))
    assert not any(method == "dlma" for method, _ in found) and found["rlcd", "cost flops"].mean == 3e12
    assert costs.results(rows_of(run(tmp_path / "d", None))) == []


def test_the_table_is_made_of_the_rows_of_the_csv_alone(rows, tmp_path):
    found = costs.results(rows, "rlcd")
    (tmp_path / "results.csv").write_bytes(sweep_results.write_csv(found))
    (table,) = [t for t in sweep_tables.tables(sweep_results.read_csv(tmp_path / "results.csv")) if "cost" in t.title]
    assert table.heads == ["method", *costs.HEADS.values(), "FLOPs over rlcd"]
    assert {row[0]: (row[1], row[-2], row[-1]) for row in table.rows} == {
        "base": ("0", "0", "×0.00"),
        "prompted": ("0", "0", "×0.00"),
        "dlma": ("50", "4.5", "×1.50"),
        "rlcd": ("50", "3", "×1.00"),
    }
    assert "what each row cost" in sweep_tables.markdown(found) and "what each row cost" in sweep_tables.latex(found)
