"""The date that chat templates write into a conversation (`strftime_now`): the same one on every day."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

_NAMES = {"%b": "Jul", "%B": "July", "%a": "Fri", "%A": "Friday", "%p": "AM"}  # English, whatever the locale
_told: set[str] = set()


class _Today(datetime):
    """A clock that stands; that it was asked is said once."""

    @classmethod
    def now(cls, tz=None) -> _Today:
        return PINNED

    def strftime(self, form: str) -> str:
        if not _told:
            _told.add(form)
            print(
                f"the chat template writes the date: pinned to {self:%Y-%m-%d}; where the template has a variable for "
                "it, such as date_string, prompts.chat_options sets another",
                file=sys.stderr,
            )
        return format(self, form)

    def __format__(self, form: str) -> str:
        for code, name in _NAMES.items():
            form = form.replace(code, name)
        return super().strftime(form)


PINNED = _Today(2024, 7, 26)  # what the templates of Llama 3 write where they are given no clock


@contextmanager
def pinned() -> Iterator[None]:
    """In the block, chat templates are rendered on the pinned day: transformers offers them its own clock only."""
    from transformers.utils import chat_template_utils

    module: Any = chat_template_utils
    before, module.datetime = module.datetime, _Today
    try:
        yield
    finally:
        module.datetime = before
