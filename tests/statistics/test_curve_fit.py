"""Curves through a few points: monotone as enumeration finds it, straight between two, and exact on a parabola."""

import itertools
import math

import numpy as np
import pytest
from scipy.special import stdtrit

from dlma.statistics import curve_fit
from dlma.statistics.curve_fit import HeightScale


def by_enumeration(z):
    """Of all cuts into blocks whose means fall all along, or rise all along, the one nearest in least squares."""
    best = None
    for cuts in itertools.chain(*(itertools.combinations(range(1, len(z)), k) for k in range(len(z)))):
        blocks = np.split(z, cuts)
        means = [block.mean() for block in blocks]
        if means in (sorted(means), sorted(means, reverse=True)):
            fit = np.concatenate([np.full(len(block), mean) for block, mean in zip(blocks, means)])
            if best is None or ((fit - z) ** 2).sum() < ((best - z) ** 2).sum():
                best = fit
    return best


def test_the_monotone_fit_is_the_nearest_of_all_that_fall_or_rise():
    rng = np.random.default_rng(0)
    for n in (2, 3, 4, 6):
        for _ in range(10):
            z, x = rng.normal(size=n), np.arange(n, dtype=float)
            fit = [curve_fit.read(x, z, at, monotone=True).height for at in x]
            assert fit == pytest.approx(by_enumeration(z))


def test_between_two_points_lies_a_line_and_outside_of_them_nothing():
    found = curve_fit.read([0.0, 1.0, 3.0], [2.0, 1.0, 0.0], 1.5, monotone=True)
    assert (found.height, found.first, found.share, found.slope, found.room) == (0.75, 1, 0.25, -0.5, 0.75)
    assert found.weights == pytest.approx([0, 0.75, 0.25])
    assert curve_fit.read([0.0, 1.0], [2.0, 1.0], 1.1, monotone=True) is None
    assert curve_fit.read([1.0, 1.0], [2.0, 1.0], 1.0, monotone=True) is None  # no line between points at one place
    assert curve_fit.read([0.0, 1.0, 1.0, 2.0], [3.0, 1.0, 2.0, 0.0], 1.0, monotone=False).height == 1.0


def test_the_weights_say_how_a_reading_moves_with_each_height():
    x, z, step = [0.0, 1.0, 2.0, 4.0], np.array([3.0, 1.0, 1.5, 0.0]), 1e-6
    found = curve_fit.read(x, z, 1.7, monotone=True)
    moved = [curve_fit.read(x, z + step * unit, 1.7, monotone=True).height for unit in np.eye(4)]
    assert found.weights == pytest.approx((np.array(moved) - found.height) / step, abs=1e-5)
    assert found.weights.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [0.3, -0.2])
def test_the_bend_of_a_parabola_is_its_coefficient_and_a_reading_misses_it_by_bend_times_room(shape):
    x = [0.0, 0.5, 1.0, 1.8, 2.0]
    curve = lambda at: shape * at**2 - 4 * at  # noqa: E731
    bend = curve_fit.bend([(x, curve(np.array(x)))], monotone=True)
    assert bend.count == 3
    for at in (0.2, 1.5, 1.9):
        found = curve_fit.read(x, curve(np.array(x)), at, monotone=True)
        sd, df = bend.error(found)
        assert abs(found.height - curve(at)) == pytest.approx(sd) == pytest.approx(abs(shape) * found.room)
        assert 1 <= df <= 3


def test_the_bend_is_pooled_over_curves_by_their_rooms():
    one, other = ([0.0, 1.0, 2.0], [0.0, 0.5, 2.0]), ([0.0, 2.0, 4.0], [0.0, 2.0, 4.0])  # missed by 1/2 and by 0
    no_line_without_it = ([0.0, 0.0, 1.0], [9.0, 2.0, 0.0])
    found = curve_fit.bend([one, other, no_line_without_it], monotone=False)
    assert found.count == 2
    # the rooms are 1 and 4: hardly more than one degree of freedom
    both = (math.sqrt(0.25 / (1 + 16)), (1 + 16) ** 2 / (1 + 16**2))
    assert bend_of(found, gap=2.0) == pytest.approx(both)  # two gaps of 2 have a room of 4
    assert bend_of(found, gap=1.9) == pytest.approx((0.5, 1.0))  # the wider one says nothing of this
    assert bend_of(found, gap=0.9) == pytest.approx(both)  # nor does any: all, for want of another
    assert bend_of(curve_fit.bend([one, one, one], monotone=False), gap=1.0) == pytest.approx((0.5, 3.0))
    nothing = curve_fit.bend([([0.0, 1.0], [1.0, 0.0])], monotone=True)
    assert nothing.count == 0 and bend_of(nothing, gap=1.0) == (0.0, 1.0)


def bend_of(found, gap):
    """(size, degrees of freedom) of a bend for readings in the middle of so wide a gap."""
    sd, df = found.error(curve_fit.read([0.0, gap], [1.0, 0.0], gap / 2, monotone=False))
    return sd / (gap / 2) ** 2, df


def test_errors_that_the_same_points_size_are_summed_on_the_fewest_degrees_of_freedom():
    assert curve_fit.summed([(3.0, 5.0), (4.0, 7.0)]) == pytest.approx((5.0, 5.0))
    assert curve_fit.summed([(0.0, 1.0), (2.0, 7.0)]) == pytest.approx((2.0, 7.0))
    assert curve_fit.summed([(0.0, 9.0)]) == (0.0, 1.0)


def test_the_degrees_of_freedom_are_those_of_a_variance_that_varies_as_much():
    """Errors around 0, each in its room's size: the variance of the squared bend is 2 / df of its squared mean."""
    rng, rooms = np.random.default_rng(0), [0.2, 0.5, 1.0, 2.0]
    squares = []
    for _ in range(4000):
        drawn = rng.normal(size=4)
        curves = [([0.0, room, room + 1.0], [0.0, room * b, 0.0]) for room, b in zip(rooms, drawn)]
        found = curve_fit.bend(curves, monotone=False)
        size, df = bend_of(found, gap=2.0)
        squares.append(size**2)
    assert np.var(squares) / np.mean(squares) ** 2 == pytest.approx(2 / df, rel=0.1)


def test_a_share_and_its_logit_are_each_others_inverse_at_none_and_all_too():
    scale = HeightScale(50)
    for share in (0.0, 0.02, 0.5, 1.0):
        assert scale.back(scale.to(share)) == pytest.approx(share, abs=1e-12)
        step = 1e-6
        slope = (scale.back(float(scale.to(share)) + step) - scale.back(float(scale.to(share)) - step)) / (2 * step)
        assert float(scale.slope(scale.to(share))) == pytest.approx(slope, rel=1e-6)
    plain = HeightScale()
    assert (float(plain.to(3.5)), plain.back(3.5), float(plain.slope(3.5))) == (3.5, 3.5, 1.0)


@pytest.mark.parametrize("shape", [0.0, 0.35, -0.5])
def test_an_interval_with_what_the_lines_miss_covers_a_bent_curve_and_one_without_does_not(shape):
    """Three curves with five settings each and little noise, read in the widest gap of the first."""
    rng, sd, at, trials = np.random.default_rng(0), 0.01, 1.27, 300
    truth = lambda x: 1 - 1.8 * x + shape * x**2  # noqa: E731
    covered = np.zeros(2)
    for _ in range(trials):
        places = [np.array([0.0, *np.sort(rng.normal([0.37, 0.64, 0.94, 1.6, 2.1], 0.02))]) for _ in range(3)]
        curves = [(x, truth(x) + rng.normal(0, sd, 6)) for x in places]
        bend, found = curve_fit.bend(curves, monotone=True), curve_fit.read(*curves[0], at, monotone=True)
        noise = 1.96 * sd * math.sqrt(float((found.weights**2).sum()))
        sd_of_lines, df = bend.error(found)
        missed = float(stdtrit(df, 0.975)) * sd_of_lines
        covered += [abs(found.height - truth(at)) <= half for half in (math.hypot(noise, missed), noise)]
    with_lines, without = covered / trials
    assert with_lines >= 0.93 and (without < 0.7 if shape else without >= 0.9)
