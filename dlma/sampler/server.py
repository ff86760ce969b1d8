"""Sampling by a server that speaks OpenAI's completions protocol with token ids: vLLM, SGLang (docs/scale.md).

A context goes out as token ids and the answer comes back as token ids; no text is read. Each row has a seed of its own,
from its key; which tokens a server makes of a seed is its own affair, their distribution is not. The log-probs that a
server gives are held against the local engine's on some rows (`report`), and used for nothing else.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from dlma.errors import UserError
from dlma.http_client import Client, Fault, insist
from dlma.model import trees
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.work import work
from dlma.ranges import Count, Few, NotNegative, Positive, PositiveShare, Temperature, Whole
from dlma.sampler.local import LocalSampler, Request, Sampled

_SEEDS = 1 << 31  # what every server takes for a seed
_OWN = ("model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "seed", "logprobs")  # set by the sampler
_OF_ONE_ANSWER = ("stop", "stop_token_ids", "n", "best_of", "echo", "stream", "ignore_eos", "min_tokens")
# How servers call the end of an answer: vLLM and SGLang stop, length, abort (vLLM also error and repetition);
# TGI eos_token, length, stop_sequence; llama.cpp stop and length, in its own protocol eos, limit, word.
_ENDED = ("stop", "eos_token", "eos")
_CUT = ("length", "limit")
_BROKEN_OFF = ("abort", "error", None)  # by the server, not by the model: another try may end


T = TypeVar("T")


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
        if other := [name for name in _OF_ONE_ANSWER if name in (extra or {})]:
            raise UserError(
                f"sampler.extra: {', '.join(other)}: an answer is one, whole, and ends at an EOS of the model"
            )
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
        self._client = Client(
            key_variable=key_env, needs_key=key_env is not None, option="sampler.key_env", timeout=timeout
        )
        self._stop = threading.Event()
        self._gaps: list[float] = []
        self._overrun = 0  # tokens behind an answer's end
        self._retries: dict[str, int] = {}
        self._lock = threading.Lock()

    def for_policy(self) -> LocalSampler:
        """The sampler of a trained policy."""
        print("sampler=server: the servers hold the base; the trained policy is sampled in process", file=sys.stderr)
        return LocalSampler(
            temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, max_new_tokens=self.max_new_tokens
        )

    def sample(self, model: LanguageModel, requests: Sequence[Request]) -> list[Sampled]:
        """One answer per request, in order; raises UserError when a server refuses, or `tries` tries have failed."""
        if any(request.length is not None for request in requests):
            raise UserError("sampler=server: the length of an answer cannot be imposed: sampler=local")
        if not requests:
            return []
        name = self.served or self._listed()
        self._stop.clear()
        work().foresee(len(requests) * self.max_new_tokens)
        pool = ThreadPoolExecutor(min(self.in_flight, len(requests)))
        try:
            pending = [pool.submit(self._persist, i, r, name, model) for i, r in enumerate(requests)]
            done, _ = wait(pending, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            self._stop.set()  # after a failure the others ask no more
            pool.shutdown(wait=False, cancel_futures=True)
        replies = [future.result() for future in pending]
        self._compare(model, requests, replies)
        return [reply.sampled for reply in replies]

    def report(self) -> dict[str, object]:
        """Parity with the local engine on the compared rows, nats per token; failed tries, by reason; tokens cut."""
        rows = len(self._gaps)
        mean = sum(self._gaps) / rows if rows else None
        gaps = {"rows": rows, "mean_gap": mean, "max_gap": max(self._gaps, default=None)}
        tries = {"failed_tries": dict(self._retries), "tokens_behind_ends": self._overrun}
        return {"parity": gaps, **tries, "servers": len(self.urls)}

    def _persist(self, index: int, request: Request, name: str, model: LanguageModel) -> Reply:
        """Ask until there is an answer; each try goes to the next server."""
        body = self._body(request, name, model)

        def once(number: int) -> Reply:
            url = self.urls[(index + number) % len(self.urls)]
            return self._reply(self._client.ask(f"{url}/completions", body), model)

        reply = self._patiently(once, f"no usable answer in {self.tries} tries, the last")
        with self._lock:
            work().did(len(reply.sampled.ids))
            work().spare(self.max_new_tokens - len(reply.sampled.ids))
        return reply

    def _patiently(self, ask: Callable[[int], T], trouble: str) -> T:
        try:
            return insist(ask, tries=self.tries, first_wait=self.first_wait, stop=self._stop, failed=self._count)
        except Fault as fault:
            raise UserError(f"sampler.urls: {trouble}: {fault}") from None

    def _count(self, fault: Fault) -> None:
        kind = str(fault).split(":")[0]
        with self._lock:
            self._retries[kind] = self._retries.get(kind, 0) + 1

    def _body(self, request: Request, name: str, model: LanguageModel) -> dict:
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
        # an end that only the chat template names is none to a server; one that knows no such field is cut
        ends = {} if model.added_end is None else {"stop_token_ids": [model.added_end]}
        return body | ends | ({"top_k": self.top_k} if self.top_k else {})

    def _listed(self) -> str:
        """The name of the only model that the servers have."""

        def once(number: int) -> list[str]:
            found = self._client.ask(f"{self.urls[number % len(self.urls)]}/models")
            try:
                return [str(entry["id"]) for entry in found["data"]]
            except (KeyError, TypeError) as error:
                raise Fault(f"a list of models of another form: {type(error).__name__} {error}") from None

        self._stop.clear()
        names = self._patiently(once, "the servers do not say which models they have")
        if len(names) != 1:
            raise UserError(f"sampler.served: the server has several models, name one: {', '.join(names) or 'none'}")
        return names[0]

    def _reply(self, answer: dict, model: LanguageModel) -> Reply:
        try:
            choice = answer["choices"][0]
            ended = choice["finish_reason"]
            ids, logp = _tokens(choice)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise Fault(f"an answer of another form: {type(error).__name__} {error}") from None
        if ended in _BROKEN_OFF:
            raise Fault(f"an answer that ended with {ended}")
        if ids is None:
            raise UserError(
                "sampler.urls: the server gives no token ids: it must know sampler.extra.return_token_ids "
                "(vLLM, SGLang; docs/scale.md)"
            )
        sampled = _ended(ids, ended, choice, model.eos_ids)
        self._overrun += max(0, len(ids) - len(sampled.ids))
        if len(sampled.ids) > self.max_new_tokens or not (sampled.finished or len(sampled.ids) == self.max_new_tokens):
            raise UserError(
                f"sampler.urls: an answer of {len(sampled.ids)} tokens that is not ended, where recipe.max_new_tokens="
                f"{self.max_new_tokens}: the server has a limit of its own"
            )
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


def _tokens(choice: dict) -> tuple[list[int] | None, list | None]:
    """The answer's token ids and log-probs, each None where the server gives none.

    Ids stand in a field of their own (vLLM, SGLang), in names such as token_id:17 among the log-probs (vLLM), or each
    beside its log-prob in a list `content` (llama.cpp).
    """
    logprobs = choice.get("logprobs") or {}
    content, names = logprobs.get("content") or [], logprobs.get("tokens") or []
    logp = [entry.get("logprob") for entry in content] or logprobs.get("token_logprobs")
    if choice.get("token_ids") is not None:
        return [int(token) for token in choice["token_ids"]], logp
    if content and all("id" in entry for entry in content):
        return [int(entry["id"]) for entry in content], logp
    if names and all(str(name).startswith("token_id:") for name in names):
        return [int(str(name).removeprefix("token_id:")) for name in names], logp
    return None, logp


def _ended(ids: list[int], reason: str, choice: dict, eos_ids: frozenset[int]) -> Sampled:
    """The answer with its EOS, which some servers leave out; cut at the first one, if the server went on.

    An answer that is nothing but an EOS may come back as no ids at all.
    raises: UserError for an end that is none of the model's; the same seed would bring the same answer again
    """
    place = next((i for i, token in enumerate(ids) if token in eos_ids), None)
    if place is not None:
        return Sampled(ids[: place + 1], True)
    if reason in _CUT:
        return Sampled(ids, False)
    if reason not in _ENDED:
        known = ", ".join((*_ENDED, *_CUT))
        raise UserError(f"sampler.urls: an answer without EOS ended with {reason!r}; an end is one of {known}")
    return Sampled([*ids, _left_out(choice, eos_ids)], True)


def _left_out(choice: dict, eos_ids: frozenset[int]) -> int:
    """The EOS at which an answer stopped and which its ids lack: the one that the server names, or the only one."""
    said = [choice.get(name) for name in ("stop_reason", "matched_stop") if choice.get(name) is not None]
    named = [part for value in said for part in (value if isinstance(value, list) else [value])]
    if named and not all(isinstance(part, int) and part in eos_ids for part in named):
        raise UserError(f"sampler.urls: an answer stopped at {named[0]!r}, which is no EOS of the model")
    if named:
        return named[-1]
    if len(eos_ids) == 1:
        return min(eos_ids)
    raise UserError(
        "sampler.urls: an answer stopped without saying at which of the model's EOS tokens "
        f"({', '.join(map(str, sorted(eos_ids)))}): have the server keep it in the ids (SGLang: "
        "+sampler.extra.no_stop_trim=true)"
    )
