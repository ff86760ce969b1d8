"""Values at a KL from files that kept pooled means alone: by hand, and nothing said that they do not bear."""

import dataclasses
import math

import numpy as np
import pytest

from dlma.sweep.results import Result, read_csv, write_csv
from experiments import pooled

SEEDS = (0, 1, 2)


def settings(method, *points, n=1000, metric="harmful"):
    """Means of a method at (KL, value) each with intervals of 0.02 and 0.03 to either side; "base" is the start."""
    found = []
    for i, (kl, value) in enumerate(points):
        arm, told = ("base", ()) if method == "base" else ("aligned", (("beta", f"{i}"),))
        for name, mean, half in (("kl", kl, 0.02), (metric, value, 0.03)):
            found.append(Result("lab", method, name, n, mean, mean - half, mean + half, math.nan, told, arm, SEEDS))
    return found


def read_at(method, value, half, kl=2.25, **what):
    told = {"seeds": SEEDS, "axis": "kl", "at": kl, **what}
    return Result("lab", method, "harmful", 1000, value, value - half, value + half, math.nan, **told)


def logit(y, n=1000):
    return math.log((n * y + 0.5) / (n - n * y + 0.5))


def share(z, n=1000):
    return ((n + 1) / (1 + math.exp(-z)) - 0.5) / n


@pytest.fixture
def found():
    """Two methods read at 2.25 nats, whose root lies half-way between settings at 1 and at 4."""
    rows = settings("base", (0.0, 0.7)) + settings("a", (1.0, 0.4), (4.0, 0.1)) + settings("b", (1.0, 0.5), (4.0, 0.3))
    rows += [read_at("a", 0.26, 0.02), read_at("b", 0.39, 0.02)]
    gap = read_at("a", -0.13, 0.02, statistic="difference", versus="b")
    return [*rows, gap, dataclasses.replace(gap, statistic="needed", value=99.0)]


def picked(found, **what):
    (one,) = [one for one in found if all(getattr(one, key) == value for key, value in what.items())]
    return one


def test_a_value_is_moved_from_the_lines_to_the_fit_and_holds_what_settings_left_out_are_missed_by(found):
    again = pooled.read_again(found, {})
    middle = (logit(0.4) + logit(0.1)) / 2
    value = picked(again, method="a", axis="kl", statistic="mean")
    assert value.value == pytest.approx(0.26 + share(middle) - 0.25)
    # each curve's setting at 1 left out: the line from 0 to 2 there is half-way, its room 1; two such, so two degrees
    errors = [(logit(0.7) + logit(end)) / 2 - logit(inner) for inner, end in ((0.4, 0.1), (0.5, 0.3))]
    bend = math.sqrt(sum(e * e for e in errors) / 2)
    p = 1 / (1 + math.exp(-middle))
    sd = p * (1 - p) * 1001 / 1000 * bend * 0.25  # the room at 2.25: half a root to both sides
    assert value.high - value.value == pytest.approx(math.hypot(0.02, 4.302653 * sd), rel=1e-5)
    gap = picked(again, method="a", statistic="gap")
    assert (gap.low, gap.high, gap.n) == (1.0, 4.0, 2)
    missed = picked(again, method="b", statistic="missed")
    assert missed.value == pytest.approx(abs(share((logit(0.7) + logit(0.3)) / 2) - 0.5))


def test_a_difference_stays_paired_and_its_p_is_bounded(found):
    again = pooled.read_again(found, {})
    a, b = (picked(again, method=method, axis="kl", statistic="mean") for method in "ab")
    gap = picked(again, statistic="difference")
    assert gap.value == pytest.approx(-0.13 + (a.value - 0.26) - (b.value - 0.39))
    own = [one.high - one.value for one in (a, b)]
    missed = math.hypot(*(math.sqrt(half**2 - 0.02**2) for half in own))
    assert gap.high - gap.value == pytest.approx(math.hypot(0.02, missed))
    assert gap.p_holm == pytest.approx(pooled.least_p(gap))
    assert not [one for one in again if one.statistic == "needed"]  # it was of the difference on lines


def test_what_the_file_does_not_bear_stays_as_it_was_read():
    """A base and one setting: whether the curve ran through policies on the way is not known."""
    rows = settings("base", (0.0, 0.7)) + settings("a", (4.0, 0.1)) + [read_at("a", 0.3, 0.02)]
    assert pooled.read_again(rows, {}) == rows


def test_with_the_values_of_each_prompt_nothing_is_read_again(found, tmp_path):
    (tmp_path / "results.csv").write_bytes(write_csv(found))
    assert pooled.results(tmp_path) != read_csv(tmp_path / "results.csv")
    assert "p: at least so large" in pooled.note(tmp_path)
    (tmp_path / "values.parquet").touch()
    assert pooled.results(tmp_path) == read_csv(tmp_path / "results.csv") and pooled.note(tmp_path) is None


def test_another_metric_at_a_kl_has_an_interval_of_those_around_it(found):
    """Length 20, 22, 26 at roots 0, 1, 2: at 1.5 it is 24, 4 tokens a root; the one left out is missed by 1."""
    lengths = [
        *settings("base", (0.0, 20.0), metric="tokens"),
        *settings("a", (1.0, 22.0), (4.0, 26.0), metric="tokens"),
    ]
    whole = [one for one in found if one.method != "b"] + [one for one in lengths if one.metric == "tokens"]
    e, low, high = pooled.unpaired(whole, "tokens", 2.25)["a"]
    of_kl = 4.0 * (0.02 / 2 / 1 + 0.02 / 2 / 2) / 2
    assert (e.value, low, high) == (pytest.approx(24.0), 1.0, 4.0)
    assert e.high - e.value == pytest.approx(math.hypot(0.03, of_kl, 12.706205 * 1.0 * 0.25), rel=1e-5)


def test_the_error_of_straight_lines_is_what_the_fit_takes_away(found):
    """On the committed curves of the comparison: a setting left out is missed by less on the fit than on lines."""
    curves = pooled._curves(
        pooled.over_seeds(read_csv(pooled.Path(pooled.__file__).parent / "main_comparison/results.csv"))
    )
    harm = [curve for (_, _, metric), curve in curves.items() if metric == "harmful"]
    assert len(harm) == 5
    for curve in harm:
        shares = np.array([curve.scale.back(z) for z in curve.heights])
        lines = pooled.curve_fit.left_out(curve.places, shares, monotone=False)
        fit = pooled.curve_fit.left_out(curve.places, curve.heights, monotone=True)
        off = [[read - shares[i] for i, read, _ in lines], [curve.scale.back(z) - shares[i] for i, z, _ in fit]]
        on_lines, on_fit = (float(np.sqrt(np.mean(np.square(errors)))) for errors in off)
        assert on_fit < on_lines < 0.04
