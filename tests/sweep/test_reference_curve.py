"""Harm beyond a reference curve: what is left of a setting's harm when the KL it went is taken into account."""

import dataclasses
import math

import numpy as np
import pytest
from planted import eval_row
from planted_runs import plant

from dlma.errors import UserError
from dlma.runs import cells as run_folders
from dlma.sweep import estimates, main_effects, reference_curve
from dlma.sweep import settings as sweep_settings
from dlma.sweep.results import Result, write_csv


@pytest.fixture
def reference(tmp_path):
    """The base at 0.7, the method at KL 1 and 4 with 0.3 and 0.2; another method, and another base without a curve."""
    points = [("base", {}, 0.0, 0.7), ("dlma", {"beta": "2"}, 1.0, 0.3), ("dlma", {"beta": "1"}, 4.0, 0.2)]
    found = measured(*points, ("rlcd", {}, 1.0, 0.9)) + measured(("dlma", {}, 1.0, 0.4), base="lab-weak")
    path = tmp_path / "results.csv"
    path.write_bytes(write_csv(found))
    return path


def measured(*points, base="lab-standard"):
    """KL and harm of settings, each (method, what tells it, KL, harm)."""
    return [
        Result(base, method, metric, 10, value, value, value, settings=tuple(told.items()), arm=arm, seeds=(0, 1))
        for method, told, *both in points
        for arm in ["base" if method == "base" else "aligned"]
        for metric, value in zip(("kl", "harmful"), both)
    ]


def run(folder, kls, harms, base="lab-standard", overrides=None, seed=0):
    answered = [
        eval_row(f"p{i}", arm, answer=f"{arm} {i}", logp=-10.0 + at, logp_base=-10.0, harmful=bool(bad))
        for arm, moved, hurt in (("base", np.zeros(len(kls)), np.ones(len(kls))), ("aligned", kls, harms))
        for i, (at, bad) in enumerate(zip(moved, hurt))
    ]
    return run_folders.read_cell(plant(folder, rows=answered, base=base, overrides=overrides, seed=seed))


def beside(cells, curves):
    """The rows of these cells, the curve measured at each."""
    return reference_curve.beside(sweep_settings.settings(cells), curves)


def numbers(rows, arm="aligned"):
    """What one run's rows have of an arm."""
    (found,) = [each.numbers for row in rows if row.arm == arm for each in row.arms.values()]
    return found


def logit(share):
    """Of ten answers, half a one added to both sides."""
    return math.log((10 * share + 0.5) / (10 - 10 * share + 0.5))


def share(height):
    return (11 / (1 + math.exp(-height)) - 0.5) / 10


def known(curves):
    """The roots of KL and the shares of harm of the curve on standard."""
    curve = curves["lab-standard"]
    return list(curve.places), [curve.scale.back(height) for height in curve.heights]


def test_a_setting_is_held_against_the_curve_at_its_own_kl(tmp_path, reference):
    """The root of KL 2.25 is half-way from 1 to 2, on logits from 0.3 to 0.2; harm is 1/2."""
    kls, harms = np.array([1.5, 2.0, 2.5, 3.0]), np.array([1, 1, 0, 0])
    rows = beside([run(tmp_path / "a", kls, harms)], reference_curve.read(reference, "dlma"))
    values = numbers(rows)["beyond_curve"][:, 0]
    middle, step = (logit(0.3) + logit(0.2)) / 2, 1e-6
    slope = (share(middle + step * (logit(0.2) - logit(0.3))) - share(middle)) / step  # in the root, which is 1.5
    assert values == pytest.approx(harms - share(middle) - slope * (kls - 2.25) / 3, rel=1e-4)
    assert values.mean() == pytest.approx(0.5 - share(middle))
    assert numbers(rows, "base")["beyond_curve"][:, 0] == pytest.approx(np.full(4, 0.3))  # 1 less 0.7


def test_where_the_curve_does_not_reach_nothing_is_said(tmp_path, reference):
    curve = reference_curve.read(reference, "dlma")
    far, weak = run(tmp_path / "far", [4.0, 6.0], [0, 0]), run(tmp_path / "weak", [1.0, 1.0], [0, 0], base="lab-weak")
    trained = [row for row in beside([far, weak], curve) if row.arm == "aligned"]
    assert [row.base for row in trained] == ["lab-standard", "lab-weak"]
    assert not any("beyond_curve" in row.arms[0].numbers for row in trained)
    with pytest.raises(UserError, match="curves of lab-standard only, not of lab-weak"):
        beside([weak], curve)


def test_what_one_seed_alone_has_is_no_value_of_the_setting(tmp_path, reference):
    kls = {0: [1.0, 1.0], 1: [4.0, 6.0]}  # the second seed goes further than the curve
    cells = [run(tmp_path / f"{seed}", kl, [0, 1], seed=seed) for seed, kl in kls.items()]
    rows = beside(cells, reference_curve.read(reference, "dlma"))
    found = {(one.label, one.metric) for one in estimates.results(rows)}
    assert ("dlma", "harmful") in found and ("base", "beyond_curve") in found
    assert ("dlma", "beyond_curve") not in found


def test_settings_of_one_kl_are_one_point_and_other_choices_are_no_points(tmp_path):
    points = [
        ("base", {}, 0.0, 0.8),
        ("dlma", {"beta": "1"}, 1.0, 0.4),
        ("dlma", {"beta": "2"}, 1.0, 0.6),
        ("dlma", {"labels": "sign"}, 0.5, 0.1),
    ]
    (tmp_path / "r.csv").write_bytes(write_csv(measured(*points)))
    assert known(reference_curve.read(tmp_path / "r.csv", "dlma")) == ([0.0, 1.0], pytest.approx([0.8, 0.5]))


def test_a_kl_that_comes_out_below_zero_is_held_against_the_base(tmp_path, reference):
    rows = beside([run(tmp_path / "a", [-0.1, 0.0], [1, 0])], reference_curve.read(reference, "dlma"))
    assert numbers(rows)["beyond_curve"][:, 0].mean() == pytest.approx(0.5 - 0.7)


def test_settings_that_are_not_told_from_the_base_make_no_curve(tmp_path):
    def curves(points):
        (tmp_path / "r.csv").write_bytes(write_csv(measured(("base", {}, 0.0, 0.7), *points)))
        return reference_curve.read(tmp_path / "r.csv", "dlma")

    near, far = ("dlma", {"beta": "4"}, -0.01, 0.1), ("dlma", {"beta": "2"}, 1.0, 0.2)
    assert known(curves([near, far])) == ([0.0, 1.0], pytest.approx([0.7, 0.2]))
    with pytest.raises(UserError, match="no curve of dlma"):
        curves([near])


def test_a_setting_alone_may_be_the_curve(reference):
    assert known(reference_curve.read(reference, "rlcd")) == ([0.0, 1.0], pytest.approx([0.7, 0.9]))


def test_effects_at_equal_kl_are_those_beyond_the_curve(tmp_path, reference):
    """Labels move the policy along the curve and pairs off it: only pairs have an effect beyond it."""
    steps = {
        ("none", "plain"): 0.25,
        ("none", "contrastive"): 0.25,
        ("kept", "plain"): 2.25,
        ("kept", "contrastive"): 2.25,
    }
    on_curve = {0.25: 0.5, 2.25: 0.25}
    cells = []
    for (labels, pairs), kl in steps.items():
        harmed = on_curve[kl] + (0.25 if pairs == "plain" else 0.0)
        harms = np.arange(40) < 40 * harmed
        overrides = {"labels": labels, "pairs": pairs}
        cells.append(run(tmp_path / f"{labels}{pairs}", np.full(40, kl), harms, overrides=overrides))
    rows = beside(cells, reference_curve.read(reference, "dlma"))
    found = {(*one.settings[0], one.metric, one.versus): one.value for one in main_effects.results(rows)}
    on_logits = share((logit(0.3) + logit(0.2)) / 2)  # the curve at 2.25; at 0.25 it is 0.5
    assert found["labels", "kept", "beyond_curve", "none"] == pytest.approx(0.25 - on_logits)
    assert found["labels", "kept", "harmful", "none"] == pytest.approx(-0.25)
    assert found["pairs", "contrastive", "beyond_curve", "plain"] == pytest.approx(-0.25)


@pytest.mark.parametrize("method", ["cd", "base"])
def test_a_method_without_a_curve_is_said(reference, method):
    with pytest.raises(UserError, match=f"no curve of {method} from its base"):
        reference_curve.read(reference, method)


def test_a_file_that_is_no_results_csv_is_said(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    (tmp_path / "cut.csv").write_bytes(write_csv([]) + b"dlma,b\n")
    for path in (tmp_path / "x.csv", tmp_path / "none.csv", tmp_path / "cut.csv"):
        with pytest.raises(UserError, match=r"sweep\.reference=.*no results\.csv"):
            reference_curve.read(path, "dlma")


def wide(tmp_path, *points):
    """A curve from these (KL, half its interval, harm, half its interval), the base first."""
    found = []
    for i, (kl, k_half, harm, half) in enumerate(points):
        name, told, arm = ("dlma", (("beta", f"{i}"),), "aligned") if i else ("base", (), "base")
        for metric, value, to_side in (("kl", kl, k_half), ("harmful", harm, half)):
            more = {"settings": told, "arm": arm, "seeds": (0, 1)}
            found.append(Result("lab-standard", name, metric, 10, value, value - to_side, value + to_side, **more))
    (tmp_path / "wide.csv").write_bytes(write_csv(found))
    return reference_curve.read(tmp_path / "wide.csv", "dlma")


def rows_beyond(*kls):
    """Rows of one method at these KLs, each 2 points beyond the curve with 1 point to either side."""
    names = [(("labels", f"{i}"),) for i in range(len(kls))]
    found = [Result("lab-standard", "x", "kl", 10, kl, settings=told, seeds=(0, 1)) for kl, told in zip(kls, names)]
    beyond = [dataclasses.replace(one, metric="beyond_curve", value=0.02, low=0.01, high=0.03) for one in found]
    effect = dataclasses.replace(beyond[0], statistic="effect", versus="1")
    return [*found, *beyond, effect]


def test_the_curves_own_error_is_in_the_interval_and_what_its_lines_miss(tmp_path):
    """Half-way in the root the height is the mean of both, so each end adds half of its error to the logit there."""
    curve = wide(tmp_path, (0.0, 0.0, 0.7, 0.02), (1.0, 0.1, 0.3, 0.04))
    found = reference_curve.with_its_error(rows_beyond(0.25, 0.25), curve)
    one, gap = [r for r in found if r.metric == "beyond_curve" and r.label == "x, labels=0"][:2]
    slope = lambda y: (11 / 10) * (10 * y + 0.5) / 11 * (1 - (10 * y + 0.5) / 11)  # noqa: E731
    steep = (logit(0.3) - logit(0.7)) / 1.0 * 0.1 / 2  # half of the KL's 0.1 in its root, times the curve's slope
    ends = slope(0.5) * 0.5 * np.array([0.02 / slope(0.7), math.hypot(0.04 / slope(0.3), steep)])
    assert one.high - one.value == pytest.approx(math.hypot(0.01, *ends))
    assert (gap.statistic, gap.low, gap.high, gap.n) == ("gap", 0.0, 1.0, 0)  # no setting to leave out
    bent = wide(tmp_path, (0.0, 0.0, 0.7, 0.0), (1.0, 0.0, 0.45, 0.0), (4.0, 0.0, 0.3, 0.0))
    inner = [r for r in reference_curve.with_its_error(rows_beyond(0.25, 0.25), bent) if r.metric == "beyond_curve"]
    bend = abs((logit(0.7) + logit(0.3)) / 2 - logit(0.45))  # the middle one left out: its room is 1 by 1
    height = (logit(0.7) + logit(0.45)) / 2
    missed = 12.7062 * bend * 0.25 * slope(share(height))  # one degree of freedom; the room at 0.25 is 1/2 by 1/2
    assert inner[0].high - inner[0].value == pytest.approx(math.hypot(0.01, missed), rel=1e-4)


def test_the_curves_error_cancels_from_an_effect_at_one_kl_and_not_between_two(tmp_path):
    curve = wide(tmp_path, (0.0, 0.0, 0.7, 0.02), (1.0, 0.1, 0.3, 0.04))
    (same,) = [r for r in reference_curve.with_its_error(rows_beyond(0.25, 0.25), curve) if r.statistic == "effect"]
    (apart,) = [r for r in reference_curve.with_its_error(rows_beyond(0.25, 0.81), curve) if r.statistic == "effect"]
    assert (same.low, same.high) == pytest.approx((0.01, 0.03)) and apart.low < 0.008
