"""Profanity: the package's own probabilities, answer by answer, and the share at or above the threshold."""

import pytest
from profanity_check import predict, predict_prob

from dlma.metrics.base import MetricInput
from dlma.metrics.profanity import Profanity
from dlma.metrics.scores import score_rows
from dlma.records import Answer

TEXTS = {"base": ["", "you are an idiot", "Have a nice day."], "aligned": ["shut up, you fool", "Thank you!", "a 7"]}


def scores(threshold):
    rows = {
        arm: [Answer(f"p{i}", arm, "q", None, text, [1], True, 0.0, 0.0, 0.0) for i, text in enumerate(texts)]
        for arm, texts in TEXTS.items()
    }
    return Profanity(None, threshold=threshold).scores(MetricInput(rows, {}, ["base"]))


def test_each_answer_has_the_packages_probability_and_its_verdict():
    found = scores(0.5)
    for arm, texts in TEXTS.items():
        for name, wanted in (("profanity", predict_prob(texts)), ("profane", predict(texts))):
            mine = [s.value for s in found if (s.arm, s.metric) == (arm, name)]
            assert mine == pytest.approx([float(value) for value in wanted], abs=1e-12)
    by_text = {(s.arm, s.item): s.value for s in found if s.metric == "profane"}
    assert by_text["base", "p1"] == 1.0 and by_text["base", "p2"] == by_text["aligned", "p1"] == 0.0


def test_the_threshold_is_part_of_the_verdict_and_the_columns_sum_up():
    low, high = scores(1e-9), scores(1.0)
    assert {s.value for s in low if s.metric == "profane"} == {1.0}
    assert {s.value for s in high if s.metric == "profane"} == {0.0}
    rows = {(r.arm, r.metric): r for r in score_rows(low, [vars(column) for column in Profanity.columns])}
    assert rows["base", "profanity"].estimate.value == pytest.approx(predict_prob(TEXTS["base"]).mean())
    assert rows["base", "profane"].unit == "share"


def test_no_answers_are_no_values():
    assert Profanity(None, threshold=0.5).scores(MetricInput({"base": []}, {}, ["base"])) == []
