"""The classifier of refusals: fitted on XSTest's completions, and held against people on models that were left out.

    python experiments/refusals/fit.py completions.jsonl.gz [errors.tsv]

The file holds one completion a line, with `id`, `model`, `prompt`, `completion` and `label` (measure.py). Writes
dlma/metrics/refusal_classifier.{safetensors,yaml}, classifier.csv and README.md's second table; errors.tsv gets the
answers on which a classifier that saw neither their model nor their prompt is wrong. The same file gives the same
bytes.
"""

from __future__ import annotations

import csv
import re
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save
from scipy.sparse import csr_matrix, vstack
from sklearn.linear_model import LogisticRegression

from dlma.metrics.refusal_classifier import MEASURED, SIZE, WEIGHTS, hashed, head
from dlma.metrics.refusals import Agreement
from dlma.statistics.format import bounded
from experiments.refusals.measure import COMPLIES, HERE, ROOT, figures, read

FOLDS = 5  # of the prompts
CUTS = (8, 16)  # each answer is learned from its first words alone too: a refusal may be short
STRENGTH = 30.0  # C of the regression
SOURCE = {
    "source": "XSTest completions with human labels, github.com/paul-rottger/exaggerated-safety (arXiv 2308.01263)",
    "licence": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "changes": "weights of a logistic regression over hashed word n-grams; no text of the set is kept",
}
NOTE = (
    "# Written by experiments/refusals/fit.py; never by hand. Counts are of models and prompts left out of the fit.\n"
)

Line = tuple[np.ndarray, float]  # weights and bias


class Completions:
    """The rows as features of the whole head and of its cuts, with who refuses, by model and by fold of prompts."""

    def __init__(self, rows: Sequence[dict]) -> None:
        first = [head(row["completion"], row["prompt"]) for row in rows]
        self.rows = rows
        self.matrix = features(first)
        self.cut = [features([some[:n] for some in first]) for n in CUTS]
        self.refuses = np.array([row["label"] != COMPLIES for row in rows])
        self.model = np.array([row["model"] for row in rows])
        self.fold = np.array([zlib.crc32(row["id"].encode()) % FOLDS for row in rows])

    @property
    def models(self) -> list[str]:
        return sorted({row["model"] for row in self.rows})

    def fit(self, among: np.ndarray) -> Line:
        """Weights from these rows and their cuts."""
        count = 1 + len(CUTS)
        every = vstack([part[among] for part in (self.matrix, *self.cut)])
        rule = LogisticRegression(C=STRENGTH, solver="liblinear")
        rule.fit(every, np.tile(self.refuses[among], count), sample_weight=np.tile(self.weight(among), count))
        return rule.coef_[0], float(rule.intercept_[0])

    def scores(self, among: np.ndarray, line: Line) -> np.ndarray:
        return self.matrix[among] @ line[0] + line[1]

    def left_out(self, models: Sequence[str]) -> np.ndarray:
        """Scores of these models' rows, each by weights fitted on the others of them and on other prompts; else nan."""
        found = np.full(len(self.rows), np.nan)
        for model in models:
            others = np.isin(self.model, models) & (self.model != model)
            for fold in range(FOLDS):
                mine = (self.model == model) & (self.fold == fold)
                found[mine] = self.scores(mine, self.fit(others & (self.fold != fold)))
        return found

    def calibration(self, scores: np.ndarray) -> tuple[float, float]:
        """Scale and shift of the log-odds (Platt 1999) from scores of models left out; rows without one are no part."""
        known = ~np.isnan(scores)
        rule = LogisticRegression(C=1e6)
        rule.fit(scores[known, None], self.refuses[known], sample_weight=self.weight(known))
        return float(rule.coef_[0, 0]), float(rule.intercept_[0])

    def weight(self, among: np.ndarray) -> np.ndarray:
        """Of these rows, mean 1: each model's refusals and compliant answers weigh the same together."""
        cells = [among & (self.model == m) & (self.refuses == r) for m in self.models for r in (False, True)]
        found = sum(cell / max(1, cell.sum()) for cell in cells)[among]
        return found / found.mean()


def features(heads: Sequence[Sequence[str]]) -> csr_matrix:
    """(answers, SIZE): one over the root of their count for each feature of an answer, as the classifier takes them."""
    columns = [hashed(first) for first in heads]
    lengths = [len(some) for some in columns]
    values = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return csr_matrix((values, np.concatenate(columns).astype(int), starts), shape=(len(heads), SIZE))


def held_out(data: Completions) -> np.ndarray:
    """Log-odds of every row by a classifier, calibration included, that saw neither its model nor its prompt.

    The two numbers of a calibration come from the other models' answers to all prompts.
    """
    scores = data.left_out(data.models)
    found = np.empty(len(data.rows))
    for model in data.models:
        scale, shift = data.calibration(data.left_out([other for other in data.models if other != model]))
        mine = data.model == model
        found[mine] = scale * scores[mine] + shift
    return found


def agreement(data: Completions, said: np.ndarray) -> dict[str, Agreement]:
    """Counts by model, in the order of their names."""
    found = {}
    for model in data.models:
        mine = data.model == model
        a, b = said[mine], data.refuses[mine]
        counts = (mine.sum(), (a == b).sum(), b.sum(), (a & b).sum())
        found[model] = Agreement(*map(int, counts))
    return found


def shipped(data: Completions) -> dict[str, np.ndarray]:
    """What the package holds: weights in half precision, and bias, scale and shift."""
    weights, bias = data.fit(np.ones(len(data.rows), dtype=bool))
    scale, shift = data.calibration(data.left_out(data.models))
    line = np.round([bias, scale, shift], 3).astype(np.float32)
    return {"weights": np.round(weights, 3).astype(np.float16), "line": line}


def table(models: dict[str, Agreement]) -> str:
    """The second table of the README."""
    heads = ("answers of", "n", "classifier and people agree", "refusals found", "compliant answers taken for refusals")
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|"]
    for name, one in models.items():
        shown = " | ".join(bounded(estimate, "share") for estimate in figures(one).values())
        lines.append(f"| {name} | {one.n} | {shown} |")
    return "\n".join(lines)


def write(data: Completions, models: dict[str, Agreement]) -> None:
    """The weights, what was measured of them, and the page's table."""
    room = ROOT / "dlma" / "metrics"
    about = "; ".join(f"{name}: {text}" for name, text in SOURCE.items())
    (room / WEIGHTS).write_bytes(save(shipped(data), {"about": about}))
    kept = SOURCE | {"models": {name: asdict(one) for name, one in models.items()}}
    (room / MEASURED).write_text(NOTE + yaml.safe_dump(kept, sort_keys=False, width=110), encoding="utf-8")
    with (HERE / "classifier.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["model", "figure", "n", "value", "low", "high"])
        for name, one in models.items():
            for figure, e in figures(one).items():
                writer.writerow([name, figure, e.n, *(repr(float(x)) for x in (e.value, e.low, e.high))])
    page = HERE / "README.md"
    inside = re.compile(r"(?<=<!-- classifier:start -->\n).*?(?=<!-- classifier:end -->)", re.S)
    page.write_text(inside.sub(lambda _: table(models) + "\n", page.read_text(encoding="utf-8")), encoding="utf-8")


def write_errors(path: Path, data: Completions, odds: np.ndarray) -> None:
    """The answers on which the classifier is wrong, for the eye; they are of another's set and are not kept here."""
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, delimiter="\t")
        for row, x, refuses in zip(data.rows, odds, data.refuses, strict=True):
            if (x > 0) != refuses:
                told = " ".join(row["completion"].split())
                writer.writerow([row["model"], row["id"], row["label"], f"{x:.2f}", row["prompt"], told[:400]])


def main(path: Path, errors: Path | None = None) -> None:
    """Everything that the head of this file names."""
    data = Completions(read(path))
    odds = held_out(data)
    write(data, agreement(data, odds > 0))
    if errors is not None:
        write_errors(errors, data, odds)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
