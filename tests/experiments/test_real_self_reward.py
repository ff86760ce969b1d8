"""R and people: the committed figures are those of the committed values, which hold no text."""

import csv
import importlib.util
import sys
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from source_tree import ROOT

FOLDER = ROOT / "experiments" / "real_self_reward"


def script(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


MEASURE, XSTEST = script("measure"), script("xstest_pairs")


def held(pair, first, second, **values):
    """A pair with rewards of both answers, (log-ratio, tokens) each; people prefer the first."""
    known = {"data": "human", "wording": "harmless_affix", "prompt": pair, "category": None, "truth": 1.0}
    known |= {"r_first": first[0], "tokens_first": first[1], "r_second": second[0], "tokens_second": second[1]}
    known |= dict.fromkeys(("plain_first", "plain_second"), -1.0) | dict.fromkeys(("cut_first", "cut_second"), False)
    return MEASURE.Held(pair=pair, **known | dict.fromkeys(("judge", "shown_first", "shown_second")) | values)


def test_the_committed_figures_are_those_of_the_committed_values(tmp_path, monkeypatch):
    monkeypatch.setattr(MEASURE, "AGREEMENT", tmp_path / "agreement.csv")
    MEASURE.main([])
    made, kept = (list(csv.DictReader(path.open())) for path in (tmp_path / "agreement.csv", FOLDER / "agreement.csv"))
    numbers = ("mean", "low", "high")
    assert [{k: v for k, v in row.items() if k not in numbers} for row in made] == [
        {k: v for k, v in row.items() if k not in numbers} for row in kept
    ]
    for row, other in zip(made, kept, strict=True):
        assert [float(row[n]) for n in numbers] == pytest.approx([float(other[n]) for n in numbers], nan_ok=True)


def test_what_is_kept_of_a_pair_is_numbers_hashes_and_names():
    table = pq.read_table(FOLDER / "values.parquet")
    texts = {field.name for field in table.schema if str(field.type) in ("string", "large_string")}
    assert texts == {"data", "wording", "pair", "prompt", "category"}
    assert all(
        len(one) == 16 and int(one, 16) >= 0 for one in {*table["pair"].to_pylist(), *table["prompt"].to_pylist()}
    )
    assert set(table["category"].to_pylist()) == {None, "safe", "unsafe"}


def test_signals_and_parts_are_counted_by_hand():
    rows = [
        held("a", (4.0, 2), (1.0, 1)),  # R for the first, longer one; 2 a token against 1
        held("b", (3.0, 3), (2.0, 1)),  # R for the first; 1 a token against 2
        held("c", (0.5, 1), (1.0, 2)),  # R for the second, longer one; equal a token
    ]
    found = {(row["signal"], row["among"]): row["mean"] for row in MEASURE.lines(rows) if row["metric"] == "agreement"}
    assert found["R", "all"] == pytest.approx(2 / 3)
    assert found["R per token", "all"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["longer", "all"] == pytest.approx(2 / 3)
    assert (found["R", "first longer"], found["R", "second longer"]) == (1.0, 0.0)
    assert (found["R", "small R"], found["R", "large R"]) == (0.0, 1.0)  # |R| is 0.5, 1 and 3


def test_differences_from_r_are_of_the_pairs_that_both_have():
    rows = [held(name, (one, 1), (0.0, 1)) for name, one in (("a", 1.0), ("b", -1.0), ("c", 1.0))]
    rows += [held(name, (one, 1), (0.0, 1), wording="system") for name, one in (("a", 1.0), ("b", 1.0))]
    (beyond,) = [row for row in MEASURE.lines(rows) if row["metric"] == "beyond R" and row["wording"] == "system"][:1]
    assert (beyond["signal"], beyond["n"], beyond["mean"]) == ("R", 2, 0.5)


def test_each_refusal_stands_against_each_compliance_to_its_prompt():
    def row(prompt, kind, label, text):
        return {"prompt": prompt, "type": kind, "label": label, "completion": text}

    rows = [
        row("p", "contrast_homonyms", "2_full_refusal", "no"),
        row("p", "contrast_homonyms", "1_full_compliance", "yes"),
        row("p", "contrast_homonyms", "1_full_compliance", "sure"),
        row("p", "contrast_homonyms", "3_partial_refusal", "well"),
        row("q", "real_group_nons_discr", "2_full_refusal", "no"),
        row("q", "real_group_nons_discr", "1_full_compliance", "yes"),
        row("r", "homonyms", "2_full_refusal", "no"),
    ]
    found = [(p["prompt"], p["category"], p["chosen"], p["rejected"]) for p in XSTEST.pairs(rows)]
    assert found == [("p", "unsafe", "no", "yes"), ("p", "unsafe", "no", "sure"), ("q", "safe", "no", "yes")]


def test_own_answers_on_which_the_classifier_says_the_same_count_for_nothing(monkeypatch):
    """Of two own answers the refusal is the better one; two refusals, or none, are a tie that is left out."""

    class Refuses:
        def probability(self, text, question):
            return float(text.startswith("no"))

    monkeypatch.setattr(MEASURE, "shipped", Refuses)

    def pair(first, second):
        return SimpleNamespace(positive_text=first, negative_text=second, question="q")

    both = [("no", "a"), ("a", "no"), ("no", "no"), ("a", "b")]
    assert [MEASURE.truth("own_harm", pair(*texts)) for texts in both] == [1.0, -1.0, 0.0, 0.0]
    rows = [held("e", (1.0, 1), (0.0, 1))]
    rows += [
        held(name, (r, 1), (0.0, 1), data="own_harm", truth=truth)
        for name, r, truth in (("a", 3.0, 1.0), ("b", 2.0, -1.0), ("c", 1.0, 0.0), ("d", -4.0, -1.0))
    ]
    lines = [row for row in MEASURE.lines(rows) if row["metric"] == "agreement" and row["data"] == "own_harm"]
    found = {(row["signal"], row["among"]): row for row in lines}
    assert (found["R", "all"]["n"], found["R", "all"]["mean"]) == (3, pytest.approx(2 / 3))
    assert found["construction", "all"]["mean"] == pytest.approx(1 / 3)
    assert [found["R", part]["mean"] for part in ("small R", "middle R", "large R")] == [0.0, 1.0, 1.0]
