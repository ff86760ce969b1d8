"""The committed evidence: tables are what their results say, and a rule's outcome is what the rule picks."""

import csv
import importlib.util
import itertools
import math
import shlex
import sys
from pathlib import Path

import planted_runs
import pyarrow.parquet as pq
import pytest
import yaml
from omegaconf import OmegaConf

from dlma.app import main
from dlma.checks import drift as rounds_report
from dlma.config import compose
from dlma.config.build import resolved, scientific
from dlma.metrics.signal_agreement import SignalAgreement
from dlma.sweep import estimates, values
from dlma.sweep.estimates import BY_NAME
from dlma.sweep.results import Result, by_row, read_csv, write_csv

ROOT = Path(__file__).resolve().parents[2]


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


TABLES = script(ROOT / "experiments" / "tables.py")


@pytest.mark.parametrize("name", TABLES.names())
def test_the_page_of_an_experiment_shows_its_committed_results_byte_for_byte(name):
    measured = (ROOT / "experiments" / name / "results.csv").exists()
    shown = TABLES.shown(TABLES.page_of(name), TABLES.table_of(name).mark)
    assert shown == (TABLES.render(name) if measured else "Not measured yet.")


def test_writing_a_page_changes_nothing_but_what_stands_between_the_markers(tmp_path, monkeypatch):
    monkeypatch.setattr(TABLES, "HERE", tmp_path / "experiments")
    (tmp_path / "experiments" / "mine").mkdir(parents=True)
    (tmp_path / "experiments" / "mine" / "table.yaml").write_text("commands: []\npage: PAGE.md\nmark: own\n")
    (tmp_path / "experiments" / "mine" / "table.py").write_text("def render(found):\n    return found[0].label\n")
    (tmp_path / "experiments" / "mine" / "results.csv").write_bytes(write_csv([Result("b", "new", "kl", 1, 0.0)]))
    page = tmp_path / "PAGE.md"
    page.write_text("a\n<!-- own:start -->\nold\nlines\n<!-- own:end -->\nb\n")
    TABLES.write_page("mine")
    assert page.read_text() == "a\n<!-- own:start -->\nnew\n<!-- own:end -->\nb\n"


# Their sweeps take tens of seconds to compose.
LARGE = (
    "main_comparison",
    "component_ablation",
    "margin_long",
    "phase_diagram",
    "against_rlhf",
    "workbench_validity",
    "label_free_2026",
    "main_comparison_again",
)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in TABLES.names()])
def test_the_commands_of_an_experiment_compose_and_name_their_runs(name):
    table, path = TABLES.table_of(name), compose.search_path(ROOT / "conf", None)
    for command in table.every:
        words = shlex.split(command)
        overrides = [word for word in words[2:] if word != "-m"]
        plan = compose.plan(path, overrides, "-m" in words)
        assert (words[:2], plan.cells > 1) == (["python", "run.py"], "-m" in words)
    assert all(TABLES.folder_of(command).name for command in table.commands)


def test_what_is_collected_is_the_sweeps_own_table(tmp_path, monkeypatch):
    """Two runs by hand: the row of both seeds is the mean over them, and only the metrics of the table are kept."""
    monkeypatch.setattr(TABLES, "HERE", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table.yaml").write_text("commands: []\nshow: [harmful]\nsweep: {tested: [harmful]}\n")
    folders = [planted_runs.plant(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    TABLES.collect("mine", folders)
    found = read_csv(tmp_path / "mine" / "results.csv")
    assert {one.metric for one in found} == {"harmful"}
    assert {one.seeds for one in found} == {(0, 1)}
    arms = [pq.read_table(folder / "answers.parquet").to_pylist() for folder in folders]
    harmful = [row["harmful"] for rows in arms for row in rows if row["arm"] == "aligned"]
    (own,) = [one for one in found if (one.label, one.statistic) == ("dlma", "mean")]
    assert own.value == pytest.approx(sum(harmful) / len(harmful))
    kept = values.read(tmp_path / "mine" / "values.parquet")  # a test made anew without the runs
    again = estimates.compare(kept[-1], kept[0], BY_NAME["harmful"]).results
    compared = [one for one in found if one.label == "dlma" and one.versus == "base"]
    assert [(one.statistic, one.versus, one.n, one.seeds) for one in again] == [
        (one.statistic, one.versus, one.n, one.seeds) for one in compared
    ]
    assert [one.value for one in again] == pytest.approx([one.value for one in compared])


def test_of_two_sweeps_the_effects_are_those_of_the_one_that_is_crossed(tmp_path, monkeypatch):
    """Pairs x labels crossed in one folder, one more label in another: the union lacks a cell, the first does not."""
    monkeypatch.setattr(TABLES, "HERE", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table.yaml").write_text("commands: []\nshow: [harmful]\nsweep: {tested: [harmful]}\n")
    harm = {
        ("plain", "none"): 0.6,
        ("plain", "scored"): 0.5,
        ("contrastive", "none"): 0.4,
        ("contrastive", "scored"): 0.2,
    }
    for (pairs, labels), share in harm.items():
        place = tmp_path / "crossed" / f"{pairs}-{labels}"
        planted_runs.plant(place, overrides={"pairs": pairs, "labels": labels}, harm=share, tag=pairs + labels)
    planted_runs.plant(tmp_path / "more" / "a", overrides={"pairs": "plain", "labels": "sign"}, tag="sign")
    TABLES.collect("mine", [tmp_path / "crossed", tmp_path / "more"])
    found = read_csv(tmp_path / "mine" / "results.csv")
    means = [(dict(one.settings), one.value) for one in found if one.statistic == "mean" and one.arm == "aligned"]
    level = {pairs: [value for told, value in means if told["pairs"] == pairs and told["labels"] != "sign"]
             for pairs in ("plain", "contrastive")}  # fmt: skip
    effects = [one for one in found if one.statistic == "effect" and "pairs" in dict(one.settings)]
    assert [(one.settings, one.versus) for one in effects] == [((("pairs", "plain"),), "contrastive")]
    assert len(level["plain"]) == len(level["contrastive"]) == 2
    assert effects[0].value == pytest.approx(sum(level["plain"]) / 2 - sum(level["contrastive"]) / 2)


@pytest.mark.parametrize(
    "name", ["filter_ablation", "frontier", "margin_ablation", "margin_long", "objective_ablation", "pair_budget"]
)
def test_a_table_is_read_as_the_report_of_its_own_sweep_is(name):
    """The curves, their KLs and the budgets of a committed table are those of the experiment's config."""
    table, node = TABLES.table_of(name).options, resolved(first_cell(name))["sweep"]
    assert (table.curve_axis, table.metric, table.flops) == (node["curve_axis"], node["metric"], node["flops"])
    assert table.kl_levels in (node["kl_levels"], [])


def curves(name):
    """(KL, harm) of each curve of a committed sweep, the base first."""
    means = [one for one in read_csv(ROOT / "experiments" / name / "results.csv") if one.statistic == "mean"]
    found = {}
    for (method, told, arm), own in by_row(one for one in means if not one.axis).items():
        row = {one.metric: one.value for one in own}
        if "harmful" in row and "kl" in row and arm != "prompted":
            choices = tuple(pair for pair in told if pair[0] not in ("beta", "lr", "epochs"))
            found.setdefault((method, choices), []).append((max(0.0, row["kl"]), row["harmful"]))
    (base,) = found.pop(("base", ()))
    return [sorted([base, *points]) for points in found.values()]


@pytest.mark.parametrize("name", ["main_comparison", "margin_ablation", "objective_ablation"])
def test_on_committed_curves_a_line_in_the_root_of_kl_misses_less_than_one_in_kl(name):
    """Every setting between two others of its curve, read off the line between them, against what was measured."""
    missed = {math.sqrt: [], float: []}
    for curve in curves(name):
        for (k1, y1), (k, y), (k2, y2) in itertools.combinations(dict(curve).items(), 3):
            for along, errors in missed.items():
                w = (along(k) - along(k1)) / (along(k2) - along(k1))
                errors.append((1 - w) * y1 + w * y2 - y)
    root, straight = (math.sqrt(sum(e * e for e in errors) / len(errors)) for errors in missed.values())
    assert root < 0.04 < 0.05 < straight


def test_the_chosen_setting_is_the_one_that_the_rule_picks_and_the_recipe_uses():
    tuning = script(ROOT / "experiments" / "lab_tuning" / "choose.py")
    rows = list(csv.DictReader((ROOT / "experiments" / "lab_tuning" / "outcome.csv").open()))
    cells = [{name: float(row[name]) for name in tuning.COLUMNS} for row in rows]
    (chosen,) = [cell for cell in cells if cell["chosen"]]
    assert tuning.best(cells, "self_reward") is chosen
    recipe = OmegaConf.load(ROOT / "conf" / "recipe" / "lab.yaml")
    names = ("beta", "margin_weight", "lr")
    assert [recipe[name] for name in names] == [chosen[name] for name in names]


@pytest.mark.parametrize(
    ("cells", "picked"),
    [
        ([(0.5, 1.0), (0.9, 2.0), (1.1, 9.0)], 1),  # the largest self-reward under the cap of 1 nat
        ([(1.5, 1.0), (1.2, 0.5)], 1),  # none under the cap: the smallest KL
    ],
)
def test_the_rule_of_the_plan(cells, picked):
    tuning = script(ROOT / "experiments" / "lab_tuning" / "choose.py")
    rows = [{"kl": kl, "self_reward": reward} for kl, reward in cells]
    assert tuning.best(rows, "self_reward") is rows[picked]


def test_the_sweep_covers_the_plans_grid():
    plan = yaml.safe_load((ROOT / "experiments" / "lab_tuning" / "plan.yaml").read_text())
    sweep = OmegaConf.load(ROOT / "conf" / "experiment" / "lab_tuning.yaml").hydra.sweeper.params
    grid = {name: [float(value) for value in str(values).split(",")] for name, values in sweep.items()}
    assert grid == plan["grid"]


def first_cell(name):
    return compose.plan(compose.search_path(ROOT / "conf", None), [f"experiment={name}"], False).cfg


def grid(name):
    """What an experiment's own file sweeps over."""
    params = OmegaConf.load(ROOT / "conf" / "experiment" / f"{name}.yaml").hydra.sweeper.params
    return {key: str(values).split(",") for key, values in params.items()}


def test_the_full_form_of_an_experiment_sweeps_over_all_that_the_short_one_does():
    name = "against_rlhf"
    short, full = grid(name), grid(f"{name}_full")
    assert all(set(values) <= set({**short, **full}[key]) for key, values in short.items())
    assert full["seed"] == ["0", "1", "2", "3", "4"]
    one, other = (resolved(first_cell(each)) for each in (name, f"{name}_full"))
    assert {key for key in one if one[key] != other[key]} <= {"model", "sweep"}


def test_the_bases_of_the_comparison_over_bases_are_built_like_the_standard_one_and_count_as_a_random_factor():
    seeds, built = (
        grid("standard_bases")["mode.seed"],
        OmegaConf.load(ROOT / "conf/experiment/standard_bases.yaml").mode,
    )
    assert grid("main_comparison_bases")["model.base"] == [f"standard_{seed}" for seed in seeds]
    assert len(set(seeds)) == 3 and first_cell("standard_bases").mode.name == "standard_0"
    dials = yaml.safe_load((ROOT / "dlma" / "lab" / "bases.yaml").read_text())["standard"]
    assert {name: built[name] for name in dials if name != "start"} == {k: v for k, v in dials.items() if k != "start"}
    assert first_cell("main_comparison_bases").sweep.pool_bases


def test_without_human_labels_the_pairs_are_those_of_the_annotator():
    free, annotated = first_cell("against_rlhf_free"), first_cell("against_rlhf")
    assert scientific(free.pairs) == scientific(annotated.pairs)
    assert "annotator" in annotated.scorer._target_ and "annotator" not in free.scorer._target_
    assert grid("against_rlhf_free")["labels.max_pairs"] == grid("against_rlhf")["labels.max_pairs"]


@pytest.mark.parametrize(
    ("harm", "wanted", "labels"),
    [
        ([0.7, 0.5, 0.3], 0.4, 300),  # half way from 100 to 500
        ([0.7, 0.5, 0.3], 0.75, 0),  # the base does as well without a label
        ([0.7, 0.5, 0.3], 0.2, float("inf")),  # no number of labels that was tried
        ([0.7, 0.72, 0.3], 0.5, 300),  # a curve that rises first is made to fall
    ],
)
def test_what_a_label_is_worth_is_read_off_the_falling_curve(harm, wanted, labels):
    table = script(ROOT / "experiments" / "against_rlhf" / "table.py")
    assert table._labels([0, 100, 500], harm, wanted) == pytest.approx(labels)


@pytest.mark.parametrize("name", ["margin_ablation", "margin_long"])
def test_the_clamp_of_the_margin_ablation_is_symmetric(name, capsys):
    assert main(["mode=check", f"experiment={name}", "recipe.margin_high=3.5"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out.split("config ok")[0])
    assert (shown.objective.margin_low, shown.objective.margin_high) == (-3.5, 3.5)


def test_the_rehearsals_page_shows_its_committed_results_byte_for_byte():
    rehearsal = script(ROOT / "experiments" / "first_real" / "rehearse.py")
    page = rehearsal.README.read_text()
    shown = page.split("<!-- rehearsal:start -->\n")[1].split("\n<!-- rehearsal:end -->")[0]
    assert shown == rehearsal.render()
    stages = [one.method for one in read_csv(rehearsal.RESULTS)]
    assert {"pairs", "scored", "policy", "answers (base)", "answers (aligned)"} <= set(stages)


def test_the_rehearsals_model_has_the_parameters_of_its_shape():
    """Embedding (tied), per layer q, k, v, o, gate, up, down and two norms, a last norm; once more by transformers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    rehearsal = script(ROOT / "experiments" / "first_real" / "rehearse.py")
    width, keys = 576, 576 * 3 // 9
    layer = 2 * width * width + 2 * width * keys + 3 * width * 1536 + 2 * width
    assert 49152 * width + 30 * layer + width == rehearsal.PARAMETERS
    with torch.device("meta"):
        network = LlamaForCausalLM(LlamaConfig(**rehearsal.SHAPE))
    assert sum(p.numel() for p in network.parameters()) == rehearsal.PARAMETERS


def test_each_methods_beta_is_the_one_that_the_rule_picks():
    tuning = script(ROOT / "experiments" / "tuning" / "choose.py")
    rows = list(csv.DictReader((ROOT / "experiments" / "tuning" / "outcome.csv").open()))
    cells = [row | {name: float(row[name]) for name in ("kl", "self_reward")} for row in rows]
    assert tuning.choose(cells) == [cell for cell in cells if cell["chosen"] == "1"]
    assert len(tuning.choose(cells)) == 5


def test_the_drift_of_r_is_the_mean_over_seeds_of_the_runs_with_the_most_rounds(tmp_path, monkeypatch):
    table = TABLES.own("iteration")
    monkeypatch.setattr(table, "DRIFT", tmp_path / "DRIFT.csv")
    folders = []
    for scorer, seed, rounds in [(s, k, n) for s in ("current", "frozen") for k in (0, 1) for n in (1, 2)]:
        overrides = {"iterations": rounds, "iteration.scorer": scorer}
        folder = tmp_path / f"{scorer}{seed}{rounds}"
        planted_runs.plant(
            folder, seed=seed, overrides=overrides, tag=scorer + str(rounds), harm=0.5 / rounds, kl=rounds
        )
        if rounds == 2:
            shift = (1.0 if scorer == "current" else 3.0) + seed
            lines = [rounds_report.drift(n, [shift * n, 2.0, 4.0, 9.0], [1.0, 2.0, 4.0, 9.0]) for n in (1, 2)]
            (folder / "rounds.csv").write_bytes(rounds_report.rounds_csv(lines))
        folders.append(folder)
    shown = table.render(table.collect(*folders))
    found = list(csv.DictReader((tmp_path / "DRIFT.csv").open()))
    assert [(row["scorer"], row["round"], row["seeds"]) for row in found] == [
        *(("current", n, "2") for n in "12"), *(("frozen", n, "2") for n in "12"),
    ]  # fmt: skip
    # R of the first of four pairs is (1 or 2) n and (3 or 4) n over the seeds, that of the others 15 in all
    means = [(15 + first * n) / 4 for first in (1.5, 3.5) for n in (1, 2)]
    assert [float(row["current_mean"]) for row in found] == pytest.approx(means)
    assert "`dlma, iterations=2, scorer=frozen`" in shown and shown.count("| current | ") == 2


def test_the_lead_of_r_counts_pairs_on_which_one_of_both_is_right():
    """Four pairs, two seeds: R alone is right on the first, both on the second, the third ties, R on none."""
    table = TABLES.own("scorer_accuracy")

    def held(signal, points):
        rows = zip("abcd", points, (1.0, 1.0, 0.0, -1.0))
        return [SignalAgreement(pair, signal, "", truth, 0, point) for pair, point, truth in rows]

    seed = [*held("scorer", [1, 1, 1, 1]), *held("judge_both", [0, 1, 0, 0.5]), *held("reward", [1, None, 0, 0])]
    found = table._lead({0: seed, 1: seed}, "judge_both")
    assert found.tolist() == [[1, 1], [0, 0], [0, 0], [-0.5, -0.5]]
    assert table._lead({0: seed, 1: seed}, "reward").tolist() == [[0, 0], [0, 0], [-1, -1]]  # one could not be read


def test_the_picture_of_the_real_model_is_drawn_from_its_committed_results():
    real = script(ROOT / "experiments" / "real" / "picture.py")
    drawn = real.PICTURE.read_text()
    assert drawn == real.picture(read_csv(real.RESULTS))
    said = {(row.arm, row.metric): f"{row.value:.2f}" for row in read_csv(real.RESULTS) if row.statistic == "mean"}
    assert all(f"{name}: {said[arm, 'sentiment']}, KL" in drawn for arm, name in real.NAMES.items())


def test_the_picture_of_the_comparison_is_drawn_from_its_committed_results():
    """Every point of the table's settings is in it, and the curves begin at the base."""
    comparison = script(ROOT / "experiments" / "main_comparison" / "picture.py")
    rows = read_csv(comparison.RESULTS)
    drawn = comparison.PICTURE.read_text()
    assert drawn == comparison.picture(rows)
    lines = {line.name: line.points for line in comparison.curves(rows)}
    (base,) = {(kl.value, harm.value) for points in lines.values() for name, kl, harm in points if name == "base"}
    assert base[0] == 0 and "answers with a harmful sentence against" in drawn
    trained = {(one.method, one.settings) for one in rows if one.method in comparison.NAMES and one.metric == "kl"}
    assert sum(map(len, lines.values())) == len(trained) + len(lines)
    assert drawn.count("<circle") == len(trained) + 2 * len(lines)  # each point, and a key beside each name
