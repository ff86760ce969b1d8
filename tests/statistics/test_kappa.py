"""Kappa against scikit-learn, the worked example of Fleiss' paper, and its limits."""

import math
import random

import pytest

from dlma.statistics.kappa import cohen_kappa, fleiss_kappa


@pytest.mark.parametrize("seed", range(5))
def test_cohens_kappa_is_that_of_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    draw = random.Random(seed)
    first = [draw.choice(["win", "tie", "lose"]) for _ in range(40)]
    second = [label if draw.random() < 0.6 else draw.choice(["win", "tie"]) for label in first]
    assert cohen_kappa(first, second) == pytest.approx(metrics.cohen_kappa_score(first, second))


def test_cohens_kappa_by_hand():
    # 2 of 4 agree; chance: (1/4 * 2/4) for a + (3/4 * 2/4) for b = 1/2
    assert cohen_kappa("abbb", "aabb") == pytest.approx((3 / 4 - 1 / 2) / (1 - 1 / 2))
    assert cohen_kappa("ab", "ba") == -1.0
    assert cohen_kappa("ab", "ab") == 1.0


def test_fleiss_kappa_of_the_worked_example():
    # Ten subjects, fourteen raters, five categories: the table of the Wikipedia article on Fleiss' kappa, 0.210.
    table = [
        *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
        *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
    ]
    labels = [[category for category, count in enumerate(row) for _ in range(count)] for row in table]
    assert fleiss_kappa(labels) == pytest.approx(0.210, abs=5e-4)


def test_where_one_label_is_all_there_is_kappa_is_unknown():
    assert math.isnan(cohen_kappa("aa", "aa"))
    assert math.isnan(fleiss_kappa(["aaa", "aaa"]))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(cohen_kappa, ("", "")), (cohen_kappa, ("a", "ab")), (fleiss_kappa, ([],)), (fleiss_kappa, (["ab", "abc"],))],
)
def test_what_cannot_be_compared_is_refused(function, arguments):
    with pytest.raises(ValueError):
        function(*arguments)
