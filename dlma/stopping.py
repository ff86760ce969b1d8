"""SIGTERM and Ctrl-C: the work is broken off, and the process has ended a few seconds later.

The first signal raises Stopped in the main thread. Python does that between two of its own instructions, so a main
thread that is deep in native code hears nothing; a thread of our own hears it at once, and ends a process that is
still there after GRACE seconds. A second signal ends it at once. Nothing is lost by that: stages, shards, replies and
resume points are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from dlma.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 3.0  # seconds from a signal to the end of a process that does not end by itself
_WORDS = 1.0  # seconds that last words may take: a pipe that nobody reads takes none
_OVER = 0  # no signal's number: the watch is over

_words: list[Callable[[int, str], object]] = []
_watch: _Watch | None = None
_fork = threading.local()


@contextmanager
def heeded() -> Iterator[None]:
    """In the block both signals stop the work; what they did before comes back after it.

    A signal that the process was started to ignore (nohup, a background job) stays ignored. In any thread but the
    main one, and inside another such block, nothing changes.
    """
    global _watch
    if _watch is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _watch = _Watch()
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, _watch.stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _watch.close()
        _watch = None


@contextmanager
def last_words(say: Callable[[int, str], object]) -> Iterator[None]:
    """In the block, a process that has to be ended calls `say` before; the innermost comes first.

    say: is given the exit code, and the reason; none where a signal is the reason
    """
    _words.append(say)
    try:
        yield
    finally:
        _words.remove(say)


def leave(code: int) -> NoReturn:
    """End the process now: without waiting for threads that sit in a request or a sleep."""
    _flush()
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a reader that is gone, a stream that is closed
            stream.flush()


class _Watch:
    """The thread that hears of every signal, whatever the main thread does."""

    def __init__(self) -> None:
        self._heard, self._tell = os.pipe()
        os.set_blocking(self._tell, False)
        self._before = signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)
        self._stopped = False
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()

    def stop(self, number: int, frame: object) -> None:
        """The handler: breaks the work off, once; a second signal is the thread's business."""
        if not self._stopped:
            self._stopped = True
            raise Stopped(number)

    def close(self) -> None:
        signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
        os.write(self._tell, bytes([_OVER]))
        self._thread.join()
        os.close(self._heard)
        os.close(self._tell)

    def _listen(self) -> None:
        first, until = _OVER, 0.0
        while True:
            left = max(0.0, until - time.monotonic()) if first else None
            if not select.select([self._heard], [], [], left)[0]:
                end(Stopped(first).code)
            number = os.read(self._heard, 1)[0]
            if number == _OVER:
                return
            if number in SIGNALS and first:
                end(Stopped(first).code)
            if number in SIGNALS:
                first, until = number, time.monotonic() + GRACE


def end(code: int, reason: str = "") -> NoReturn:
    """End a process whose main thread does not: the last words, then nothing more."""
    speaker = threading.Thread(target=_speak, args=(code, reason), daemon=True)
    speaker.start()
    speaker.join(_WORDS)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def _speak(code: int, reason: str) -> None:
    for say in reversed(_words):
        with contextlib.suppress(OSError):  # a full disk does not keep the process
            say(code, reason)
    _flush()


def _before_fork() -> None:
    """A signal to a child that still has its parent's handlers would go into the parent's pipe: it is held back."""
    _fork.held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _fork.held)


def _in_child() -> None:
    """A forked child has no such thread, and must not speak to its parent's."""
    global _watch
    if _watch is not None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _watch = None
        _words.clear()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
