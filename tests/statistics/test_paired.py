"""Changes paired over prompts: by hand, and the ratio's interval against that of resampled prompts."""

import numpy as np
import pytest
from planted import eval_row

from dlma.statistics.intervals import paired_difference
from dlma.statistics.paired import change, difference_of_ratios, paired

ROWS = [
    eval_row("a", "base", tokens=10),
    eval_row("a", "aligned", tokens=13),
    eval_row("a", "aligned", tokens=15),  # two answers to one prompt: one mean
    eval_row("b", "base", tokens=20),
    eval_row("b", "aligned", tokens=22),
    eval_row("c", "aligned", tokens=99),  # the base did not answer
    eval_row("a", "prompted", tokens=1),
]


def test_only_prompts_of_both_arms_count_and_answers_to_one_prompt_are_one():
    assert paired(ROWS, lambda row: row.tokens) == ([14.0, 22.0], [10.0, 20.0])
    assert change(ROWS, lambda row: row.tokens) == paired_difference([14.0, 22.0], [10.0, 20.0])


def test_below_two_common_prompts_there_is_no_change():
    assert paired(ROWS, lambda row: row.tokens, ("prompted", "base")) is None
    assert change(ROWS, lambda row: row.tokens if row.prompt_id == "a" else None) is None


def test_the_difference_of_two_ratios_has_the_bootstraps_interval():
    rng = np.random.default_rng(0)
    weights = rng.integers(5, 30, (2, 400)).astype(float)
    values = weights * np.array([[1.2], [1.0]]) + rng.normal(0, 4, (2, 400))
    found = difference_of_ratios(tuple(values), tuple(weights))
    true = values[0].sum() / weights[0].sum() - values[1].sum() / weights[1].sum()
    assert found.value == pytest.approx(true)
    drawn = rng.integers(0, 400, (4000, 400))
    sums_v, sums_w = values[:, drawn].sum(-1), weights[:, drawn].sum(-1)
    low, high = np.quantile(sums_v[0] / sums_w[0] - sums_v[1] / sums_w[1], [0.025, 0.975])
    width = high - low
    assert found.low == pytest.approx(low, abs=0.1 * width) and found.high == pytest.approx(high, abs=0.1 * width)
