"""Estimates over seeds, paired comparisons with Holm, verdicts as shares."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_runs import answers, plant
from scipy import stats

from dlma.metrics.summary import summary_over_seeds
from dlma.report import tables as sweep_tables
from dlma.runs import cells as run_folders
from dlma.runs.folder import RunFolder
from dlma.statistics import significance
from dlma.statistics.intervals import crossed_interval, ratio_interval
from dlma.sweep import estimates as sweep_results
from dlma.sweep import settings as sweep_settings
from dlma.sweep.results import OUTCOMES


def rows_of(*folders):
    return sweep_settings.settings([run_folders.read_cell(folder) for folder in folders])


@pytest.fixture
def cells(tmp_path):
    return [
        plant(tmp_path / f"{method}{seed}", method=method, seed=seed, harm=harm)
        for method, harm in (("dlma", 0.2), ("rlcd", 0.5))
        for seed in (0, 1, 2)
    ]


def find(found, label, metric, statistic="mean", seeds=(0, 1, 2), **fields):
    """The one number that these fields name."""
    wanted = {"label": label, "metric": metric, "statistic": statistic, "seeds": seeds, **fields}
    (one,) = [one for one in found if all(getattr(one, name) == value for name, value in wanted.items())]
    return one


def test_the_means_are_those_of_the_summary_over_seeds(cells):
    found = sweep_results.results(rows_of(*cells))
    seeds = [RunFolder(cell).answers() for cell in cells[:3]]
    for row in summary_over_seeds(seeds, ["base", "prompted", "aligned"]):
        mine = find(found, {"aligned": "dlma"}.get(row.arm, row.arm), row.metric)
        assert (mine.value, mine.low, mine.high, mine.n) == pytest.approx(
            (row.estimate.value, row.estimate.low, row.estimate.high, row.estimate.n)
        )


def test_each_seed_has_a_row_and_only_the_row_of_all_seeds_a_p(cells):
    found = sweep_results.results(rows_of(*cells))
    one = [row for row in found if (row.method, row.metric, row.statistic) == ("dlma", "harmful", "mean")]
    assert [row.seeds for row in one] == [(0,), (1,), (2,), (0, 1, 2)]
    assert [math.isnan(row.p_holm) for row in one] == [True, True, True, False]


def harm(folder, arm):
    return {row.prompt_id: row.harmful for row in RunFolder(folder).answers() if row.arm == arm}


def test_the_comparison_is_paired_over_prompts_and_seeds(cells):
    found = sweep_results.results(rows_of(*cells), baseline="rlcd")
    both = [(harm(a, "aligned"), harm(b, "aligned")) for a, b in zip(cells[:3], cells[3:])]
    table = np.array([[float(a[p]) - float(b[p]) for a, b in both] for p in both[0][0]])
    mine, wanted = find(found, "dlma", "harmful", "difference", versus="rlcd"), crossed_interval(table)
    assert (mine.value, mine.low, mine.high) == pytest.approx((wanted.value, wanted.low, wanted.high))
    needed = find(found, "dlma", "harmful", "needed", versus="rlcd")
    assert needed.value == significance.prompts_needed(table)


def test_holm_is_over_all_comparisons_of_the_table(cells):
    rows = rows_of(*cells)
    raw = sweep_results.comparisons_of(rows, None, None)
    assert {one.row.label for one in raw} == {"prompted", "dlma", "rlcd"}
    assert {one.metric.name for one in raw} == {"harmful", "helpfulness", "malformed"}
    assert [one.p_holm for one in raw] == pytest.approx(significance.holm([one.p for one in raw]))
    chosen = sweep_results.comparisons_of(rows, None, ["harmful"])
    assert len(chosen) == 3 and all(a.p_holm <= b.p_holm for a, b in zip(chosen, raw[::3]))


def test_one_seed_is_compared_over_prompts_like_scipy(tmp_path):
    folder = plant(tmp_path / "a")
    (one,) = sweep_results.comparisons_of(rows_of(folder)[::2], None, ["harmful"])
    base, aligned = harm(folder, "base"), harm(folder, "aligned")
    both = [(float(aligned[p]), float(base[p])) for p in base]
    assert one.p == pytest.approx(stats.ttest_rel(*zip(*both)).pvalue)


def test_a_ratio_is_compared_by_the_quotient(tmp_path):
    folder = plant(tmp_path / "a")
    (one,) = sweep_results.comparisons_of(rows_of(folder)[::2], None, ["perplexity"])
    logs = {
        arm: ratio_interval(*zip(*[(-r.logp_base, r.tokens) for r in RunFolder(folder).answers() if r.arm == arm]))
        for arm in ("aligned", "base")
    }
    assert [(r.metric, r.statistic, r.versus) for r in one.results] == [
        ("perplexity", "ratio", "base"),
        ("perplexity", "needed", "base"),
    ]
    assert one.estimate.value == pytest.approx(math.exp(logs["aligned"].value - logs["base"].value))


@pytest.mark.parametrize("shared", [0, 1, 2, 14])
def test_seeds_with_prompts_of_their_own_are_the_sample(tmp_path, shared):
    """Also where some are the same by chance, less than half: they do not stand for the others."""
    cells = []
    for seed in (0, 1, 2):
        rows = answers("base", seed, prompts=30, harm=0.7) + answers("aligned", seed, prompts=30, harm=0.2)
        of = {
            row.prompt_id: row.prompt_id if i < shared else f"{seed}-{row.prompt_id}" for i, row in enumerate(rows[:30])
        }
        rows = [type(row)(**{**vars(row), "prompt_id": of[row.prompt_id]}) for row in rows]
        cells.append(plant(tmp_path / f"{seed}", seed=seed, rows=rows))
    found = sweep_results.results(rows_of(*cells))
    each = [np.mean(list(harm(c, "aligned").values())) - np.mean(list(harm(c, "base").values())) for c in cells]
    mine = find(found, "dlma", "harmful", "difference")
    assert mine.value == pytest.approx(np.mean(each))
    half = stats.t.ppf(0.975, 2) * np.std(each, ddof=1) / math.sqrt(3)
    assert (mine.high - mine.low) / 2 == pytest.approx(half)
    assert find(found, "dlma", "harmful").n == 90


def test_a_comparison_uses_the_seeds_that_both_have(cells):
    found = sweep_results.results(rows_of(*cells[:5]), baseline="rlcd")
    assert find(found, "dlma", "harmful", "difference", seeds=(0, 1)).n == 60


def test_verdicts_become_shares_over_prompts_and_seeds(tmp_path):
    said = {0: ["win", "win", "tie", "lose"], 1: ["win", "lose", "tie", "unparsed"]}
    cells = []
    for seed, words in said.items():
        verdicts = [
            {"prompt_id": f"p{i}", "judge": "oracle", "arm": "aligned", "against": "base", "outcome": word}
            for i, word in enumerate(words)
        ]
        cells.append(plant(tmp_path / f"{seed}", seed=seed, verdicts=verdicts))
    found = sweep_results.results(rows_of(*cells))
    what = {"statistic": "share", "versus": "base", "judge": "oracle"}
    shares = {word: find(found, "dlma", word, seeds=(0, 1), **what).value for word in OUTCOMES}
    assert shares == {"win": 3 / 8, "tie": 2 / 8, "lose": 2 / 8, "unparsed": 1 / 8}
    (table,) = [table for table in sweep_tables.tables(found) if "win / tie / lose" in table.title]
    assert (table.heads, table.rows) == (["method", "against", "oracle"], [["dlma", "base", "37.5 / 25.0 / 25.0 %"]])


def test_verdicts_on_other_methods_answers_stand_beside_those_on_the_base(tmp_path):
    """mode=versus leaves versus.parquet in the run."""
    rows = [
        {"prompt_id": f"p{i}", "judge": "oracle", "arm": "aligned", "against": "rlcd", "outcome": word}
        for i, word in enumerate(["win", "tie", "win", "lose"])
    ]
    folder = plant(tmp_path / "0", verdicts=[{**row, "against": "base"} for row in rows[:2]])
    pq.write_table(pa.Table.from_pylist(rows), folder / "versus.parquet")
    found = sweep_results.results(rows_of(folder))
    assert {one.versus: one.value for one in found if one.metric == "win"} == {"base": 1 / 2, "rlcd": 1 / 2}


def scored(arm, metric, values, weights=None):
    weights = weights or [1.0] * len(values)
    return [
        {"item": f"item{i}", "category": None, "arm": arm, "metric": metric, "value": value, "weight": weight}
        for i, (value, weight) in enumerate(zip(values, weights))
    ]


def shown(arm, metric, value, better, unit=""):
    return {"metric": metric, "arm": arm, "estimate": {"value": value}, "unit": unit, "label": metric, "better": better}


def test_further_metrics_are_averaged_as_the_run_says_and_tested_on_request_only(tmp_path):
    means, nats, lengths = {"base": [0.2, 0.6], "aligned": [0.4, 1.0]}, [2.0, 6.0], [2.0, 2.0]
    scores = [row for arm, values in means.items() for row in scored(arm, "cost", values)]
    scores += [row for arm in means for row in scored(arm, "loss", nats, lengths)]  # 8 / 4 nats per token
    scores += [row for arm in means for row in scored(arm, "ppl", nats, lengths)]
    summary = [shown("aligned", "cost", 0.7, "lower"), shown("aligned", "loss", 2.0, "lower")]
    summary.append(shown("aligned", "ppl", math.exp(2.0), ""))
    folder = plant(tmp_path / "a", scores=scores, status={"result": {"summary": summary}})
    rows = rows_of(folder)
    found = {(one.label, one.metric, one.statistic): one.value for one in sweep_results.results(rows)}
    assert found["dlma", "cost", "mean"] == pytest.approx(0.7)
    assert found["dlma", "loss", "mean"] == pytest.approx(2.0) and found["dlma", "ppl", "mean"] == pytest.approx(
        math.exp(2.0)
    )
    assert sweep_results.tested_metrics(rows) == ["harmful", "helpfulness", "malformed"]
    assert ("dlma", "cost", "difference") not in found
    asked = [one for one in sweep_results.results(rows, tested=["cost"]) if one.statistic == "difference"]
    assert {one.metric for one in asked} == {"cost"}
    assert find(asked, "dlma", "cost", "difference", seeds=(0,)).value == pytest.approx(0.3)


def test_verdicts_of_seeds_with_prompts_of_their_own_are_a_sample_of_seeds(tmp_path):
    said = {0: ["win", "win", "win", "lose"], 1: ["win", "lose", "lose", "lose"]}
    cells = []
    for seed, words in said.items():
        verdicts = [
            {"prompt_id": f"{seed}p{i}", "judge": "oracle", "arm": "aligned", "against": "base", "outcome": word}
            for i, word in enumerate(words)
        ]
        cells.append(plant(tmp_path / f"{seed}", seed=seed, verdicts=verdicts))
    found = sweep_results.results(rows_of(*cells))
    mine = find(found, "dlma", "win", seeds=(0, 1), statistic="share", versus="base", judge="oracle")
    assert (mine.value, mine.n) == (1 / 2, 8)
    half = stats.t.ppf(0.975, 1) * np.std([3 / 4, 1 / 4], ddof=1) / math.sqrt(2)
    assert (mine.low, mine.high) == (max(0.0, 1 / 2 - half), min(1.0, 1 / 2 + half))
