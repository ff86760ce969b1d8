"""The page of a sweep: one file, escaped whatever the model wrote, with every cell and the answers of all methods."""

import json
import re

from planted_runs import answers, options, plant

from dlma.report import sweep_page
from dlma.runs import cells as run_folders
from dlma.sweep import all_results
from dlma.sweep import settings as sweep_settings

EVIL = "</script><script>alert(1)</script> @@TITLE@@"


def page_of(folder, *folders):
    cells = [run_folders.read_cell(one) for one in folders]
    rows = sweep_settings.settings(cells)
    found = all_results.results(rows, options())
    return sweep_page.render(
        sweep_page.SweepPage("a <title>", folder, cells, rows, found, options(), missing=1)
    ).decode()


def grid(tmp_path):
    return [
        plant(
            tmp_path / f"{beta}-{lr}",
            overrides={"recipe.beta": beta, "recipe.lr": lr},
            kl=1 / beta,
            harm=0.2 * beta,
            tag=f"{beta}{lr}",
        )
        for beta in (0.5, 1.0)
        for lr in (1e-5, 1e-4)
    ]


def test_all_sections_are_there_and_the_same_runs_give_the_same_bytes(tmp_path):
    said = [{"prompt_id": "p0", "judge": "oracle", "arm": "aligned", "against": "base", "outcome": "win"}]
    cells = [*grid(tmp_path), plant(tmp_path / "judged", seed=1, verdicts=said, method="rlcd")]
    page = page_of(tmp_path, *cells)
    assert re.findall(r'<section id="(\w+)">', page) == [
        *("tables", "bars", "wins", "frontier", "grids", "cells", "answers"),
    ]
    assert page == page_of(tmp_path, *cells)
    assert not re.search(r'(src|href)="(https?:)?//', page)


def test_cells_are_linked_and_failed_ones_have_their_reason(tmp_path):
    good = plant(tmp_path / "seed=0,a+b")
    bad = plant(tmp_path / "bad", status={"status": "failed", "reason": "no <b>space</b>"})
    page = page_of(tmp_path, good, bad)
    assert '<a href="seed%3D0%2Ca%2Bb/report.html">seed=0,a+b</a>' in page
    assert "no &lt;b&gt;space&lt;/b&gt;" in page and "3 cells: 1 done, 1 failed, 1 not started." in page


def test_answers_of_every_method_stand_side_by_side_and_cannot_leave_their_place(tmp_path):
    evil = [
        type(row)(**{**vars(row), "answer": EVIL, "question": EVIL})
        for arm in ("base", "prompted", "aligned")
        for row in answers(arm, 0, prompts=5, harm=0.5)
    ]
    page = page_of(tmp_path, plant(tmp_path / "a", rows=evil), plant(tmp_path / "b", method="rlcd", prompts=5))
    assert EVIL not in page and "<script>alert" not in page
    (data,) = re.findall(r'<script type="application/json" id="answers-data">(.*?)</script>', page, re.S)
    data = json.loads(data)
    assert data["judged"] and len(data["rows"]) == 5
    assert {"base", "prompted", "dlma", "rlcd"} <= set(data["arms"])
    assert data["rows"][0]["a"]["dlma"]["text"] == EVIL
    assert "rlcd" in data["rows"][0]["a"]


def test_a_sweep_of_failures_only_is_a_page_with_its_ledger(tmp_path):
    bad = plant(tmp_path / "bad", status={"status": "failed", "reason": "why"})
    page = page_of(tmp_path, bad)
    assert re.findall(r'<section id="(\w+)">', page) == ["cells"] and "why" in page


def test_columns_of_names_stand_left_and_columns_of_values_right(tmp_path):
    page = page_of(tmp_path, *(plant(tmp_path / f"{seed}", seed=seed) for seed in (0, 1)))
    assert '<tr><td>dlma</td><td>harmful ↓</td><td class="num"><b>' in page
    assert '<th>method</th><th>metric</th><th class="num">difference</th><th class="num">p (Holm)</th>' in page


def test_where_the_training_length_runs_along_the_curves_there_is_a_heat_map_per_length(tmp_path):
    cells = [
        plant(
            tmp_path / f"{weight}-{clamp}-{epochs}",
            overrides={"recipe.weight": weight, "recipe.clamp": clamp, "recipe.epochs": epochs},
            tag=f"{weight}{clamp}{epochs}",
            prompts=5,
        )
        for weight in (0.5, 1.0)
        for clamp in (1.0, 4.0)
        for epochs in (1, 2, 4)
    ]
    read = [run_folders.read_cell(one) for one in cells]
    page = sweep_page.SweepPage("t", tmp_path, read, sweep_settings.settings(read), [], options())
    assert sweep_page._grids(page) == ""  # three numbers are no map
    chosen = options(curve_axis=["recipe.epochs"])
    told = sweep_page.SweepPage("t", tmp_path, read, sweep_settings.settings(read), [], chosen)
    titles = re.findall(r"<h3>(.*?)</h3>", sweep_page._grids(told))
    assert [one for one in titles if "harmful" in one] == [
        f"lab-standard, dlma, epochs={epochs}: harmful ↓" for epochs in (1, 2, 4)
    ]
