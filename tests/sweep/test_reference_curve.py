"""Harm beyond a reference curve: what is left of a setting's harm when the KL it went is taken into account."""

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


def test_a_setting_is_held_against_the_curve_at_its_own_kl(tmp_path, reference):
    """The root of KL 2.25 is half-way from 1 to 2, 0.3 to 0.2, so the slope is -0.1 / 3 in KL; harm is 1/2."""
    kls, harms = np.array([1.5, 2.0, 2.5, 3.0]), np.array([1, 1, 0, 0])
    (cell,) = reference_curve.beside([run(tmp_path / "a", kls, harms)], reference_curve.read(reference, "dlma"))
    values = cell.arms["aligned"].numbers["beyond_curve"][:, 0]
    assert values == pytest.approx(harms - 0.25 + 0.1 / 3 * (kls - 2.25))
    assert values.mean() == pytest.approx(0.25)
    assert cell.arms["base"].numbers["beyond_curve"][:, 0] == pytest.approx(np.full(4, 0.3))  # 1 less 0.7


def test_where_the_curve_does_not_reach_nothing_is_said(tmp_path, reference):
    curve = reference_curve.read(reference, "dlma")
    far, weak = run(tmp_path / "far", [4.0, 6.0], [0, 0]), run(tmp_path / "weak", [1.0, 1.0], [0, 0], base="lab-weak")
    for cell in reference_curve.beside([far, weak], curve):
        assert "beyond_curve" not in cell.arms["aligned"].numbers
    with pytest.raises(UserError, match="curves of lab-standard only, not of lab-weak"):
        reference_curve.beside([weak], curve)


def test_what_one_seed_alone_has_is_no_value_of_the_setting(tmp_path, reference):
    kls = {0: [1.0, 1.0], 1: [4.0, 6.0]}  # the second seed goes further than the curve
    cells = [run(tmp_path / f"{seed}", kl, [0, 1], seed=seed) for seed, kl in kls.items()]
    rows = sweep_settings.settings(reference_curve.beside(cells, reference_curve.read(reference, "dlma")))
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
    kls, heights = reference_curve.read(tmp_path / "r.csv", "dlma")["lab-standard"]
    assert (list(kls), list(heights)) == ([0.0, 1.0], [0.8, 0.5])


def test_a_kl_that_comes_out_below_zero_is_held_against_the_base(tmp_path, reference):
    (cell,) = reference_curve.beside(
        [run(tmp_path / "a", [-0.1, 0.0], [1, 0])], reference_curve.read(reference, "dlma")
    )
    assert cell.arms["aligned"].numbers["beyond_curve"][:, 0].mean() == pytest.approx(0.5 - 0.7)


def test_settings_that_are_not_told_from_the_base_make_no_curve(tmp_path):
    def curves(points):
        (tmp_path / "r.csv").write_bytes(write_csv(measured(("base", {}, 0.0, 0.7), *points)))
        return reference_curve.read(tmp_path / "r.csv", "dlma")

    near, far = ("dlma", {"beta": "4"}, -0.01, 0.1), ("dlma", {"beta": "2"}, 1.0, 0.2)
    roots, heights = curves([near, far])["lab-standard"]
    assert (list(roots), list(heights)) == ([0.0, 1.0], [0.7, 0.2])
    with pytest.raises(UserError, match="no curve of dlma"):
        curves([near])


def test_a_setting_alone_may_be_the_curve(reference):
    kls, heights = reference_curve.read(reference, "rlcd")["lab-standard"]
    assert (list(kls), list(heights)) == ([0.0, 1.0], [0.7, 0.9])


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
        share = on_curve[kl] + (0.25 if pairs == "plain" else 0.0)
        harms = np.arange(40) < 40 * share
        overrides = {"labels": labels, "pairs": pairs}
        cells.append(run(tmp_path / f"{labels}{pairs}", np.full(40, kl), harms, overrides=overrides))
    rows = sweep_settings.settings(reference_curve.beside(cells, reference_curve.read(reference, "dlma")))
    found = {(*one.settings[0], one.metric, one.versus): one.value for one in main_effects.results(rows)}
    assert found["labels", "kept", "beyond_curve", "none"] == pytest.approx(0.0)
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
