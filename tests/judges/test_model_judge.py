"""A local model as judge: its margins are ABJudge's, and a model of one's own is told from one's own base."""

import pytest
from small_models import byte_level_tokenizer, save_small

from dlma.evaluation.context import EvaluationContext
from dlma.judge_prompt import ABJudge, ABPrompt, AnswerPair
from dlma.judges.base import Match
from dlma.judges.model_judge import ModelJudge
from dlma.model.load import hf_model
from dlma.records import Turn

AB = ABPrompt(source="t", template="{question} ( A ) {first} ( B ) {second} :", verdicts=[" A", " B"], instructions=[])
ROWS = [Match(f"p{i}", None, [Turn("user", f"q {i}?")], f"q {i}?", "aligned", "base", "yes", "no") for i in range(6)]


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    tokenizer = byte_level_tokenizer(["q 1? ( A ) yes ( B ) no : A B"], 300)
    folder = save_small(tmp_path_factory.mktemp("m"), tokenizer=tokenizer)
    return hf_model(path=str(folder), revision="main", dtype="float32", bits=None, lora=None)


def judge(spec, model=None, tie=0.0):
    bench = EvaluationContext({"base": spec.load}, ["base weights"], lambda folder: f"print of {folder.name}", None)
    return ModelJudge(bench, criterion="c", model=model, ab=AB, tie=tie, seed=0)


def test_the_ruling_is_the_mean_of_both_orders(spec):
    found = judge(spec).judge(ROWS)
    rows = [AnswerPair(m.prompt_id, m.conversation, m.question, m.answer, m.other) for m in ROWS]
    expected = ABJudge(spec.load(), AB, seed=0).both_orders(rows)
    assert [r.margin for r in found] == pytest.approx([sum(pair) / 2 for pair in expected], abs=1e-5)
    assert [r.outcome for r in found] == ["win" if sum(pair) > 0 else "lose" for pair in expected]
    assert [r.first for r in found] == ["win" if pair[0] > 0 else "lose" for pair in expected]


def test_a_wide_tie_makes_ties(spec):
    assert {r.outcome for r in judge(spec, tie=1e6).judge(ROWS)} == {"tie"}


def test_the_identity_says_whose_weights_judge(spec):
    assert judge(spec).identity() == ["base weights"]
    assert judge(spec, model=spec).identity() == [f"print of {spec.folder.name}"]
