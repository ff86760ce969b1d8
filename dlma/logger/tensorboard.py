"""TensorBoard: one folder of events per run, `<run folder>/tensorboard`; written without torch and TensorFlow.

tensorboard --logdir outputs
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlma.logger.trackers import flat, left_out
from dlma.redaction import redact

_LINE = str.maketrans({"|": "\\|", "\n": " ", "<": "&lt;", ">": "&gt;", "&": "&amp;"})


class TensorBoardTracker:
    """Curves as scalars over their own steps, the summary as scalars at step 0, tables and config as text."""

    def __init__(self) -> None:
        self._writer: Any = None

    def start(self, run_dir: Path, name: str, group: str | None, config: dict) -> None:
        """Opens the file of events; the config is a text, its name and sweep in front."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        with left_out("TensorBoard", "the run"):
            self._writer = EventFileWriter(str(run_dir / "tensorboard"))
        about = redact({"name": name, "group": str(group)})
        self._text("config", _markdown(("key", "value"), list((about | flat(config)).items())))

    def log(self, metrics: dict[str, float], step_key: str = "train/step") -> None:
        """A point of each curve at the row's step."""
        for name, value in metrics.items():
            if name != step_key:
                self._scalar(name, value, int(metrics[step_key]))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
        """A table as text, its cells escaped."""
        self._text(name, _markdown(columns, redact([list(row) for row in rows])))

    def finish(self, summary: dict[str, float], exit_code: int = 0) -> None:
        """The summary, how the run ended as `exit_code`, and the end of the file."""
        for name, value in {**summary, "exit_code": exit_code}.items():
            self._scalar(name, value, 0)
        with left_out("TensorBoard", "the end of the file"):
            self._writer.close()

    def _scalar(self, name: str, value: float, step: int) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        self._write(name, scalar_pb(name, value), step)

    def _text(self, name: str, text: str) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._write(name, text_pb(name, text), 0)

    def _write(self, name: str, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        with left_out("TensorBoard", name):
            self._writer.add_event(Event(summary=summary, step=step, wall_time=time.time()))


def _markdown(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A table in Markdown; texts of models cannot leave their cell."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).translate(_LINE) for cell in line) + " |" for line in lines)
