"""Applies the rule of plan.yaml to a finished sweep: writes outcome.csv and says which cell it chooses.

python experiments/lab_tuning/choose.py outputs/<sweep>
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiments.own_points import best

COLUMNS = ("beta", "margin_weight", "lr", "n", "kl", "self_reward", "chosen")
OUTCOME = Path(__file__).with_name("outcome.csv")


def cell(folder: Path) -> dict:
    """The settings of a cell and what the rule may see of it: nothing of the oracle."""
    recipe = yaml.safe_load((folder / "config.yaml").read_text())["recipe"]
    metrics = {row["metric"]: row for row in csv.DictReader((folder / "metrics.csv").open())}
    kl, reward = (metrics[f"aligned/{name}"] for name in ("kl", "self_reward"))
    return {
        "beta": recipe["beta"],
        "margin_weight": recipe["margin_weight"],
        "lr": recipe["lr"],
        "n": int(kl["n"]),
        "kl": float(kl["mean"]),
        "self_reward": float(reward["mean"]),
    }


if __name__ == "__main__":
    found = [cell(path.parent) for path in sorted(Path(sys.argv[1]).glob("*/metrics.csv"))]
    if not found:
        sys.exit(f"error: {sys.argv[1]}: no finished run there")
    chosen = best(found, "self_reward")
    with OUTCOME.open("w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in found:
            numbers = {name: round(row[name], 4) for name in ("kl", "self_reward")}
            writer.writerow({**row, **numbers, "chosen": int(row is chosen)})
    print(f"chosen: beta {chosen['beta']}, margin_weight {chosen['margin_weight']}, lr {chosen['lr']}")
