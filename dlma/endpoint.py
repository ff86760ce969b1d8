"""A client of OpenAI-compatible endpoints: parallel requests, retries, limits, and a cache of replies.

A reply is kept by the content of its question (address, model, settings, messages), so a rerun, or a run that was
killed, asks only what has no reply yet. The key is read from the environment when it is needed and kept nowhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dlma import files, redaction
from dlma.config.schema import Component
from dlma.errors import Unavailable, UserError
from dlma.http_client import STOPPED, Client, Fault, Filtered, insist
from dlma.ranges import Count, Few, NotNegative, Positive, Temperature
from dlma.store import manifest as manifests
from dlma.store.fingerprint import key_of

Chat = Sequence[dict[str, str]]
_OPENAI = "https://api.openai.com/v1"


class Endpoint:
    """Where and how to ask.

    model: the model's name there
    base_url: the address, up to /v1; None is OpenAI's own
    temperature: None where the model takes none but its own
    limit_name: what the server calls the limit on a reply's tokens
    json_mode: whether the server is told to produce a JSON object, where it can be
    weights: the folder of the weights that a server of your own serves; tells whether a judge judges itself
    key_variable: the environment variable that holds the key; a server of your own may need none
    concurrency, requests_per_minute: requests under way at a time, and started per minute (None: no limit)
    attempts, backoff_seconds: tries of one request when the server fails, and the first wait, doubled each time
    max_requests: requests of one run and judge, retries included
    max_cost, cost_in, cost_out: money of one run and judge, and the prices of a million tokens in and out
    """

    def __init__(
        self,
        *,
        model: str | None,
        base_url: str | None,
        temperature: Temperature | None,
        max_tokens: Count,
        json_mode: bool,
        limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens",
        weights: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        concurrency: Few = 8,
        requests_per_minute: Positive | None = None,
        timeout_seconds: Positive = 120.0,
        attempts: Few = 6,
        backoff_seconds: NotNegative = 1.0,
        max_requests: Count | None = None,
        max_cost: Positive | None = None,
        cost_in: NotNegative | None = None,
        cost_out: NotNegative | None = None,
    ) -> None:
        if base_url is not None and redaction.in_url(base_url):
            raise UserError("endpoint.base_url: no key in the address; it is read from endpoint.key_variable")
        self.model = model
        self.base_url = base_url
        self.settings = {"temperature": temperature, "max_tokens": max_tokens, "json_mode": json_mode}
        self.limit_name = limit_name
        self.weights = None if weights is None else Path(weights).expanduser()
        self.key_variable = key_variable
        self.concurrency = concurrency
        self.pause = 0.0 if requests_per_minute is None else 60.0 / requests_per_minute
        self.timeout_seconds = timeout_seconds
        self.attempts = attempts
        self.backoff_seconds = backoff_seconds
        self.max_requests = max_requests
        self.max_cost = max_cost
        self.prices = (cost_in or 0.0, cost_out or 0.0)

    def identity(self, fingerprint: Callable[[Path], str]) -> list[str]:
        """The model's name and address, and the fingerprint of its weights where they are known."""
        if self.model is None:
            raise UserError("endpoint.model: name the model that judges, such as endpoint.model=gpt-4o")
        known = [] if self.weights is None else [fingerprint(self.weights)]
        return [f"{self.model} at {self.base_url or 'api.openai.com'}", *known]

    def client(self) -> Client:
        """The client with this endpoint's key; OpenAI's own address is not asked without one."""
        needs_key = self.base_url is None
        return Client(
            key_variable=self.key_variable, needs_key=needs_key, option="endpoint", timeout=self.timeout_seconds
        )


@dataclass
class Usage:
    """What one run asked: replies found in the cache, requests sent (tries included), tokens, money, and of whom.

    filtered: questions that the server's content filter does not let through, which have no reply
    """

    cached: int = 0
    requests: int = 0
    failed: int = 0
    filtered: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    models: dict[str, int] = field(default_factory=dict)
    first: str | None = None
    last: str | None = None


class ChatClient:
    """Asks an endpoint, with a folder of replies.

    weights: fingerprints of what is served there, where they are known: replies of other weights are others
    """

    def __init__(self, endpoint: Component | Endpoint, cache: Path, weights: Sequence[str] = ()) -> None:
        self.endpoint = endpoint
        self.weights = list(weights)
        self.cache = cache / "chat"
        self.account = Usage()
        self._client = endpoint.client()
        self._lock = threading.Lock()
        self._next = 0.0
        self._stop = threading.Event()
        self._reason: UserError | None = None

    def ask(self, chats: Sequence[Chat]) -> list[str | None]:
        """The reply to each chat, in order; "" where the model said nothing, None where a filter stopped the chat.

        raises: UserError when a limit is reached, the server refuses, or it fails `attempts` times in a row; the
            replies that came in are kept
        """
        if not chats:
            return []
        self._stop.clear()
        self._reason = None
        pool = ThreadPoolExecutor(self.endpoint.concurrency)
        waiting = [pool.submit(self._reply, chat) for chat in chats]
        try:
            return [one.result() for one in waiting]
        except UserError as reason:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)  # what is under way may still bring replies
            raise self._reason or reason from None
        finally:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _reply(self, chat: Chat) -> str | None:
        known = {"weights": self.weights} if self.weights else {}
        asked = {"url": self.endpoint.base_url, "model": self.endpoint.model, "chat": list(chat), **self._settings}
        key = key_of(asked | known)
        path = self.cache / key[:2] / f"{key}.json"
        kept = files.read_checked(path)
        if isinstance(kept.get("reply"), str):
            self._count(kept, cached=1)
            return kept["reply"]
        try:
            found = self._with_retries(chat)
        except UserError as reason:
            with self._lock:
                self._reason = self._reason or reason  # the first one is what stopped the others
            self._stop.set()
            raise
        if found["reply"] is not None:  # a filter may be another one day
            files.write_checked(path, found)
        self._count(found)
        return found["reply"]

    @property
    def _settings(self) -> dict:
        return self.endpoint.settings

    def _count(self, found: dict, cached: int = 0) -> None:
        with self._lock:
            account = self.account
            account.cached += cached
            account.filtered += found["reply"] is None
            account.models[found["model"]] = account.models.get(found["model"], 0) + 1
            account.first = min(account.first or found["date"], found["date"])
            account.last = max(account.last or found["date"], found["date"])

    def _with_retries(self, chat: Chat) -> dict:
        """The reply, after as many tries as the endpoint allows."""
        endpoint = self.endpoint
        try:
            return insist(
                lambda number: self._once(chat),
                tries=endpoint.attempts,
                first_wait=endpoint.backoff_seconds,
                stop=self._stop,
                failed=self._count_failure,
            )
        except Fault as fault:
            raise Unavailable(
                f"endpoint: {endpoint.model} failed {endpoint.attempts} times in a row ({fault}); the replies "
                "so far are kept: run the same command again later, or raise endpoint.attempts"
            ) from None

    def _count_failure(self, fault: Fault) -> None:
        with self._lock:
            self.account.failed += str(fault) != STOPPED

    def _rate_limit(self) -> None:
        """Counts a request against the limits, and waits for its turn under a rate; raises Fault at a stop."""
        endpoint, account = self.endpoint, self.account
        with self._lock:
            if endpoint.max_requests is not None and account.requests >= endpoint.max_requests:
                raise UserError(_reached(f"endpoint.max_requests={endpoint.max_requests}"))
            if endpoint.max_cost is not None and account.cost >= endpoint.max_cost:
                raise UserError(_reached(f"endpoint.max_cost={endpoint.max_cost:g}"))
            account.requests += 1
            start = max(time.monotonic(), self._next)
            self._next = start + endpoint.pause
        if self._stop.wait(max(0.0, start - time.monotonic())):
            with self._lock:
                account.requests -= 1
            raise Fault(STOPPED)

    def _once(self, chat: Chat) -> dict:
        self._rate_limit()
        settings = self._settings
        form = {"response_format": {"type": "json_object"}} if settings["json_mode"] else {}
        own = {} if settings["temperature"] is None else {"temperature": settings["temperature"]}
        limit = {self.endpoint.limit_name: settings["max_tokens"]}
        body = {"model": self.endpoint.model, "messages": list(chat), **own, **limit, **form}
        try:
            found = self._client.ask(f"{(self.endpoint.base_url or _OPENAI).rstrip('/')}/chat/completions", body)
        except Filtered:
            return {"reply": None, "model": self.endpoint.model, "date": manifests.now()}
        return self._read(found)

    def _read(self, found: dict) -> dict:
        try:
            content = found["choices"][0]["message"]["content"]
            model = found.get("model") or self.endpoint.model
        except (TypeError, IndexError, KeyError):
            raise Fault("an answer without choices") from None
        if not isinstance(content, str | None) or not isinstance(model, str):
            raise Fault("an answer whose content is not text")
        self._pay(found.get("usage"))
        return {"reply": redaction.text(content or ""), "model": redaction.text(model), "date": manifests.now()}

    def _pay(self, usage: object) -> None:
        known = usage if isinstance(usage, dict) else {}
        said = [known.get(name) for name in ("prompt_tokens", "completion_tokens")]
        tokens = [n for n in said if isinstance(n, int)]
        if len(tokens) < len(said):
            if self.endpoint.max_cost is not None:
                raise UserError("endpoint.max_cost: this server reports no usage; use endpoint.max_requests")
            return
        with self._lock:
            self.account.tokens_in += tokens[0]
            self.account.tokens_out += tokens[1]
            self.account.cost += sum(n * price for n, price in zip(tokens, self.endpoint.prices)) / 1e6


def _reached(limit: str) -> str:
    return f"{limit} is reached; the replies so far are kept: raise it and run the same command again"
