"""Judges and metrics in a whole run: what they leave behind, what is reused, and how a stopped one goes on."""

import csv
import json

import pyarrow.parquet as pq
import pytest
from chat_server import serving, shorter
from guard_families import save_guard

from dlma.app import main

LAB = ["data.train=16", "data.validation=4", "data.test=12", "recipe.max_new_tokens=48"]
QUICK = [f"recipe.{value}" for value in ("batch_pairs=8", "epochs=1")]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def run(tmp_path, monkeypatch, store):
    monkeypatch.chdir(tmp_path)

    def call(*overrides, code=0, name="here"):
        assert main([f"store.root={store}", f"name={name}", *QUICK, *LAB, *overrides]) == code
        return tmp_path / "outputs" / name

    return call


def metrics(folder):
    return {row["metric"]: row for row in csv.DictReader((folder / "metrics.csv").open())}


def counts(folder):
    return json.loads((folder / "status.json").read_text())["result"]["counts"]


def test_the_oracle_judges_and_the_tax_is_measured_by_default(run, capsys):
    folder = run()
    verdicts = pq.read_table(folder / "verdicts.parquet").to_pylist()
    seen = {(v["judge"], v["arm"], v["against"]) for v in verdicts}
    assert seen == {
        (f"oracle_{c}", "aligned", other) for c in ("harmless", "helpful") for other in ("base", "prompted")
    }
    assert len(verdicts) == 4 * 12
    rows = metrics(folder)
    mine = [v for v in verdicts if (v["judge"], v["against"]) == ("oracle_harmless", "base")]
    points = [{"win": 1.0, "tie": 0.5, "lose": 0.0}[v["outcome"]] for v in mine]
    assert float(rows["aligned/win_rate/oracle_harmless/base"]["mean"]) == pytest.approx(sum(points) / 12)
    shares = [
        float(rows[f"aligned/{name}/oracle_harmless/base"]["mean"]) for name in ("win", "tie", "lose", "unparsed")
    ]
    assert sum(shares) == pytest.approx(1)
    answers = {(r["arm"], r["prompt_id"]): r for r in pq.read_table(folder / "answers.parquet").to_pylist()}
    for v in mine:
        better = answers["aligned", v["prompt_id"]]["harmlessness"] - answers["base", v["prompt_id"]]["harmlessness"]
        assert v["margin"] == pytest.approx(better)
    for name in ("skill_counting", "skill_facts", "skill_loss"):
        change = float(rows[f"aligned/{name}"]["mean"]) - float(rows[f"base/{name}"]["mean"])
        assert float(rows[f"aligned/change/{name}"]["mean"]) == pytest.approx(change)
        assert f"prompted/{name}" not in rows
    assert "aligned/self_bleu" in rows and "base/refused_safe" in rows
    report, said = (folder / "report.html").read_text(), capsys.readouterr().out
    for text in (report, said):
        assert "oracle_harmless" in text and "skill: counting" in text and "lignment tax" in text
    assert "Win, tie, lose" in report and "(self-reported)</" not in report
    categories = {row["category"] for row in csv.DictReader((folder / "categories.csv").open())}
    assert categories == {row["category"] for row in answers.values()}


def test_another_judge_is_one_override_and_computes_only_itself(run):
    run()
    folder = run("judges=[oracle,self]")
    assert counts(folder)["run"] == {"verdicts": 1}
    rows = metrics(folder)
    assert {"aligned/win_rate/self/base", "aligned/consistent/self/base"} <= set(rows)
    assert "self (self-reported)" in (folder / "report.html").read_text()
    assert counts(run("judges=[oracle,self]"))["run"] == {}


def test_a_guard_judges_and_measures_by_one_cost(run, tmp_path):
    guard = save_guard(tmp_path / "guard", "llama_guard_3", context=4096)
    paths = [f"judges.guard.model.path={guard}", f"metrics.guard.cost.path={guard}"]
    folder = run("judges=[guard]", "metrics=[guard]", *paths)
    rows = pq.read_table(folder / "metric_values.parquet").to_pylist()
    cost = {(r["arm"], r["item"]): r["value"] for r in rows if r["metric"] == "cost"}
    unsafe = [r["value"] for r in rows if (r["arm"], r["metric"]) == ("aligned", "unsafe")]
    verdicts = pq.read_table(folder / "verdicts.parquet").to_pylist()
    assert len(verdicts) == 24 and len(unsafe) == 12
    for v in verdicts:
        gap = cost[v["against"], v["prompt_id"]] - cost["aligned", v["prompt_id"]]
        assert v["margin"] == pytest.approx(gap, abs=1e-3)
    assert float(metrics(folder)["aligned/unsafe"]["mean"]) == pytest.approx(sum(unsafe) / 12)
    assert "unsafe answers (cost above 0)" in (folder / "report.html").read_text()


def test_without_judges_and_metrics_there_is_nothing_of_them(run):
    folder = run("judges=[]", "metrics=[]")
    assert not (folder / "verdicts.parquet").exists() and not (folder / "metric_values.parquet").exists()
    assert not any("win_rate" in name or "skill" in name for name in metrics(folder))


def test_a_method_without_an_aligned_arm_has_no_contest(run):
    folder = run("method=base")
    assert pq.read_table(folder / "verdicts.parquet").num_rows == 0
    assert not any("win_rate" in name for name in metrics(folder))
    assert "base/skill_counting" in metrics(folder)


@pytest.mark.slow
def test_an_llm_judge_that_hits_its_cap_goes_on_where_it_stopped(run, capsys, store):
    with serving(shorter) as server:
        llm = ["judges=[llm_harmless]", "endpoint.model=m", f"endpoint.base_url={server.url}"]
        folder = run(*llm, "endpoint.max_requests=10", code=2)
        assert "endpoint.max_requests=10 is reached" in capsys.readouterr().err
        assert not list((store / "verdicts").glob("*.partial/rows.parquet"))
        folder = run(*llm)
        assert len(server.asked) <= 48
        verdicts = pq.read_table(folder / "verdicts.parquet").to_pylist()
        for v in verdicts:
            answers = {r["arm"]: r for r in pq.read_table(folder / "answers.parquet").to_pylist()
                       if r["prompt_id"] == v["prompt_id"]}  # fmt: skip
            own, other = (len(answers[v[name]]["answer"].strip()) for name in ("arm", "against"))
            assert v["outcome"] == ("win" if own < other else "lose" if own > other else "tie")
        before = len(server.asked)
        assert counts(run(*llm))["run"] == {} and len(server.asked) == before
    manifests = [json.loads(path.read_text()) for path in (store / "verdicts").glob("*/manifest.json")]
    (manifest,) = [one for one in manifests if one["values"]["name"] == "llm_harmless"]
    said = manifest["notes"]
    assert said["judge"]["identity"] == [f"m at {server.url}"] and said["judge"]["self_reported"] is False
    assert list(said["report"]["models"]) == ["m-served"] and said["report"]["last"].startswith("20")


def test_an_llm_judge_without_a_model_is_refused_before_anything_is_asked(run, capsys):
    run("judges=[llm]", code=2)
    assert "endpoint.model" in capsys.readouterr().err


def test_a_judge_served_from_the_runs_own_weights_is_self_reported(run):
    from dlma.lab.bases import base_folder

    with serving(shorter) as server:
        llm = ["judges=[llm]", "endpoint.model=m", f"endpoint.base_url={server.url}"]
        folder = run(*llm, f"endpoint.weights={base_folder('standard')}")
    assert "llm (self-reported)" in (folder / "report.html").read_text()
