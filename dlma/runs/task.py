"""One run, or one cell of a sweep: the mode is called with the config, and what became of it stands in `status.json`.

A cell that fails does not stop the others. Exit codes: 0 done, 1 an unexpected error, 2 a mistake that the user can
mend, 130 stopped by Ctrl-C, 143 by SIGTERM (dlma/stopping.py).
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from dlma import files, redaction, screen, stopping, wheels
from dlma.config import run_names
from dlma.config.build import build, resolved
from dlma.config.check import check
from dlma.config.relations import broken_in_a_run
from dlma.config.run_names import run_folder
from dlma.errors import Stopped, Unavailable, UserError
from dlma.runs import status as run_status
from dlma.runs import study, written
from dlma.runs.folder import STATUS
from dlma.trainer import launch, ranks
from dlma.trainer import place as places

run_names.register()  # here, so that a launcher's worker, which imports this module for `task`, knows them too

INTERRUPTED = {Stopped(number).code for number in stopping.SIGNALS}


def unexpected() -> int:
    """Show the error that is being handled in full; returns its exit code."""
    return say(traceback.format_exc(), 1)


def code_of(stop: BaseException) -> int:
    """The exit code of a run that was stopped: without a signal of its own it was Ctrl-C."""
    return stop.code if isinstance(stop, Stopped) else 130


def say(line: str, code: int) -> int:
    """Say how a process ends, also to the launcher that started it; returns the exit code."""
    print(line, file=sys.stderr, flush=True)
    if code not in INTERRUPTED:
        places.leave_word(line)
    return code


def unwritable(reason: OSError) -> str:
    """A full, read-only or forbidden folder, in one line."""
    where = reason.filename or "the output folder"
    folders = "hydra.run.dir=... (a sweep's is hydra.sweep.dir=...), store.root=..."
    return f"{where}: {reason.strerror}; free space, or choose other folders: {folders}"


@screen.guarded()  # a launcher's worker is a process of its own
@screen.quiet()
def task(cfg: DictConfig) -> dict:
    """One run or one cell: call the mode with the config; what became of it is written and returned."""
    status = _run(cfg)
    return study.Told(status, cfg.sweep) if _in_study() else status


def _run(cfg: DictConfig) -> dict:
    if places.here().number:
        return _beside(cfg)
    status = _started()
    try:
        written.refuse_foreign(run_folder())
        written.refuse_other(run_folder(), status["mode"])
    except UserError as reason:  # and no status is written there either
        return status | {"status": "failed", "reason": str(reason), "code": say(f"error: {reason}", 2)}
    inputs: list[Path] = []
    try:
        _require(cfg)
        inputs = run_status.inputs(cfg)
        if _is_cell() and (known := _from_ledger(cfg, status)) is not None:
            return known
        _one_thread_each(cfg)
        if launch.needed(cfg):
            return _with_ranks(cfg, status)
        _write(status)
        with stopping.last_words(lambda code, reason: _fail(status, reason or "interrupted", code)), ranks.joined(cfg):
            status |= {"status": "done", "code": 0, "result": _result(cfg)}
    except (KeyboardInterrupt, Stopped) as stop:
        _fail(status, "interrupted", code_of(stop))
        raise
    except SystemExit as stop:  # Lightning's answer to Ctrl-C
        _fail(status, "interrupted", code_of(stop))
        raise KeyboardInterrupt from stop
    except Exception as reason:  # the boundary: what nobody can mend is shown in full; the other cells go on
        mistake = _mistake(reason, inputs)
        if mistake is None:
            _fail_unexpectedly(status, reason)
        else:
            status["again"] = isinstance(mistake, Unavailable)
            _fail(status, str(mistake), 2)
    else:
        _write(status)
    return status


def _require(cfg: DictConfig) -> None:
    """Raise UserError for what is wrong with a config, before anything is loaded."""
    check(cfg)
    found = broken_in_a_run(resolved(cfg)) if cfg.mode._target_ == "dlma.modes.run.run" else iter(())
    for key, what in found:
        raise UserError(f"{key}: {what}")
    launch.require(cfg)
    wheels.require(resolved(cfg))


def _with_ranks(cfg: DictConfig, status: dict) -> dict:
    """What the first of the run's processes says became of it; the reason is raised where it could not say it."""
    try:
        return launch.start(task, cfg)
    except launch.RankEnded as end:
        told = run_status.read(run_folder() / STATUS)
        if told is None or told["status"] != "failed" or told["started"] < status["started"]:
            raise Unavailable(str(end)) from None
        return told


def _beside(cfg: DictConfig) -> dict:
    """The part of a process beside the first, which hears of its errors and says them."""
    code = 0
    try:
        _require(cfg)
        with ranks.joined(cfg):
            build(cfg.mode, cfg)
    except Exception as reason:  # the boundary, as in `task`
        mistake = _mistake(reason, [])
        code = unexpected() if mistake is None else say(f"error: {mistake}", 2)
    return {"code": code}


def _mistake(reason: Exception, inputs: list[Path]) -> UserError | None:
    """What the user can mend of the reason why a run failed; inputs: the files that were there when it began."""
    gone = next((path for path in inputs if not path.exists()), None)
    if gone is not None and isinstance(reason, OSError | UserError):
        return Unavailable(f"{gone}: is gone since the run began; put it back, then run the same command again")
    if isinstance(reason, OSError) and reason.errno in files.UNWRITABLE:
        return Unavailable(unwritable(reason))
    return reason if isinstance(reason, UserError) else None


def _is_cell() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.get().mode == RunMode.MULTIRUN


def _result(cfg: DictConfig) -> dict:
    """What the mode returns; of a study's cell it has what it is worth."""
    result = build(cfg.mode, cfg)
    if _in_study():
        study.worth(cfg.sweep, result)
    return result


def _in_study() -> bool:
    """Whether a cell's worth is what its sweeper goes by."""
    from hydra.core.hydra_config import HydraConfig

    return _is_cell() and study.is_study(HydraConfig.get().sweeper._target_)


def _from_ledger(cfg: DictConfig, status: dict) -> dict | None:
    """What becomes of a cell that is not run: settled at an earlier start, or not begun after another's failure."""
    folder = run_folder()
    if cfg.sweep.on_error == "stop" and run_status.stopped(folder.parent):
        return {**status, "status": "not started"}
    status["digest"] = run_status.digest(cfg)
    earlier = run_status.settled(folder, status["digest"], retry_failed=cfg.sweep.retry_failed)
    if earlier is None:
        return None
    known = {**earlier, **{name: status[name] for name in ("number", "started", "start")}}
    _write(known)
    return known


def _one_thread_each(cfg: DictConfig) -> None:
    """Cells side by side on one machine share its cores: one torch thread each, unless trainer.threads says."""
    from hydra.core.hydra_config import HydraConfig

    side_by_side = "joblib" in HydraConfig.get().launcher._target_
    if side_by_side and OmegaConf.select(cfg, "trainer.threads") == 0:
        cfg.trainer.threads = 1


def _started() -> dict:
    from hydra.core.hydra_config import HydraConfig

    hydra = cast(DictConfig, HydraConfig.get())
    return {
        "name": run_folder().name,
        "mode": hydra.runtime.choices.get("mode", "run"),
        "number": OmegaConf.select(hydra, "job.num", throw_on_missing=False) or 0,
        "overrides": [line.lstrip("+") for line in hydra.overrides.task],
        "started": time.time(),
        "start": run_status.start_of(run_folder().parent) if _is_cell() else None,
        "status": "running",
        "reason": None,
        "code": 1,
        "result": None,
    }


def _fail(status: dict, reason: str, code: int) -> None:
    status |= {"status": "interrupted" if code in INTERRUPTED else "failed", "reason": reason, "code": code}
    if code not in INTERRUPTED:
        say(f"error: {reason}", code)
    with contextlib.suppress(OSError):  # a full disk is the reason already given
        _write(status)


def _fail_unexpectedly(status: dict, reason: BaseException) -> None:
    status["traceback"] = traceback.format_exc()
    print(status["traceback"], file=sys.stderr)
    _fail(status, f"{type(reason).__name__}: {reason}", 1)


def _write(status: dict) -> None:
    """status.json, by one rename, without secrets."""
    files.write_checked(run_folder() / STATUS, redaction.redact(status))
