"""The entry: check the command line, run Hydra, and say in one line what went wrong.

A run or a sweep's cell is dlma/runs/task.py, which has the exit codes; a sweep shows what became of all of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from omegaconf import DictConfig, OmegaConf

from dlma import cores, files, redaction, screen, stopping
from dlma.config import help
from dlma.config.build import build
from dlma.config.help import conf_dir
from dlma.errors import Stopped, UserError
from dlma.runs import lost_cells, study, written
from dlma.runs import status as run_status
from dlma.runs.folder import MULTIRUN
from dlma.runs.task import INTERRUPTED, code_of, say, task, unexpected, unwritable
from dlma.trainer import launch, ranks
from dlma.trainer import place as places

if TYPE_CHECKING:
    from dlma.config.compose import Plan
    from dlma.config.hydra_internals import Hydra
    from dlma.report.next_steps import Command

UNUSED = ("config_name", "package", "resolve", "experimental_rerun")  # of Hydra's flags, those that a run does not read
RUN = "dlma.modes.run.run"  # the mode that goes from prompts to the table


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
        return say(f"error: {reason}", 2)
    except (KeyboardInterrupt, Stopped) as stop:
        return say(_to_go_on(argv), code_of(stop))
    except OSError as reason:
        return unexpected() if reason.errno not in files.UNWRITABLE else say(f"error: {unwritable(reason)}", 2)
    except SystemExit as stop:  # argparse and Hydra's own questions
        return stop.code if isinstance(stop.code, int) else 0
    except Exception:  # the boundary: shown here, where the screen hides what is secret
        return unexpected()


def _last_words(argv: list[str]) -> contextlib.AbstractContextManager[None]:
    """What is said by a process that is stopped where nothing can be raised."""
    return stopping.last_words(lambda code, reason: None if reason else say(_to_go_on(argv), code))


def _to_go_on(argv: list[str]) -> str:
    return f"interrupted; to go on: {shlex.join([*help.command(), *redaction.redact(argv)])}"


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
        if args.multirun and not args.shell_completion:
            raise UserError("--multirun: what is only shown is one run's; leave it out, or see each cell by mode=plan")
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
        return _sweep(hydra, plan, plan.sweep_folder, args)
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
        own_sweep = bool(OmegaConf.select(cast(DictConfig, job.hydra_cfg), "hydra.sweeper.params"))
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


def _sweep(hydra: Hydra, plan: Plan, folder: Path, args: Namespace) -> int:
    """All cells, whatever becomes of each; then one line for each and their report, from the files that they left."""
    from dlma.modes import report
    from dlma.report import next_steps

    report.check(plan.cfg, plan.each)
    learns = study.is_study(plan.sweeper["_target_"])
    written.refuse_foreign(folder)
    written.refuse_other(folder, None)
    started = run_status.begin(folder)
    _into_nothing(folder / MULTIRUN)
    told: list[dict] = []
    before = study.earlier(folder, started) if learns else []
    trials, settings = study.taken_up(plan.sweeper, folder) if learns else (None, [])
    try:
        with (
            stopping.last_words(lambda code, _: _stopped_sweep(folder, started, code)),
            lost_cells.awaited(plan.launcher),
        ):
            lines = [*plan.overrides, *settings]
            batches = [] if trials == 0 else study.launched(lambda: hydra.multirun("config", task, lines))
            jobs = [job for batch in batches for job in batch]
            told += [redaction.redact(job.return_value) for job in jobs if job.return_value is not None]
        run_status.lose(folder, started, told, lost_cells.REASON)
    except (KeyboardInterrupt, Stopped) as stop:
        run_status.interrupt(folder, started, code_of(stop))
        raise
    finally:
        _clean(folder)
        cells = run_status.with_told(run_status.of_start(folder, started), told)
        again = {cell["name"] for cell in cells}
        cells = [*(cell for cell in before if cell["name"] not in again), *cells]
        planned = plan.cells if trials is None else len(cells)  # two trials may have the same values
        _report(cells, planned)
    folders = [folder / cell["name"] for cell in cells]
    report.of_sweep(folder, folders, plan.cfg, missing=planned - len(cells))
    if _is_run(plan.cfg) and (steps := next_steps.after_sweep(_command(args), folder, folders)):
        print(next_steps.text(steps))
    return max((cell["code"] for cell in cells), default=1, key=_worst) if len(cells) == planned else 1


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
