"""Names of run folders: readable, safe, and different for different runs."""

from pathlib import Path

import pytest
from command_line import MODE, statuses

from dlma.config import run_names


@pytest.mark.parametrize(
    "method, overrides, expected",
    [
        ("dlma", [], "dlma"),
        ("dlma", [("seed", "1"), ("x.y", "a-b_c.d")], "dlma,seed=1,x.y=a-b_c.d"),
        ("dlma,base", [("seed", "0,1,2")], "dlma+base,seed=0+1+2"),
    ],
)
def test_names_show_method_and_overrides(method, overrides, expected):
    assert run_names.join(method, overrides) == expected


def test_names_are_safe_short_and_tell_apart_what_they_do_not_show():
    values = ["/a/model", "/b/model", "../../etc", "a b", "a:b", "a*b", "x" * 300, "x" * 299 + "y", ".", "ü"]
    made = [run_names.join("dlma", [("model.path", value)]) for value in values]
    assert len(set(made)) == len(values)
    for name in made:
        assert len(name) <= 80 and not name.startswith(".")
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=,+-")
    assert made[0].startswith("dlma,model.path=model-")
    assert run_names.safe("a" * 80) == "a" * 80


OUT = ["../escaped", "../..a", "/escaped", "a/../../escaped", "\\escaped", "..\\escaped", "C:\\escaped", "C:"]
NONE = ["", " ", ".", "..", "../..", "./", "///", " . "]
CONTROL = ["a\x1b[31mb", "a\nb", "a\tb", "a\x00b", "\x7f", "a\u2028b", "\x9b31m"]
LONG = ["x" * 256, "ü" * 128, "x" * 100_000]
WORDS = {"leads out of": OUT, "names no folder": NONE, "control characters": CONTROL, "at most 255": LONG}


@pytest.mark.parametrize(("name", "words"), [(name, words) for words, found in WORDS.items() for name in found])
def test_a_name_that_is_no_folder_below_outputs_is_told_why(name, words):
    told = run_names.unfit(name)
    assert words in told and told.isprintable() and len(told) < 250


@pytest.mark.parametrize("name", ["trial", "a b", "größe", "a/b", "..a", "x" * 255, "a=1,b=2", "~", "None"])
def test_any_other_name_is_one_folder_below_outputs(name):
    assert run_names.unfit(name) is None
    made = run_names.safe(name)
    assert Path(made).name == made and len(made.encode()) <= 80 and made not in (".", "..")


SWEEP = ["-m", "seed=0,1"]


@pytest.mark.parametrize(("name", "sweep"), [("../escaped", []), ("a\x1b[31mb", SWEEP), ("", []), ("x" * 256, SWEEP)])
def test_a_wrong_name_is_one_line_and_writes_nothing(name, sweep, run_main):
    ran = run_main(MODE, f"name='{name}'", *sweep)
    assert (ran.code, ran.err.count("\n")) == (2, 1) and ran.err.startswith("error: name: ")
    assert ran.err.rstrip("\n").isprintable() and list(ran.folder.iterdir()) == []


@pytest.mark.parametrize("argv", [["hydra.run.dir="], [*SWEEP, "hydra.sweep.dir=''"]], ids=["run", "sweep"])
def test_an_empty_run_folder_is_refused(argv, run_main):
    ran = run_main(MODE, *argv)
    assert (ran.code, ran.err.count("\n")) == (2, 1) and "is empty" in ran.err
    assert list(ran.folder.iterdir()) == []


@pytest.mark.slow
def test_cells_whose_values_hold_anything_lie_in_the_sweeps_folder(run_main, mode):
    mode(lambda cfg, /: {})
    values = ["../up", "/top", "a\x1b[31mb", "x" * 300]
    ran = run_main("-m", MODE, "name=trial", "store.root=" + ",".join(f"'{value}'" for value in values))
    assert ran.code == 0, ran.err
    found = sorted(statuses(ran.folder))
    assert len(found) == 4 and all(Path(name).parts[0] == "trial" and len(Path(name).parts) == 2 for name in found)
    assert all(name.isprintable() for name in found) and sorted(p.name for p in ran.folder.iterdir()) == ["outputs"]
