"""Each method's own beta, by the label-free rule of experiments/main_comparison/plan.yaml: writes outcome.csv.

python experiments/tuning/choose.py outputs/<sweep>
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiments.own_points import best

COLUMNS = ("method", "beta", "n", "kl", "self_reward", "chosen")
OUTCOME = Path(__file__).with_name("outcome.csv")


def cell(folder: Path) -> dict:
    """A cell's method and beta, and what the rule may see of it: nothing of the oracle."""
    recipe = yaml.safe_load((folder / "config.yaml").read_text())["recipe"]
    metrics = {row["metric"]: row for row in csv.DictReader((folder / "metrics.csv").open())}
    kl, reward = (metrics[f"aligned/{name}"] for name in ("kl", "self_reward"))
    numbers = {"kl": float(kl["mean"]), "self_reward": float(reward["mean"])}
    return {"method": kl["method"], "beta": recipe["beta"], "n": int(kl["n"]), **numbers}


def choose(cells: list[dict]) -> list[dict]:
    """For each method the cell that the rule picks: the largest self-reward under the cap, else the smallest KL."""
    picked = []
    for method in dict.fromkeys(row["method"] for row in cells):
        own = [row for row in cells if row["method"] == method]
        picked.append(best(own, "self_reward"))
    return picked


if __name__ == "__main__":
    found = sorted(
        (cell(p.parent) for p in Path(sys.argv[1]).glob("*/metrics.csv")), key=lambda r: (r["method"], r["beta"])
    )
    if not found:
        sys.exit(f"error: {sys.argv[1]}: no finished run there")
    chosen = choose(found)
    with OUTCOME.open("w", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in found:
            numbers = {name: round(row[name], 4) for name in ("kl", "self_reward")}
            writer.writerow({**row, **numbers, "chosen": int(row in chosen)})
    print("\n".join(f"{row['method']}: beta {row['beta']}" for row in chosen))
