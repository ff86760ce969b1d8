"""JSON over HTTP for judges and samplers alike: one client, and one rule of what is asked again and after how long.

Asked again is what may pass: no connection, a timeout, half an answer, and the statuses 408, 409, 425, 429 and 5xx
but 501 and 505. Between two tries a client waits twice as long each time, shaken so that many do not come back
together, and never less than the server asks for (Retry-After, RFC 9110, section 10.2.3: seconds or a date).
"""

from __future__ import annotations

import json
import os
import random
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, InvalidURL
from typing import TypeVar
from urllib.parse import urlsplit

from dlma import redaction
from dlma.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LONGEST_WAIT = 60.0  # seconds between two tries, unless the server asks for more
LONGEST_ASKED = 600.0  # seconds; a server that asks for more is not waited for any longer
STOPPED = "stopped"  # the fault of what was not asked any more
_FILTERS = ("content_filter", "content_policy", "content management policy", "invalid_prompt")  # as servers say it
_MAY_PASS = (408, 409, 425, 429)
_FOR_GOOD = (501, 505)

T = TypeVar("T")


class Filtered(UserError):
    """A server's content filter refuses this one question; others it may answer."""


class Fault(Exception):
    """A failure that another try may mend; `wait` is what the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Client:
    """Asks servers for JSON objects.

    key_variable: the environment variable with their key, read when it is needed and kept nowhere; None: no key
    needs_key: whether a variable that is not set is a mistake, or a server that wants no key
    option: the option that named the variable, for messages
    timeout: seconds for one answer
    """

    def __init__(self, *, key_variable: str | None, needs_key: bool, option: str, timeout: float) -> None:
        self.key_variable = key_variable
        self.needs_key = needs_key
        self.option = option
        self.timeout = timeout

    def ask(self, url: str, body: dict | None = None) -> dict:
        """The answer to a POST of `body`, or to a GET without one; raises Fault, or UserError for a refusal."""
        answer = self.text(url, body)
        try:
            found = json.loads(answer)
        except ValueError:
            raise Fault("an answer that is not whole JSON") from None
        if not isinstance(found, dict):
            raise Fault("an answer that is no JSON object")
        return found

    def text(self, url: str, body: dict | None = None) -> bytes:
        """The same, of whatever form the answer is."""
        headers = {"Content-Type": "application/json", **self._authorization()}
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(url, data, headers)
        except ValueError as error:
            raise _no_address(url, error) from None
        try:
            with _opener(url).open(request, timeout=self.timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise _refused(url, error) from None
        except (InvalidURL, UnicodeError) as error:
            raise _no_address(url, error) from None
        except (OSError, HTTPException) as error:
            raise Fault(f"no answer: {url}: {error or type(error).__name__}") from None

    def _authorization(self) -> dict[str, str]:
        key = os.environ.get(self.key_variable or "", "").strip()
        redaction.learn({"key": key})  # the variable's name need not say that it is a secret
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"{self.option}: the key in {self.key_variable} holds what no key holds; set it again")
        if key:
            return {"Authorization": f"Bearer {key}"}
        if self.needs_key:
            raise UserError(f"{self.option}: no key; set the environment variable {self.key_variable}")
        return {}


def _no_address(url: str, error: Exception) -> UserError:
    return UserError(f"{url}: no address of a server ({error})")


def insist(
    ask: Callable[[int], T],
    *,
    tries: int,
    first_wait: float,
    stop: threading.Event,
    failed: Callable[[Fault], None] = lambda fault: None,
) -> T:
    """What `ask(number of the try)` gives, after `tries` tries at most; raises the last Fault, or at a stop the latest.

    failed: told of each fault
    """
    fault = Fault(STOPPED)
    for number in range(tries):
        if stop.is_set():
            break
        try:
            return ask(number)
        except Fault as met:
            fault = met
            failed(fault)
        if number + 1 < tries:
            stop.wait(pause(number, first_wait, fault.wait))
    raise fault


def pause(number: int, first_wait: float, asked: float | None) -> float:
    """Seconds to wait after try `number`, from 0 on: our own wait or what the server asks for, whichever is longer."""
    own = min(LONGEST_WAIT, first_wait * 2**number) * (0.5 + random.random() / 2)
    return max(own, min(LONGEST_ASKED, asked or 0.0))


def retry_after(headers: Message) -> float | None:
    """Seconds that an answer's Retry-After asks for; None where there is none that can be read."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())


class _Here(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: the key would be sent along."""

    def redirect_request(self, *asked) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    """A server on this machine is not asked for through a proxy; none sends on to another."""
    own = (urlsplit(url).hostname or "") in LOOPBACK
    return urllib.request.build_opener(_Here(), *([urllib.request.ProxyHandler({})] if own else []))


def _refused(url: str, error: urllib.error.HTTPError) -> Exception:
    """What an HTTP error means: to be tried again, or to be told."""
    try:
        said = " ".join(error.read().decode(errors="replace").split())
    except (OSError, HTTPException):
        said = ""
    if error.code in _MAY_PASS or (error.code >= 500 and error.code not in _FOR_GOOD):
        return Fault(f"HTTP {error.code}: {said[:300]}", retry_after(error.headers))
    kind = Filtered if error.code == 400 and any(name in said for name in _FILTERS) else UserError
    return kind(f"{url}: the server refuses (HTTP {error.code}): {said[:300]}")
