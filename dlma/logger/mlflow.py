"""MLflow: one run per cell, in files below the run folder or at any server or shared folder (`uri`).

    MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri outputs/NAME/mlflow
A server that does not answer within `connect_seconds` costs a line, and the run is kept in its folder.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlma.logger.trackers import flat, left_out, one_line
from dlma.ranges import Positive
from dlma.redaction import redact

log = logging.getLogger(__name__)

_BATCH = {"params": 100, "metrics": 1000}  # the most that a server takes at once
_LONGEST = 500  # characters of a parameter that every server takes


class MlflowTracker:
    """Metrics over their own steps, the config as parameters, tables as JSON artefacts in MLflow's own form.

    experiment: MLflow's name for a set of runs
    uri: http://..., or a folder (file:PATH); None: `mlflow` in the run folder
    """

    def __init__(self, *, experiment: str = "dlma", uri: str | None = None, connect_seconds: Positive = 10.0) -> None:
        self.experiment = experiment
        self.uri = uri
        self.connect_seconds = connect_seconds
        self._client: Any = None
        self._run = ""

    def start(self, run_dir: Path, name: str, group: str | None, config: dict) -> None:
        """Opens the run, with the config as parameters."""
        own = f"file:{(run_dir / 'mlflow').absolute()}"
        about = redact({"name": name, "tags": {"group": str(group)}})
        try:
            self._open(self.uri or own, about)
        except Exception as error:  # of whatever lies behind the address
            log.warning("MLflow: %s: %s; this run is kept in %s", self.uri or own, one_line(error), own)
            with left_out("MLflow", "the run"):
                self._open(own, about)
        from mlflow.entities import Param

        self._send("params", [Param(key, value[:_LONGEST]) for key, value in flat(config).items()])

    def _open(self, uri: str, about: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # the one store that needs no server and no database
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", f"{self.connect_seconds:.0f}")
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(self.experiment)
        place = client.create_experiment(self.experiment) if known is None else known.experiment_id
        run = client.create_run(place, run_name=about["name"], tags=about["tags"])
        self._client, self._run = client, run.info.run_id

    def log(self, metrics: dict[str, float], step_key: str = "train/step") -> None:
        """A point of each curve at the row's step."""
        self._points({name: value for name, value in metrics.items() if name != step_key}, int(metrics[step_key]))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
        """A table as `<name>.json`, as MLflow's own log_table writes it."""
        with left_out("MLflow", f"the table {name}"):
            content = {"columns": list(columns), "data": redact([list(row) for row in rows])}
            self._client.log_dict(self._run, content, f"{name}.json")

    def finish(self, summary: dict[str, float], exit_code: int = 0) -> None:
        """The summary at step 0, and whether the run ended well."""
        self._points(summary, 0)
        with left_out("MLflow", "the run's end"):
            self._client.set_terminated(self._run, "FAILED" if exit_code else "FINISHED")

    def _points(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._send("metrics", [Metric(name, float(value), now, step) for name, value in metrics.items()])

    def _send(self, kind: str, entries: Sequence[Any]) -> None:
        most = _BATCH[kind]
        with left_out("MLflow", kind):
            for start in range(0, len(entries), most):
                self._client.log_batch(self._run, **{kind: entries[start : start + most]})
