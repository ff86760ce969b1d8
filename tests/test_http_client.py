"""One client for judges and samplers: what is asked again, after how long, and how often."""

import threading
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime

import pytest
from chat_server import serving

from dlma import redaction
from dlma.errors import UserError
from dlma.http_client import LONGEST_ASKED, LONGEST_WAIT, Client, Fault, insist, pause, retry_after


def client(**options):
    return Client(**{"key_variable": None, "needs_key": False, "option": "o", "timeout": 5.0, **options})


def asked(*statuses, headers=None):
    """A server that answers with these statuses in turn; what one request to it came to."""
    with serving(lambda body, number: ("status", statuses[number - 1], headers or {})) as server:
        try:
            client().ask(f"{server.url}/x", {})
        except (Fault, UserError) as outcome:
            return outcome
    raise AssertionError("no fault")


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_a_fault(status):
    assert type(asked(status)) is Fault


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 501, 505])
def test_what_no_further_try_mends_is_told_with_the_servers_words(status):
    outcome = asked(status)
    assert type(outcome) is UserError and f"HTTP {status}" in str(outcome) and "planted" in str(outcome)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_key_is_not_sent_on_to_where_a_server_points(status, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "planted-key")
    with serving(lambda body, number: "{}") as other:
        answer = ("status", status, {"Location": f"{other.url}/x"})
        with serving(lambda body, number: answer) as server, pytest.raises(UserError, match=f"HTTP {status}"):
            client(key_variable="SOME_KEY").ask(f"{server.url}/x", {})
        assert not other.headers and len(server.headers) == 1


def headers(value):
    found = Message()
    if value is not None:
        found["Retry-After"] = value
    return found


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("7", 7), ("2.5", 2.5), (" 7 ", 7), ("-3", 0), (None, None), ("", None), ("soon", None)],
)
def test_retry_after_in_seconds(value, seconds):
    assert retry_after(headers(value)) == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(90, 90), (-90, 0)])
def test_retry_after_as_a_date(ahead, seconds):
    moment = datetime.now(UTC) + timedelta(seconds=ahead)
    assert retry_after(headers(format_datetime(moment, usegmt=True))) == pytest.approx(seconds, abs=2)


def test_the_wait_doubles_within_its_shake_and_is_never_less_than_asked():
    for number in range(12):
        own = min(LONGEST_WAIT, 0.5 * 2**number)
        assert own / 2 <= pause(number, 0.5, None) <= own
        assert own / 2 <= pause(number, 0.5, 0.0) <= own
        assert pause(number, 0.5, 100.0) == 100.0
    assert pause(0, 0.5, 1e6) == LONGEST_ASKED


def test_the_servers_wait_comes_with_the_fault():
    assert asked(503, headers={"Retry-After": "3"}).wait == 3
    assert asked(503).wait is None


def failing(times):
    def ask(number):
        if number < times:
            raise Fault(f"fault {number}")
        return number

    return ask


def tried(ask, **options):
    return insist(ask, **{"tries": 3, "first_wait": 0.001, "stop": threading.Event(), **options})


def test_tries_end_with_an_answer_or_with_the_last_fault():
    told = []
    assert tried(failing(2), failed=told.append) == 2
    assert [str(fault) for fault in told] == ["fault 0", "fault 1"]
    with pytest.raises(Fault, match="fault 2"):
        tried(failing(3))


def test_a_refusal_ends_the_tries_at_once():
    numbers = []

    def ask(number):
        numbers.append(number)
        raise UserError("no")

    with pytest.raises(UserError):
        tried(ask)
    assert numbers == [0]


def test_a_stop_ends_a_wait_and_all_further_tries():
    stop, numbers = threading.Event(), []

    def ask(number):
        numbers.append(number)
        stop.set()
        raise Fault("x", wait=500.0)

    with pytest.raises(Fault):
        tried(ask, stop=stop)
    assert numbers == [0]


def test_a_server_on_this_machine_is_asked_past_any_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(lambda body, number: ("schema", {"fine": 1})) as server:
        assert client().ask(f"{server.url}/x", {}) == {"fine": 1}


def test_a_key_is_hidden_whatever_its_variable_is_called(monkeypatch):
    monkeypatch.setenv("WARES", "planted-key-of-wares")
    with redaction.session(), serving(lambda body, number: ("schema", {})) as server:
        client(key_variable="WARES").ask(f"{server.url}/x", {})
        assert "planted" not in redaction.text("the server said: planted-key-of-wares is no key")


@pytest.mark.parametrize(
    ("value", "sent"), [("open sesame\n", "Bearer open sesame"), ("open\nsesame", None), ("s\u00e9same", None)]
)
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(monkeypatch, value, sent):
    monkeypatch.setenv("WARES", value)
    with redaction.session(), serving(lambda body, number: ("schema", {})) as server:
        if sent is None:
            with pytest.raises(UserError, match="the key in WARES holds what no key holds") as told:
                client(key_variable="WARES").ask(f"{server.url}/x", {})
            assert value not in str(told.value) and server.headers == []
            return
        client(key_variable="WARES").ask(f"{server.url}/x", {})
        assert server.headers[0]["Authorization"] == sent


def test_the_key_is_read_when_it_is_needed(monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    wanting = client(key_variable="SOME_KEY", needs_key=True, option="sampler.key_env")
    with pytest.raises(UserError, match=r"^sampler.key_env: no key; set the environment variable SOME_KEY"):
        wanting.ask("http://127.0.0.1:9/x", {})
    with serving(lambda body, number: ("schema", {})) as server:
        client(key_variable="SOME_KEY").ask(f"{server.url}/x", {})
        monkeypatch.setenv("SOME_KEY", "open sesame")
        wanting.ask(f"{server.url}/x", {})
    assert [h.get("Authorization") for h in server.headers] == [None, "Bearer open sesame"]


@pytest.mark.parametrize(
    "url", ["server/v1", "http://[server/v1", "http://a..b/v1", "http://h:port/v1", "http://h h/v1"]
)
def test_what_is_no_address_is_said_at_once_and_not_tried_again(url):
    with pytest.raises(UserError, match="no address of a server"):
        client().ask(url)
