"""How often the reward model is right where people preferred the shorter, the longer, or one of two equal lengths.

python experiments/trained_reward/by_length.py RUN    # a run of mode=reward -> held_out.csv, by_length.csv
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq

from dlma.metrics.signal_agreement import SignalAgreement
from dlma.runs.folder import AGREEMENT, METRICS
from dlma.statistics.intervals import share_interval

HERE = Path(__file__).parent
KINDS = {"shorter": lambda n: n < 0, "longer": lambda n: n > 0, "equal": lambda n: n == 0}


def main(run: Path) -> None:
    shutil.copyfile(run / METRICS, HERE / "held_out.csv")
    held = [SignalAgreement(**row) for row in pq.read_table(run / AGREEMENT).to_pylist()]
    with (HERE / "by_length.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["metric", "n", "mean", "low", "high"])
        for kind, fits in KINDS.items():
            points = [one.points for one in held if one.signal == "reward" and fits(one.longer)]
            found = share_interval(points)
            writer.writerow([kind, found.n, found.value, found.low, found.high])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
