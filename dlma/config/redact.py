"""Values without secrets: by the name of a key, by the environment's own secrets, and in URLs."""

from __future__ import annotations

import os
import re

SECRET = re.compile(
    r"(^|[_\-.])(api_?key|key_?id|access_?key|private_?key|token|passw(or)?d|secrets?|credentials?|auth)$", re.I
)
IN_URL = re.compile(r"(\w+://)[^/@\s]+@")
HIDDEN = "<redacted>"


def is_secret(key: str) -> bool:
    """Whether a key's name says that its value is a secret (`api_key`, `hf_token`; not `max_new_tokens`)."""
    return SECRET.search(key) is not None


def redact(values: dict) -> dict:
    """The same tree without secrets: by the key's name, by the environment's secrets, and in URLs."""
    planted = [value for name, value in os.environ.items() if is_secret(name) and len(value) >= 8]
    return _redact(values, planted)


def _hides(key: str, value: object) -> bool:
    return is_secret(key) and value is not None and not isinstance(value, bool)  # a switch such as per_token is none


def _redact(value: object, planted: list[str]) -> object:
    if isinstance(value, dict):
        return {k: HIDDEN if _hides(str(k), v) else _redact(v, planted) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_redact(item, planted) for item in value]
    if not isinstance(value, str):
        return value
    for secret in planted:
        value = value.replace(secret, HIDDEN)
    return IN_URL.sub(rf"\1{HIDDEN}@", value)
