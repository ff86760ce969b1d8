"""Run folders whose records have known lengths, for the tests of what a run cost."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from planted import scored_pair
from source_tree import ROOT

from dlma import records
from dlma.records import Pair, ScoredPair

LENGTHS = [(4, 6, 7, 3, 5), (2, 5, 5, 4, 1), (3, 6, 6, 2, 2), (5, 8, 9, 1, 6)]  # contexts: plain, p+, p-; both answers


def pairs(lengths=LENGTHS, **values) -> list[ScoredPair]:
    """Scored pairs with so many tokens; the first half is chosen on the positive side."""
    found = []
    for i, (plain, positive, negative, first, second) in enumerate(lengths):
        ids = {"plain_context_ids": plain, "positive_context_ids": positive, "negative_context_ids": negative}
        ids |= {"positive_ids": first, "negative_ids": second}
        side = "positive" if i < len(lengths) / 2 else "negative"
        texts = {"positive_text": "w5 " * first, "negative_text": "w6 " * second, "question": "w7 w8"}
        row = replace(scored_pair(i, 1.0), chosen=side, **{name: [3] * n for name, n in ids.items()}, **texts)
        found.append(replace(row, **values))
    return found


NODES = [yaml.safe_load(path.read_text()) for path in (ROOT / "conf").rglob("*.yaml")]
WORK = {node["_target_"]: node["_work_"] for node in NODES if node and {"_target_", "_work_"} <= node.keys()}


def rewarded(rows):
    """The same pairs with the log-probs under both prompts, as the self-reward leaves them."""
    under = {f"{a}_under_{b}": -1.0 for a in ("positive", "negative") for b in ("positive", "negative")}
    return [replace(row, **under) for row in rows]


def tree(folder: Path | None, **changes) -> dict:
    """A resolved config: DLMA, two epochs of two pairs a step; `objective=dict(...)` changes a node."""
    config = {
        "iterations": 1,
        "iteration": {"scorer": "current", "reference": "current"},
        "scored": {"path": None},
        "pairs": {
            "_target_": "dlma.pairs.sampled.SampledPairs",
            "path": None,
            "first": "positive",
            "second": "negative",
        },
        "scorer": {"_target_": "dlma.scorer.self_reward.SelfReward"},
        "labels": {"_target_": "dlma.labels.Labels"},
        "reward": {"_target_": None},
        "objective": {"_target_": "dlma.objective.dpo.DPO", "batch_pairs": 2, "epochs": 2, "checkpointing": False},
        "model": {"_target_": "dlma.model.load.hf_model", "path": str(folder), "revision": "main", "dtype": "float32"},
    }
    config["model"] |= {"bits": None, "lora": None}
    for group, values in changes.items():
        config[group] = config[group] | values if isinstance(values, dict) else values
    for node in config.values():
        if isinstance(node, dict) and node.get("_target_") in WORK:
            node["_work_"] = WORK[node["_target_"]]
    return config


def plant_costs(folder: Path, config: dict, scored: list[ScoredPair], *, steps: list[dict], dropped=None, reward=None):
    """The files of a run folder that its costs are counted from; dropped: of the labels' account."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = [Pair(**{name: vars(row)[name] for name in Pair.__dataclass_fields__}) for row in scored]
    pq.write_table(records.to_table(Pair, plain), folder / "pairs.parquet")
    pq.write_table(records.to_table(ScoredPair, scored), folder / "scored.parquet")
    kept = len(scored) - sum((dropped or {}).values())
    manifest = {
        "scored": {"key": str(folder)},
        "policy": {"notes": {"account": {"kept": kept, "dropped": dropped or {}}}},
    }
    _steps(folder / "train.csv", steps)
    if reward is not None:
        manifest["reward"] = {}
        _steps(folder / "reward.csv", reward)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def _steps(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else ["step"])
        writer.writeheader()
        writer.writerows(rows)
