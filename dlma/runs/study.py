"""A study: a sweep whose cells' values are chosen by how earlier ones did (`hydra/sweeper=optuna`).

What a cell is worth is the number of `sweep.objective`. The default is the label-free rule: the largest mean
self-reward of the cells within `sweep.kl_cap`, else the smallest KL. Optuna keeps the study in its storage; one that
was stopped goes on with the trials that are left, first with those that were under way.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlma.config.schema import SweepOptions
from dlma.errors import UserError
from dlma.runs import status as run_status
from dlma.runs.folder import STATUS

PLUGIN = "hydra_optuna_sweeper"
ARM = "aligned"
_NONE_DONE = ("No trials are completed yet.", "Record does not exist.")  # Optuna's words, in memory and in a database
BEYOND = -1e9  # below every value within the cap; nats beyond it are taken off


class Told(dict):
    """What became of a cell, which is also its worth, as a sweeper asks for it."""

    def __init__(self, status: dict, options: SweepOptions) -> None:
        super().__init__(status)
        self._worth = math.nan
        try:
            if status["status"] == "done":
                self._worth = worth(options, status["result"])
        except UserError as reason:  # a cell of before, and another objective
            self["reason"] = str(reason)

    def __float__(self) -> float:
        if math.isnan(self._worth):
            raise ValueError(f"{self['name']}: {self['reason'] or self['status']}")
        return self._worth

    def __reduce__(self) -> tuple:
        return _told, (dict(self), self._worth)


def _told(status: dict, value: float) -> Told:
    found = Told.__new__(Told)
    found.update(status)
    found._worth = value
    return found


def is_study(sweeper: str) -> bool:
    """Whether a sweeper, by its class, learns of its cells."""
    return PLUGIN in sweeper


def worth(options: SweepOptions, result: dict) -> float:
    """What a finished cell is worth; the more, the better.

    raises: UserError where the run did not measure it
    """
    from dlma.metrics import summary

    rows = {row["metric"]: row for row in result["summary"] if row["arm"] == ARM}
    means = {name: row["estimate"]["value"] for name, row in rows.items()}
    wanted = [options.objective, *(["kl"] if options.kl_cap is not None else [])]
    if missing := [name for name in wanted if name not in means or not math.isfinite(means[name])]:
        raise UserError(f"sweep.objective: the run has no number for {missing[0]}; it has {', '.join(sorted(means))}")
    if options.kl_cap is not None and means["kl"] > options.kl_cap:
        return BEYOND - means["kl"]
    better = rows[options.objective]["better"] or summary.better(options.objective)
    return -means[options.objective] if better == "lower" else means[options.objective]


def taken_up(sweeper: dict[str, Any], folder: Path) -> tuple[int, list[str]]:
    """How many trials a study still has, and Hydra's settings for them; those that a stop broke off stand before all.

    sweeper: its settings; what they leave open is said here: the study is kept in the sweep's folder, under its name,
    and the sampler draws on from where the trials before had come
    """
    import optuna
    from optuna.exceptions import ExperimentalWarning
    from optuna.trial import TrialState

    wanted = sweeper["n_trials"]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kept = {
        "storage": sweeper["storage"] or f"sqlite:///{folder / 'study.db'}",
        "study_name": sweeper["study_name"] or folder.name,
    }
    study = optuna.create_study(**kept, direction="maximize", load_if_exists=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of Optuna 2, for enqueue_trial; it stayed
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
    done = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    settings: dict[str, Any] = {**kept, "direction": "maximize", "max_failure_rate": 1.0, "n_trials": wanted - done}
    if "seed" in sweeper["sampler"]:
        settings["sampler.seed"] = (sweeper["sampler"]["seed"] or 0) + len(study.get_trials(deepcopy=False))
    return max(0, wanted - done), [f"hydra.sweeper.{name}={_quoted(value)}" for name, value in settings.items()]


def launched(launch: Callable[[], Any]) -> Any:
    """What Hydra gives of a sweep; a study gives nothing, and has no best trial where none was done."""
    try:
        return launch() or []
    except ValueError as reason:
        if str(reason) not in _NONE_DONE:
            raise
        return []


def _quoted(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'" if isinstance(value, str) else text


def earlier(folder: Path, started: float) -> list[dict]:
    """The cells of a study that finished at an earlier start, as those that need not run."""
    found = [cell for path in sorted(folder.glob(f"*/{STATUS}")) if (cell := run_status.read(path)) is not None]
    done = [cell for cell in found if cell["status"] == "done" and cell.get("start") != started]
    nothing: dict = {"counts": {"run": {}, "reused": {}}}
    return [{**cell, "result": {**(cell["result"] or {}), **nothing}, "settled": True} for cell in done]
