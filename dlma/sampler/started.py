"""A server that is started for a stage and ended with it: `sampler.start`, a command with {model} and {port}.

The command is run without a shell, in a process group of its own, and listens on this machine. It is waited for until
it answers, and at the end its whole group is asked to end (SIGTERM) and then ended (SIGKILL). A guard beside it does
the same when this process is gone, whatever ended it. What the server says goes to a log, without known secrets.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO

from dlma import redaction
from dlma.errors import UserError
from dlma.http_client import Client, Fault

GRACE = 10.0  # seconds from SIGTERM to SIGKILL
STARTS = 4  # of one stage, the first included
_LOOK = 0.2  # seconds between two looks at whether it answers
_SHOWN = 200  # characters of what it said last
# Reads until the pipe closes, which it does when the process that holds the other end is gone.
_GUARD = 'read -r _; kill -s TERM -- "-$1"; sleep 5; kill -s KILL -- "-$1"'


class StartedServer:
    """The server of a command, in a `with` block; `revive` starts it again where it has ended.

    model: the folder of the weights that it is to serve
    log: where what it says is added
    ready: called with its base each time that it answers after a start
    client: asks whether it answers
    patience: seconds from a start to the first answer
    raises: UserError where it ends or does not answer in that time
    """

    def __init__(
        self, command: str, model: Path, log: Path, ready: Callable[[str], None], *, client: Client, patience: float
    ) -> None:
        self.command = command
        self.model = model
        self.log = log
        self.ready = ready
        self.client = client
        self.patience = patience
        self.port = _free_port()
        self._starts = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._said: deque[str] = deque(maxlen=20)
        self._process: subprocess.Popen | None = None
        self._guard: subprocess.Popen | None = None
        self._copier: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Its base, such as http://127.0.0.1:port/v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> StartedServer:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        with self._lock:
            self._end()

    def revive(self) -> None:
        """Start it again if it has ended; raises UserError where it does not come back."""
        with self._lock:
            if self._over.is_set() or self._process is None or self._process.poll() is None:
                return
            if self._starts >= STARTS:
                raise UserError(f"sampler.start: the server ended {STARTS} times in one stage: {self._last_words()}")
            print(f"sampler.start: the server ended ({self._ending()}); it is started again", file=sys.stderr)
            self._end()
            self._start()

    def _start(self) -> None:
        """Returns when it answers; where somebody else has taken its port meanwhile, another one is tried."""
        while True:
            self._starts += 1
            self._launch()
            if self._answers():
                return self.ready(self.url)
            said, taken = self._last_words(), _is_taken(self.port)
            self._end()
            if not taken or self._starts >= STARTS:
                raise UserError(f"sampler.start: the server ended before it answered: {said}")
            self.port = _free_port()

    def _launch(self) -> None:
        values = {"{model}": str(self.model), "{port}": str(self.port)}
        words = [_filled(word, values) for word in shlex.split(self.command)]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._said.clear()
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as reason:
            raise UserError(f"sampler.start: {words[0]}: cannot be started: {reason.strerror}") from None
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        heading = f"== {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(words)}\n"
        self._copier = threading.Thread(target=self._copy, args=(self._process.stdout, heading), daemon=True)
        self._copier.start()

    def _copy(self, stream: IO[bytes], heading: str) -> None:
        """What the server says, line by line."""
        with stream, self.log.open("a", encoding="utf-8") as out:
            out.write(redaction.text(heading))
            for line in stream:
                text = redaction.text(line.decode("utf-8", "replace"))
                out.write(text)
                out.flush()
                if text.strip():
                    self._said.append(text.strip())

    def _answers(self) -> bool:
        """Whether it answered before it ended; raises UserError where it does neither in time."""
        assert self._process is not None
        until = time.monotonic() + self.patience
        while self._process.poll() is None:
            if self._over.is_set():
                raise Fault("stopped")
            if self._is_healthy():
                return self._process.poll() is None
            if time.monotonic() > until:
                raise UserError(
                    f"sampler.start: the server does not answer {self.patience:g} s after its start "
                    f"(sampler.start_timeout): {self._last_words()}"
                )
            time.sleep(_LOOK)
        return False

    def _is_healthy(self) -> bool:
        """By /health, or by the list of models where a server has no such page."""
        for page in (self.url.removesuffix("/v1") + "/health", f"{self.url}/models"):
            with contextlib.suppress(UserError):  # a refusal: there is no such page
                try:
                    self.client.text(page)
                except Fault:
                    return False
                return True
        return False

    def _end(self) -> None:
        """End its group and the guard; nothing where there is none."""
        process, guard, copier = self._process, self._guard, self._copier
        self._process = self._guard = self._copier = None
        if process is not None:
            _signal(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            _signal(process.pid, signal.SIGKILL)  # also what it left behind
            process.wait()
        if guard is not None:
            guard.kill()
            guard.communicate()
        if copier is not None:
            copier.join(GRACE)

    def _ending(self) -> str:
        code = None if self._process is None else self._process.poll()
        return f"exit code {code}" if code is None or code >= 0 else f"signal {signal.Signals(-code).name}"

    def _last_words(self) -> str:
        if self._copier is not None:
            self._copier.join(1.0)
        said = self._said[-1] if self._said else "it said nothing"
        return f"{said[:_SHOWN]} ({self.log})"


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def _is_taken(port: int) -> bool:
    """Whether somebody listens at a port of this machine."""
    with socket.socket() as asked:
        asked.settimeout(1.0)
        return asked.connect_ex(("127.0.0.1", port)) == 0


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
