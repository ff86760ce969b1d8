"""Weights & Biases, offline unless asked.

Asking never prompts and never hangs: without a key, or when the server does not answer within `connect_seconds`, the
run is offline and one line says so.
"""

from __future__ import annotations

import logging
import netrc
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from dlma.logger.trackers import left_out, one_line
from dlma.ranges import Positive
from dlma.redaction import redact

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)


class WandbTracker:
    """One Weights & Biases run; its files are in `<run_dir>/wandb`, from where `wandb sync` uploads them later."""

    def __init__(
        self,
        *,
        project: str = "dlma",
        mode: Literal["offline", "online", "disabled"] = "offline",
        entity: str | None = None,
        tags: Sequence[str] = (),
        connect_seconds: Positive = 10.0,
        upload_seconds: Positive = 120.0,
    ) -> None:
        self.project = project
        self.mode = mode
        self.entity = entity
        self.tags = tuple(tags)
        self.connect_seconds = connect_seconds
        self.upload_seconds = upload_seconds
        self._run: wandb.Run | None = None
        self._axes: set[str] = set()
        self._folder = Path()

    def start(self, run_dir: Path, name: str, group: str | None, config: dict) -> None:
        """Opens the run; a sweep gives all its cells one `group`. Secrets in `config` are hidden here too."""
        self._axes, self._folder = set(), run_dir / "wandb"
        described = {"dir": run_dir, **redact({"name": name, "group": group, "config": config})}
        if self.mode == "online":
            reason = self._go_online(described)
            if reason is None:
                return
            log.warning("W&B: %s; this run is kept offline in %s", reason, self._folder)
        mode = "offline" if self.mode == "online" else self.mode
        try:
            self._run = self._open(described, mode, self._settings())
        except (_wandb().Error, OSError, ValueError) as error:
            log.warning("W&B: %s; nothing of this run is kept there", one_line(error))

    def _go_online(self, described: dict) -> str | None:
        """Opens an online run, or says why not; takes about `connect_seconds` at the most."""
        began, url = time.monotonic(), server()
        key = api_key(url)
        if key is None and not os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
            return "no API key (run `wandb login` once, or set WANDB_API_KEY)"
        if not reachable(url, self.connect_seconds):
            return f"{url} cannot be reached (tried for {self.connect_seconds:g} s at the most)"
        left = max(1.0, self.connect_seconds - (time.monotonic() - began))
        try:
            # An explicit key: with one, wandb never asks for it, whatever the terminal.
            settings = self._settings(base_url=url, api_key=key, init_timeout=left)
            self._run = self._open(described, "online", settings)
        except (_wandb().Error, ValueError) as error:
            return one_line(error)
        return None

    def _open(self, described: dict, mode: str, settings: wandb.Settings) -> wandb.Run:
        described["dir"].mkdir(parents=True, exist_ok=True)
        return _wandb().init(
            **redact({"project": self.project, "entity": self.entity, "tags": self.tags}),
            mode=mode,
            reinit="finish_previous",
            settings=settings,
            **described,
        )

    def _settings(self, **more) -> wandb.Settings:
        """Silent, nothing about the machine, its code or its command line, and a limit on every wait."""
        return _wandb().Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            login_timeout=self.connect_seconds,
            x_graphql_timeout_seconds=self.connect_seconds,
            x_graphql_retry_max=2,
            finish_timeout=self.upload_seconds,
            **more,
        )

    def log(self, metrics: dict[str, float], step_key: str = "train/step") -> None:
        """One row; `metrics[step_key]` is the axis of all keys that share its first part ("train/")."""
        if self._run is None:
            return
        with left_out("W&B", "a row"):
            if step_key not in self._axes:
                self._axes.add(step_key)
                self._run.define_metric(step_key, hidden=True)
                self._run.define_metric(step_key.split("/")[0] + "/*", step_metric=step_key)
            self._run.log(metrics)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
        """A table of samples or pairs, under its name.

        W&B's preview in the run's media ends at 10,000 rows; the table's artifact holds all (to 200,000).
        """
        if self._run is None:
            return
        with left_out("W&B", f"the table {name}"), _staging(self._folder):
            table = _wandb().Table(columns=list(columns), data=redact([list(row) for row in rows]))
            self._run.log({name: table})

    def finish(self, summary: dict[str, float], exit_code: int = 0) -> None:
        """Closes the run with its summary numbers; a failed cell gives an exit code other than 0."""
        if self._run is None:
            return
        with left_out("W&B", "the summary"):
            self._run.summary.update(summary)
            self._run.finish(exit_code=exit_code)
        self._run = None


def _wandb():
    """wandb, imported when first needed, silent, and with its own error reports to its maker off."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))
    return wandb


@contextmanager
def _staging(folder: Path) -> Iterator[None]:
    """Has wandb keep a table's files in the run folder, not in the home folder, until they are uploaded."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]
        else:
            os.environ["WANDB_DATA_DIR"] = before


def server() -> str:
    """The W&B server's address, from the environment or wandb's own settings."""
    return os.environ.get("WANDB_BASE_URL") or _wandb().setup().settings.base_url


def api_key(url: str) -> str | None:
    """The key for a server: WANDB_API_KEY, or what `wandb login` left in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return os.environ["WANDB_API_KEY"]
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc").expanduser()
    try:
        found = netrc.netrc(path)
    except (OSError, netrc.NetrcParseError):
        return None
    # The hosted service's keys may stand under its older name.
    hosts = [urlsplit(url).netloc] + (["api.wandb.ai"] if urlsplit(url).netloc.endswith("coreweave.com") else [])
    entries = [found.authenticators(host) for host in hosts]
    return next((entry[2] for entry in entries if entry and entry[2]), None)


def reachable(url: str, seconds: float) -> bool:
    """True if anything answers at a URL within `seconds`; an HTTP error is an answer too."""
    answered: list[bool] = []
    # A name lookup has no time limit of its own: hence the thread, which is left behind.
    probe = threading.Thread(target=lambda: answered.append(_answers(url, seconds)), daemon=True)
    probe.start()
    probe.join(seconds)
    return any(answered)


def _answers(url: str, seconds: float) -> bool:
    try:
        urllib.request.urlopen(url, timeout=seconds).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True
