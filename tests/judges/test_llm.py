"""An LLM as judge over HTTP: both orders, ties, planted position bias, and replies that cannot be read, counted."""

import pytest
from chat_server import serving, shipped, shorter, shown, verdict

from dlma.endpoint import Endpoint
from dlma.evaluation.context import EvaluationContext
from dlma.judges.base import Match
from dlma.judges.llm import LLMJudge
from dlma.records import Turn

TEXTS = [("short", "a long one"), ("a long one", "short"), ("equal", "equal")]
ROWS = [Match(f"p{i}", None, [Turn("user", f"q {i}?")], "", "aligned", "base", *pair) for i, pair in enumerate(TEXTS)]


def judge(server, folder):
    endpoint = Endpoint(
        model="m", base_url=server.url, temperature=0.0, max_tokens=50, json_mode=False, backoff_seconds=0.01
    )
    return LLMJudge(EvaluationContext({}, [], str, folder), endpoint=endpoint, rubric=shipped("harmless"))


def test_both_orders_are_asked_and_agree(tmp_path):
    with serving(shorter) as server:
        found = judge(server, tmp_path).judge(ROWS)
        asked = sorted(map(tuple, map(shown, server.asked)))
    assert [(r.first, r.second, r.outcome) for r in found] == [(w, w, w) for w in ("win", "lose", "tie")]
    # of the equal pair both orders are one question, which is asked at most twice (they may be under way together)
    assert set(asked) == {*TEXTS} and len(asked) in (5, 6)


@pytest.mark.parametrize("word", ["A", "B"])
def test_a_planted_liking_for_a_position_cancels(word, tmp_path):
    with serving(lambda body, number: verdict(word)) as server:
        found = judge(server, tmp_path).judge(ROWS)
    assert [r.outcome for r in found] == ["tie"] * 3
    assert {(r.first, r.second) for r in found} == {("win", "lose") if word == "A" else ("lose", "win")}


def test_what_cannot_be_read_is_asked_for_once_more_then_counted(tmp_path):
    def mumbling(body, number):
        first = len(body["messages"]) == 2  # system and question; the second try has the reply and the reminder
        if shown(body) == ["short", "a long one"]:
            return "hm, A" if first else verdict("A")
        return "I would rather not say."

    with serving(mumbling) as server:
        one = judge(server, tmp_path)
        found = one.judge(ROWS)
        assert [(r.first, r.second, r.outcome) for r in found] == [
            ("win", "unparsed", "unparsed"),
            ("unparsed", "lose", "unparsed"),
            ("unparsed", "unparsed", "unparsed"),
        ]
        assert one.report()["asked_again"] == 6
        before = len(server.asked)
        again = judge(server, tmp_path)
        assert again.judge(ROWS) == found and len(server.asked) == before
        assert again.report()["cached"] == 12 and again.report()["requests"] == 0


def test_the_report_names_the_model_that_answered_and_when(tmp_path):
    with serving(shorter) as server:
        one = judge(server, tmp_path)
        one.judge(ROWS)
    report = one.report()
    assert report["models"] == {"m-served": 6} and report["first"].startswith("20")
    assert one.criterion == "harmless"


def test_what_a_content_filter_stops_is_unparsed_and_asked_once(tmp_path):
    def answer(body, number):
        stopped = "short" in shown(body)
        return ("refused", 400, {"error": {"code": "content_filter"}}) if stopped else verdict("tie")

    with serving(answer) as server:
        one = judge(server, tmp_path)
        found = one.judge(ROWS[:1] + ROWS[2:])
    assert [ruling.outcome for ruling in found] == ["unparsed", "tie"]
    told = one.report()
    assert (told["filtered"], told["asked_again"]) == (2, 0)
    assert told["requests"] in (
        3,
        4,
    )  # both orders of equal answers are one question, asked twice if under way together
