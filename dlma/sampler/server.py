"""Sampling by a server that speaks OpenAI's completions protocol with token ids: vLLM, SGLang (docs/scale.md).

A context goes out as token ids and the answer comes back as token ids; no text is read. Each row has a seed of its own,
from its key; which tokens a server makes of a seed is its own affair, their distribution is not. The log-probs that a
server gives are held against the local engine's on some rows (`report`), and used for nothing else.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from http.client import HTTPException
from urllib.parse import urlsplit

from dlma.errors import UserError
from dlma.model import trees
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.ranges import Count, Few, NotNegative, Positive, PositiveShare, Temperature, Whole
from dlma.sampler.local import LocalSampler, Request, Sampled

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SEEDS = 1 << 31  # what every server takes for a seed
_LONGEST_WAIT = 60.0  # seconds between two tries
_ENDED = ("stop", "length")
_OWN = ("model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "seed", "logprobs")  # set by the sampler


class Unusable(Exception):
    """An answer or a failure after which another try may help; its text says what was wrong."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


@dataclass(frozen=True)
class Reply:
    """An answer from the server, with the log-prob of each of its tokens (nats) where the server gave them."""

    sampled: Sampled
    token_logp: list[float] | None


class ServerSampler:
    """Samples the frozen model by one or several servers; a trained policy, which they do not have, in process.

    urls: the servers' bases, such as http://host:8000/v1; requests take turns
    served: the name by which the servers know the model; None: the only one that they list
    extra: further fields of the request, such as return_token_ids; raises UserError for one that the sampler sets
    in_flight: requests under way at once, over all servers
    tries: of one request, the first included; between them it waits, twice as long each time, or as the server asks
    timeout: seconds for one answer
    key_env: the environment variable with the servers' key, if they want one
    parity_rows: answers of each call whose log-probs are compared with the local engine's
    max_gap: nats per token, on average over them, from which on the server must be serving something else; None: any
    """

    def __init__(
        self,
        *,
        temperature: Temperature,
        top_k: Whole,
        top_p: PositiveShare,
        max_new_tokens: Count,
        served: str | None,
        extra: dict | None,
        urls: list[str] | None = None,
        in_flight: Few = 64,
        tries: Few = 8,
        first_wait: NotNegative = 1.0,
        timeout: Positive = 600.0,
        key_env: str | None = None,
        parity_rows: Whole = 16,
        max_gap: Positive | None = 0.25,
    ) -> None:
        if not urls:
            raise UserError("sampler.urls: name at least one server: sampler.urls=[http://host:8000/v1]")
        if taken := [name for name in _OWN if name in (extra or {})]:
            raise UserError(f"sampler.extra: the sampler sets {', '.join(taken)} itself (recipe, sampler.served, seed)")
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.max_new_tokens = max_new_tokens
        self.urls = [url.rstrip("/") for url in urls]
        self.served = served
        self.extra = extra or {}
        self.in_flight = in_flight
        self.tries = tries
        self.first_wait = first_wait
        self.timeout = timeout
        self.key_env = key_env
        self.parity_rows = parity_rows
        self.max_gap = max_gap
        self._gaps: list[float] = []
        self._retries: dict[str, int] = {}
        self._lock = threading.Lock()

    def for_policy(self) -> LocalSampler:
        """The sampler of a trained policy."""
        print("sampler=server: the servers hold the base; the trained policy is sampled in process", file=sys.stderr)
        return LocalSampler(
            temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, max_new_tokens=self.max_new_tokens
        )

    def sample(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        progress: Callable[[int], object] = lambda tokens: None,
    ) -> list[Sampled]:
        """One answer per request, in order; raises UserError when a server refuses, or `tries` tries have failed."""
        if any(request.length is not None for request in requests):
            raise UserError("sampler=server: the length of an answer cannot be imposed: sampler=local")
        if not requests:
            return []
        name = self.served or self._listed()
        pool = ThreadPoolExecutor(min(self.in_flight, len(requests)))
        try:
            pending = [pool.submit(self._persist, i, r, name, model, progress) for i, r in enumerate(requests)]
            done, _ = wait(pending, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        replies = [future.result() for future in pending]
        self._compare(model, requests, replies)
        return [reply.sampled for reply in replies]

    def report(self) -> dict[str, object]:
        """Parity with the local engine on the compared rows, nats per token, and the tries that failed, by reason."""
        rows = len(self._gaps)
        mean = sum(self._gaps) / rows if rows else None
        gaps = {"rows": rows, "mean_gap": mean, "max_gap": max(self._gaps, default=None)}
        return {"parity": gaps, "failed_tries": dict(self._retries), "servers": len(self.urls)}

    def _persist(
        self, index: int, request: Request, name: str, model: LanguageModel, progress: Callable[[int], object]
    ) -> Reply:
        """Ask until there is an answer; each try goes to the next server."""
        body, reason = self._body(request, name), ""
        for number in range(self.tries):
            try:
                reply = self._reply(self._post(self.urls[(index + number) % len(self.urls)], body), model)
            except Unusable as failure:
                reason = str(failure)
                self._count(reason)
                if number + 1 < self.tries:
                    time.sleep(failure.wait if failure.wait is not None else self._pause(number))
                continue
            with self._lock:
                progress(len(reply.sampled.ids))
            return reply
        raise UserError(f"sampler.urls: no usable answer in {self.tries} tries, the last: {reason}")

    def _pause(self, number: int) -> float:
        return min(_LONGEST_WAIT, self.first_wait * 2**number) * (0.5 + random.random() / 2)

    def _count(self, reason: str) -> None:
        kind = reason.split(":")[0]
        with self._lock:
            self._retries[kind] = self._retries.get(kind, 0) + 1

    def _body(self, request: Request, name: str) -> dict:
        body = {
            "model": name,
            "prompt": list(request.context_ids),
            "max_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": request.key % _SEEDS,
            "logprobs": 1,
            **self.extra,
        }
        return body | ({"top_k": self.top_k} if self.top_k else {})

    def _post(self, url: str, body: dict | None, path: str = "/completions") -> dict:
        """The JSON object that a server answers with; raises Unusable, or UserError where another try is in vain."""
        headers = {"Content-Type": "application/json"}
        if self.key_env is not None:
            headers["Authorization"] = f"Bearer {self._key()}"
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(url + path, data, headers)
        try:
            with _opener(url).open(asked, timeout=self.timeout) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise _refused(url + path, error) from None
        except ValueError:
            raise Unusable("an answer that is not whole JSON") from None
        except (OSError, HTTPException) as error:
            raise Unusable(f"no answer: {url}: {error or type(error).__name__}") from None
        if not isinstance(found, dict):
            raise Unusable("an answer that is no JSON object")
        return found

    def _key(self) -> str:
        if not os.environ.get(self.key_env):
            raise UserError(f"sampler.key_env={self.key_env}: this environment variable is not set")
        return os.environ[self.key_env]

    def _listed(self) -> str:
        """The name of the only model that the servers have."""
        for number in range(self.tries):
            try:
                listed = self._post(self.urls[number % len(self.urls)], None, "/models")
                names = [str(entry["id"]) for entry in listed["data"]]
                break
            except (Unusable, KeyError, TypeError) as failure:
                reason = failure
                time.sleep(self._pause(number) if number + 1 < self.tries else 0)
        else:
            raise UserError(f"sampler.urls: the servers do not say which models they have: {reason}")
        if len(names) != 1:
            raise UserError(f"sampler.served: the server has several models, name one: {', '.join(names) or 'none'}")
        return names[0]

    def _reply(self, answer: dict, model: LanguageModel) -> Reply:
        try:
            choice = answer["choices"][0]
            ended = choice["finish_reason"]
            ids = _ids(choice)
            logp = (choice.get("logprobs") or {}).get("token_logprobs")
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise Unusable(f"an answer of another form: {type(error).__name__} {error}") from None
        if ids is None:
            raise UserError(
                "sampler.urls: the server gives no token ids: it must know sampler.extra.return_token_ids "
                "(vLLM, SGLang; docs/scale.md)"
            )
        if ended not in _ENDED or not ids:
            raise Unusable(f"an answer that ended with {ended}")
        sampled = _ended(ids, ended == "stop", choice, model.eos_ids)
        if len(sampled.ids) > self.max_new_tokens:
            raise Unusable(f"an answer longer than asked for: {len(sampled.ids)} tokens")
        return Reply(sampled, [float(v) for v in logp] if logp and None not in logp else None)

    def _compare(self, model: LanguageModel, requests: Sequence[Request], replies: Sequence[Reply]) -> None:
        """Hold some answers' log-probs against the local engine's; raises UserError when they are another model's."""
        usable = [
            (r, s)
            for r, s in zip(requests, replies, strict=True)
            if s.token_logp and len(s.token_logp) <= len(s.sampled.ids)
        ]
        rows = usable[:: max(1, len(usable) // max(1, self.parity_rows))][: self.parity_rows]
        if not rows:
            return
        # an EOS that the server left out of its log-probs is left out here too
        groups = [[trees.Completion(r.context_ids, s.sampled.ids[: len(s.token_logp)])] for r, s in rows]
        own = Engine(model, notice=lambda line: None).score(groups)
        gaps = [abs(mine[0] - sum(s.token_logp)) / len(s.token_logp) for mine, (_, s) in zip(own, rows, strict=True)]
        first = not self._gaps
        self._gaps += gaps
        mean = sum(gaps) / len(gaps)
        if first:
            print(
                f"sampler=server: log-probs of {len(gaps)} answers differ from the local engine's by {mean:.1e} nats "
                f"per token on average, {max(gaps):.1e} at most",
                file=sys.stderr,
            )
        if not math.isfinite(mean):
            raise UserError("sampler.urls: log-probs that are no finite numbers, the server's or the local model's")
        if self.max_gap is not None and mean > self.max_gap:
            raise UserError(
                f"sampler.urls: the server's log-probs differ from the local model's by {mean:.2f} nats per token: it "
                "serves another model, or gives log-probs after temperature or top-p (then sampler.max_gap=null)"
            )


def _ids(choice: dict) -> list[int] | None:
    """The answer's token ids: their own field, or names such as token_id:17 among the log-probs."""
    found = choice.get("token_ids")
    if found is not None:
        return [int(token) for token in found]
    names = (choice.get("logprobs") or {}).get("tokens") or []
    if names and all(str(name).startswith("token_id:") for name in names):
        return [int(str(name).removeprefix("token_id:")) for name in names]
    return None


def _ended(ids: list[int], stopped: bool, choice: dict, eos_ids: frozenset[int]) -> Sampled:
    """The answer with its EOS, which some servers leave out; cut at the first one, if the server went on."""
    place = next((i for i, token in enumerate(ids) if token in eos_ids), None)
    if place is not None:
        return Sampled(ids[: place + 1], True)
    if not stopped:
        return Sampled(ids, False)
    named = [choice.get(name) for name in ("stop_reason", "matched_stop") if isinstance(choice.get(name), int)]
    token = named[0] if named else min(eos_ids) if len(eos_ids) == 1 else None
    if token is None:
        raise Unusable("an answer that stopped without saying at which of the model's EOS tokens")
    return Sampled([*ids, token], True)


def _opener(url: str) -> urllib.request.OpenerDirector:
    """A server on this machine is not asked for through a proxy."""
    own = (urlsplit(url).hostname or "") in LOOPBACK
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if own else []))


def _refused(url: str, error: urllib.error.HTTPError) -> Exception:
    """What an HTTP error means: to be tried again, or to be told."""
    try:
        said = error.read().decode(errors="replace")[:300].replace("\n", " ")
    except (OSError, HTTPException):
        said = ""
    if error.code == 429 or error.code >= 500 or error.code == 408:
        asked = error.headers.get("Retry-After", "")
        return Unusable(f"HTTP {error.code}: {said}", min(_LONGEST_WAIT, float(asked)) if asked.isdigit() else None)
    return UserError(f"{url}: the server refuses (HTTP {error.code}): {said}")
