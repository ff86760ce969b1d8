"""The official side, from a clone and in processes of its own: its scoring script as it stands, and its trainer."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from parity_case import Example, Settings

COMMIT = "6fceb3c"
HERE = Path(__file__).resolve().parent


def commit_of(clone: Path) -> str:
    """The commit that is checked out in the clone."""
    done = subprocess.run(["git", "-C", str(clone), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def self_reward(clone: Path, model: Path, rows: Sequence[Example]) -> list[float]:
    """R of each row by calculate_margin_and_filter.py, run as it stands with the harmless pair."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        _write(asked, [dataclasses.asdict(row) for row in rows])
        options = {
            "batch_size": 8,
            "split_number": 1,
            "current_part": 1,
            "prompt_type1": "harmless_positive_prompt",
            "prompt_type2": "harmless_negative_prompt",
            "model_path": model,
            "input_data_path": asked,
            "output_data_path": answered,
        }
        line = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        _run(["calculate_margin_and_filter.py", *line], clone)
        return [json.loads(line)["margin"] for line in answered.read_text().splitlines()]


def loss_curve(
    clone: Path, model: Path, rows: Sequence[Example], margins: Sequence[float], settings: Settings
) -> list[float]:
    """The loss of each optimizer step of the official trainer (see official_driver.py) on the rows, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "generated_data" / "parity"
        data.mkdir(parents=True)
        lines = [{**dataclasses.asdict(row), "margin": m} for row, m in zip(rows, margins, strict=True)]
        _write(data / "train.jsonl", lines)
        _write(data / "test.jsonl", lines[:2])
        (Path(folder) / "settings.json").write_text(json.dumps(dataclasses.asdict(settings)))
        _run([str(HERE / "official_driver.py"), str(clone.resolve()), str(model)], Path(folder))
        return json.loads((Path(folder) / "losses.json").read_text())


def _write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _run(command: list[str], folder: Path) -> None:
    """Python on a script, in a folder; its last lines of output where it fails."""
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=quiet, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n" + "\n".join(done.stderr.splitlines()[-15:]))
