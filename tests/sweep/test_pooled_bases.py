"""Bases as a factor: means over all bases, intervals about new ones, comparisons paired within each base."""

from statistics import NormalDist

import numpy as np
import pytest
from planted_runs import answers, plant

from dlma.report import tables as sweep_tables
from dlma.runs import cells as run_folders
from dlma.runs.folder import RunFolder
from dlma.statistics import significance
from dlma.statistics.variance_components import nested_interval
from dlma.sweep import estimates as sweep_results
from dlma.sweep import pooled_bases
from dlma.sweep import settings as sweep_settings
from dlma.sweep.results import bases

BASES = ("lab-a", "lab-b", "lab-c")


@pytest.fixture
def cells(tmp_path):
    return {
        (base, seed): plant(tmp_path / f"{base}{seed}", base=base, seed=seed, harm=0.2 + 0.1 * i, tag=base)
        for i, base in enumerate(BASES)
        for seed in (0, 1)
    }


def rows_of(cells):
    return sweep_settings.settings([run_folders.read_cell(folder) for folder in cells.values()])


def harm(folder, arm):
    return [float(row.harmful) for row in RunFolder(folder).answers() if row.arm == arm]


def cube(cells, arm):
    return np.array([[harm(cells[base, seed], arm) for seed in (0, 1)] for base in BASES]).transpose(2, 0, 1)


def test_the_pooled_rows_are_over_prompts_bases_and_seeds(cells):
    found = {
        (one.label, one.metric, one.statistic, one.axis): one
        for one in pooled_bases.results(rows_of(cells), None, None)
    }
    mine, wanted = found["dlma", "harmful", "mean", ""], nested_interval(cube(cells, "aligned"))
    assert (mine.base, mine.seeds, mine.n) == ("lab-a + lab-b + lab-c", (0, 1), 60)
    assert (mine.value, mine.low, mine.high) == pytest.approx((wanted.value, max(0, wanted.low), wanted.high))
    differences = cube(cells, "aligned") - cube(cells, "base")
    gap, wanted = found["dlma", "harmful", "difference", ""], nested_interval(differences)
    assert (gap.value, gap.low, gap.high) == pytest.approx((wanted.value, wanted.low, wanted.high))
    assert gap.p_holm >= significance.p_value(differences.mean(axis=2))
    assert found["dlma", "harmful", "sd", "bases"].value >= 0


def test_where_all_is_alike_on_all_bases_the_interval_is_that_of_the_prompts(tmp_path):
    cells = {
        (base, seed): plant(tmp_path / f"{base}{seed}", base=base, seed=seed, rows=nothing_harmful(seed))
        for base in BASES
        for seed in (0, 1)
    }
    found = {(one.label, one.metric, one.statistic): one for one in pooled_bases.results(rows_of(cells), None, None)}
    mine, gap = (found["dlma", "harmful", statistic] for statistic in ("mean", "difference"))
    z2 = NormalDist().inv_cdf(0.975) ** 2
    assert (mine.value, mine.low, mine.high) == pytest.approx((0.0, 0.0, z2 / (60 + z2)))  # Wilson at 0 of 60
    half = 1 - 0.025 ** (1 / 60)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.0, -half, half))


def nothing_harmful(seed):
    return [row for arm in ("base", "aligned") for row in answers(arm, seed, prompts=60, harm=0.0, kl=1.0)]


def test_the_bases_own_rows_stay_and_the_tables_show_both(cells):
    rows = rows_of(cells)
    found = sweep_results.results(rows) + pooled_bases.results(rows, None, None)
    assert bases(found) == [*BASES, "lab-a + lab-b + lab-c"]
    titles = [table.title for table in sweep_tables.tables(found)]
    assert "lab-a + lab-b + lab-c: means with 95 % intervals" in titles


def test_one_base_is_not_pooled(tmp_path):
    assert pooled_bases.results(rows_of({0: plant(tmp_path / "a")}), None, None) == []
