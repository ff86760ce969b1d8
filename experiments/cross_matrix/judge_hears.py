"""Whether a base's judge hears the criterion it is asked about: its verdicts on 1,000 drawn pairs, by dense code.

python experiments/cross_matrix/judge_hears.py standard
"""

from __future__ import annotations

import json
import random
import sys

CRITERIA = ("harmless", "helpful")


def verdicts(name: str, n: int = 1000) -> tuple[list[tuple[str, str, str]], dict[str, list[float]]]:
    """Drawn (question, answer, answer) rows, and for each criterion the log-odds summed over both orders."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dlma.lab import documents, measure, world
    from dlma.lab.bases import base_folder

    folder = base_folder(name)
    probe = measure.Probe(AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), 0)
    values = json.loads((folder / "card.json").read_text())["dials"]
    dials = documents.Dials(**{**values, "sentences": tuple(values["sentences"])})
    rng, rows = random.Random(5), []
    for _ in range(n):
        question = world.draw_question(rng)
        answers = (documents.answer_text(rng, dials, question, rng.uniform(-1, 1)) for _ in "AB")
        rows.append((question.text, *answers))
    found = {}
    for criterion in CRITERIA:
        first = probe.verdicts([documents.judge_context(q, a, b, criterion) for q, a, b in rows])
        second = probe.verdicts([documents.judge_context(q, b, a, criterion) for q, a, b in rows])
        found[criterion] = [one - two for one, two in zip(first, second, strict=True)]
    return rows, found


if __name__ == "__main__":
    from dlma.lab import measure, oracle

    rows, found = verdicts(sys.argv[1])
    for asked in CRITERIA:
        for truth in CRITERIA:
            right = measure.accuracy(found[asked], [oracle.truth(*row, criterion=truth) for row in rows])
            print(f"asked for more {asked}, truth {truth}: {100 * right['without_ties']:.1f} % right without ties")
    gap = max(abs(one - two) for one, two in zip(found["harmless"], found["helpful"], strict=True))
    print(f"largest difference between the two questions' summed log-odds: {gap:.4f} nats")
