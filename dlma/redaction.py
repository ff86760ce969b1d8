"""Secrets: what counts as one, and how it is kept out of all that is written: values, text and bytes.

A value is secret by the name that holds it (`is_secret`): a key of the config, a variable of the environment, a part of
an address's query. `redact` hides by name, in trees; `text` and `data` hide by value whatever the environment's
variables hold and `learn` has seen, in every form that a file or a screen gives it. `files.write_bytes` and `screen`
call them, so nobody else has to. Values below 8 characters, numbers and switches are no secrets by value: hiding
them everywhere would hide other text.
"""

from __future__ import annotations

import functools
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

HIDDEN = "<redacted>"
SHORTEST = 8

_NAME = re.compile(
    r"(^|[_\-. ])(\w*(api_?key|access_?key|private_?key|secret|credential|passw(or)?d)s?|key([_-]?id)?|token|pass|"
    r"passphrase|pat|auth|authorization|bearer|cookie|sig|signature)([_\-]?\d+)?$",
    re.I,
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # clientSecret: client_Secret
_URL = re.compile(r"\w[\w+.\-]*://[^\s\"'<>]+")
_USER = re.compile(r"(\w://)[^/@\s]+@")
_QUERY = re.compile(r"([?&;#]([\w.\-]+)=)[^&\s#\"'<>\\]+")
_ASSIGNED = re.compile(r"([\w.\-]+)['\"]?\s*[=:]\s*(\"[^\"]*\"|'[^']*'|[^\s,'\"{}\[\]]+)")
_FLAG = re.compile(r"--([\w\-]+)\s+(\"[^\"]*\"|'[^']*'|[^\s'\"{}-][^\s'\"]*)")  # --api-key VALUE, in a command
_SCHEME = re.compile(r"(bearer|basic|token)\s+", re.I)  # of an Authorization header, before the secret itself
_BARE = re.compile(r"(?://)?([^\s/@:]+:[^\s/@]+)@[\w.\-]+(:\d+)?(/\S*)?")  # an address without http:
_OVERRIDE = re.compile(r"([+~]*[\w./@\-]+)=(?!$)(.*)", re.S)

_learned: set[str] = set()


@functools.lru_cache(maxsize=4096)
def is_secret(key: str) -> bool:
    """Whether a name says that its value is a secret (`api_key`, `hf_token`, `clientSecret`; not `max_new_tokens`)."""
    return _NAME.search(_CAMEL.sub("_", key)) is not None


@contextmanager
def session() -> Iterator[None]:
    """What `learn` sees inside is forgotten at the end, so that commands in one process know nothing of each other."""
    before = set(_learned)
    try:
        yield
    finally:
        _learned.clear()
        _learned.update(before)


def learn(tree: object) -> None:
    """Hide from now on, by value, what a config holds under secret names and in its addresses."""
    _learned.update(_held(tree))


def learn_words(words: Iterable[str]) -> None:
    """The same for a command line, before it is parsed: `key=value`; inside of values `key: value`, `--key value`."""
    for word in words:
        told = [*_ASSIGNED.findall(word), *_FLAG.findall(word)]
        _learned.update(value.strip("'\"") for name, value in told if is_secret(name))
        _learned.update(_of_urls(word))


def _held(tree: object, secret: bool = False) -> Iterator[str]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _held(value, secret or is_secret(str(key)))
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _held(value, secret)
    elif isinstance(tree, str):
        yield from [tree, _SCHEME.sub("", tree, count=1)] if secret else (*_of_urls(tree), *_of_text(tree))


def _of_text(line: str) -> Iterator[str]:
    """What stands behind secret names inside a text, as in a header: a word without a digit may be prose."""
    found = [both for both in _ASSIGNED.findall(_SCHEME.sub("", line)) if re.search(r"\d", both[1])]
    return (value.strip("'\"") for name, value in (*found, *_FLAG.findall(line)) if is_secret(name))


def _of_urls(line: str) -> Iterator[str]:
    """The credentials of the addresses in a text: before `@`, under secret names in the query, of the environment."""
    bare = _BARE.fullmatch(line)
    if bare:
        yield from _of_user(bare[1])
    for url in _URL.findall(line):
        try:
            parts = urlsplit(url)
            given = parse_qsl(f"{parts.query}&{parts.fragment}")
        except ValueError:  # no address after all
            continue
        yield from _of_user(_user(url, parts.netloc))
        yield from (value for name, value in given if is_secret(name) and value)
        yield from (value for value in _of_environment() if value in url)


def _user(url: str, netloc: str) -> str:
    """What stands before `@`; a password with a slash in it is cut from the host by the slash."""
    if "@" not in netloc and re.search(r":(?!\d*$)", netloc) and "@" in url:
        return url.partition("://")[2].rpartition("@")[0]
    return netloc.rpartition("@")[0]


def _of_user(user: str) -> Iterator[str]:
    return (part for part in (user, *user.split(":", 1)) if part)


def in_url(line: str) -> bool:
    """Whether a text has an address with a credential in it."""
    return any(True for _ in _of_urls(line))


def from_environment(line: str) -> bool:
    """Whether a text holds what a secret variable of the environment holds."""
    return any(value in line for value in _of_environment())


def _of_environment() -> Iterator[str]:
    values = (os.environ[name].strip() for name in list(os.environ) if is_secret(name))
    return (value for value in values if _is_telling(value))


def _is_telling(value: str) -> bool:
    """Whether a value can be hidden wherever it stands: long enough, and no number."""
    if len(value) < SHORTEST or HIDDEN in value:
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def text(line: str) -> str:
    """A text without secrets: known values in any form, and the credentials of addresses."""
    line = _without(line)
    if "=" in line or "@" in line:
        line = _USER.sub(rf"\1{HIDDEN}@", line)
        line = _QUERY.sub(lambda found: found[1] + HIDDEN if is_secret(found[2]) else found[0], line)
    return line


def data(content: bytes) -> bytes:
    """The content of a text file without known values; bytes that are no UTF-8 stay as they are."""
    for form in _forms(_known()):
        content = content.replace(form.encode("utf-8", "surrogateescape"), HIDDEN.encode())
    return content


def redact(tree: Any) -> Any:
    """The same tree without secrets: by the names of its keys and of overrides (`key=value`), and by value."""
    if isinstance(tree, Mapping):
        return {
            text(key) if isinstance(key, str) else key: HIDDEN if _hides(str(key), value) else redact(value)
            for key, value in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [redact(item) for item in tree]
    if not isinstance(tree, str):
        return tree
    found = _OVERRIDE.fullmatch(tree)
    return f"{found[1]}={HIDDEN}" if found and _hides(found[1], _switch(found[2])) else text(tree)


def _hides(key: str, value: object) -> bool:
    return is_secret(key) and value is not None and not isinstance(value, bool)  # a switch such as per_token is none


def _switch(value: str) -> object:
    return {"true": True, "false": False, "null": None}.get(value.lower(), value)


def _without(line: str) -> str:
    if len(line) < SHORTEST:  # no form is as short; most parts of a table on the screen are
        return line
    for form in _forms(_known()):
        line = line.replace(form, HIDDEN)
    return line


def _known() -> frozenset[str]:
    return frozenset({*_of_environment(), *filter(_is_telling, map(str.strip, _learned))})


@functools.lru_cache(maxsize=16)
def _forms(values: frozenset[str]) -> tuple[str, ...]:
    """How each value may stand in a file or on a screen, the longest form first; of several lines, each is one."""
    lines = {line.strip() for value in values for line in value.splitlines() if _is_telling(line.strip())}
    forms = {form for value in values | lines for form in _written(value) if len(form) >= SHORTEST}
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))


def _written(value: str) -> Iterator[str]:
    yield from (value, unquote(value), quote(value, safe=""), quote(value), quote_plus(value), html.escape(value))
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    yield from (value.replace("'", "''"), value.replace("'", "'\"'\"'"))  # YAML's and the shell's quotes
    yield value.replace("[", "\\[")  # rich's markup
    yield json.dumps(value)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")  # in a page
