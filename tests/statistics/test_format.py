"""Numbers for people, by hand."""

import math

import pytest

from dlma.statistics.format import bounded, exact, interval, number
from dlma.statistics.intervals import Estimate


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.3614, "share", "36.1 %"),
        (-0.05, "share", "-5.0 %"),
        (1.23456, "", "1.235"),
        (12.3456, "nats", "12.35"),
        (123.456, "", "123.5"),
        (-1234.56, "", "-1235"),
        (0.0, "", "0.000"),
        (math.nan, "share", "–"),
        (math.nan, "", "–"),
    ],
)
def test_a_number_has_about_three_digits_and_a_share_is_in_percent(value, unit, text):
    assert number(value, unit) == text


def test_bounds_do_not_repeat_the_unit():
    share = Estimate(0.361, 0.333, 0.392, 100)
    assert interval(share, "share") == "[33.3, 39.2]"
    assert bounded(share, "share") == "36.1 % [33.3, 39.2]"
    assert bounded(Estimate(1.0, math.nan, math.nan, 1), "") == "1.000 [–, –]"


def test_a_csv_has_every_digit_and_leaves_what_is_not_known_empty():
    assert [float(text) for text in exact(Estimate(0.1 + 0.2, -1 / 3, 1e-17, 5))] == [0.1 + 0.2, -1 / 3, 1e-17]
    assert exact(Estimate(1.0, math.nan, math.nan, 1)) == ["1.0", "", ""]
    assert exact(None) == ["", "", ""]
