"""Rows of run folders and of values.parquet become one table: a row by its name, its seeds together, none unsaid."""

import numpy as np
import pytest
from planted_runs import plant, rows_of

from dlma.errors import UserError
from dlma.metrics.summary import METRICS
from dlma.sweep import curves, estimates, readings, values
from dlma.sweep.joined_seeds import joined
from dlma.sweep.settings import baseline_of

MEASURED = {metric.name: metric for metric in METRICS}


def run(folder, seed, beta=None, method="dlma", **options):
    overrides = {} if beta is None else {"recipe.beta": beta}
    return plant(folder / f"{method}-{beta}-{seed}", method=method, seed=seed, overrides=overrides, **options)


def kept(path, *folders):
    """The rows of these runs, as values.parquet has them."""
    values.write(path / "values.parquet", rows_of(*folders), MEASURED)
    return values.read(path / "values.parquet")


def seeds(rows):
    return {row.label: list(row.runs) for row in rows}


def find(rows, label):
    (found,) = [row for row in rows if row.label == label]
    return found


def test_a_row_has_the_seeds_of_both_and_of_a_seed_in_both_the_folders_run(tmp_path):
    earlier = kept(tmp_path, *(run(tmp_path / "a", seed) for seed in (0, 1)))
    rows = joined(rows_of(*(run(tmp_path / "b", seed, harm=0.9) for seed in (1, 2))), earlier)
    assert seeds(rows) == {"base": [0, 1, 2], "prompted": [0, 1, 2], "dlma": [0, 1, 2]}
    means = [arm.numbers["harmful"][:, 0].mean() for arm in find(rows, "dlma").arms.values()]
    assert means[0] < 0.5 and min(means[1:]) > 0.8  # planted: 0.3, then 0.9
    first = find(earlier, "dlma").arms[0]
    assert np.array_equal(find(rows, "dlma").arms[0].numbers["harmful"], first.numbers["harmful"])


def test_prompts_go_by_their_hashes_whoever_brings_them(tmp_path):
    first, second = run(tmp_path / "a", 0), run(tmp_path / "b", 1)
    rows = joined(rows_of(second), kept(tmp_path, first))
    prompts = {prompt for row in rows for arm in row.arms.values() for prompt in arm.prompts}
    assert prompts == {values.hashed(f"p{i}") for i in range(60)}
    values.write(tmp_path / "joined.parquet", rows, MEASURED)
    values.write(tmp_path / "whole.parquet", rows_of(first, second), MEASURED)
    one, other = (values.read(tmp_path / f"{name}.parquet") for name in ("joined", "whole"))
    assert seeds(one) == seeds(other)
    for row, like in zip(one, other, strict=True):
        assert all(row.arms[seed].prompts == like.arms[seed].prompts for seed in row.runs)


def test_an_earlier_seed_has_the_config_and_overrides_of_its_rows_own_runs(tmp_path):
    earlier = kept(tmp_path, *(run(tmp_path / "a", 0, beta) for beta in (1.0, 2.0)))
    rows = joined(rows_of(*(run(tmp_path / "b", 1, beta) for beta in (1.0, 2.0))), earlier)
    for beta in (1.0, 2.0):
        row = find(rows, f"dlma, beta={beta}")
        assert [cell.config["recipe.beta"] for cell in row.runs.values()] == [beta, beta]
        assert [(seed, cell.seed) for seed, cell in row.runs.items()] == [(0, 0), (1, 1)]
        assert row.overrides == {"recipe.beta": str(beta)} and baseline_of(row, rows, None).label == "base"


def test_a_row_that_no_folder_has_stays_as_it_was(tmp_path):
    """beta=3.0 was measured earlier alone; its settings are those of the sweep, and it is compared as before."""
    first = [run(tmp_path / "a", 0, beta) for beta in (1.0, 3.0)]
    rows = joined(rows_of(*(run(tmp_path / "b", 1, beta) for beta in (1.0, 2.0))), kept(tmp_path, *first))
    names = ["base", "prompted", "dlma, beta=1.0", "dlma, beta=3.0", "dlma, beta=2.0"]
    assert list(seeds(rows).items()) == list(zip(names, [[0, 1], [0, 1], [0, 1], [0], [1]], strict=True))
    alone = find(rows, "dlma, beta=3.0")
    assert alone.overrides == alone.config == {"recipe.beta": "3.0"}
    with pytest.raises(
        UserError, match=r"dlma, beta=3\.0: no folder has a run of it, and its values do not say recipe\.lr"
    ):
        alone.config["recipe.lr"]
    before = rows_of(*first)
    one, other = (
        estimates.compare(find(each, alone.label), find(each, "base"), MEASURED["harmful"]) for each in (rows, before)
    )
    assert (one.estimate.value, one.seeds) == (pytest.approx(other.estimate.value), [0])
    assert baseline_of(alone, rows, None).label == "base"


def test_the_base_that_a_row_without_folders_is_held_against_is_the_folders_where_both_have_it(tmp_path):
    """Seed 0 of the base came out otherwise on another machine."""
    earlier = kept(tmp_path, run(tmp_path / "a", 0))
    find(earlier, "base").arms[0].numbers["harmful"][:, 0] = 0.0
    rows = joined(rows_of(run(tmp_path / "b", 0, method="rlcd")), earlier)
    base = baseline_of(find(rows, "dlma"), rows, None)
    assert base is find(rows, "base") and base.arms[0].numbers["harmful"][:, 0].mean() > 0.5  # planted: 0.7


def test_bases_stand_together_and_their_own_answers_first(tmp_path):
    weak = {"base": "weak", "tag": "w", "overrides": {"model.base": "weak"}}
    first = [run(tmp_path / "a", 0), plant(tmp_path / "weak0", **weak)]
    second = [plant(tmp_path / "weak1", seed=1, method="rlcd", **weak), run(tmp_path / "b", 1, method="rlcd")]
    rows = joined(rows_of(*second), kept(tmp_path, *first))
    assert [(row.base, row.label) for row in rows] == [
        (base, label) for base in ("lab-standard", "weak") for label in ("base", "prompted", "dlma", "rlcd")
    ]


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ([1.0, 2.0], [1.0], "the folders' dlma may be the earlier dlma, beta=1.0 under another name"),
        ([1.0], [1.0, 2.0], "the folders' dlma, beta=1.0 may be the earlier dlma under another name"),
    ],
)
def test_rows_that_may_be_one_under_two_names_are_refused(tmp_path, first, second, reason):
    """What differs among the runs of a side is in its names; a value that all of them share is not."""
    earlier = kept(tmp_path, *(run(tmp_path / "a", 0, beta) for beta in first))
    with pytest.raises(UserError, match=reason):
        joined(rows_of(*(run(tmp_path / "b", 1, beta) for beta in second)), earlier)


@pytest.mark.parametrize("second", [{}, {"labels": "sign", "recipe.beta": 5.0}])
def test_a_row_without_folders_that_is_not_told_by_what_the_folders_differ_in_is_refused(tmp_path, second):
    """Of the first beta is not known to be an override; for the second labels is not known of the earlier row."""
    earlier = kept(tmp_path, *(run(tmp_path / "a", 0, beta) for beta in (1.0, 2.0)))
    folders = [plant(tmp_path / "b", seed=1, method="rlcd", overrides=second), run(tmp_path, 1, method="ipo")]
    with pytest.raises(
        UserError, match=r"dlma, beta=1\.0: no folder has a run of it, and the folders' rows are told by"
    ):
        joined(rows_of(*folders), earlier)


def test_rows_and_their_settings_stand_in_the_order_of_the_earlier_table(tmp_path):
    """labels before beta in the folders, whose runs come the other way round; beta before labels before them."""
    grid = [(beta, labels) for beta in (1.0, 2.0) for labels in ("sign", "kept")]
    first = [{"recipe.beta": beta, "labels": labels} for beta, labels in grid]
    second = [{"labels": labels, "recipe.beta": beta} for beta, labels in grid]
    one, other = (
        [plant(tmp_path / f"{seed}{i}", seed=seed, overrides=told, tag=str(i)) for i, told in enumerate(each)]
        for seed, each in enumerate((first, second[::-1]))
    )
    names = [row.label for row in rows_of(*one)]
    assert "dlma, beta=1.0, labels=sign" in names and "dlma, labels=sign, beta=1.0" in seeds(rows_of(*other))
    found = seeds(joined(rows_of(*other), kept(tmp_path, *one)))
    assert list(found) == names and all(each == [0, 1] for each in found.values())


def test_two_rows_of_one_name_are_refused(tmp_path):
    """The base answered the same seed twice, and not alike."""
    rows = rows_of(run(tmp_path / "a", 0), run(tmp_path / "b", 0, method="rlcd", prompts=50))
    assert [row.label for row in rows].count("base") == 2
    with pytest.raises(UserError, match="lab-standard, base: two rows have this name"):
        joined(rows, kept(tmp_path, run(tmp_path / "c", 1)))


def test_other_prompts_are_another_experiment(tmp_path):
    earlier = kept(tmp_path, run(tmp_path / "a", 0))
    with pytest.raises(UserError, match=r"of the 60 prompts of its earlier seeds seed 1 in .* lacks 20: not the same"):
        joined(rows_of(run(tmp_path / "b", 1, prompts=40)), earlier)


def test_differences_are_over_the_seeds_that_both_sides_have(tmp_path):
    """dlma in seeds 0 and 1, rlcd in 1 and 2, ipo in 3: a difference is of the seeds in common, or is not there."""
    first = [run(tmp_path / "a", seed, beta) for seed in (0, 1) for beta in (1.0, 2.0)]
    second = [run(tmp_path / "b", seed, beta, "rlcd", harm=0.5) for seed in (1, 2) for beta in (1.0, 2.0)]
    second += [run(tmp_path / "b", 3, beta, "ipo") for beta in (1.0, 2.0)]
    rows = joined(rows_of(*second), kept(tmp_path, *first))
    one, other, third = (find(rows, f"{method}, beta=1.0") for method in ("dlma", "rlcd", "ipo"))
    compared = estimates.compare(one, other, MEASURED["harmful"])
    means = [row.arms[1].numbers["harmful"][:, 0].mean() for row in (one, other)]
    assert compared.seeds == [1] and compared.estimate.value == pytest.approx(means[0] - means[1])
    assert estimates.compare(one, third, MEASURED["harmful"]) is None
    drawn = curves.along_kl(rows, ["recipe.beta"])
    assert [(curve.method, curve.seeds) for curve in drawn] == [("dlma", [0, 1]), ("rlcd", [1, 2]), ("ipo", [3])]
    found = readings.results(drawn, "harmful", "rlcd", [0.5])
    assert {one.method: one.seeds for one in found if one.statistic == "difference"} == {"dlma": (1,)}
    assert {one.seeds for one in found if (one.method, one.statistic) == ("dlma", "mean")} == {(0, 1)}
