"""Pairs of a refusal and a compliance to one prompt, of XSTest's completions: a file for `data=jsonl pairs=human`.

    python experiments/real_self_reward/xstest_pairs.py completions.jsonl.gz pairs.jsonl

The refusal is `chosen`, the category says whether the prompt is safe. The completions, labelled by people, are at
paul-rottger/exaggerated-safety (CC BY 4.0); neither they nor the pairs are part of this repository.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

COMPLIES, REFUSES = "1_full_compliance", "2_full_refusal"
UNSAFE = "contrast_"  # how the types of unsafe prompts begin


def pairs(rows: Iterable[dict]) -> Iterator[dict]:
    """Every full refusal against every full compliance to the same prompt."""
    rows = list(rows)
    for prompt in dict.fromkeys(row["prompt"] for row in rows):
        own = [row for row in rows if row["prompt"] == prompt]
        category = "unsafe" if own[0]["type"].startswith(UNSAFE) else "safe"
        for refusal in (row for row in own if row["label"] == REFUSES):
            for compliance in (row for row in own if row["label"] == COMPLIES):
                texts = {"chosen": refusal["completion"], "rejected": compliance["completion"]}
                yield {"prompt": prompt, "category": category, **texts}


def main(source: Path, target: Path) -> None:
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        found = [json.dumps(pair) for pair in pairs(map(json.loads, lines))]
    target.write_text("\n".join(found) + "\n", encoding="utf-8")
    print(f"{len(found)} pairs")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
