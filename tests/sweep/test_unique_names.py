"""Bases, judges and metrics are what their fingerprints say: unlike ones of one name never are one row of a report."""

import json

import pytest
from planted_runs import plant

from dlma.metrics import scores
from dlma.metrics.base import by_own_names
from dlma.records import MetricValue
from dlma.runs import cells
from dlma.sweep import estimates
from dlma.sweep import settings as sweep_settings


def manifest(folder, weights="w1", judge="j1", metric="m1"):
    """What a run's manifest.json says of them."""
    columns = [{"name": "perplexity_reference", "label": "perplexity under m"}]
    said = {
        "contexts": {"values": {"weights": [weights, f"tuned/{folder.name}"]}},
        "judge llm": {"values": {"name": "llm", "identity": [judge]}},
        "metric perplexity": {"values": {"name": "perplexity", "identity": [metric]}, "notes": {"columns": columns}},
    }
    (folder / "manifest.json").write_text(json.dumps(said))


def run(folder, seed=0, **prints):
    said = dict(prompt_id="p0", category=None, judge="llm", arm="aligned", against="base", outcome="win")
    told = dict(shown_first="win", shown_second="win", margin=None)
    score = dict(item="p0", category=None, arm="base", metric="perplexity_reference", value=1.0, weight=1.0)
    plant(folder, seed=seed, base="model", verdicts=[{**said, **told}], scores=[score])
    if prints:
        manifest(folder, **prints)
    return folder


def rows(*folders):
    return sweep_settings.settings(cells.collect(folders))


def test_two_bases_of_one_name_are_two_bases_and_the_seeds_of_one_are_one(tmp_path):
    one = [run(tmp_path / "one" / str(seed), seed, weights="w1") for seed in (0, 1)]
    other = [run(tmp_path / "other" / str(seed), seed, weights="w2") for seed in (0, 1)]
    found = rows(*one, *other)
    bases = list(dict.fromkeys(row.base for row in found))
    assert len(bases) == 2 and all(base.startswith("model [") for base in bases)
    aligned = [row for row in found if row.arm == "aligned"]
    assert [list(row.runs) for row in aligned] == [[0, 1], [0, 1]]
    assert {row.base for row in rows(*one)} == {"model"}


def test_a_run_that_does_not_tell_counts_as_the_others(tmp_path):
    found = rows(run(tmp_path / "a", 0), run(tmp_path / "b", 1, weights="w1"))
    assert {row.base for row in found} == {"model"}
    assert [list(row.runs) for row in found if row.arm == "aligned"] == [[0, 1]]


@pytest.mark.parametrize(("kind", "name"), [("judge", "llm"), ("metric", "perplexity_reference")])
def test_a_judge_or_metric_of_one_name_that_is_another_is_another_column(tmp_path, kind, name):
    found = rows(run(tmp_path / "a", 0, **{kind: "x1"}), run(tmp_path / "b", 1, **{kind: "x2"}))
    cells = [cell for row in found if row.arm == "aligned" for cell in row.runs.values()]
    names = {
        "judge": {judge for cell in cells for _, _, judge in cell.verdicts},
        "metric": {metric for cell in cells for metric in cell.metrics},
    }
    others = {"judge": "metric", "metric": "judge"}[kind]
    assert len(names[kind]) == 2 and all(one.startswith(f"{name} [") for one in names[kind])
    assert len(names[others]) == 1 and "[" not in next(iter(names[others]))
    shown = estimates.results(found)
    assert shown and name not in {one.metric for one in shown} | {one.judge for one in shown}


def test_a_judge_that_is_each_bases_own_is_no_clash(tmp_path):
    found = rows(run(tmp_path / "a", 0, weights="w1", judge="w1"), run(tmp_path / "b", 0, weights="w2", judge="w2"))
    judges = {judge for row in found for cell in row.runs.values() for _, _, judge in cell.verdicts}
    assert judges == {"llm"}


def measured(value, label):
    column = {"name": "perplexity_reference", "label": label, "kind": "mean", "unit": "", "better": "", "tax": False}
    return [MetricValue(f"p{i}", None, "base", "perplexity_reference", value) for i in range(3)], [column]


def test_two_metrics_of_one_run_with_the_same_column_are_two_rows():
    told = by_own_names({"small": measured(1.0, "under m"), "large": measured(5.0, "under m")})
    found = [row for one in told for row in scores.score_rows(*one)]
    assert {row.metric: row.estimate.value for row in found} == {
        "perplexity_reference_small": 1.0,
        "perplexity_reference_large": 5.0,
    }
    assert {row.label for row in found} == {"under m (small)", "under m (large)"}
    alone = measured(1.0, "under m")
    assert by_own_names({"small": alone}) == [alone]


@pytest.mark.parametrize(
    ("drawn", "names"), [([0, 1, 2], {"llm"}), ([0, 0, 0], {"llm"}), ([7, 7, 7], {"llm"}), ([5, 5, 6], 2)]
)
def test_a_judge_that_draws_by_the_runs_seed_is_one_judge_and_one_with_a_seed_apart_is_another(tmp_path, drawn, names):
    folders = [run(tmp_path / str(seed), seed) for seed in (0, 1, 2)]
    for folder, seed in zip(folders, drawn, strict=True):
        values = {"name": "llm", "identity": ["j"], "seed": seed}
        (folder / "manifest.json").write_text(json.dumps({"judge llm": {"values": values}}))
    judges = {judge for row in rows(*folders) for cell in row.runs.values() for _, _, judge in cell.verdicts}
    assert judges == names if isinstance(names, set) else len(judges) == names
