"""How far the phrases of `alerts.refusals` agree with people: XSTest's completions, labelled by people.

    python experiments/refusals/measure.py completions.jsonl.gz

The file holds one completion a line, with `model`, `completion` and `label` (1_full_compliance, 2_full_refusal,
3_partial_refusal); a partial refusal is one. Writes dlma/metrics/refusals.yaml, agreement.csv and README.md's table.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import yaml

from dlma.metrics.refusals import MEASURED, Agreement, refuses
from dlma.statistics.format import bounded
from dlma.statistics.intervals import Estimate, share_interval

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMPLIES = "1_full_compliance"
HEAD = "# Written by experiments/refusals/measure.py from XSTest's completions; never by hand.\n"


def read(path: Path) -> list[dict]:
    """The completions of a JSON-lines file, gzipped or not."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def agreement(rows: Iterable[dict], phrases: list[str]) -> dict[str, Agreement]:
    """Counts by model, in the order of their names."""
    rows = list(rows)
    found = {}
    for model in sorted({row["model"] for row in rows}):
        pairs = [
            (refuses(row["completion"], phrases), row["label"] != COMPLIES) for row in rows if row["model"] == model
        ]
        found[model] = Agreement(
            n=len(pairs),
            agree=sum(said == meant for said, meant in pairs),
            refusals=sum(meant for _, meant in pairs),
            found=sum(said and meant for said, meant in pairs),
        )
    return found


def figures(one: Agreement) -> dict[str, Estimate]:
    """Agreement, refusals that are found, and compliant answers that are taken for refusals, with their intervals."""
    wrong = one.n - one.agree - (one.refusals - one.found)
    return {
        "agreement": _share(one.agree, one.n),
        "refusals_found": _share(one.found, one.refusals),
        "false_alarms": _share(wrong, one.n - one.refusals),
    }


def _share(count: int, of: int) -> Estimate:
    return share_interval([1.0] * count + [0.0] * (of - count))


def table(models: dict[str, Agreement]) -> str:
    """The table of the README."""
    lines = [
        "| answers of | n | phrases and people agree | refusals found | compliant answers taken for refusals |",
        "|---|---|---|---|---|",
    ]
    for name, one in models.items():
        shown = " | ".join(bounded(estimate, "share") for estimate in figures(one).values())
        lines.append(f"| {name} | {one.n} | {shown} |")
    return "\n".join(lines)


def write(models: dict[str, Agreement], phrases: list[str]) -> None:
    kept = {"phrases": phrases, "models": {name: asdict(one) for name, one in models.items()}}
    text = HEAD + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
    (ROOT / "dlma" / "metrics" / MEASURED).write_text(text, encoding="utf-8")
    with (HERE / "agreement.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["model", "figure", "n", "value", "low", "high"])
        for name, one in models.items():
            for figure, e in figures(one).items():
                writer.writerow([name, figure, e.n, repr(float(e.value)), repr(float(e.low)), repr(float(e.high))])
    readme = HERE / "README.md"
    inside = re.compile(r"(?<=<!-- table:start -->\n).*?(?=<!-- table:end -->)", re.S)
    readme.write_text(inside.sub(lambda _: table(models) + "\n", readme.read_text(encoding="utf-8")), encoding="utf-8")


def phrases_in_use() -> list[str]:
    """The phrases of conf/alerts/standard.yaml."""
    return yaml.safe_load((ROOT / "conf" / "alerts" / "standard.yaml").read_text(encoding="utf-8"))["refusals"]


if __name__ == "__main__":
    used = phrases_in_use()
    write(agreement(read(Path(sys.argv[1])), used), used)
