"""The paper's numbers against planted results: every verdict, by hand; and what the committed file may claim."""

import csv
import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments" / "paper"
SETTINGS = {"recipe.beta": {"value": 0.1, "mark": "V"}, "recipe.lora": {"value": None, "mark": "V"}}
PAGE = {
    "settings": SETTINGS,
    "models": {"llama2_7b": "hub/seven"},
    "data": {"pku_saferlhf": {"path": "hub/pku", "subset": None}},
}


@pytest.fixture(scope="module")
def verify():
    spec = importlib.util.spec_from_file_location("verify", FOLDER / "verify.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["verify"] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["verify"]


def cell(verify, **changes):
    known = dict(table="t", tolerance=0.05, unit="share", model="llama2_7b", data="pku_saferlhf", method="dlma")
    known |= dict(metric="win", value=0.60, n=None, mark="2", source="s", against="base")
    return verify.Cell(**(known | changes))


def plant(folder, seed, rows, beta=0.1, path="hub/seven", status="done", method="dlma"):
    """A finished run as its folder looks."""
    run = folder / f"run{seed}"
    run.mkdir(parents=True)
    (run / "status.json").write_text(json.dumps({"status": status}))
    config = {
        "recipe": {"beta": beta, "lora": None},
        "model": {"path": path},
        "data": {"path": "hub/pku", "subset": None},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with (run / "metrics.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["method", "base", "seed", "metric", "n", "mean", "low", "high"])
        writer.writerows([method, "seven", seed, *row] for row in rows)


def ours(verify, folder, one):
    return verify.measured(one, verify.read_runs([folder], PAGE))


# expected 0.60, tolerance 0.05
@pytest.mark.parametrize(
    ("mean", "low", "high", "n", "word"),
    [
        (0.61, 0.59, 0.63, None, "reproduced"),  # the difference is within [-0.01, 0.03]
        (0.72, 0.68, 0.76, None, "not reproduced"),  # within [0.08, 0.16]
        (0.48, 0.46, 0.50, None, "not reproduced"),
        (0.62, 0.58, 0.66, None, "underpowered"),  # [-0.02, 0.06] reaches across 0.05
        (0.60, 0.50, 0.70, None, "underpowered"),
        # 256 prompts in the paper add 1.96 * sqrt(0.6 * 0.4 / 256) = 0.060 to its own number
        (0.61, 0.59, 0.63, 256, "underpowered"),
        (0.75, 0.74, 0.76, 256, "not reproduced"),
        (0.61, 0.59, 0.63, 100000, "reproduced"),
    ],
)
def test_the_verdict_by_hand(verify, tmp_path, mean, low, high, n, word):
    plant(tmp_path, 0, [["aligned/win/gpt/base", 500, mean, low, high]])
    one = cell(verify, n=n)
    assert verify.verdict(one, ours(verify, tmp_path, one))[0] == word


@pytest.mark.parametrize(
    ("changes", "word", "why"),
    [
        ({"value": None}, "unknown", "open"),
        ({"metric": "tie"}, "unknown", "not measured"),
        ({"against": "rlaif"}, "unknown", "not measured"),
        ({"against": None}, "not comparable", "against"),
        ({"model": None, "unit": None}, "not comparable", "model, unit"),
        ({"method": "rlcd"}, "unknown", "not measured"),
    ],
)
def test_what_cannot_be_compared_says_why(verify, tmp_path, changes, word, why):
    plant(tmp_path, 0, [["aligned/win/gpt/base", 500, 0.6, 0.59, 0.61]])
    one = cell(verify, **changes)
    found = verify.verdict(one, ours(verify, tmp_path, one))
    assert found[0] == word and why in found[1]


def test_a_run_with_other_settings_is_not_comparable(verify, tmp_path):
    plant(tmp_path, 0, [["aligned/win/gpt/base", 500, 0.6, 0.59, 0.61]], beta=0.5)
    assert verify.verdict(cell(verify), ours(verify, tmp_path, cell(verify))) == (
        "not comparable",
        "other settings: recipe.beta=0.5",
    )


def test_a_failed_run_and_one_of_another_model_count_for_nothing(verify, tmp_path):
    plant(tmp_path, 0, [["aligned/win/gpt/base", 500, 0.6, 0.59, 0.61]], status="failed")
    plant(tmp_path, 1, [["aligned/win/gpt/base", 500, 0.6, 0.59, 0.61]], path="hub/other")
    assert ours(verify, tmp_path, cell(verify)) is None


def test_seeds_are_joined_by_hand(verify, tmp_path):
    for seed, mean in enumerate((0.58, 0.60, 0.62)):
        plant(tmp_path, seed, [["aligned/win/gpt/base", 500, mean, mean - 0.03, mean + 0.03]])
    found = ours(verify, tmp_path, cell(verify))
    half = math.hypot(0.03, 4.302653 * 0.02 / math.sqrt(3))  # Student's t of 2 degrees of freedom
    assert (found.value, found.seeds, found.n) == (pytest.approx(0.60), 3, 500)
    assert (found.low, found.high) == (pytest.approx(0.60 - half), pytest.approx(0.60 + half))


def test_the_base_is_its_own_arm_and_a_metric_may_have_no_opponent(verify, tmp_path):
    rows = [["base/cost", 500, 4.0, 3.9, 4.1], ["aligned/cost", 500, 1.0, 0.9, 1.1]]
    plant(tmp_path, 0, rows, method="base")
    one = cell(verify, metric="cost", against="", method="base", value=4.0, tolerance=0.5, unit="points")
    assert ours(verify, tmp_path, one).value == 4.0
    assert verify.verdict(one, ours(verify, tmp_path, one))[0] == "reproduced"


def test_the_committed_file_claims_nothing_that_was_not_read(verify, capsys):
    page, cells = verify.read_expected(FOLDER / "expected.yaml")
    assert {one.mark for one in cells if one.value is not None} == {"2"}
    assert all(one.source for one in cells if one.value is not None)
    assert {one.table for one in cells} == {table["name"] for table in page["tables"]}
    assert {one.model for one in cells} - {None} == set(page["models"])
    assert {one.data for one in cells} - {None} == set(page["data"])
    verify.main([])
    out = capsys.readouterr().out
    for line in out.splitlines()[1:]:
        if " open " not in line and "  " in line:
            assert "(second-hand)" in line
    assert "reproduced 0, not reproduced 0" in out
    assert "No number here was read in the paper's text" in out


def test_the_table_shows_every_column(verify, tmp_path):
    plant(tmp_path, 0, [["aligned/win/gpt/base", 500, 0.61, 0.59, 0.63]])
    (row,) = verify.lines([cell(verify)], verify.read_runs([tmp_path], PAGE))
    assert row[1:7] == (
        "llama2_7b pku_saferlhf dlma against base win",
        "0.6 (second-hand)",
        "0.610",
        "[0.590, 0.630]",
        "0.05",
        "reproduced",
    )
