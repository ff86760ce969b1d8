"""mode=workbench: pairs of the lab and of a person's own, ranked; a second look computes nothing."""

import csv
import json

import pytest

from dlma.app import main
from dlma.modes.workbench import true_gap

SIZE = ["data.train=40", "data.validation=4", "data.test=4", "recipe.max_new_tokens=32", "mode.sample=24"]
TWO = """defaults:
  - /prompts/lab@_here_
  - _self_
pairs:
  - positive: {affix: " ( kind )"}
    negative: {affix: " ( cruel )"}
  - positive: {affix: " ( kind )"}
    negative: {affix: " ( kind )"}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def bench(tmp_path, monkeypatch, store):
    monkeypatch.chdir(tmp_path)

    def call(names, *overrides, code=0, flags=()):
        settings = ["mode=workbench", f"mode.prompts={names}", f"store.root={store}", "name=here", *SIZE]
        assert main([*flags, *settings, *overrides]) == code
        return tmp_path / "outputs" / "here"

    return call


def lines(folder):
    return {row["prompts"]: row for row in csv.DictReader((folder / "workbench.csv").open())}


def counts(folder):
    return json.loads((folder / "status.json").read_text())["result"]["counts"]


def test_pairs_are_ranked_on_the_lab_and_measured_once(bench, capsys):
    folder = bench("[lab,lab_pairs/quick_loud,lab_pairs/k*]")
    rows = lines(folder)
    assert set(rows) == {
        "lab",
        *(f"lab_pairs/{n}" for n in ("quick_loud", "kind_cruel", "kind_not_kind", "kind_polite")),
    }
    values = [float(row["separation"]) for row in rows.values()]
    assert values == sorted(values, reverse=True)
    strong, none = rows["lab_pairs/kind_cruel"], rows["lab_pairs/quick_loud"]
    assert float(strong["separation"]) > float(none["separation"])
    assert (strong["true_gap"], none["true_gap"], rows["lab"]["true_gap"]) == ("2.0", "0.0", "1.85")
    assert {row["n"] for row in rows.values()} <= {"22", "23", "24"}  # less the pairs with an empty answer
    assert all(row["construction"] for row in rows.values())
    page = (folder / "workbench.html").read_text()
    assert all(name in page for name in rows)
    assert "true strength" in capsys.readouterr().out
    before = counts(folder)
    assert before["run"]["scored"] == 5 and before["run"]["prompts"] == 1
    assert "policy" not in before["run"]
    assert counts(bench("[lab,lab_pairs/quick_loud,lab_pairs/k*]"))["run"] == {}


@pytest.mark.slow
def test_each_pair_of_a_file_of_ones_own_is_an_entry(bench, tmp_path):
    (tmp_path / "mine" / "prompts").mkdir(parents=True)
    (tmp_path / "mine" / "prompts" / "two.yaml").write_text(TWO)
    again = lines(bench("[two]", "mode.rank_by=clarity", flags=["--config-dir", str(tmp_path / "mine")]))
    rows = lines(bench("[two]", flags=["--config-dir", str(tmp_path / "mine")]))
    assert list(rows) == list(again) == ["two[0]", "two[1]"]
    assert float(rows["two[1]"]["separation"]) == float(rows["two[1]"]["spread"]) == 0  # both sides are one prompt
    assert rows["two[1]"]["clarity"] == ""


@pytest.mark.parametrize(
    ("names", "overrides", "said"),
    [
        ("[lba]", [], "mode.prompts: there is no prompts=lba (there are affixes16, "),
        ("[]", [], "mode.prompts: name at least one file of conf/prompts"),
        ("[lab]", ["mode.sample=1"], "mode.sample: must be an integer from 2 to"),
        ("[lab]", ["method=rlaif"], "mode=workbench samples its own pairs"),
        ("[lab]", ["mode.rank_by=truth"], "mode.rank_by: must be one of separation"),
    ],
)
def test_what_cannot_be_ranked_is_said_in_a_line(bench, capsys, names, overrides, said):
    bench(names, *overrides, code=2)
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("positive", "negative", "gap"),
    [(" ( kind )", " ( cruel )", 2.0), (" ( not kind )", " ( rude )", 0.0), ("(ethical response)", "(toxic)", None)],
)
def test_the_true_gap_is_known_for_the_grammar_alone(positive, negative, gap):
    assert true_gap(positive, negative) == gap
