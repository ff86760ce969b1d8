"""The start of a run in several processes on this machine: `trainer.devices=N`, by torch's elastic launcher.

torchrun and SLURM's srun start the processes themselves, on one machine or many; what they do then is the same
(dlma/trainer/ranks.py). A cell of a sweep starts its own.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

from omegaconf import DictConfig, OmegaConf

from dlma import stopping
from dlma.config.build import target
from dlma.errors import Stopped, UserError
from dlma.trainer import place as places
from dlma.trainer import ranks

MARK = "_ranks_"  # in the YAML of a mode that several processes can share
_LAST = 4  # seconds for the processes of a run that is stopped to end by themselves
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class RankEnded(Exception):
    """A process of the run ended before its time; the message has its reason."""


def require_one_run(cfg: DictConfig, *, sweep: bool) -> None:
    """Raise UserError where a launcher has started several processes for what one does."""
    place = places.here()
    if place.count > 1 and sweep:
        raise UserError(
            f"-m: {place.launcher} has started {place.count} processes for a sweep: start one, whose cells start "
            "theirs (trainer.devices=N), or a run for each cell (docs/scale.md)"
        )
    if place.count > 1 and MARK not in cfg.mode:
        raise UserError(
            f"mode: {cfg.mode._target_} works in one process, and {place.launcher} has started {place.count}"
        )


def require(cfg: DictConfig) -> None:
    """Raise UserError for what several processes cannot do together, before anything is loaded."""
    place, devices = places.here(), cfg.trainer.devices
    if place.launcher and devices not in (1, place.beside):
        raise UserError(
            f"trainer.devices={devices}: {place.launcher} has started {place.beside} processes on this machine: "
            "trainer.devices=1"
        )
    if MARK not in cfg.mode:
        return
    count = max(place.count, devices)
    if cfg.trainer.accelerator != "cpu":
        _require_devices(cfg.trainer.accelerator, place, count)
    reason = refusal(cfg, count, by=f"trainer.devices={devices}" if place.count == 1 else place.launcher)
    if reason is not None:
        raise UserError(reason)


def refusal(cfg: DictConfig, count: int, by: str) -> str | None:
    """Why so many processes cannot make a run together, whatever machine they are on; by: what asked for them."""
    if count == 1:
        return None
    rule = target(cfg.objective)
    if rule is not None and not getattr(rule, "shares_steps", False):
        return f"{by}: {rule.__name__} trains in one process, not in {count}"
    if target(cfg.executor).one_process:
        return f"{by}: the workers of executor=ray are handed their shards by one process, not by {count}"
    if cfg.iterations > 1:
        return f"iterations={cfg.iterations}: later rounds go on in one process, not in {count}"
    return None


def _require_devices(accelerator: str, place: places.Place, count: int) -> None:
    from dlma.trainer import devices

    alone = place.count == 1 or accelerator == "mps"
    if alone or place.launcher == "torchrun":  # srun may show each process its own device alone
        devices.require(accelerator, count if alone else place.beside)


def needed(cfg: DictConfig) -> bool:
    """Whether this process is to start those of the run."""
    return cfg.trainer.devices > 1 and MARK in cfg.mode and not places.here().launcher


def start(task: Callable[[DictConfig], dict], cfg: DictConfig) -> dict:
    """Call `task` with the config in `trainer.devices` processes; what it returns in the first.

    raises: RankEnded with the reason of the process that ended first, if one did; Stopped
    """
    from hydra.core.hydra_config import HydraConfig
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    with tempfile.TemporaryDirectory(prefix="dlma_") as logs, _put_back(), _silent_elastic():
        os.environ.setdefault(*places.QUIET)
        if multiprocessing.get_start_method(allow_none=True) == "loky":  # joblib's, unknown to others
            multiprocessing.set_start_method("spawn", force=True)
        launch = elastic_launch(_settings(cfg.trainer.devices, Path(logs)), _enter)
        try:
            # as plain values: the launchers' own classes cannot be pickled out of joblib's workers
            return launch(task, cfg, OmegaConf.to_container(HydraConfig.get(), resolve=False))[0]
        except SignalException as stop:
            raise Stopped(stop.sigval) from None
        except ChildFailedError as ended:
            _explain(*ended.get_first_failure())


def _settings(processes: int, logs: Path):
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="dlma",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        shutdown_timeout=_LAST,
        logs_specs=DefaultLogsSpecs(log_dir=str(logs)),
    )


def _explain(number: int, failure) -> NoReturn:
    said = failure.message["message"] if isinstance(failure.message, dict) else ""
    how = f"killed by signal {failure.signal_name()}" if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    raise RankEnded(f"process {number} of the run ended: {said.removeprefix('error: ') or how}") from None


def _enter(task: Callable[[DictConfig], dict], cfg: DictConfig, hydra: dict) -> dict:
    """What each process of the run does."""
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().cfg = cast(Any, OmegaConf.create({"hydra": hydra}))
    with stopping.heeded(), ranks.unheard():
        try:
            said = task(cfg)
            code = said["code"]
        except Stopped as stop:
            code = stop.code
        except KeyboardInterrupt:
            code = 130
        if code:
            stopping.leave(code)
        return said


@contextmanager
def _put_back() -> Iterator[None]:
    """Put back what is done here, and by torch's launcher, to the environment and to signals."""
    handlers, before = {number: signal.getsignal(number) for number in _SIGNALS}, dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextmanager
def _silent_elastic() -> Iterator[None]:
    """What torch's launcher says of a process that failed is said by us, in a line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
