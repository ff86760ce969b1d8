"""The workbench's measures by hand and by scipy, its table, CSV and page."""

import csv
import dataclasses
import io
import math

import numpy as np
import pytest
from omegaconf import OmegaConf
from planted import scored_pair
from rich.console import Console
from scipy import stats

from dlma.app import conf_dir
from dlma.checks import prompt_measures
from dlma.checks.prompt_measures import MEASURES, MeasuredPair, agreement, measures
from dlma.config.build import build
from dlma.report import workbench_page

ALERTS = build(OmegaConf.load(conf_dir() / "alerts" / "standard.yaml"))


def pair(number, under, ids=((4, 5, 6), (4, 5, 7, 8)), texts=("a b a b", "c d")):
    pp, pn, np_, nn = under
    return dataclasses.replace(
        scored_pair(number, (pp - pn) - (np_ - nn)),
        positive_under_positive=float(pp), positive_under_negative=float(pn),
        negative_under_positive=float(np_), negative_under_negative=float(nn),
        positive_ids=list(ids[0]), negative_ids=list(ids[1]), positive_text=texts[0], negative_text=texts[1],
    )  # fmt: skip


def test_the_measures_of_a_few_pairs_by_hand():
    pairs = [
        pair(0, (-3, -5, -6, -4)),  # R = 2 + 2
        pair(1, (-3, -4, -5, -4), ids=((4, 5), (4, 5)), texts=("I cannot do that", "we should not do this .")),  # R = 2
        pair(2, (-4, -4, -5, -5), texts=("a b", "I’m sorry")),  # R = 0
    ]
    found = measures(pairs, [1.0, -1.0, 0.0], ALERTS)
    assert found["separation"].value == pytest.approx(2)
    assert found["spread"].value == pytest.approx(2)
    assert found["clarity"].value == pytest.approx(1)
    assert found["kl_positive"].value == pytest.approx((2 + 1 + 0) / 3)
    assert found["kl_negative"].value == pytest.approx((2 + 1 + 0) / 3)
    # adjacent token pairs: {45, 56} and {45, 57, 78} share one of five; equal answers share all
    assert found["difference"].value == pytest.approx(((1 - 2 / 5) + 0 + (1 - 2 / 5)) / 3)
    # word pairs: "a b a b" has 2 kinds among 3; the others have no repeats
    assert found["distinct_2"].value == pytest.approx((2 / 3 + 5) / 6)
    assert found["refusal_positive"].value == pytest.approx(1 / 3)
    assert found["refusal_negative"].value == pytest.approx(2 / 3)
    assert found["longer"].value == pytest.approx((-1 + 0 - 1) / 3)
    assert found["accuracy"].value == pytest.approx(1 / 2)  # the tie of the truth is left out
    assert found["construction"].value == pytest.approx(1 / 2)


def test_the_correlations_are_scipys():
    draw = np.random.default_rng(0)
    pairs = [pair(i, (*draw.normal(size=4),), ids=(range(int(draw.integers(2, 9))), range(5))) for i in range(30)]
    truth = draw.normal(size=30).tolist()
    found = measures(pairs, truth, ALERTS)
    margins = [p.margin for p in pairs]
    longer = [len(p.positive_ids) - len(p.negative_ids) for p in pairs]
    assert found["length_bias"].value == pytest.approx(stats.spearmanr(margins, longer).statistic)
    assert found["rank_correlation"].value == pytest.approx(stats.spearmanr(margins, truth).statistic)


def test_without_a_truth_nothing_is_said_of_it():
    found = measures([pair(i, (-1, -2 - i, -3, -2)) for i in range(8)], [None] * 8, ALERTS)
    assert [found[name] for name in ("accuracy", "construction", "rank_correlation")] == [None] * 3
    assert found["length_bias"] is None  # all answers are of one length


@pytest.mark.parametrize("of", ["spread", "clarity"])
def test_the_intervals_of_spread_and_clarity_cover(of):
    draw = np.random.default_rng(1)
    true = {"spread": 2.0, "clarity": 0.5}[of]
    hits = 0
    for _ in range(400):
        estimate = getattr(prompt_measures, of)(draw.normal(1.0, 2.0, size=200))
        hits += estimate.low <= true <= estimate.high
    assert 0.92 < hits / 400 < 0.98


def test_margins_that_are_all_equal_have_no_clarity():
    assert prompt_measures.clarity(np.ones(5)) is None


def entry(name, separation, gap=None, truth=True):
    rows = [pair(i, (-1, -1 - separation - 0.1 * (i % 3), -2, -2)) for i in range(12)]
    return MeasuredPair(name, "p+", "<p->", measures(rows, [1.0, -1.0] * 6 if truth else [None] * 12, ALERTS), gap)


ENTRIES = [entry("strong<b>", 3.0, 2.0), entry("middle", 2.0, 1.0), entry("weak", 1.0, 0.1), entry("none", 0.0, 0.2)]


def test_the_csv_has_a_line_per_pair_in_order_with_every_measure():
    lines = list(csv.DictReader(io.StringIO(workbench_page.csv_bytes(ENTRIES).decode())))
    assert [line["prompts"] for line in lines] == ["strong<b>", "middle", "weak", "none"]
    assert [line["rank"] for line in lines] == list("1234")
    assert {*MEASURES} <= set(lines[0])
    for line, one in zip(lines, ENTRIES):
        assert float(line["separation"]) == one.measures["separation"].value
        assert float(line["true_gap"]) == one.gap and line["n"] == "12"


def test_the_ranking_is_held_against_the_true_strength():
    assert agreement(ENTRIES, "separation").value == pytest.approx(0.8)  # 1 - 6*2/(4*15): one swap
    assert agreement([dataclasses.replace(e, gap=None) for e in ENTRIES], "separation") is None


def test_the_terminal_shows_ranks_values_and_what_they_mean():
    console = Console(file=io.StringIO(), width=160)
    workbench_page.print_ranking(ENTRIES, "separation", "model, 12 prompts", console)
    text = console.file.getvalue()
    assert text.index("strong<b>") < text.index("middle") < text.index("weak")
    assert "mean of R: how far" in text and "0.800" in text


def test_a_narrow_terminal_drops_measures_and_cuts_none():
    console = Console(file=io.StringIO(), width=60)
    workbench_page.print_ranking(ENTRIES, "separation", "model, 12 prompts", console)
    text = console.file.getvalue()
    assert "…" not in text and "A wider terminal shows more" in text and "strong<b>" in text


def test_the_page_shows_every_pair_and_escapes_what_it_is_given():
    page = workbench_page.render(ENTRIES, "separation", title="t", meta="m", is_lab=True).decode()
    assert "strong<b>" not in page and "<p->" not in page and "strong&lt;b&gt;" in page and "&lt;p-&gt;" in page
    assert page.count("<circle") == 2 * len(ENTRIES)
    assert "not evidence about LLaMA-class models" in page
    blind = [entry(name, 1.0, truth=False) for name in "abcd"]
    page = workbench_page.render(blind, "separation", title="t", meta="m", is_lab=False).decode()
    assert page.count("<circle") == len(blind) and "without any truth" in page
    assert not math.isnan(blind[0].measures["separation"].value)
