"""`make torture`: its short form finds nothing, what differs is named, and its moments fall where they are said to."""

from pathlib import Path

import pytest
import torture
import torture_child
import torture_disks
import torture_moments
import torture_runs
import torture_sweep
from torture_sweep import HARM, Calm

STAGES = {"prompts/a": 1.0, "pairs/b": 4.0, "policy/c": 8.0}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_short_form_finds_no_fault(capsys):
    assert torture.main(["--short"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "all as undisturbed" in said
    assert [name for name in torture.PARTS if f"\n{name}: " not in said] == ["clock"]


def test_what_differs_is_missing_or_new_is_named(tmp_path: Path):
    cell = tmp_path / "outputs" / "torture" / "dlma"
    cell.mkdir(parents=True)
    (cell / "metrics.csv").write_bytes(b"a")
    (cell / "train.csv").write_bytes(b"b")
    calm = {"dlma/metrics.csv": b"other", "dlma/pairs.parquet": b"c"}
    assert torture_sweep.differences(tmp_path, 0, calm, "x") == [
        "x: dlma/metrics.csv differs",
        "x: dlma/pairs.parquet differs",
        "x: dlma/train.csv differs",
    ]
    assert torture_sweep.differences(tmp_path, 3, calm, "x") == [f"x: exit code 3, see {tmp_path}/said.txt"]


def test_every_harm_changes_the_bytes():
    assert [how for how, change in HARM.items() if change(b"some bytes") == b"some bytes"] == []


def test_kills_fall_evenly_over_the_time_of_each_stage_and_while_it_is_published():
    passes = list(torture_moments.spread(Calm(Path(), {}, STAGES, outputs=40), 63))
    every = [moment for moments in passes for moment in moments]
    assert len(every) == 63
    for name, seconds in STAGES.items():
        after = [moment["after"] for moment in every if moment.get("stage") == name and "after" in moment]
        assert after == pytest.approx([seconds * (i + 0.5) / 15 for i in range(15)])
        assert [moment["at"] for moment in every if moment.get("stage") == name and "at" in moment] == [
            "manifest",
            "rename",
            "renamed",
        ]
    assert [moment["outputs"] for moment in every if "outputs" in moment] == [1, 5, 9, 14, 18, 23, 27, 32, 36]
    for moments in passes:
        names = [moment["stage"] for moment in moments if "stage" in moment]
        assert names == sorted(set(names), key=list(STAGES).index)


def test_a_deed_is_done_once_at_its_moment_and_each_stage_is_noted(tmp_path, monkeypatch):
    log, done = tmp_path / "log", []
    monkeypatch.setitem(torture_child.DEEDS, "tell", done.append)
    asked = {"log": str(log), "stage": "pairs/b", "at": "rename", "do": "tell", "with": ["now"]}
    monkeypatch.setattr(torture_child, "ASKED", asked)
    watch = torture_child.Watch()
    for stage in ("prompts/a", "pairs/b", "pairs/b"):
        partial, whole = f"{tmp_path}/{stage}.partial", f"{tmp_path}/{stage}"
        watch("os.mkdir", (partial, 511, -1))
        watch("os.rename", (f"{partial}/x", f"{partial}/manifest.json", -1, -1))
        watch("os.rename", (partial, whole, -1, -1))
        watch("open", (str(tmp_path), None, 0))
    watch("os.rename", ("draft", f"{tmp_path}/outputs/torture/dlma/metrics.csv", -1, -1))
    lines = torture_sweep.entries(log)
    assert done == ["now"]
    assert [line[:2] for line in lines] == [
        ["stage", "prompts/a"],
        ["deed", "pairs/b"],
        ["stage", "pairs/b"],
        ["stage", "pairs/b"],
        ["output", f"{tmp_path}/outputs/torture/dlma/metrics.csv"],
    ]


def test_one_stage_of_each_kind_comes_first():
    calm = Calm(Path(), {}, dict.fromkeys(["a/1", "a/2", "b/1", "c/1", "b/2"], 1.0), outputs=0)
    assert calm.some(3) == ["a/1", "b/1", "c/1"]
    assert calm.some(4) == ["a/1", "a/2", "b/1", "c/1"]
    assert calm.some(9) == list(calm.stages)


def test_growth_is_a_fault_and_its_absence_is_none():
    flat = [(100_000_000 + 1000 * (i % 3), 7, 3) for i in range(40)]
    assert torture_runs.judged(flat).faults == []
    grown = [(100_000_000 + 400_000 * i, 7 + i // 20, 3 + i // 30) for i in range(40)]
    assert torture_runs.judged(grown).faults == [
        "memory grew from 105.8 to 113.8 MB",
        "open files grew from 7 to 8",
        "threads grew from 3 to 4",
    ]


def test_a_refusal_that_names_no_place_or_ends_otherwise_is_a_fault():
    said = "x\rerror: /a/store: No space left on device; make room\n"
    assert torture_disks.refused(2, said, Path("/a/store"), "No space", "full") == []
    assert len(torture_disks.refused(1, said + "Traceback\n", Path("/a/b"), "No space", "full")) == 3
    assert torture_disks.refused(2, "nothing", Path("/a"), "x", "full") == ["full: []"]


def test_a_bare_disk_in_memory_is_full_when_it_is_filled(tmp_path):
    if not torture_disks.may_mount():
        pytest.skip("this user may not mount a disk in memory")
    with torture_disks.small_disk(tmp_path / "disk", "1m") as disk:
        torture_child.fill(str(disk), 5000)
        (disk / "small").write_bytes(bytes(4000))
        with pytest.raises(OSError, match="No space left"):
            (disk / "large").write_bytes(bytes(9000))
    assert list((tmp_path / "disk").iterdir()) == []


def test_parts_are_chosen_by_name_and_number():
    asked = torture._asked(["--only", "kills", "--kills", "7"])
    assert (asked.only, asked.kills, asked.processes) == (["kills"], 7, 4)
    assert torture._asked(["--short"]).damages < 10
    assert sorted(vars(asked)) == sorted(["short", "only", "cores", *torture.PARTS])
