"""Terminal output: text from models, data and configs is shown as text, and secrets are not shown.

`guarded` stands before standard output and standard error, so that `print`, logging, warnings and tracebacks need no
care. rich writes colours, which a plain stream would show as text: `Console` guards what it is given instead, and
its own output is only searched for secrets. Markup is the caller's: `rich.markup.escape`.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from dlma import redaction

# C0 without tab and line feed, DEL, C1; marks, separators, overrides and isolates of the direction; lone surrogates.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BAR = re.compile(r"\r[^\x00-\x1f\x7f-\x9f]*|(\n|\x1b\[A)+")  # what a progress bar writes: from the line's start, or up

_CHATTY = ("bitsandbytes", "transformers", "kernels", "torch.distributed", "lightning", "pytorch_lightning")
_VERBOSITY = "TRANSFORMERS_VERBOSITY"


def visible(text: str) -> str:
    r"""Text whose control characters stand there as escapes (`\x1b`, `\u202e`); lines and tabs stay."""
    return _UNSEEN.sub(lambda found: _escape(ord(found[0])), text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def shown(text: str) -> str:
    """Text as the terminal may have it: visible, and without secrets."""
    return visible(redaction.text(text))


def _beside_bars(text: str) -> str:
    return redaction.text(text) if _BAR.fullmatch(text) else shown(text)


class Stream:
    """A text stream that changes what is written to it; otherwise the stream that it stands before."""

    def __init__(self, stream: TextIO, change: Callable[[str], str]) -> None:
        self._stream, self._change = stream, change

    def write(self, text: str) -> int:
        self._stream.write(self._change(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    @property
    def rich_proxied_file(self) -> Stream:
        """Where rich writes: its escapes pass."""
        return Stream(self._stream, redaction.text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Both standard streams guarded, once; progress bars belong to standard error."""
    before = sys.stdout, sys.stderr
    if not isinstance(sys.stdout, Stream):
        sys.stdout = Stream(sys.stdout, shown)
    if not isinstance(sys.stderr, Stream):
        sys.stderr = Stream(sys.stderr, _beside_bars)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def quiet() -> Iterator[None]:
    """What libraries say to each other is left out: warnings about their own future, kernels that they do without.

    With HYDRA_FULL_ERROR=1, for looking for a fault, all of it is shown.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        yield
        return
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    verbosity = os.environ.get(_VERBOSITY)
    os.environ.setdefault(_VERBOSITY, "error")  # read by transformers when it is imported
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", category=kind)
        warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, of a notebook without ipywidgets
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if verbosity is None:
                os.environ.pop(_VERBOSITY, None)


@contextmanager
def silent() -> Iterator[None]:
    """In the block nothing is shown."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


class Console(RichConsole):
    """rich's console for text that nobody has looked at: guarded, and `:name:` is no emoji."""

    def render_str(self, text: str, **how) -> Text:
        return super().render_str(shown(text), **{**how, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))
