"""Results that come home: what runs measured without their texts, each folder checked, refused where it says more."""

import json
import shutil
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_runs import plant

from experiments import homecoming

COMMITTED = homecoming.committed()
STAGE = {
    **{"name": "answers", "key": "81f27b481c9f0deb", "version": 3, "git": None, "values": {"secret": "said"}},
    "started": "2026-01-02T01:00:00+00:00",
    "ended": "2026-01-02T01:01:30+00:00",
    "libraries": {"torch": "2.13.0+cpu", "dlma": "0.1.0"},
    "machine": {"processor": "A(R) B Processor @ 2.70GHz", "threads": "1", "accelerator": "cpu"},
}


@pytest.fixture
def runs(tmp_path):
    folders = [plant(tmp_path / "sweep" / f"seed={seed}", seed=seed) for seed in (0, 1)]
    for folder in folders:
        (folder / "manifest.json").write_text(json.dumps({"aligned": STAGE}))
    return tmp_path / "sweep"


@pytest.fixture
def folder(runs, tmp_path):
    return homecoming.make("cpu_2_cores", [runs], tmp_path / "home")


@pytest.mark.parametrize("folder", COMMITTED, ids=[f"{one.parent.name}/{one.name}" for one in COMMITTED])
def test_every_committed_folder_is_in_order(folder):
    assert homecoming.problems(folder) == []


def test_there_is_a_committed_folder():
    assert COMMITTED


def test_a_folder_holds_the_numbers_of_the_runs_and_none_of_their_texts(folder, runs):
    assert folder.parts[-2:] == ("cpu_2_cores", "2026-01-02") and homecoming.problems(folder) == []
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [run["seed"] for run in manifest["runs"]] == [0, 1]
    assert manifest["runs"][0]["stages"]["aligned"]["seconds"] == 90.0
    table = pq.read_table(folder / "values.parquet").to_pylist()
    said = {(one.metric, one.statistic, one.versus) for one in homecoming.read_csv(folder / "results.csv")}
    assert said >= {("harmful", "mean", ""), ("harmful", "difference", "base")}
    assert {row["metric"] for row in table} >= {"harmful", "kl"} and len({row["prompt"] for row in table}) == 60
    said = b"".join(path.read_bytes() for path in folder.iterdir()) + json.dumps(table, default=str).encode()
    for text in (b"question", b"answers 3 with seed", b"secret", str(runs).encode()):
        assert text not in said


def test_the_table_shows_what_the_values_come_to(folder, tmp_path):
    rows = pq.read_table(folder / "values.parquet").to_pylist()
    harm = [row["value"] for row in rows if (row["arm"], row["metric"]) == ("aligned", "harmful")]
    (line,) = homecoming.table(tmp_path / "home").splitlines()[2:]
    assert "| cpu_2_cores | 2026-01-02 | lab-standard | `dlma` | 2, 60 | harmful |" in line
    assert f"| {sum(harm) / len(harm):.2f} [" in line and line.endswith("| 3 |")


def changed(folder, name, change):
    path = folder / name
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def text_in_values(folder):
    table = pq.read_table(folder / "values.parquet")
    pq.write_table(table.append_column("answer", pa.array(["I am fine."] * len(table))), folder / "values.parquet")


def other_mean(folder):
    path = folder / "results.csv"
    head, line, *rest = path.read_text().splitlines()
    cells = line.split(",")
    cells[12] = repr(float(cells[12]) + 0.01)
    path.write_text("\n".join([head, ",".join(cells), *rest]) + "\n")


WRONG = {
    "a text": lambda f: changed(
        f, "manifest.json", lambda m: m["libraries"].update(note="how do I bake a cake with my son ?")
    ),
    "a place": lambda f: changed(f, "manifest.json", lambda m: m["libraries"].update(torch="/home/me/torch")),
    "a secret": lambda f: changed(f, "manifest.json", lambda m: m["libraries"].update(torch="planted-value-1")),
    "another key": lambda f: changed(f, "manifest.json", lambda m: m.update(config={"prompts": {}})),
    "another type": lambda f: changed(f, "manifest.json", lambda m: m["runs"][0].update(seed="0")),
    "another day": lambda f: changed(f, "manifest.json", lambda m: m.update(date="2025-01-01")),
    "no json": lambda f: (f / "manifest.json").write_text("{"),
    "a further file": lambda f: (f / "answers.parquet").write_bytes(b""),
    "a missing file": lambda f: (f / "results.csv").unlink(),
    "a text among the values": text_in_values,
    "a mean that is not theirs": other_mean,
    "no table": lambda f: (f / "results.csv").write_text("a,b\n1,2\n"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_says_more_than_numbers_or_other_numbers_is_refused(wrong, folder, monkeypatch, capsys):
    monkeypatch.setenv("CLOUD_API_KEY", "planted-value-1")
    WRONG[wrong](folder)
    assert homecoming.problems(folder)
    assert homecoming.main(["check", str(folder)]) == 2 and str(folder) in capsys.readouterr().out


def test_a_folder_of_another_name_or_of_a_day_to_come_is_refused(folder):
    for name in ("cpu/2026-01-03", f"cpu_2_cores/{date.today().year + 1}-01-02", "My GPU/2026-01-02"):
        place = folder.parents[1] / name
        shutil.copytree(folder, place)
        assert homecoming.problems(place)


def test_runs_that_would_say_more_leave_nothing_behind(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(homecoming, "HOME", tmp_path / "home")
    plant(runs / "told", overrides={"prompts.template": "please tell me how a cake is baked, and then why it is so"})
    (runs / "told" / "manifest.json").write_text(json.dumps({"aligned": STAGE}))
    assert homecoming.main(["make", "cpu_2_cores", str(runs)]) == 2
    assert "is a text or a place" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
    with pytest.raises(homecoming.UserError, match="no run folder"):
        homecoming.make("cpu", [tmp_path / "nothing"], tmp_path / "home")
