"""Runs in turn, kept at once, taken up again; ratios of medians; nothing missed is hidden."""

import json
import os
from pathlib import Path

import pytest
from source_tree import ROOT

from benchmarks import cell, ledger, measure, plan, sweeps, table, targets
from benchmarks.measure import Group, Results, carry_out
from benchmarks.run import disagreements

GROUP = Group("g", {"ours": {"job": 1}, "peer": {"job": 2}}, rounds=2)
EXTRA = Group("more", {"ours": {"job": 3}}, rounds=2, extra=True)


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "r.json", {"machine": {}})


def quiet(line):
    """Says nothing."""


def done(job):
    return {"wall": 1.0, "peak": 2.0, "job": job["job"]}


def test_sides_alternate_round_by_round(results):
    order = []
    carry_out([GROUP], results, minutes=1, say=quiet, do=lambda job: order.append(job["job"]) or done(job))
    assert order == [1, 2, 1, 2]


def test_a_stopped_run_goes_on_where_it_was(results):
    def stopped(job):
        if results.of("g", "peer"):
            raise KeyboardInterrupt
        return done(job)

    with pytest.raises(KeyboardInterrupt):
        carry_out([GROUP], results, minutes=1, say=quiet, do=stopped)
    again, order = Results(results.path, {"machine": {}}), []
    carry_out([GROUP], again, minutes=1, say=quiet, do=lambda job: order.append(job["job"]) or done(job))
    assert order == [1, 2]


def test_results_of_another_machine_or_code_are_not_taken_up(results):
    carry_out([GROUP], results, minutes=1, say=quiet, do=done)
    assert Results(results.path, {"machine": {"cores": 4}}).runs == {}


def test_when_time_is_up_extras_are_left_out_and_named_and_targets_run(results):
    assert carry_out([EXTRA, GROUP], results, minutes=-1, say=quiet, do=done) == ["more"]
    assert len(results.of("g", "peer")) == 2 and "more" not in results.runs


def test_a_failure_is_kept_shown_and_measured_again_later(results):
    carry_out([GROUP], results, minutes=1, say=quiet, do=lambda job: {"error": "exit code 1: no"})
    assert len(table.failures(results)) == 4
    results.forget_failures()
    assert results.runs["g"] == {"ours": [], "peer": []}


def test_both_sides_get_the_same_allocator_and_threads(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    default, tuned = (measure.environment({"allocator": name}) for name in ("default", "tuned"))
    assert not [key for key in default if key.startswith("MALLOC_")]
    assert {key for key in tuned if key.startswith("MALLOC_")} == {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}
    assert default["OMP_NUM_THREADS"] == tuned["OMP_NUM_THREADS"] == "1"
    assert measure.environment({"threads": 2})["OMP_NUM_THREADS"] == "2"


def test_packages_that_a_job_needs_may_lie_anywhere(monkeypatch):
    for given, wanted in ((None, [str(ROOT)]), ("a:b", [str(ROOT), "a", "b"])):
        monkeypatch.setenv("PYTHONPATH", given) if given else monkeypatch.delenv("PYTHONPATH", raising=False)
        assert measure.environment({})["PYTHONPATH"].split(os.pathsep) == wanted


def test_answers_are_shown_as_answers_though_a_bound_is_known_of_them_too(tmp_path):
    sampled = {"rates": {"": 150.0}, "seconds": {"work": 4.0}, "bound": 3.0, "answers": 64, "peak": 2e9, "loaded": 1e9}
    results = Results(tmp_path / "r.json", {})
    results.runs = {"sampling, real, answered": {"ours": [sampled]}}
    assert "| sampling, real, answered | ours | 1 | 150 |  | 2.00 | 1.00 |" in table.detail_tables(results)


def test_a_job_that_fails_says_why():
    found = measure.measure({"job": "none of these"})
    assert found == {"error": "exit code 1: KeyError: 'none of these'"}


def test_the_plans_hold_what_the_targets_need(monkeypatch):
    monkeypatch.delenv("DLMA_BENCH_MODEL", raising=False)
    names = [group.name for group in plan.plan("bench")]
    assert len(names) == len(set(names))
    needed = {g.name for g in plan.plan("bench") if not g.extra}
    assert {"DPO, 40M, imposed, default allocator", "DPO, 40M, imposed, tuned allocator"} <= needed
    assert {"scoring, 40M, long", "sampling, lab, one_line", "margin sweep, lab, 12 cells", "one cell, lab"} <= needed
    once = {g.name for g in plan.plan("bench") if not g.extra and g.rounds < 3}
    assert once == {"growth, 40M, vocabulary", "margin sweep, lab, 12 cells"}
    assert {job["shape"] for g in plan.plan("full") for job in g.sides.values() if "shape" in job} == {
        *("lab", "40M", "135M")
    }


# Targets


def test_a_ratio_is_of_medians_with_the_spread_of_rounds():
    top = [{"wall": w} for w in (10.0, 12.0, 50.0)]
    bottom = [{"wall": w} for w in (2.0, 4.0, 5.0)]
    found = targets.ratio(top, bottom, targets.wall)
    assert (found.value, found.low, found.high) == (3.0, 3.0, 10.0)


def test_steady_time_leaves_the_first_step_out():
    assert targets.steady({"steps": [9.0, 2.0, 3.0]}) == 5.0
    run = {"steps": [9.0, 2.0, 2.0], "later_flops": 2e12, "gemm": {"rate": 1e12}}
    assert targets.share_of_machine(run) == 0.5


def test_memory_beyond_the_state_is_without_weights_and_optimizer():
    assert targets.beyond_state({"peak": 200.0, "parameters": 10}) == 80.0


@pytest.mark.parametrize(("ours", "words"), [(10.0, "met"), (40.0, "**missed**")])
def test_targets_are_met_or_missed_and_the_table_says_so(tmp_path, ours, words):
    def run(wall, peak):
        return [{"wall": wall, "peak": peak}] * 3

    group = {"ours": run(ours, 1.0), "TRL": run(100.0, 4.0), "TRL precomputed": run(60.0, 4.0)}
    results = Results(tmp_path / "r.json", {"machine": {"cpu": "c", "cores": 2}})
    results.runs = {"DPO, 40M, imposed, default allocator": group}
    lines = {(line.work, line.against, line.wanted): line for line in targets.lines(results)}
    assert lines["DPO, 40M, whole process", "TRL", "4x"].met is (words == "met")
    assert lines["DPO, 40M, whole process", "TRL", "0.35x memory"].met is True
    assert lines["sampling, lab", "generate, best batch", "2.5x"].met is None
    text = table.target_table(results)
    assert f"| DPO, 40M, whole process | TRL | 4x | {100 / ours:.2f} " in text and words in text
    assert "| not measured |" in text


def test_the_real_models_scores_and_answers_are_held_to_targets_where_they_were_measured(tmp_path):
    results = Results(tmp_path / "r.json", {})
    assert not [line for line in targets.lines(results) if "real model" in line.work]
    scored = {"seconds": {"work": 2.0}, "flops": 6e12, "done_flops": 3e12, "gemm": {"rate": 2e12}}
    fair = {"seconds": {"work": 3.0}, "flops": 6e12}
    results.runs = {
        "scoring, real, answered": {"ours": [scored], "fair": [fair]},
        "sampling, real, answered": {
            "ours": [{"rates": {"": 150.0}, "seconds": {"work": 4.0}, "bound": 3.0}],
            "generate": [{"rates": {"16": 50.0, "32": 75.0}}],
            "llama.cpp, Q4": [{"rates": {"16": 100.0, "32": 200.0}}],
        },
    }
    found = [line for line in targets.lines(results) if "real model" in line.work]
    shown = [(line.found.split()[0], line.met) for line in found]
    assert shown == [("1.50", False), ("0.75", True), ("2.00", True), ("0.75", True), ("0.75", False)]
    assert [line.against for line in found[3:]] == ["its own bound", "llama.cpp, Q4"]


def test_the_pipeline_and_the_lab_run_are_held_to_targets_where_they_were_measured(tmp_path):
    results = Results(tmp_path / "r.json", {})
    assert not [line for line in targets.lines(results) if "pipeline" in line.work or "one cell" in line.work]
    results.runs = {
        "pipeline, real model, 200 prompts": {
            "ours": [{"wall": 100.0, "peak": 2e9}],
            "one script": [{"wall": 350.0, "peak": 3e9}],
        },
        "one cell, lab": {"now": [{"wall": 7.0}, {"wall": 9.0}], "cfc1c6d": [{"wall": 10.0}, {"wall": 10.0}]},
    }
    found = [line for line in targets.lines(results) if line.met is not None]
    assert [line.work.split(",")[0] for line in found] == ["one cell", "whole pipeline", "whole pipeline"]
    assert found[0].found.startswith("0.80 (0.70 to 0.90)") and not found[0].met
    assert [(line.found.split()[0], line.met) for line in found[1:]] == [("3.50", True), ("0.67", False)]


@pytest.mark.parametrize(
    ("flags", "wanted"), [("avx512f avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16"), ("avx512f", "float32")]
)
def test_the_real_models_type_is_the_one_that_the_processor_has(monkeypatch, tmp_path, flags, wanted):
    monkeypatch.setattr(plan, "instructions", lambda: flags)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv("DLMA_BENCH_MODEL", str(tmp_path))
    assert plan.real_dtype() == wanted
    lora, full = plan.real_training()
    assert {job["dtype"] for job in lora.sides.values()} == {wanted}
    assert {job["dtype"] for job in full.sides.values()} == {"float32"}  # a small rate's steps would be rounded away
    mixed = {side for side, job in full.sides.items() if job.get("mixed")}
    assert mixed == ({"TRL", "TRL precomputed"} if wanted == "bfloat16" else set())


def test_an_earlier_commit_that_the_repository_does_not_have_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(cell, "work_folder", lambda: tmp_path)
    assert cell.tree_of("0" * 40) is None and cell.tree_of(None) == cell.ROOT


def stage(name, seconds):
    return {"stage": name, "seconds": seconds}


def test_the_bound_of_a_sweep_follows_from_what_is_shared():
    stages = [
        stage("scored", 6.0),
        stage("pairs", 4.0),
        *[stage("policy", 2.0)] * 3,
        *[stage("answers:aligned", 0.5)] * 3,
        *[stage("verdicts", 0.25)] * 6,  # two judges a cell
    ]
    assert sweeps.parts(stages, 3) == (10.0, 3.0)
    assert sweeps.bound(10.0, 3.0, 3) == pytest.approx(19 / 39)
    with pytest.raises(ValueError, match="scored"):
        sweeps.parts([*stages, stage("scored", 6.0)], 3)


def test_a_reference_pass_inside_a_cell_is_a_missed_target(tmp_path):
    def run(scored):
        stages = [stage("scored", 1.0)] * scored + [stage("policy", 1.0)] * 12
        return {"stages": stages, "seconds": {"work": 13.0}, "peak": 1.0}

    for scored, met in ((1, True), (12, False)):
        results = Results(tmp_path / "r.json", {"machine": {}})
        results.runs = {"margin sweep, lab, 12 cells": {"one sweep": [run(scored)], "single runs": [run(12)]}}
        line = next(line for line in targets.lines(results) if line.against.startswith("reference passes"))
        assert (line.met, line.found) == (met, str(scored))


def test_sides_that_compute_other_numbers_are_found(results):
    results.runs = {"scoring": {"ours": [{"values": [[1.0, 2.0]]}], "fair": [{"values": [[1.0, 2.5]]}]}}
    assert disagreements(results) == ["scoring: fair differs by 5.0e-01 nats"]
    results.runs["scoring"]["fair"] = [{"values": [[1.001, 2.0]]}]
    assert disagreements(results) == []


def test_sides_in_bfloat16_may_differ_by_its_rounding(results):
    results.runs = {"scoring, real, answered": {"ours": [{"values": [[1.0]]}], "fair": [{"values": [[2.5]]}]}}
    assert len(disagreements(results)) == 1
    for runs in results.runs["scoring, real, answered"].values():
        runs[0]["half"] = True
    assert disagreements(results) == []
    results.runs["scoring, real, answered"]["fair"][0]["values"] = [[6.0]]
    assert len(disagreements(results)) == 1


def test_the_text_between_the_marks_is_replaced_and_nothing_else():
    text = f"a\n{table.START}\nold\n{table.END}\nb\n"
    once = table.between(text, "new")
    assert once == f"a\n{table.START}\nnew\n{table.END}\nb\n" and table.between(once, "new") == once
    with pytest.raises(ValueError, match="must stand there once"):
        table.between("no marks", "new")


def test_results_are_whole_json_after_every_measurement(results):
    carry_out([GROUP], results, minutes=1, say=quiet, do=done)
    kept = json.loads(results.path.read_text())
    assert [run["job"] for run in kept["runs"]["g"]["peer"]] == [2, 2]


def page_between(mark):
    text = (Path(table.__file__).parent / "README.md").read_text()
    return text.split(f"<!-- {mark}:start -->\n")[1].split(f"\n<!-- {mark}:end -->")[0]


def test_the_page_shows_the_committed_results_of_what_no_target_needs():
    results = table.read(table.RESULTS / "rest.json")
    assert page_between("rest") == f"{table.hardware(results.head)}\n\n{table.detail_tables(results)}"


def test_the_page_shows_the_committed_targets_and_ledger():
    assert page_between("bench") == table.render(table.read(table.RESULTS / "bench.json"), details=True)
    found = json.loads((table.RESULTS / "ledger.json").read_text())
    tables = [
        ledger.ledger_table(found["ledger"]),
        "Counts against measurement, float32:",
        ledger.check_table(found["check"]),
    ]
    assert page_between("ledger") == "\n\n".join(tables)


def test_training_whose_sides_end_with_other_losses_is_told(results):
    results.add("DPO", "ours", {"loss": 0.6931472})
    results.add("DPO", "TRL", {"loss": 0.6931473})
    assert disagreements(results) == []
    results.add("DPO, all", "ours", {"loss": 0.6931})
    results.add("DPO, all", "TRL", {"loss": 0.6945})
    assert len(disagreements(results)) == 1 and "DPO, all: the mean loss of TRL" in disagreements(results)[0]


def test_the_real_model_is_left_out_where_it_is_not_at_hand(monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "hh_file", lambda: tmp_path)
    monkeypatch.delenv("DLMA_BENCH_MODEL", raising=False)
    assert plan.plan("real") == []
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv("DLMA_BENCH_MODEL", str(tmp_path))
    groups = plan.plan("real")
    training = [plan.name_of_real(True), plan.name_of_real(False)]
    pipeline = "pipeline, real model, 200 prompts"
    drawn = ["scoring, real, answered", "sampling, real, answered", pipeline]
    assert [group.name for group in groups] == [*training, *drawn]
    needed = [g.name for g in plan.plan("bench") if not g.extra]
    assert needed[:5] == [g.name for g in groups] and "scoring, 40M, long" not in needed
    assert {job["threads"] for group in groups for job in group.sides.values()} == {2}
    assert [len({job["allocator"] for job in group.sides.values()}) for group in groups[2:]] == [1, 1, 1]
    monkeypatch.setattr(plan.peer_llama_cpp, "files", lambda: [tmp_path / "small.gguf"])
    (*_, answers) = plan.real_inference()
    assert answers.sides["llama.cpp, small"].items() >= {"file": str(tmp_path / "small.gguf"), "threads": 2}.items()
    monkeypatch.setattr(plan, "hh_file", lambda: None)
    assert plan.plan("real") == []
