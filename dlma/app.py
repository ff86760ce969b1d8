"""The entry: check the command line, run Hydra, and say in one line what went wrong.

A run or a sweep's cell calls the mode's target with the config. What became of it stands in the run folder's
`status.json`; a failed cell does not stop the others. Exit codes: 0 done, 1 an unexpected error, 2 a mistake that
the user can mend, 130 stopped by Ctrl-C, 143 by SIGTERM (dlma/stopping.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from dlma import cores, files, launch, ranks, redaction, screen, stopping, wheels
from dlma.config import help, run_names
from dlma.config.build import build, resolved
from dlma.config.check import check
from dlma.config.help import conf_dir
from dlma.config.run_names import run_folder
from dlma.errors import Stopped, Unavailable, UserError
from dlma.runs import status as run_status
from dlma.runs import written
from dlma.runs.folder import MULTIRUN, STATUS
from dlma.trainer import place as places

if TYPE_CHECKING:
    from dlma.config.compose import Plan
    from dlma.config.hydra_internals import Hydra
    from dlma.report.next_steps import Command

run_names.register()  # here, so that a launcher's worker, which imports this module for `task`, knows them too

UNUSED = ("config_name", "package", "resolve", "experimental_rerun")  # of Hydra's flags, those that a run does not read
RUN = "dlma.modes.run.run"  # the mode that goes from prompts to the table
INTERRUPTED = {Stopped(number).code for number in stopping.SIGNALS}


def main(argv: list[str] | None = None) -> int:
    """Run one command line (without the program's name); returns the exit code.

    Without an argument it is the program itself, which does not return when it is stopped.
    """
    program = argv is None
    argv = list(sys.argv[1:] if argv is None else argv)
    if program:
        cores.wait_briefly()
        if places.here().count > 1:
            os.environ.setdefault(*places.QUIET)
    with _restored(), redaction.session(), screen.guarded(), screen.quiet(), stopping.heeded(), _last_words(argv):
        redaction.learn_words(argv)
        with ranks.unheard():
            code = _outcome(argv)
        if program and code and (code in INTERRUPTED or places.here().count > 1):
            stopping.leave(code)
        return code


def _outcome(argv: list[str]) -> int:
    try:
        return _main(argv)
    except UserError as reason:
        return _say(f"error: {reason}", 2)
    except (KeyboardInterrupt, Stopped) as stop:
        return _say(_to_go_on(argv), _code(stop))
    except OSError as reason:
        return _unexpected() if reason.errno not in files.UNWRITABLE else _say(f"error: {unwritable(reason)}", 2)
    except SystemExit as stop:  # argparse and Hydra's own questions
        return stop.code if isinstance(stop.code, int) else 0
    except Exception:  # the boundary: shown here, where the screen hides what is secret
        return _unexpected()


def _unexpected() -> int:
    return _say(traceback.format_exc(), 1)


def _last_words(argv: list[str]) -> contextlib.AbstractContextManager[None]:
    """What is said by a process that is stopped where nothing can be raised."""
    return stopping.last_words(lambda code, reason: None if reason else _say(_to_go_on(argv), code))


def _to_go_on(argv: list[str]) -> str:
    return f"interrupted; to go on: {shlex.join([*help.command(), *redaction.redact(argv)])}"


def _code(stop: BaseException) -> int:
    """The exit code of a run that was stopped: without a signal of its own it was Ctrl-C."""
    return stop.code if isinstance(stop, Stopped) else 130


def _say(line: str, code: int) -> int:
    print(line, file=sys.stderr, flush=True)
    if code not in INTERRUPTED:
        places.leave_word(line)
    return code


def unwritable(reason: OSError) -> str:
    """A full, read-only or forbidden folder, in one line."""
    where = reason.filename or "the output folder"
    folders = "hydra.run.dir=... (a sweep's is hydra.sweep.dir=...), store.root=..."
    return f"{where}: {reason.strerror}; free space, or choose other folders: {folders}"


def _main(argv: list[str]) -> int:
    from dlma.config.hydra_internals import get_args_parser

    args = get_args_parser().parse_intermixed_args(argv)
    folder = Path(args.config_path) if args.config_path else conf_dir()
    if not (folder / help.MAIN).is_file():
        raise UserError(f"--config-path {folder}: there is no {help.MAIN} in it")
    if args.help:
        print(_help(args, folder))
        return 0
    if args.cfg or args.info or args.hydra_help or args.shell_completion:
        if not args.shell_completion:
            _refuse_foreign(args, folder)
        return _hydra_itself(argv, args, folder)
    unused = [f"--{name.replace('_', '-')}" for name in UNUSED if getattr(args, name)]
    if unused:
        raise UserError(f"{unused[0]}: says nothing to a run; your own files come in by --config-dir FOLDER")
    return _run(args, folder)


def _help(args: Namespace, folder: Path) -> str:
    """The page of the group that stands beside `--help`, or of the whole program, also beside overrides."""
    folders = [folder]
    if args.config_dir:
        from dlma.config import compose

        compose.search_path(folder, args.config_dir)  # refuses what is no folder of options
        folders.append(Path(args.config_dir))
    groups = [word for word in args.overrides if "=" not in word]
    return "\n\n".join(help.group_text(folders, group) for group in groups) or help.text(folder)


def _refuse_foreign(args: Namespace, folder: Path) -> None:
    """Hydra starts callbacks also where it is only asked something."""
    from dlma.config import compose

    compose.refuse_foreign(compose.search_path(folder, args.config_dir), args.overrides)


def _hydra_itself(argv: list[str], args: Namespace, folder: Path) -> int:
    """Hydra's own questions: --cfg, --info, --hydra-help, shell completion."""
    import hydra

    from dlma.config import compose

    if args.cfg or args.info:
        with contextlib.suppress(UserError):  # only to learn which values are secret; Hydra says what is wrong
            compose.plan(compose.search_path(folder, args.config_dir), args.overrides, args.multirun)
    before, sys.argv = sys.argv, ["run.py", *argv]
    try:
        hydra.main(config_path=str(folder.resolve()), config_name="config", version_base="1.3")(task)()
    finally:
        sys.argv = before
    return 0


def _run(args: Namespace, folder: Path) -> int:
    from dlma.config import compose
    from dlma.config.hydra_internals import main_hydra

    path = compose.search_path(folder, args.config_dir)
    plan = compose.plan(path, args.overrides, args.multirun)
    launch.require_one_run(plan.cfg, sweep=plan.cells > 1 or plan.sweep_folder is not None)
    if plan.folderless:
        return _without_folder(plan)
    try:
        hydra = main_hydra(path)
        if plan.sweep_folder is None:
            return _single(hydra, plan, args)
        return _sweep(hydra, plan, args)
    except compose.BROKEN as reason:
        raise UserError(compose.in_words(reason)) from None


def _without_folder(plan: Plan) -> int:
    """A mode that only looks (its preset sets hydra.run.dir to nothing) runs at once and leaves no run folder.

    One whose preset says `_cells_: all` is given every cell of a sweep, any other the first.
    """
    if "_cells_" in plan.cfg.mode:
        build(plan.cfg.mode, list(plan.each()))
        return 0
    build(plan.cfg.mode, plan.cfg)
    if plan.cells > 1:
        print(f"of {plan.cells} cells the first is shown; the values of the others were checked too")
    return 0


def _single(hydra: Hydra, plan: Plan, args: Namespace) -> int:
    """One run, and what to do after it."""
    from dlma.report import next_steps

    job = hydra.run("config", task, plan.overrides)
    status = job.return_value
    if status["code"] == 0 and _is_run(plan.cfg) and not places.here().number:
        own_sweep = bool(OmegaConf.select(job.hydra_cfg, "hydra.sweeper.params"))
        print(next_steps.text(next_steps.after_run(_command(args, own_sweep), Path(status["result"]["run_dir"]))))
    return status["code"]


def _is_run(cfg: DictConfig) -> bool:
    return cfg.mode._target_ == RUN


def _command(args: Namespace, own_sweep: bool = False) -> Command:
    """The present command, for those that come after it."""
    from dlma.report.next_steps import Command

    given = {"--config-path": args.config_path, "--config-dir": args.config_dir}
    options = [word for name, value in given.items() if value for word in (name, value)]
    return Command(*help.started_by(), options, args.overrides, own_sweep)


def _sweep(hydra: Hydra, plan: Plan, args: Namespace) -> int:
    """All cells, whatever becomes of each; then one line for each and their report, from the files that they left."""
    from dlma.modes import report
    from dlma.report import next_steps

    report.check(plan.cfg)
    written.refuse_foreign(plan.sweep_folder)
    started = run_status.begin(plan.sweep_folder)
    _into_nothing(plan.sweep_folder / MULTIRUN)
    told: list[dict] = []
    try:
        with stopping.last_words(lambda code, _: _stopped_sweep(plan.sweep_folder, started, code)):
            jobs = [job for batch in hydra.multirun("config", task, plan.overrides) for job in batch]
        told += [redaction.redact(job.return_value) for job in jobs]
    except (KeyboardInterrupt, Stopped) as stop:
        run_status.interrupt(plan.sweep_folder, started, _code(stop))
        raise
    finally:
        _clean(plan.sweep_folder)
        cells = run_status.with_told(run_status.of_start(plan.sweep_folder, started), told)
        _report(cells, plan.cells)
    folders = [plan.sweep_folder / cell["name"] for cell in cells]
    report.of_sweep(plan.sweep_folder, folders, plan.cfg, missing=plan.cells - len(cells))
    if _is_run(plan.cfg) and (steps := next_steps.after_sweep(_command(args), plan.sweep_folder, folders)):
        print(next_steps.text(steps))
    return max((cell["code"] for cell in cells), default=1, key=_worst) if len(cells) == plan.cells else 1


def _clean(folder: Path) -> None:
    (folder / MULTIRUN).unlink(missing_ok=True)
    run_status.end(folder)


def _stopped_sweep(folder: Path, started: float, code: int) -> None:
    run_status.interrupt(folder, started, code)
    _clean(folder)


def _into_nothing(path: Path) -> None:
    """Let what is written to a path be lost: Hydra's copy of the config has secrets, and would outlive a kill."""
    path.unlink(missing_ok=True)
    path.symlink_to(os.devnull)


def _worst(code: int) -> int:
    return (0, 2, 1).index(code) if code in (0, 2, 1) else 3


def _report(cells: list[dict], planned: int) -> None:
    from dlma.report.terminal import print_sweep

    for cell in cells:
        print(run_status.line(cell))
    if len(cells) < planned:
        print(f"{planned - len(cells)} of {planned} cells were not started")
    for kind in ("run", "reused"):
        print(f"stages {kind}: {run_status.total(cells, kind)}")
    print_sweep(cells)


@screen.guarded()  # a launcher's worker is a process of its own
@screen.quiet()
def task(cfg: DictConfig) -> dict:
    """One run or one cell: call the mode with the config; what became of it is written and returned."""
    if places.here().number:
        return _beside(cfg)
    status = _started()
    try:
        written.refuse_foreign(run_folder())
    except UserError as reason:  # and no status is written there either
        return status | {"status": "failed", "reason": str(reason), "code": _say(f"error: {reason}", 2)}
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
            status |= {"status": "done", "code": 0, "result": build(cfg.mode, cfg)}
    except (KeyboardInterrupt, Stopped) as stop:
        _fail(status, "interrupted", _code(stop))
        raise
    except SystemExit as stop:  # Lightning's answer to Ctrl-C
        _fail(status, "interrupted", _code(stop))
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
        code = _unexpected() if mistake is None else _say(f"error: {mistake}", 2)
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

    hydra = HydraConfig.get()
    return {
        "name": run_folder().name,
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
        _say(f"error: {reason}", code)
    with contextlib.suppress(OSError):  # a full disk is the reason already given
        _write(status)


def _fail_unexpectedly(status: dict, reason: BaseException) -> None:
    status["traceback"] = traceback.format_exc()
    print(status["traceback"], file=sys.stderr)
    _fail(status, f"{type(reason).__name__}: {reason}", 1)


def _write(status: dict) -> None:
    """status.json, by one rename, without secrets."""
    files.write_checked(run_folder() / STATUS, redaction.redact(status))


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Leave the process as it was: logging and Hydra's globals."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        if "hydra" in sys.modules:
            from hydra.core.global_hydra import GlobalHydra

            GlobalHydra.instance().clear()
