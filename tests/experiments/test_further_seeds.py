"""Seeds added to a committed table come out as if all run folders had been there, and nothing committed is lost."""

import math
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import yaml
from planted_runs import answers, costing

from dlma import records
from dlma.errors import UserError
from dlma.records import EvalRow
from dlma.sweep.results import Result, read_csv, write_csv
from experiments import further_seeds, tables

TABLE = {
    "commands": [],
    "show": ["harmful", "kl", "humour"],
    "sweep": {"tested": ["harmful"], "kl_levels": [0.3], "curves_against": "dlma", "flops": []},
}
TABLE["sweep"]["curve_axis"] = ["recipe.beta"]
OWN = """
from dataclasses import replace

from dlma.sweep import estimates


def results(rows):
    trained = [row for row in rows if row.arm == "aligned"]
    named = [replace(row, method=f"at {row.config['recipe.beta']}", settings=()) for row in trained]
    return estimates.results(named, tested=[])
"""
NAMED = """
from dataclasses import replace

from dlma.sweep import costs, estimates
from dlma.sweep.settings import said


def named(row):
    return replace(row, method=f"at {said(row, 'recipe.beta')}", settings=()) if row.arm == "aligned" else row


def results(rows):
    trained = [named(row) for row in rows if row.arm == "aligned"]
    return estimates.results(trained, tested=[]) + costs.results(trained)
"""
KLS, HARMS = {1.0: 1.0, 0.5: 0.6}, {1.0: 0.3, 0.5: 0.45}  # by beta


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """An experiment without results."""
    monkeypatch.setattr(tables, "HERE", tmp_path / "experiments")
    (tmp_path / "experiments" / "mine").mkdir(parents=True)
    (tmp_path / "experiments" / "mine" / "table.yaml").write_text(yaml.safe_dump(TABLE))
    return tmp_path / "experiments" / "mine"


def sweep(folder, seeds, methods=("dlma", "rlcd"), betas=(1.0, 0.5), **options):
    """A sweep's run folders; each run has a policy on the way, a further metric, and a cost of its own."""
    for method, beta, seed in ((m, b, s) for m in methods for b in betas for s in seeds):
        name = f"{method}-{beta}-{seed}"
        scores = [
            {"metric": "humour", "arm": "aligned", "item": f"p{i}", "value": (7 * i + seed) % 5, "weight": 1.0}
            for i in range(40)
        ]
        summary = [{"metric": "humour", "arm": "aligned", "unit": "", "label": "wit", "estimate": {"value": 2.0}}]
        made = {"method": method, "seed": seed, "overrides": {"recipe.beta": beta}, "prompts": 40, "tag": str(beta)}
        made |= {"harm": HARMS[beta], "kl": KLS[beta], "scores": scores, "status": {"result": {"summary": summary}}}
        costing(folder / name, 1e12 * (1 + seed) / beta, labels=100.0 * seed, **made | options)
        way = answers("step-1", seed, prompts=40, harm=0.6, kl=KLS[beta] / 2, tag=name)
        pq.write_table(records.to_table(EvalRow, way), folder / name / "trajectory.parquet")
    return folder


def of(method):
    """The rows of a method, as the sweep has them."""
    return [f"{method}, beta=0.5", f"{method}, beta=1.0"]


def results(mine):
    return {(one.key, one.seeds): one for one in read_csv(mine / "results.csv")}


def kept(mine):
    return sorted(tuple(line.values()) for line in pq.read_table(mine / "values.parquet").to_pylist())


def assert_alike(found, other):
    """The same numbers, in the same order."""
    assert list(found) == list(other)
    for name, one in found.items():
        numbers = [(x.n, x.value, x.low, x.high, x.p_holm) for x in (one, other[name])]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-9, nan_ok=True), name


def test_seeds_that_are_added_come_out_as_if_all_folders_had_been_there(mine, tmp_path):
    """Means, differences, curves' values, a further metric and costs; and once more changes nothing."""
    first, second = sweep(tmp_path / "a", (0, 1)), sweep(tmp_path / "b", (2,))
    tables.collect("mine", [first, second])
    whole, values = results(mine), kept(mine)
    tables.collect("mine", [first])
    assert {seeds for _, seeds in results(mine)} == {(0, 1)}
    for _ in range(2):
        tables.add("mine", [second])
        assert_alike(results(mine), whole)
        assert kept(mine) == values
    said = {(one.metric, one.statistic, one.axis) for one in whole.values()}
    assert {("humour", "mean", ""), ("harmful", "difference", "kl"), ("flops", "cost", "")} <= said
    assert {seeds for _, seeds in whole} == {(0, 1, 2)}


def test_committed_values_read_again_give_the_same_numbers_and_keep_what_they_do_not_hold(mine, tmp_path):
    tables.collect("mine", [sweep(tmp_path / "a", (0, 1))])
    whole = read_csv(mine / "results.csv")
    narrow = [replace(one, low=one.value, high=one.value) if one.axis == "kl" else one for one in whole]
    beyond = replace(whole[0], statistic="share", judge="somebody", value=0.25)
    (mine / "results.csv").write_bytes(write_csv([*narrow, beyond]))
    assert tables.main(["again", "mine"]) == 0
    *read, last = read_csv(mine / "results.csv")
    assert last == beyond and [one.key for one in read] == [one.key for one in whole]
    for one, other in zip(read, whole):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), nan_ok=True)


def test_what_is_not_read_off_the_values_any_more_goes_and_what_is_new_comes(mine, tmp_path, capsys):
    tables.collect("mine", [sweep(tmp_path / "a", (0, 1))])
    whole = read_csv(mine / "results.csv")
    (missing,) = [one for one in whole if (one.label, one.metric, one.statistic) == ("rlcd, beta=0.5", "kl", "mean")]
    stale = [replace(missing, at=9.0, axis="kl"), replace(missing, metric="skill")]  # the second is not in the values
    (mine / "results.csv").write_bytes(write_csv([*(one for one in whole if one != missing), *stale]))
    assert tables.main(["again", "mine"]) == 0
    assert {one.key for one in read_csv(mine / "results.csv")} == {one.key for one in [*whole, stale[1]]}
    assert "mine: rlcd, beta=0.5, kl, mean: not read off the values any more" in capsys.readouterr().out


def test_of_a_seed_in_both_the_folders_run_counts(mine, tmp_path):
    """Seed 1 measured twice: the values are those of the second time, the others are kept."""
    first, again = sweep(tmp_path / "a", (0, 1)), sweep(tmp_path / "b", (1,), harm=0.9)
    for folder in again.iterdir():  # what it cost is the same
        assert (folder / "costs.json").read_text() == (first / folder.name / "costs.json").read_text()
    tables.collect("mine", [first])
    tables.add("mine", [again])
    added, values = results(mine), kept(mine)
    tables.collect("mine", [sweep(tmp_path / "c", (0,)), again])
    assert_alike(added, results(mine))
    assert kept(mine) == values


def test_methods_are_added_in_seeds_of_their_own_and_compared_over_those_alone(mine, tmp_path, capsys):
    """A new method in seed 0 only, the others in folders that are gone: its difference from a curve is over seed 0."""
    first, new = sweep(tmp_path / "a", (0, 1), methods=["dlma"]), sweep(tmp_path / "b", (0,), methods=["rlcd"])
    tables.collect("mine", [first, new])
    whole, values = results(mine), kept(mine)
    tables.collect("mine", [first])
    tables.add("mine", [new])
    assert capsys.readouterr().out.splitlines() == [
        "seeds 0+1: 4 rows (" + "; ".join(f"lab-standard, {row}" for row in ("base", "prompted", *of("dlma"))) + ")",
        "seeds 0: 2 rows (" + "; ".join(f"lab-standard, {row}" for row in of("rlcd")) + ")",
    ]
    assert_alike(results(mine), whole)
    assert kept(mine) == values
    along = {(one.method, one.statistic): one.seeds for one in whole.values() if one.axis == "kl"}
    assert along["rlcd", "difference"] == (0,) and along["dlma", "mean"] == (0, 1)
    ends = {(one.method, one.versus): one.seeds for one in whole.values() if one.statistic == "difference"}
    assert ends["rlcd", "base"] == (0,) and ends["dlma", "base"] == (0, 1)


def test_a_table_of_the_experiments_own_is_added_to_by_its_results(mine, tmp_path):
    """Its rows are named by their configs, which the earlier seeds have from the folders' runs."""
    (mine / "table.py").write_text(OWN)
    first, second = sweep(tmp_path / "a", (0, 1), methods=["dlma"]), sweep(tmp_path / "b", (2,), methods=["dlma"])
    tables.collect("mine", [first, second])
    whole = results(mine)
    assert {one.method for one in whole.values()} == {"at 1.0", "at 0.5"}
    tables.collect("mine", [first])
    tables.add("mine", [second])
    assert_alike(results(mine), whole)


def bytes_of(mine):
    return [(mine / name).read_bytes() for name in ("results.csv", "values.parquet")]


def test_rows_that_a_table_gives_names_of_its_own_keep_what_their_earlier_runs_cost(mine, tmp_path):
    (mine / "table.py").write_text(NAMED)
    first, second = sweep(tmp_path / "a", (0, 1), methods=["dlma"]), sweep(tmp_path / "b", (2,), methods=["dlma"])
    tables.collect("mine", [first, second])
    whole = results(mine)
    assert any(one.statistic == "cost" and one.metric == "flops" for one in whole.values())
    tables.collect("mine", [first])
    tables.add("mine", [second])
    assert_alike(results(mine), whole)


def test_what_cannot_be_matched_or_would_be_lost_is_said_and_leaves_the_files(mine, tmp_path, capsys):
    tables.collect("mine", [sweep(tmp_path / "a", (0, 1))])
    before = bytes_of(mine)
    cases = {
        "may be the earlier dlma, beta=0.5 under another name": sweep(tmp_path / "b", (2,), betas=[1.0]),
        "of the 40 prompts of its earlier seeds seed 2": sweep(tmp_path / "c", (2,), prompts=39, scores=None),
        "numbers of results.csv would be lost": sweep(tmp_path / "d", (2,), scores=None),
        "no run folder there": tmp_path / "nowhere",
    }
    for said, folder in cases.items():
        assert tables.main(["add", "mine", str(folder)]) == 2
        assert said in capsys.readouterr().err and bytes_of(mine) == before
    (mine / "table.py").write_text("def collect(*folders):\n    return []\n")
    assert tables.main(["add", "mine", str(tmp_path / "a")]) == 2
    assert "its table.py reads files of every run" in capsys.readouterr().err and bytes_of(mine) == before
    (mine / "table.py").unlink()
    (mine / "values.parquet").unlink()
    assert tables.main(["add", "mine", str(tmp_path / "a")]) == 2
    assert "values.parquet: not there" in capsys.readouterr().err


def test_a_number_over_fewer_seeds_than_before_is_lost_and_a_curves_value_may_go():
    """What a seed more takes away from a curve, or from what is beyond one, is no loss."""
    mean = Result("b", "m", "harmful", 3, 0.5, seeds=(0, 1))
    may_go = [replace(mean, axis="kl", at=1.0), replace(mean, metric="beyond_curve"), replace(mean, statistic="gap")]
    may_go.append(replace(mean, statistic="cost", metric="flops", versus="base"))
    further_seeds.refuse_losses([mean, *may_go], [replace(mean, seeds=(0, 1, 2), value=0.1)])
    for what in ({"seeds": (1, 2)}, {"metric": "kl"}, {"settings": (("lr", "1"),)}, {"statistic": "share"}):
        with pytest.raises(UserError, match=r"1 numbers of .* would be lost"):
            further_seeds.refuse_losses([mean], [replace(mean, **what)])


def test_costs_of_earlier_seeds_are_what_the_mean_leaves_for_them(mine, tmp_path):
    """1, 2 and 3 TFLOP by seed: the mean is 2; without seed 2, which is made again, 1.5 for each of the others."""
    folder = sweep(tmp_path / "a", (0, 1, 2), methods=["dlma"], betas=[1.0])
    tables.collect("mine", [folder])
    rows = [row for row in further_seeds.values.read(mine / "values.parquet") if row.final]
    again = tables.settings(tables.run_folders.collect([folder / "dlma-1.0-2"]))
    for own, each in (([], 2e12), (again, 1.5e12)):
        (found,) = [
            r for r in further_seeds.with_costs(rows, read_csv(mine / "results.csv"), own) if r.arm == "aligned"
        ]
        assert [cell.costs.flops for cell in found.runs.values()] == pytest.approx([each] * 3)
        assert math.isclose(found.runs[0].costs.human_labels, 100.0 if not own else 50.0)
    (mine / "results.csv").write_bytes(write_csv([]))
    assert all(row.runs[0].costs is None for row in further_seeds.with_costs(rows, read_csv(mine / "results.csv"), []))


@pytest.mark.parametrize("command", ["again", "render", "run", "add"])
def test_a_name_that_no_experiment_has_is_told_with_the_one_that_was_meant(command, capsys):
    assert tables.main([command, "main_comparisn", *(["outputs/nowhere"] if command == "add" else [])]) == 2
    assert "main_comparisn: no experiment with a table; did you mean main_comparison?" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["again", "-h"], 0), ([], 2), (["nonsense"], 2)])
def test_help_says_what_can_be_asked_and_is_no_error(words, code, capsys):
    assert tables.main(words) == code
    assert "tables.py render [NAME ...]" in capsys.readouterr().out
