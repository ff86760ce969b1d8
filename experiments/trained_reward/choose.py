"""The learning rate, chosen on validation pairs alone: those left out of a short training say which is better.

python experiments/trained_reward/choose.py MODEL STORE RATE [RATE ...]    # -> choice.csv

STORE: the store of the command of README.md, whose larger stage of pairs are those of the validation prompts
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch.nn.functional import softplus

from dlma.model.load import Lora, ModelSpec
from dlma.records import Pair, ScoredPair, from_table
from dlma.reward import BradleyTerry
from dlma.scorer.construction import with_margin
from dlma.statistics.intervals import share_interval
from dlma.trainer.runtime import Runtime
from dlma.training.optim import Optim
from dlma.training.preference_pair import both_answers

LEARNED, LEFT_OUT = 256, 128
CLAMP = {"margin_weight": 0.0, "margin_low": -40.0, "margin_high": 40.0, "margin_unit": "nats"}
OPTIM = {"optimizer": "adamw", "weight_decay": 0.0, "warmup": 10, "schedule": "constant", "clip_norm": 1.0}


def pairs_of(store: Path) -> list[ScoredPair]:
    """The validation prompts' pairs, in the order of their ids."""
    tables = [pq.read_table(path) for path in store.glob("pairs/*/rows.parquet")]
    rows = from_table(Pair, max(tables, key=lambda table: table.num_rows))
    return sorted((with_margin(row, 0.0, 0.0, 0.0, "positive") for row in rows), key=lambda pair: pair.id)


def left_out(model: Path, pairs: list[ScoredPair], rate: float) -> dict[str, float]:
    """The loss, and the accuracy with its interval, on pairs left out of a training at this rate."""
    spec = ModelSpec(model.name, model, "float32", lora=Lora(8, 16.0, "all-linear"))
    rule = BradleyTerry(spec.load(), optim=Optim(lr=rate, **OPTIM), epochs=1, batch_pairs=8, seed=0, **CLAMP)
    with tempfile.TemporaryDirectory() as folder:
        rule.train_on(rule.items(pairs[:LEARNED]), Runtime(), Path(folder))
    found = rule.reward.score([both_answers(pair) for pair in pairs[LEARNED : LEARNED + LEFT_OUT]])
    ahead = torch.tensor([chosen - rejected for chosen, rejected in found]).double()
    right = share_interval((ahead > 0).double().numpy())
    bounds = {"accuracy": right.value, "accuracy_low": right.low, "accuracy_high": right.high}
    return {"n": right.n, "loss": softplus(-ahead).mean().item(), **bounds}


def main(model: str, store: str, *rates: str) -> None:
    pairs = pairs_of(Path(store))
    rows = [{"method": f"lr={rate}", **left_out(Path(model), pairs, float(rate))} for rate in rates]
    with (Path(__file__).parent / "choice.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
