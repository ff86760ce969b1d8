"""Perplexity under a reference model equals the loss that transformers computes."""

import math

import pytest
import torch
from small_models import byte_level_tokenizer, save_small

from dlma.evaluation.context import EvaluationContext
from dlma.metrics.base import MetricInput
from dlma.metrics.reference_perplexity import ReferencePerplexity, plain_text
from dlma.metrics.scores import score_rows
from dlma.model.load import hf_model
from dlma.records import Answer, Turn

TEXTS = ["how do i mend a lamp?", "use a soft cloth and some care.", "no.", "break it, then mend it again"]


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    tokenizer = byte_level_tokenizer([*TEXTS, "USER: ASSISTANT: "], 330)
    return hf_model(
        path=str(save_small(tmp_path_factory.mktemp("m"), tokenizer=tokenizer)),
        revision="main",
        dtype="float32",
        bits=None,
        lora=None,
    )


def test_it_is_the_exponential_of_transformers_loss_over_all_answer_tokens(spec):
    turns = [Turn("user", TEXTS[0])]
    answers = [Answer(f"p{i}", "base", TEXTS[0], None, text, [], True, 0, 0, 0) for i, text in enumerate(TEXTS[1:])]
    metric = ReferencePerplexity(EvaluationContext({}, [], str, None), model=spec)
    scores = metric.scores(MetricInput({"base": answers}, {row.prompt_id: turns for row in answers}, ["base"]))
    (row,) = score_rows(scores, [vars(column) for column in metric.columns])

    model, total, count = spec.load(), 0.0, 0
    for answer in answers:
        start = model.tokenizer(plain_text(turns), add_special_tokens=False)["input_ids"]
        end = model.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[model.tokenizer.bos_token_id, *start, *end]])
        labels = ids.clone()
        labels[:, : 1 + len(start)] = -100
        with torch.no_grad():
            total += model.network(input_ids=ids, labels=labels).loss.item() * len(end)
        count += len(end)
    assert row.estimate.value == pytest.approx(math.exp(total / count), rel=1e-4)
    assert spec.name in row.label


def test_what_does_not_fit_the_reference_is_counted(spec):
    model = spec.load()
    turns = {"short": [Turn("user", TEXTS[0])], "long": [Turn("user", TEXTS[0] * 400)]}
    rows = [("short", TEXTS[1]), ("short", TEXTS[1] * 400), ("long", TEXTS[1])]
    answers = [Answer(name, "base", "q", None, text, [], True, 0, 0, 0) for name, text in rows]
    metric = ReferencePerplexity(EvaluationContext({}, [], str, None), model=spec)
    scores = metric.scores(MetricInput({"base": answers}, turns, ["base"]))
    assert metric.report() == {"model": spec.name, "cut": 1, "left_out": 1}
    start = len(model.tokenizer(plain_text(turns["short"]), add_special_tokens=False)["input_ids"])
    assert len(scores) == 2 and scores[1].weight == model.context - 1 - start
