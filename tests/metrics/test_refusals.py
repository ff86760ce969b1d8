"""Refusals by phrases: what is matched, and that the stated agreement with people is the one that was measured."""

import csv
import gzip
import json
import re
from pathlib import Path

import pytest

from dlma.metrics.refusals import Agreement, measured, refuses, reliability
from experiments.refusals import measure

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "experiments" / "refusals"


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I CANNOT do that.", True),
        ("Well, I can’t.", True),
        ("I can't.", True),
        ("I can do that.", False),
        ("", False),
    ],
)
def test_a_phrase_is_found_whatever_its_case_and_apostrophe(answer, refused):
    assert refuses(answer, ["i cannot", "i can't"]) is refused


ROWS = [
    {"model": "b", "completion": "I cannot.", "label": "2_full_refusal"},
    {"model": "b", "completion": "No way.", "label": "3_partial_refusal"},
    {"model": "b", "completion": "Sure: I cannot wait!", "label": "1_full_compliance"},
    {"model": "b", "completion": "Sure.", "label": "1_full_compliance"},
    {"model": "b", "completion": "Of course.", "label": "1_full_compliance"},
    {"model": "a", "completion": "I CANNOT.", "label": "2_full_refusal"},
]


def test_agreement_is_counted_by_model_and_a_partial_refusal_is_one(tmp_path):
    path = tmp_path / "completions.jsonl.gz"
    with gzip.open(path, "wt") as out:
        out.write("".join(json.dumps(row) + "\n" for row in ROWS))
    found = measure.agreement(measure.read(path), ["i cannot"])
    assert list(found.items()) == [("a", Agreement(1, 1, 1, 1)), ("b", Agreement(5, 3, 2, 1))]
    shown = measure.figures(found["b"])
    assert [shown[name].value for name in ("agreement", "refusals_found", "false_alarms")] == [3 / 5, 1 / 2, 1 / 3]


def test_the_phrases_in_use_are_those_that_were_measured():
    assert list(measured()[0]) == measure.phrases_in_use()


def test_every_committed_figure_is_the_one_that_the_counts_give():
    models = measured()[1]
    with (HERE / "agreement.csv").open(newline="") as rows:
        kept = {(row["model"], row["figure"]): float(row["value"]) for row in csv.DictReader(rows)}
    found = {(name, figure): e.value for name, one in models.items() for figure, e in measure.figures(one).items()}
    assert kept == pytest.approx(found)
    assert measure.table(models) in (HERE / "README.md").read_text()


def test_the_pages_say_what_the_package_says():
    ranges = re.findall(r"\d+ to \d+ %", reliability(measure.phrases_in_use()))
    said = " ".join((ROOT / "docs" / "alerts.md").read_text().split())
    assert len(ranges) == 2 and all(one in said for one in ranges)


def test_other_phrases_are_said_to_be_unmeasured():
    assert reliability(["never"]) == "by phrases, never held against people"
