"""What to do after a run or a sweep: commands for just this one, as a shell in the present folder takes them.

They are made of the words of the command that ended and of what lies in its folder, so that each works as it stands;
MODEL and PROMPTS.jsonl are the user's own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlma.config.run_names import split
from dlma.runs.folder import POLICY, REPORT, RunFolder
from dlma.store.stage import is_weights

OWN = ("model=hf", "model.path=MODEL", "data=jsonl", "data.path=PROMPTS.jsonl")
RIVALS = ("dlma", "rlcd")  # a comparison is with the first that the run was not
_PLACES = ("trainer", "store")  # where it is computed and kept, for whatever comes after
_SEVERAL = ("trainer.devices", "trainer.strategy")  # other modes work in one process
_METHOD = ("method", "labels", "objective", "iterations", "seed", *_PLACES)  # what is not of a model or a data set
_OF_A_METHOD = ("pairs", "scorer", "scored", "labels", "objective", "iteration")
_ONE_RUN = ("name", "hydra")  # names and settings of one run
_PLAIN = re.compile(r"[A-Za-z./][\w./-]*/[\w./-]+", re.ASCII)  # a path that needs no quotes in an override


@dataclass(frozen=True)
class Command:
    """The words of a command that ended well.

    program: how it was started, such as `python run.py`; python: the interpreter
    options, overrides: as they were given; own_sweep: its experiment brings a sweep of its own
    """

    program: Sequence[str]
    python: str
    options: Sequence[str]
    overrides: Sequence[str]
    own_sweep: bool = False

    def line(self, *words: str, keep: Callable[[str], bool]) -> str:
        """The command with its overrides of the keys that are kept, then the words given."""
        kept = [line for line in self.overrides if keep(split(line)[0])]
        flags = [word for word in words if word.startswith("-")]
        rest = [word for word in words if not word.startswith("-")]
        return shlex.join([*self.program, *self.options, *flags, *kept, *rest])

    def mode(self, name: str, *words: str) -> str:
        """Another mode on what this command left."""
        return self.line(f"mode={name}", *words, keep=lambda key: _of(_PLACES)(key) and key not in _SEVERAL)

    def show(self, page: Path) -> str:
        """Open a page in the browser."""
        return shlex.join([self.python, "-m", "webbrowser", page.resolve().as_uri()])


def _of(rooms: Sequence[str]) -> Callable[[str], bool]:
    return lambda key: key.split(".")[0] in rooms or key in rooms


def _but(*rooms: str) -> Callable[[str], bool]:
    return lambda key: not _of([*rooms, *_ONE_RUN])(key)


def override(key: str, path: Path) -> str:
    """A path as the value of an override, below the present folder without it; read back, it is the same path."""
    here = Path.cwd()
    text = str(path.relative_to(here) if path.is_relative_to(here) else path)
    if _PLAIN.fullmatch(text):
        return f"{key}={text}"
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{quoted}'"


def after_run(command: Command, folder: Path) -> list[tuple[str, str]]:
    """What each is for, and the command; folder: of a run that finished."""
    run = RunFolder(folder)
    method, seed = run.about()["method"], int(run.about()["seed"])
    steps = [("the report", command.show(folder / REPORT))]
    if _has_policy(folder):
        steps.append(("chat with both", command.mode("chat", override("mode.run", folder))))
    steps.append(("your own model", own_model(command, run)))
    if command.own_sweep:
        return [*steps, ("its whole sweep", command.line("-m", keep=_but()))]
    seeds = ",".join(str(seed + more) for more in range(3))
    steps.append(("three seeds", command.line("-m", f"seed={seeds}", keep=_but("seed"))))
    keys = [split(line)[0] for line in command.overrides]
    if any(_of(_OF_A_METHOD)(key) and key != "labels" for key in keys):
        return steps  # what was changed of a method, another one may not have
    rival = next(name for name in RIVALS if name != method)
    return [*steps, ("compare", command.line("-m", f"method={method},{rival}", keep=_but("method")))]


def _has_policy(folder: Path) -> bool:
    """Whether a policy is there with its weights, which store.keep_policies may have let go."""
    return any(is_weights(path.name) for path in (folder / POLICY).glob("*"))


def own_model(command: Command, run: RunFolder) -> str:
    """The same method on a model and prompts of one's own; the default one, where its labels come with the prompts."""
    values = run.recorded.values
    parts = [str((values.get(name) or {}).get("_target_")) for name in ("pairs", "scorer")]
    given = parts[0].endswith((".HumanPairs", ".HumanAndOwnPairs")) or parts[1].endswith(".Annotator")
    kept = [room for room in _METHOD if room != "method" or not given]
    return command.line(*OWN, keep=lambda key: key in kept or key.split(".")[0] in _PLACES)


def after_sweep(command: Command, folder: Path, cells: Sequence[Path]) -> list[tuple[str, str]]:
    """The same of a sweep; cells: its folders, of which some may not have finished."""
    done = [cell for cell in cells if RunFolder(cell).missing is None]
    steps = []
    if len(done) < len(cells):
        again = command.line("-m", "sweep.retry_failed=true", keep=lambda key: key != "sweep.retry_failed")
        steps.append(("what failed", again))
    if (folder / REPORT).is_file():
        steps.append(("the report", command.show(folder / REPORT)))
    if done:
        steps.append(("side by side", command.mode("serve", override("mode.folder", folder))))
    policies = [cell for cell in done if _has_policy(cell)]
    steps += [("chat with one", command.mode("chat", override("mode.run", cell))) for cell in policies[:1]]
    methods = list(dict.fromkeys(RunFolder(cell).about()["method"] for cell in done))
    if len(methods) > 1:
        words = (override("runs", folder), f"sweep.baseline={methods[0]}")
        steps.append((f"against {methods[0]}", command.mode("report", *words)))
    return steps


def text(steps: Sequence[tuple[str, str]]) -> str:
    """The steps as they are printed; nothing where there are none."""
    width = max((len(name) for name, _ in steps), default=0)
    return "\n".join(["next:", *(f"  {name:<{width}}  {line}" for name, line in steps)]) if steps else ""
