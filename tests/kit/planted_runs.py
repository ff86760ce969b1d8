"""Run folders with planted answers, as a finished cell leaves them, for the tests of a sweep's report."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dlma import records
from dlma.config import check
from dlma.config.schema import SweepOptions
from dlma.cost.spent import Costs
from dlma.metrics import summary
from dlma.records import EvalRow, Prompt, Turn
from dlma.runs import cells as run_folders
from dlma.sweep.settings import settings


def answers(arm: str, seed: int, *, prompts: int, harm: float, kl: float = 0.0, effect: int = 0, tag: str = ""):
    """Rows whose harm and KL are drawn around what is planted; the same call gives the same rows."""
    rng = np.random.default_rng([seed, effect, *map(ord, arm + tag)])
    rows = []
    for i in range(prompts):
        harmful = bool(rng.random() < harm)
        moved = 0.0 if arm == "base" else float(rng.normal(kl, 0.3))
        values = {"harmful": harmful, "harmlessness": float(rng.normal(-1.0 if harmful else 1.0, 0.2))}
        values |= {"helpfulness": float(rng.normal(0.2, 0.1)), "malformed": 0.0}
        base = -20.0 + float(rng.normal())
        text = f"{arm}{tag} answers {i} with seed {seed} in {rng.integers(100)} words."
        row = EvalRow(f"p{i}", arm, f"question {i}", None, text, 10, True, base + moved, base, 0.5, **values)
        rows.append(row)
    return rows


def plant(
    folder: Path,
    *,
    method: str = "dlma",
    seed: int = 0,
    base: str = "lab-standard",
    overrides: dict | None = None,
    rows: list[EvalRow] | None = None,
    config: dict | None = None,
    verdicts: list[dict] | None = None,
    scores: list[dict] | None = None,
    status: dict | None = None,
    prompts: int = 60,
    harm: float = 0.3,
    kl: float = 1.0,
    tag: str = "",
) -> Path:
    """A run folder; rows: all arms' answers, None for base (harm 0.7), prompted (0.55) and aligned (`harm`, `kl`)."""
    overrides = {"method": method, "seed": seed, **(overrides or {})}
    folder.mkdir(parents=True)
    said = {"name": folder.name, "number": 0, "started": 1.0, "status": "done", "reason": None, "code": 0, "result": {}}
    said["overrides"] = [f"{key}={value}" for key, value in overrides.items()]
    (folder / "status.json").write_text(json.dumps({**said, **(status or {})}))
    if (status or {}).get("status", "done") != "done":
        return folder
    if rows is None:
        rows = answers("base", seed, prompts=prompts, harm=0.7) + answers("prompted", seed, prompts=prompts, harm=0.55)
        rows += answers("aligned", seed, prompts=prompts, harm=harm, kl=kl, tag=method + tag)
    tree = _config({**(config or {}), **overrides}, seed, base)
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    table = summary.summary_rows(rows, list(dict.fromkeys(row.arm for row in rows)))
    summary.write_metrics(folder / "metrics.csv", table, method=method, base=base, seed=seed)
    pq.write_table(records.to_table(EvalRow, rows), folder / "answers.parquet")
    if verdicts is not None:
        pq.write_table(pa.Table.from_pylist(verdicts), folder / "verdicts.parquet")
    if scores is not None:
        pq.write_table(pa.Table.from_pylist(scores), folder / "metric_values.parquet")
    asked = {row.prompt_id: Prompt(row.prompt_id, [Turn("user", row.question)], split="test") for row in rows}
    pq.write_table(records.to_table(Prompt, list(asked.values())), folder / "prompts.parquet")
    (folder / "manifest.json").write_text("{}")
    (folder / "report.html").write_text("a cell's own report")
    return folder


def _config(values: dict, seed: int, base: str) -> dict:
    """The resolved config as a tree: defaults, then what is dotted; a group that was chosen is a node."""
    tree: dict = {"seed": seed, "model": {"path": base}, "recipe": {"beta": 0.5, "seed": seed}}
    for key, value in values.items():
        *above, leaf = key.split(".")
        node = tree
        for name in above:
            node = node.setdefault(name, {})
        node[leaf] = {"_target_": f"planted.{value}"} if key in check.components() else value
    tree.pop("method")
    return tree


def costing(folder, flops, *, labels=0.0, **options):
    """A planted run that noted down what it cost; flops None: nothing noted down."""
    plant(folder, **options)
    if flops is not None:
        (folder / "costs.json").write_text(json.dumps(dataclasses.asdict(Costs(human_labels=labels, flops=flops))))
    return folder


def rows_of(*folders):
    return settings([run_folders.read_cell(folder) for folder in folders])


def options(**changes) -> SweepOptions:
    """A sweep's options for a test; what is not said is not asked for."""
    values = dict.fromkeys(SweepOptions.__dataclass_fields__) | {"kl_levels": [0.5], "margin": 0.03} | changes
    return SweepOptions(**values)
