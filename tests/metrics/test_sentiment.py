"""The sentiment of each answer as a further metric: one value per answer, summed up per arm."""

import pytest

from dlma.evaluation.sentiment import compound
from dlma.metrics.base import MetricInput
from dlma.metrics.scores import score_rows
from dlma.metrics.sentiment import Sentiment
from dlma.records import Answer

TEXTS = {"base": ["good", "bad", "a table"], "aligned": ["great!", "a good day", "lovely"]}


def test_each_answer_has_its_compound_and_each_arm_the_mean_with_an_interval():
    rows = {
        arm: [Answer(f"p{i}", arm, "q", None, text, [1], True, 0.0, 0.0, 0.0) for i, text in enumerate(texts)]
        for arm, texts in TEXTS.items()
    }
    metric = Sentiment(None)
    scores = metric.scores(MetricInput(rows, {}, ["base"]))
    assert [(s.item, s.arm, s.value) for s in scores] == [
        (f"p{i}", arm, compound(text)) for arm, texts in TEXTS.items() for i, text in enumerate(texts)
    ]
    found = {row.arm: row.estimate for row in score_rows(scores, [vars(column) for column in metric.columns])}
    for arm, texts in TEXTS.items():
        assert found[arm].value == pytest.approx(sum(map(compound, texts)) / 3)
        assert found[arm].low < found[arm].value < found[arm].high
