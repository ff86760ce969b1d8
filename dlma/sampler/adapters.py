"""Adapters in running servers, by vLLM's protocol: loaded under a name of their own, and unloaded at the end.

POST /v1/load_lora_adapter {lora_name, lora_path}; vLLM has it where VLLM_ALLOW_RUNTIME_LORA_UPDATING is on (else 404),
and answers 200 and a text, 400 for what it does not take, 404 for a path where it finds no adapter, and 500 for one
that its engine refuses, of too high a rank or without --enable-lora: a further try would bring the same.
POST /v1/unload_lora_adapter {lora_name}: 404 for a name that it does not have.
"""

from __future__ import annotations

import secrets
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dlma import stopping
from dlma.errors import UserError
from dlma.http_client import Client, Fault, insist

_DEFINITE = "HTTP 500"
_NEEDED = (
    "vLLM needs VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora, a --max-lora-rank that is no lower than "
    "recipe.lora.rank, and the same path to see; or sampler.policy=local"
)


def new_name() -> str:
    """A name that no other run gives."""
    return f"dlma-{secrets.token_hex(6)}"


@contextmanager
def loaded(urls: Sequence[str], adapter: Path, client: Client, **patience) -> Iterator[str]:
    """In the block each server has the adapter, under the name that is given; patience: as `load` takes it.

    raises: UserError where a server does not load it; those that have are told to let it go, as at the end
    """
    name = new_name()
    with ExitStack() as opened:
        for url in dict.fromkeys(urls):
            opened.enter_context(_let_go(url, name, client))
            load(url, name, adapter, client, **patience)
        yield name


def load(url: str, name: str, adapter: Path, client: Client, *, tries: int, first_wait: float) -> None:
    """Have a server load an adapter under a name; raises UserError where it does not."""

    def once(number: int) -> bytes:
        try:
            return client.text(f"{url}/load_lora_adapter", {"lora_name": name, "lora_path": str(adapter.absolute())})
        except Fault as fault:
            if str(fault).startswith(_DEFINITE):
                raise UserError(str(fault)) from None
            raise

    try:
        insist(once, tries=tries, first_wait=first_wait, stop=threading.Event())
    except (Fault, UserError) as reason:
        raise UserError(f"sampler.urls: the adapter {adapter} was not loaded: {reason}: {_NEEDED}") from None


def require(url: str, client: Client) -> None:
    """Raise UserError for a server that loads no adapters at all, before there is one."""
    try:
        client.text(f"{url}/load_lora_adapter", {"lora_name": "", "lora_path": ""})
    except UserError as refusal:
        if "HTTP 404" in str(refusal):
            raise UserError(f"sampler.urls: the policy will be an adapter, and {refusal}: {_NEEDED}") from None
    except Fault as fault:
        raise UserError(f"sampler.urls: {fault}") from None


@contextmanager
def _let_go(url: str, name: str, client: Client) -> Iterator[None]:
    """At the end of the block, however it ends, the server is told to unload the adapter, if it has it."""

    def unload() -> None:
        try:
            client.text(f"{url}/unload_lora_adapter", {"lora_name": name})
        except UserError as refusal:
            if "HTTP 404" not in str(refusal):  # it never had it
                print(f"sampler=server: {name} stays loaded: {refusal}", file=sys.stderr)
        except Fault as fault:
            print(f"sampler=server: {name} may stay loaded: {fault}", file=sys.stderr)

    try:
        with stopping.last_words(lambda code, reason: unload()):
            yield
    finally:
        unload()
