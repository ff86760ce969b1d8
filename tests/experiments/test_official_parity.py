"""Parity with TRL, and with a clone of the official code where DLMA_OFFICIAL names one; the committed figures."""

import dataclasses
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "official_parity"
CLONE = os.environ.get("DLMA_OFFICIAL")
PER_PAIR = 1e-4  # nats
PER_STEP = 1e-4  # nats


@pytest.fixture(scope="module")
def parity():
    """The script, as `python experiments/official_parity/run.py` runs it."""
    sys.path.insert(0, str(FOLDER))
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location("parity_run", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FOLDER))
    for name in [name for name in set(sys.modules) - before if name.startswith("parity_")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def results():
    return json.loads((FOLDER / "results.json").read_text())


def test_the_loss_curve_is_that_of_trl(parity, tmp_path):
    pytest.importorskip("trl")
    found = parity.measure(None, tmp_path / "model", parity.case.Settings(pairs=32))
    curves = found["without_margin"]
    assert len(curves["ours"]) == 4
    assert curves["ours"] == pytest.approx(curves["trl"], abs=PER_STEP)
    assert max(curves["trl"]) - min(curves["trl"]) > 100 * PER_STEP, "the curve moves, so agreement says something"


@pytest.mark.skipif(CLONE is None, reason="DLMA_OFFICIAL names no clone of exlaw/DLMA")
def test_r_and_the_loss_curves_are_those_of_the_official_code(parity, tmp_path):
    settings = parity.case.Settings(pairs=32)
    rows = parity.case.examples(settings.pairs, settings.seed)
    folder = parity.case.write_model(tmp_path / "model", [t for row in rows for t in vars(row).values()], settings)
    margins = parity.ours.self_reward(parity.ours.load(folder), rows, eos=False)
    official = parity.official.self_reward(Path(CLONE), folder, rows)
    assert margins == pytest.approx(official, abs=PER_PAIR)
    pairs = parity.ours.bare_pairs(parity.ours.load(folder), rows, margins)
    others = parity.ours.ordered(pairs, settings)
    given = [pair.margin for pair in others]
    theirs = parity.official.loss_curve(Path(CLONE), folder, parity._examples(others), given, settings)
    mine = parity.ours.loss_curve(parity.ours.load(folder), pairs, settings, margin=True)
    assert mine == pytest.approx(theirs, abs=PER_STEP)


def test_the_readme_shows_the_committed_figures(parity, results):
    shown = (FOLDER / "README.md").read_text().split(parity.MARKS[0])[1].split(parity.MARKS[1])[0]
    assert shown == parity.table(results) + "\n"


def test_the_committed_figures_agree(parity, results):
    reward, margin, plain = results["self_reward"], results["with_margin"], results["without_margin"]
    assert results["commit"].startswith(parity.official.COMMIT)
    assert results["settings"] == dataclasses.asdict(parity.case.Settings())
    assert reward["ours"] == pytest.approx(reward["official"], abs=PER_PAIR)
    assert margin["ours"] == pytest.approx(margin["official"], abs=PER_STEP)
    assert plain["ours"] == pytest.approx(plain["trl"], abs=PER_STEP)
    assert plain["ours"] == pytest.approx(plain["official"], abs=PER_STEP)
    assert max(abs(a - b) for a, b in zip(margin["ours"], plain["ours"], strict=True)) > 0.01
