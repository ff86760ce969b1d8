"""Asking an endpoint: every fault is met, limits hold, nothing is asked twice, and the key is written nowhere."""

import json
import os
import signal
import threading
import time

import pytest
from chat_server import serving

from dlma.endpoint import ChatClient, Endpoint
from dlma.errors import Stopped, UserError

VALUES = dict(model="m", temperature=0.0, max_tokens=20, json_mode=False, backoff_seconds=0.01, timeout_seconds=30.0)
PATIENCE = {"slow": 0.5}  # seconds, where it is the client that must lose patience
CHATS = [[{"role": "user", "content": f"question {i}"}] for i in range(12)]


def asker(server, folder, **options):
    return ChatClient(Endpoint(base_url=server.url, **{**VALUES, **options}), folder)


def echo(body, number=0):
    return "reply to " + body["messages"][-1]["content"]


REPLIES = [f"reply to question {i}" for i in range(12)]


def first_then_echo(*faults):
    """The faults to the first requests, then the reply."""
    return lambda body, number: faults[number - 1] if number <= len(faults) else echo(body)


FAULTS = {
    "429": ("status", 429, {"Retry-After": "0"}),
    "500": ("status", 500),
    "503": ("status", 503),
    "truncated JSON": ("truncated",),
    "no choices": ("schema", {"object": "chat.completion", "model": "m"}),
    "empty choices": ("schema", {"model": "m", "choices": []}),
    "choices of another type": ("schema", {"model": "m", "choices": "none"}),
    "a list": ("schema", [1, 2]),
    "content of another type": ("schema", {"model": "m", "choices": [{"message": {"content": 3}}]}),
    "connection reset": ("reset",),
    "slow": ("slow", 8.0, "too late"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_that_passes_is_waited_out(fault, tmp_path):
    with serving(first_then_echo(fault, fault)) as server:
        one = asker(server, tmp_path, concurrency=1, timeout_seconds=PATIENCE.get(fault[0], 30.0))
        assert one.ask(CHATS[:2]) == REPLIES[:2]
    assert one.account.failed == 2 and one.account.requests == 4


def test_a_stop_waits_for_no_reply_and_keeps_those_that_came(tmp_path):
    def stop(number, frame):
        raise Stopped(number)

    def once_two_are_kept():
        while len(list(tmp_path.rglob("*.json"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with serving(lambda body, number: echo(body) if number <= 2 else ("slow", 8.0, "late")) as server:
            one = asker(server, tmp_path, concurrency=2)
            threading.Thread(target=once_two_are_kept).start()
            start = time.monotonic()
            with pytest.raises(Stopped):
                one.ask(CHATS)
            assert time.monotonic() - start < 4
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(list(tmp_path.rglob("*.json"))) == 2


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_that_stays_ends_in_one_line_and_keeps_what_came_in(fault, tmp_path):
    with serving(lambda body, number: echo(body) if number <= 2 else fault) as server:
        patience = PATIENCE.get(fault[0], 30.0)
        one = asker(server, tmp_path, concurrency=1, attempts=2, timeout_seconds=patience)
        with pytest.raises(UserError, match="failed 2 times in a row") as caught:
            one.ask(CHATS)
        assert "\n" not in str(caught.value)
    with serving(echo) as again:
        later = asker(again, tmp_path)
        later.endpoint.base_url = server.url  # the same place, as its cache sees it
        assert later.ask(CHATS[:2]) == REPLIES[:2] and again.asked == []


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_not_repeated(status, tmp_path):
    with serving(lambda body, number: ("status", status)) as server:
        with pytest.raises(UserError, match=f"refuses .HTTP {status}"):
            asker(server, tmp_path, concurrency=1).ask(CHATS)
        assert len(server.asked) == 1


FILTERS = {  # bodies of a 400, as servers word them
    "azure": {
        "error": {
            "message": "The prompt triggered Azure OpenAI's content management policy.",
            "code": "content_filter",
        }
    },
    "openai": {"error": {"message": "Invalid prompt: your prompt was flagged.", "code": "invalid_prompt"}},
    "a name far down": {"error": {"message": "x" * 2000, "innererror": {"code": "content_policy_violation"}}},
}


@pytest.mark.parametrize("body", FILTERS.values(), ids=FILTERS)
def test_what_a_content_filter_stops_has_no_reply_and_the_others_have_theirs(body, tmp_path):
    def answer(asked, number):
        return ("refused", 400, body) if asked["messages"] == CHATS[1] else echo(asked)

    with serving(answer) as server:
        one = asker(server, tmp_path)
        assert one.ask(CHATS[:4]) == [REPLIES[0], None, *REPLIES[2:4]]
        assert (one.account.filtered, one.account.requests, one.account.failed) == (1, 4, 0)
        again = asker(server, tmp_path)
        assert again.ask(CHATS[:4]) == [REPLIES[0], None, *REPLIES[2:4]]
    assert (again.account.cached, again.account.requests) == (3, 1)  # what was stopped is asked anew


def test_another_refusal_is_none_by_a_filter_and_stops(tmp_path):
    body = {"error": {"message": "the maximum context length is 2048", "code": "context_length_exceeded"}}
    with (
        serving(lambda asked, number: ("refused", 400, body)) as server,
        pytest.raises(UserError, match="maximum context"),
    ):
        asker(server, tmp_path).ask(CHATS[:2])


def test_the_wait_that_a_server_asks_for_is_kept(tmp_path):
    with serving(first_then_echo(("status", 429, {"Retry-After": "0.4"}))) as server:
        asker(server, tmp_path, concurrency=1).ask(CHATS[:1])
        assert server.times[1] - server.times[0] >= 0.4


def test_replies_keep_their_order_and_many_are_under_way_at_a_time(tmp_path):
    def uneven(body, number):
        return ("slow", 0.2 if number % 2 else 0.05, echo(body))

    with serving(uneven) as server:
        assert asker(server, tmp_path, concurrency=4).ask(CHATS) == REPLIES
        assert 2 <= server.most <= 4


def test_a_rerun_asks_nothing_twice_and_another_question_model_or_setting_is_asked(tmp_path):
    with serving(echo) as server:
        asker(server, tmp_path).ask(CHATS)
        again = asker(server, tmp_path)
        assert again.ask(CHATS) == REPLIES and len(server.asked) == 12
        assert again.account.cached == 12 and again.account.requests == 0
        for options in ({"model": "other"}, {"temperature": 0.5}, {"max_tokens": 21}):
            asker(server, tmp_path, **options).ask(CHATS[:1])
        assert len(server.asked) == 15


def test_a_damaged_reply_is_asked_for_again(tmp_path):
    with serving(echo) as server:
        asker(server, tmp_path).ask(CHATS[:1])
        (kept,) = (tmp_path / "chat").rglob("*.json")
        kept.write_text(kept.read_text()[:10])
        assert asker(server, tmp_path).ask(CHATS[:1]) == REPLIES[:1] and len(server.asked) == 2


def test_the_cap_on_requests_holds_and_a_higher_one_goes_on(tmp_path):
    with serving(echo) as server:
        with pytest.raises(UserError, match=r"endpoint\.max_requests=5 is reached"):
            asker(server, tmp_path, max_requests=5).ask(CHATS)
        assert len(server.asked) == 5
        assert asker(server, tmp_path, max_requests=7).ask(CHATS) == REPLIES
        assert len(server.asked) == 12


def test_the_cap_on_spending_holds(tmp_path):
    prices = dict(cost_in=10.0, cost_out=100.0)  # 100 tokens in and 10 out: 0.002 a request
    with serving(echo) as server:
        one = asker(server, tmp_path, concurrency=1, max_cost=0.0055, **prices)
        with pytest.raises(UserError, match=r"endpoint\.max_cost=0\.0055 is reached"):
            one.ask(CHATS)
        assert len(server.asked) == 3 and one.account.cost == pytest.approx(0.006)
        assert (one.account.tokens_in, one.account.tokens_out) == (300, 30)


def test_a_cap_on_spending_needs_a_server_that_counts(tmp_path):
    silent = {"model": "m", "choices": [{"message": {"role": "assistant", "content": "x"}}]}
    with serving(lambda body, number: ("schema", silent)) as server, pytest.raises(UserError, match="reports no usage"):
        asker(server, tmp_path, max_cost=1.0, cost_in=1.0, cost_out=1.0).ask(CHATS)


def test_the_rate_is_kept(tmp_path):
    with serving(echo) as server:
        start = time.monotonic()
        asker(server, tmp_path, requests_per_minute=1200.0, concurrency=8).ask(CHATS)
        assert time.monotonic() - start >= 11 * 0.05


def test_at_a_stop_nothing_is_sent_that_waited_for_its_turn(tmp_path):
    """Ten requests a second: the second is refused while all others wait."""
    with serving(lambda body, number: ("status", 400) if number == 2 else echo(body)) as server:
        one = asker(server, tmp_path, requests_per_minute=600.0, concurrency=12)
        with pytest.raises(UserError, match="HTTP 400"):
            one.ask(CHATS)
        assert len(server.asked) == 2
    assert (one.account.requests, one.account.failed) == (2, 0)


def test_replies_of_other_weights_under_the_same_name_are_others(tmp_path):
    with serving(lambda body, number: f"reply {number}") as server:
        first, second = (ChatClient(asker(server, tmp_path).endpoint, tmp_path, [name]) for name in "ab")
        assert first.ask(CHATS[:1]) == ["reply 1"] and second.ask(CHATS[:1]) == ["reply 2"]
        assert first.ask(CHATS[:1]) == ["reply 1"] and second.account.cached == 0


def test_a_model_that_takes_its_own_temperature_and_another_name_of_the_limit_gets_them(tmp_path):
    with serving(echo) as server:
        asker(server, tmp_path, temperature=None, limit_name="max_completion_tokens").ask(CHATS[:1])
        (body,) = server.asked
    assert body == {"model": "m", "messages": CHATS[0], "max_completion_tokens": 20}


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-planted-secret")
    with serving(echo) as server:
        one = asker(server, tmp_path, key_variable="MY_KEY")
        one.ask(CHATS[:1])
        (sent,) = [value for name, value in server.headers[0].items() if name.casefold() == "authorization"]
        assert sent == "Bearer sk-planted-secret"
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "planted" not in kept + str(vars(one.endpoint)) + str(one.account)


def test_without_a_key_openai_is_not_asked_and_a_server_of_ones_own_is(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        ChatClient(Endpoint(base_url=None, **VALUES), tmp_path).ask(CHATS[:1])
    with serving(echo) as server:
        assert asker(server, tmp_path).ask(CHATS[:1]) == REPLIES[:1]


def test_an_address_with_a_key_in_it_is_refused():
    with pytest.raises(UserError, match="no key in the address"):
        Endpoint(base_url="https://user:secret@host/v1", **VALUES)


def test_what_is_sent_is_what_was_asked_for(tmp_path):
    with serving(echo) as server:
        asker(server, tmp_path, json_mode=True).ask(CHATS[:1])
        (body,) = server.asked
    assert body == {
        "model": "m", "messages": CHATS[0], "temperature": 0.0, "max_tokens": 20,
        "response_format": {"type": "json_object"},
    }  # fmt: skip


def test_the_cache_tells_model_and_date_of_each_reply(tmp_path):
    with serving(echo) as server:
        one = asker(server, tmp_path)
        one.ask(CHATS[:2])
    kept = [json.loads(path.read_text()) for path in (tmp_path / "chat").rglob("*.json")]
    assert {row["model"] for row in kept} == {"m-served"} and all(row["date"] for row in kept)
    assert one.account.models == {"m-served": 2} and one.account.first <= one.account.last


def test_the_identity_names_model_address_and_known_weights(tmp_path):
    own = Endpoint(base_url="http://localhost:1/v1", weights=str(tmp_path), **VALUES)
    assert own.identity(lambda folder: f"print of {folder}") == ["m at http://localhost:1/v1", f"print of {tmp_path}"]
    with pytest.raises(UserError, match=r"endpoint\.model"):
        Endpoint(base_url=None, **{**VALUES, "model": None}).identity(str)
