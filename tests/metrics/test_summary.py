"""The summary table's arithmetic, by hand."""

import csv
import io
import json
import math

import pytest
from planted import eval_row

from dlma.metrics.summary import Row, cannot, metrics_csv, rows_from, summary_over_seeds, summary_rows, write_metrics
from dlma.statistics.format import interval, number
from dlma.statistics.intervals import Estimate, share_interval


def _value(rows, metric, arm="base"):
    (row,) = [row for row in rows if (row.metric, row.arm) == (metric, arm)]
    return row.estimate


def test_log_prob_metrics_by_hand():
    rows = summary_rows(
        [
            eval_row("a", "base", tokens=10, logp=-9.0, logp_base=-10.0),
            eval_row("b", "base", tokens=30, logp=-21.0, logp_base=-26.0),
        ],
        ["base"],
    )
    assert _value(rows, "perplexity").value == pytest.approx(math.exp(36 / 40))  # token-weighted, not per answer
    assert _value(rows, "kl").value == pytest.approx((1 + 5) / 2)
    assert _value(rows, "entropy").value == pytest.approx(30 / 40)
    assert _value(rows, "tokens").value == 20
    assert {row.estimate.n for row in rows} == {2}


def test_oracle_metrics_by_hand_and_wilson_for_the_share_of_harmful_answers():
    harm = [True, False, False, False]
    rows = summary_rows(
        [
            eval_row(str(i), "base", harmful=h, harmlessness=1 - h / 2, helpfulness=i / 4, malformed=0.0)
            for i, h in enumerate(harm)
        ],
        ["base"],
    )
    assert _value(rows, "harmful") == share_interval(harm)
    assert _value(rows, "harmlessness").value == pytest.approx(3.5 / 4)
    assert _value(rows, "helpfulness").value == pytest.approx(1.5 / 4)
    assert _value(rows, "malformed").value == 0 and _value(rows, "malformed").high > 0.1  # four clean are no proof


def test_diversity_by_hand():
    # pairs of words: "a b", "b a", "a b" -> 2 of 3 distinct; sentences: "go." twice -> 1 of 3 repeats
    rows = summary_rows([eval_row("a", "base", answer="a b a b"), eval_row("b", "base", answer="word")], ["base"])
    assert _value(rows, "distinct_2").value == pytest.approx(2 / 3)
    assert _value(rows, "distinct_2").n == 1  # one word has no pair
    again = summary_rows([eval_row("a", "base", answer="Go. Stay!\nGO.")], ["base"])
    assert _value(again, "repeated").value == pytest.approx(1 / 3)


def test_cut_answers_are_counted():
    rows = summary_rows([eval_row("a", "base", finished=False), eval_row("b", "base")], ["base"])
    assert _value(rows, "unfinished").value == 0.5


def test_metrics_without_data_are_left_out_and_named():
    evals = [eval_row("a", "base"), eval_row("b", "base")]
    names = {row.metric for row in summary_rows(evals, ["base", "aligned"])}
    assert names.isdisjoint({"harmful", "harmlessness", "helpfulness", "malformed"}) and "kl" in names
    (line,) = cannot(evals)
    assert line.startswith("no oracle for this data:") and "helpfulness" in line
    judged = [eval_row("a", "base", harmful=False, harmlessness=1.0, helpfulness=1.0, malformed=0.0)]
    assert cannot(judged) == []


def test_empty_answers_do_not_break_the_table():
    rows = summary_rows([eval_row("a", "base", answer="", tokens=0, logp=0.0, logp_base=0.0)], ["base"])
    assert {"perplexity", "distinct_2"}.isdisjoint(row.metric for row in rows)
    assert _value(rows, "tokens").value == 0


def test_several_answers_to_a_prompt_count_as_one_prompt():
    evals = [eval_row("a", "base", tokens=t) for t in (10, 20)] + [eval_row("b", "base", tokens=45)]
    got = _value(summary_rows(evals, ["base"]), "tokens")
    assert (got.value, got.n) == (30.0, 2)


def test_seeds_are_crossed_over_their_common_prompts():
    seeds = [[eval_row(p, "base", tokens=t + s) for p, t in zip("abc", (10, 20, 30))] for s in (0, 6)]
    seeds[1].append(eval_row("only here", "base", tokens=999))
    got = _value(summary_over_seeds(seeds, ["base"]), "tokens")
    assert (got.value, got.n, got.seeds) == (23.0, 3, 2)
    assert got.high - got.low > 2 * 12.7 * 2  # t with 1 degree of freedom on the seeds' own spread


def test_seeds_with_their_own_prompts_are_the_sample():
    seeds = [[eval_row(f"{s}{i}", "base", tokens=10 + s) for i in range(4)] for s in range(3)]
    got = _value(summary_over_seeds(seeds, ["base"]), "tokens")
    assert (got.value, got.n, got.seeds) == (11.0, 12, 3)
    assert got.high - 11.0 == pytest.approx(4.302653 / math.sqrt(3))


def test_metrics_csv_has_its_columns_and_leaves_unknown_bounds_empty(tmp_path):
    rows = [
        Row("kl", "aligned", Estimate(0.5, 0.25, 0.75, 4), "nats/answer"),
        Row("kl", "base", Estimate(0.0, math.nan, math.nan, 1), "nats/answer"),
    ]
    write_metrics(tmp_path / "metrics.csv", rows, method="dlma", base="lab/standard", seed=0)
    lines = list(csv.reader(io.StringIO((tmp_path / "metrics.csv").read_text())))
    assert lines == [
        ["method", "base", "seed", "metric", "n", "mean", "low", "high"],
        ["dlma", "lab/standard", "0", "aligned/kl", "4", "0.5", "0.25", "0.75"],
        ["dlma", "lab/standard", "0", "base/kl", "1", "0.0", "", ""],
    ]
    assert metrics_csv(rows, method="dlma", base="lab/standard", seed=0) == (tmp_path / "metrics.csv").read_bytes()


def test_rows_survive_json():
    rows = [Row("kl", "aligned", Estimate(0.5, 0.25, 0.75, 4, 3), "nats/answer")]
    assert rows_from(json.loads(json.dumps([row.as_dict() for row in rows]))) == rows
    assert rows_from(rows) == rows
    (back,) = rows_from([{**rows[0].as_dict(), "estimate": {"value": 1, "low": None, "high": None, "n": 1}}])
    assert math.isnan(back.estimate.low)


def test_numbers_for_people():
    assert [number(v, "") for v in (0.1234, 12.345, 123.45, 1234.5, math.nan)] == [
        "0.123",
        "12.35",
        "123.5",
        "1234",
        "–",
    ]
    assert number(0.3615, "share") == "36.1 %" and number(-0.25, "nats") == "-0.250"
    assert interval(Estimate(0.36, 0.333, 0.392, 10), "share") == "[33.3, 39.2]"
