"""What servers of the completions protocol answer, read: token ids, their log-probs, and how an answer ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dlma.errors import UserError
from dlma.http_client import Fault
from dlma.sampler.local import Sampled

# How servers call the end of an answer: vLLM and SGLang stop, length, abort (vLLM also error and repetition);
# TGI eos_token, length, stop_sequence; llama.cpp stop and length, in its own protocol eos, limit, word.
_ENDED = ("stop", "eos_token", "eos")
_CUT = ("length", "limit")
_BROKEN_OFF = ("abort", "error", None)  # by the server, not by the model: another try may end


@dataclass(frozen=True)
class Reply:
    """An answer from the server, with the log-prob of each of its tokens (nats) where the server gave them."""

    sampled: Sampled
    token_logp: list[float] | None


def read(answer: dict, eos_ids: frozenset[int], limit: int) -> tuple[Reply, int]:
    """A server's answer, and how many tokens stood behind its end.

    limit: the most tokens that were asked for
    raises: Fault where another try may bring a usable answer, UserError where none will
    """
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
    sampled = _ended(ids, ended, choice, eos_ids)
    if len(sampled.ids) > limit or not (sampled.finished or len(sampled.ids) == limit):
        raise UserError(
            f"sampler.urls: an answer of {len(sampled.ids)} tokens that is not ended, where recipe.max_new_tokens="
            f"{limit}: the server has a limit of its own"
        )
    found = [float(v) for v in logp] if logp and None not in logp else None
    return Reply(sampled, found), max(0, len(ids) - len(sampled.ids))


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
    named: list[Any] = [part for value in said for part in (value if isinstance(value, list) else [value])]
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
