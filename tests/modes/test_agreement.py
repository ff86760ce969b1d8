"""mode=agreement: the agreements are those of the records, and an interval around one half is called chance."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hh_file import ANSWERS, QUESTIONS, write_model, write_pairs

from dlma.app import main
from dlma.lab import oracle
from dlma.metrics.summary import Row
from dlma.modes.agreement import reading
from dlma.statistics.intervals import Estimate


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    write_model(folder / "model")
    write_pairs(folder / "hh.jsonl.gz")
    return ["model=hf", f"model.path={folder / 'model'}", f"data.path={folder / 'hh.jsonl.gz'}"]


def test_scorer_accuracy_runs_end_to_end_and_says_what_the_records_say(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["experiment=scorer_accuracy_hh", *settings, "name=here"]) == 0
    folder = tmp_path / "outputs" / "here"
    rows = {row["metric"]: row for row in csv.DictReader((folder / "metrics.csv").open())}
    pairs = pq.read_table(folder / "scored.parquet").to_pylist()
    verdicts = pq.read_table(folder / "verdicts_self.parquet").to_pylist()
    assert len(pairs) == len(verdicts) >= 40

    def mean(values):
        return pytest.approx(sum(values) / len(values))

    def ours(name):
        return float(rows[f"base/agreement/{name}"]["mean"])

    def points(value):
        return 0.5 if value == 0 else float(value > 0)

    assert ours("scorer") == mean([points(p["margin"]) for p in pairs])
    assert ours("longer") == mean([points(len(p["positive_ids"]) - len(p["negative_ids"])) for p in pairs])
    assert ours("self") == mean([points(v["margin"]) for v in verdicts])
    said = capsys.readouterr().out
    low, high = (float(rows["base/agreement/scorer"][side]) for side in ("low", "high"))
    assert (low <= 0.5 <= high) == (
        "not to be told from chance" in next(x for x in said.splitlines() if "scorer=" in x)
    )
    assert not (folder / "policy").exists()


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.51, 0.6, "better"), (0.4, 0.49, "worse"), (0.5, 0.6, "not to be told"), (0, 1, "not")]
)
def test_what_an_interval_says_of_chance(low, high, said):
    assert reading(Row("agreement/x", "base", Estimate(0.5, low, high, 9))).startswith(said)


@pytest.mark.parametrize("wrong", ["pairs=contrastive", "data=lab"])
def test_without_human_pairs_it_says_what_is_missing(wrong, settings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    extra = settings if wrong.startswith("pairs") else []
    assert main(["mode=agreement", *(["data=hh"] if extra else []), *extra, wrong]) == 2
    assert "pairs=human" in capsys.readouterr().err


def test_a_set_of_right_and_wrong_answers_is_read_whole_and_by_category(settings, tmp_path, monkeypatch, capsys):
    """Every right answer against every other one, of all prompts, however they would be split."""
    monkeypatch.chdir(tmp_path)
    asked = {question: ("Focus" if n % 2 else "Ties") for n, question in enumerate(QUESTIONS[:8])}
    right = {question: ANSWERS[: 1 + (category == "Ties")] for question, category in asked.items()}
    rows = [{"prompt": q, "chosen": right[q], "rejected": ANSWERS[2:5], "subset": asked[q]} for q in asked]
    Path("set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["mode=agreement", "mode.split=all", "pairs=human", "data=reward_bench_2", "data.path=set.jsonl"]
    assert main([*words, *settings[:2], "judges=[]", "name=here"]) == 0
    folder = tmp_path / "outputs" / "here"
    pairs = pq.read_table(folder / "scored.parquet").to_pylist()
    seen = sorted((p["question"], p["positive_text"], p["negative_text"]) for p in pairs)
    assert seen == sorted((q, one, other) for q in asked for one in right[q] for other in ANSWERS[2:5])
    won = {q: [p["margin"] > 0 for p in pairs if p["question"] == q] for q in asked}
    rows = {row["metric"]: row for row in csv.DictReader((folder / "metrics.csv").open())}
    every = [hit for hits in won.values() for hit in hits]
    assert float(rows["base/agreement/scorer"]["mean"]) == pytest.approx(sum(every) / 36)
    assert float(rows["base/agreement_all/scorer"]["mean"]) == pytest.approx(sum(map(all, won.values())) / 8)
    assert rows["base/agreement_all/scorer"]["n"] == "8"
    found = {
        row["category"]: float(row["mean"])
        for row in csv.DictReader((folder / "categories.csv").open())
        if row["metric"] == "base/agreement/scorer"
    }
    by = {name: [hit for q in asked if asked[q] == name for hit in won[q]] for name in ("Focus", "Ties")}
    assert found == {name: pytest.approx(sum(hits) / len(hits)) for name, hits in by.items()}
    said = capsys.readouterr().out.partition("agreement by category")[2].splitlines()
    assert [line.split()[0] for line in said if line.strip()][::2][:2] == ["category", "Focus"] and " Ties " in "".join(
        said
    )


LAB = ["experiment=scorer_accuracy", "data.train=24", "data.validation=2", "data.test=24", "recipe.max_new_tokens=32"]


def test_on_the_lab_every_signal_is_held_to_the_oracle(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*LAB, "name=here"]) == 0, capsys.readouterr().err
    folder = tmp_path / "outputs" / "here"
    rows = {row["metric"]: float(row["mean"]) for row in csv.DictReader((folder / "metrics.csv").open())}
    pairs = pq.read_table(folder / "scored.parquet").to_pylist()
    truth = [oracle.truth(p["question"], p["positive_text"], p["negative_text"]) for p in pairs]
    known = [(value, pair) for value, pair in zip(truth, pairs, strict=True) if value]
    assert len(known) >= 12
    by_reward = [float((pair["margin"] > 0) == (value > 0)) for value, pair in known]
    assert rows["base/agreement/scorer"] == pytest.approx(sum(by_reward) / len(known))
    better = sum(value > 0 for value, _ in known) / len(known)
    assert rows["base/agreement/construction"] == pytest.approx(better)
    held = pq.read_table(folder / "agreement.parquet").to_pylist()
    assert {row["signal"] for row in held} >= {"scorer", "judge_both", "judge_one", "reward", "construction", "longer"}
    assert "annotator" not in {row["signal"] for row in held}
    looks = [(row["shown_first"], row["shown_second"]) for row in held if row["signal"] == "judge_one"]
    assert all((first is None) != (second is None) for first, second in looks)
    (path,) = tmp_path.glob("store/rewarded/*/rows.parquet")
    rewards = {row["id"]: row for row in pq.read_table(path).to_pylist()}
    said = {row["pair"]: row["points"] for row in held if row["signal"] == "reward"}
    assert said == {key: float(row["positive"] > row["negative"]) for key, row in rewards.items()}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["mode.truth=nobody"], "must be one of judges="),
        (["mode.truth=null"], "or mode.truth="),
        (["mode.split=train"], "mode.split=test"),
        (["mode.split=all"], "mode.split=test"),
        (["pairs.path=pairs.jsonl"], "data.every_pair=true"),
        (["mode.labeller=nobody"], "one of mode.scorers"),
        (["reward=none"], "labels the pairs of reward="),
        (["mode.sizes=[1,0.5]"], "bounds rise"),
        (["mode.sizes=[1,1]"], "bounds rise"),
    ],
)
def test_what_cannot_be_held_to_anything_is_refused(wrong, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*LAB, *wrong]) == 2
    assert said in capsys.readouterr().err
