"""Sampling by a server that speaks OpenAI's completions protocol with token ids: vLLM, SGLang (docs/scale.md).

A context goes out as token ids and the answer comes back as token ids; no text is read. Each row has a seed of its own,
from its key; which tokens a server makes of a seed is its own affair, their distribution is not. The log-probs that a
server gives are held against the local engine's on some rows (`report`), and used for nothing else.
"""

from __future__ import annotations

import math
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from dlma.errors import UserError
from dlma.http_client import Client, Fault, insist
from dlma.model import trees
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.saved import save
from dlma.model.work import work
from dlma.ranges import Count, Few, NotNegative, Positive, PositiveShare, Temperature, Whole
from dlma.sampler import adapters, replies
from dlma.sampler.local import Request, Sampled
from dlma.sampler.replies import Reply
from dlma.sampler.started import StartedServer
from dlma.trainer import place as places
from dlma.trainer.ranks import Ranks

_SEEDS = 1 << 31  # what every server takes for a seed
_OWN = ("model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "seed", "logprobs")  # set by the sampler
_OF_ONE_ANSWER = ("stop", "stop_token_ids", "n", "best_of", "echo", "stream", "ignore_eos", "min_tokens")
_EVERY = -1  # a top_k of all tokens, to vLLM and SGLang
# Said, as a server would otherwise take them from the model's generation_config.json, and draw from something else.
_PLAIN = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
_HEALTH = 5.0  # seconds for a server to say that it is there

T = TypeVar("T")


@dataclass(frozen=True)
class Weights:
    """The weights that are to be sampled from.

    folder: of the whole model; adapter: of the adapter on top of it, if there is one
    held: whether the servers of sampler.urls hold the folder's model
    to_come: whether an adapter on it will be sampled from later
    """

    folder: Path
    adapter: Path | None
    held: bool
    to_come: bool = False


@dataclass(frozen=True)
class Served:
    """Where weights are served: the servers' bases, and the name of an adapter there; server: one that was started."""

    fixed: list[str]
    adapter: str | None = None
    server: StartedServer | None = None

    @property
    def urls(self) -> list[str]:
        return [self.server.url] if self.server else self.fixed


class ServerSampler:
    """Samples by one or several servers, and a policy by those that are given it (`serving`).

    urls: the servers' bases, such as http://host:8000/v1; requests take turns. They hold the base
    served: the name by which the servers know the model; None: the only one that they list
    policy: whether a trained policy is sampled by a server, or in process, by the local sampler (dlma/context.py)
    start: the command of a server for weights that no server of `urls` holds (started.py); start_timeout: seconds from
        its start to its first answer
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
        policy: Literal["server", "local"] = "server",
        start: str | None = None,
        start_timeout: Positive = 900.0,
        in_flight: Few = 64,
        tries: Few = 8,
        first_wait: NotNegative = 1.0,
        timeout: Positive = 600.0,
        key_env: str | None = None,
        parity_rows: Whole = 16,
        max_gap: Positive | None = 0.25,
    ) -> None:
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
        self.urls = [url.rstrip("/") for url in urls or []]
        self.policy = policy
        self.start = start
        self.start_timeout = start_timeout
        self.served = served
        self.extra = extra or {}
        self.in_flight = in_flight
        self.tries = tries
        self.first_wait = first_wait
        self.timeout = timeout
        self.key_env = key_env
        self.parity_rows = parity_rows
        self.max_gap = max_gap
        self._client = self._client_of(timeout)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._told = False  # of parity
        self._begin(Served(self.urls))

    def _client_of(self, timeout: float) -> Client:
        needs = self.key_env is not None
        return Client(key_variable=self.key_env, needs_key=needs, option="sampler.key_env", timeout=timeout)

    def _begin(self, place: Served) -> None:
        """Go to a place, with nothing counted yet."""
        self._place = place
        self._gaps: list[float] = []
        self._overrun = 0  # tokens behind an answer's end
        self._retries: dict[str, int] = {}

    @contextmanager
    def serving(self, weights: Weights, log: Path, ranks: Ranks) -> Iterator[ServerSampler]:
        """In the block `sample` asks servers that have the weights: an adapter is loaded, a server started if need be.

        log: where a started server's words go; ranks: of which the first does this, and tells the others
        raises: UserError where the servers of sampler.urls cannot have the weights and none is started
        """
        self._told = False
        with self._served(weights, log, ranks):
            yield self

    @contextmanager
    def _served(self, weights: Weights, log: Path, ranks: Ranks) -> Iterator[None]:
        with ExitStack() as opened:
            own: list[Served] = []

            def lead() -> Served:
                if not self._holds(weights) and ranks.count > places.here().beside:
                    raise UserError("sampler.start: starts a server on one machine, and this run is on several")
                own.append(self._served_at(weights, log, opened))
                return Served(own[0].urls, own[0].adapter)

            told = ranks.same(lead)
            self._begin(own[0] if own else told)
            try:
                yield
            finally:
                self._begin(Served(self.urls))

    def _holds(self, weights: Weights) -> bool:
        """Whether the servers of sampler.urls have the whole model, to which an adapter can be given."""
        return weights.held and bool(self.urls)

    def _served_at(self, weights: Weights, log: Path, opened: ExitStack) -> Served:
        patience: dict[str, Any] = {"tries": self.tries, "first_wait": self.first_wait}
        if self._holds(weights):
            if weights.to_come:
                for url in self.urls:
                    adapters.require(url, self._client)
            if weights.adapter is None:
                return Served(self.urls)
            loaded = adapters.loaded(self.urls, weights.adapter, self._client, **patience)
            return Served(self.urls, opened.enter_context(loaded))
        if self.start is None:
            raise UserError(
                f"sampler.start: the servers of sampler.urls do not hold {weights.folder}: give the command that "
                "starts one that does, or sampler.policy=local"
            )
        name = None if weights.adapter is None else adapters.new_name()

        def ready(url: str) -> None:
            if weights.to_come:
                adapters.require(url, self._client)
            if weights.adapter is not None and name is not None:
                adapters.load(url, name, weights.adapter, self._client, **patience)

        health, limit = self._client_of(_HEALTH), self.start_timeout
        server = StartedServer(self.start, weights.folder, log, ready, client=health, patience=limit)
        return Served([], name, opened.enter_context(server))

    def sample(self, model: LanguageModel, requests: Sequence[Request]) -> list[Sampled]:
        """One answer per request, in order; raises UserError when a server refuses, or `tries` tries have failed."""
        if any(request.length is not None for request in requests):
            raise UserError("sampler=server: the length of an answer cannot be imposed: sampler=local")
        if not requests:
            return []
        if not self._place.urls:
            raise UserError("sampler.urls: name at least one server: sampler.urls=[http://host:8000/v1]")
        name = self._place.adapter or self._base_name()
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

    def sample_trained(self, model: LanguageModel, requests: Sequence[Request], scratch: Path) -> list[Sampled]:
        """`sample` by a model that is being trained: its adapter, as it is now, is written to `scratch` and loaded."""
        save(model, scratch, network=model.network)
        try:
            with self._served(Weights(scratch, scratch, held=True), scratch, Ranks()):
                return self.sample(model, requests)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def report(self) -> dict[str, object]:
        """Parity with the local engine on the compared rows, nats per token; failed tries, by reason; tokens cut."""
        rows = len(self._gaps)
        mean = sum(self._gaps) / rows if rows else None
        gaps = {"rows": rows, "mean_gap": mean, "max_gap": max(self._gaps, default=None)}
        tries = {"failed_tries": dict(self._retries), "tokens_behind_ends": self._overrun}
        return {"parity": gaps, **tries, "servers": len(self._place.urls)}

    def _persist(self, index: int, request: Request, name: str, model: LanguageModel) -> Reply:
        """Ask until there is an answer; each try goes to the next server."""
        body = self._body(request, name, model)

        def once(number: int) -> Reply:
            if self._place.server is not None:
                self._place.server.revive()
            url = self._place.urls[(index + number) % len(self._place.urls)]
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
            "top_k": self.top_k or _EVERY,
            "seed": request.key % _SEEDS,
            "logprobs": 1,
            **_PLAIN,
            **self.extra,
        }
        # an end that only the chat template names is none to a server; one that knows no such field is cut
        ends = {} if model.added_end is None else {"stop_token_ids": [model.added_end]}
        return body | ends

    def _base_name(self) -> str:
        """The name of the servers' own model: the only one that they list, adapters left out, or the one given."""
        if self.served and self._place.server is None:
            return self.served
        urls = self._place.urls

        def once(number: int) -> list[str]:
            found = self._client.ask(f"{urls[number % len(urls)]}/models")
            try:
                return [str(entry["id"]) for entry in found["data"] if not entry.get("parent")]
            except (KeyError, TypeError, AttributeError) as error:
                raise Fault(f"a list of models of another form: {type(error).__name__} {error}") from None

        self._stop.clear()
        names = self._patiently(once, "the servers do not say which models they have")
        if self.served in names:
            return str(self.served)
        if len(names) != 1:
            raise UserError(f"sampler.served: the server has several models, name one: {', '.join(names) or 'none'}")
        return names[0]

    def _reply(self, answer: dict, model: LanguageModel) -> Reply:
        reply, behind = replies.read(answer, model.eos_ids, self.max_new_tokens)
        self._overrun += behind
        return reply

    def _compare(self, model: LanguageModel, requests: Sequence[Request], replies: Sequence[Reply]) -> None:
        """Hold some answers' log-probs against the local engine's; raises UserError when they are another model's."""
        usable = [
            (r, s.sampled.ids, s.token_logp)
            for r, s in zip(requests, replies, strict=True)
            if s.token_logp and len(s.token_logp) <= len(s.sampled.ids)
        ]
        rows = usable[:: max(1, len(usable) // max(1, self.parity_rows))][: self.parity_rows]
        if not rows:
            return
        # an EOS that the server left out of its log-probs is left out here too
        groups = [[trees.Completion(r.context_ids, ids[: len(logp)])] for r, ids, logp in rows]
        own = Engine(model, notice=lambda line: None).score(groups)
        gaps = [abs(mine[0] - sum(logp)) / len(logp) for mine, (_, _, logp) in zip(own, rows, strict=True)]
        first, self._told = not self._told, True
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
