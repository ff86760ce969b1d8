"""Answers and token rewards of finished runs, a page at a time: of what a page shows the texts are read, no others.

What is filtered by is read whole, by columns, and kept for the runs that were looked at last.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dlma.records import TokenRewards, from_table
from dlma.runs.folder import ANSWERS, SCORED, TOKENS, RunFolder

KEPT = 32  # runs whose columns are kept
WHICH = ("all", "differ", "harmful", "unfinished")
_LIGHT = ["prompt_id", "arm", "category", "harmful", "finished"]
_SHOWN = ["question", "answer", "tokens", "reward", "malformed"]


@dataclass(frozen=True)
class ArmAnswers:
    """The answers of one arm of a run: by prompt the number of its first row, and what prompts are chosen by.

    digest: of every answer, so that arms with the same ones are known
    """

    folder: Path
    arm: str
    rows: dict[str, int]
    category: dict[str, str | None]
    harmful: dict[str, bool | None]
    finished: dict[str, bool]
    digest: str

    def read(self, prompts: Sequence[str]) -> dict[str, dict]:
        """The answers to some prompts, with all that is shown of them."""
        wanted = [prompt for prompt in prompts if prompt in self.rows]
        found = rows_at(self.folder / ANSWERS, [self.rows[prompt] for prompt in wanted], _SHOWN)
        return {
            p: {**row, "harmful": self.harmful[p], "finished": self.finished[p], "category": self.category[p]}
            for p, row in zip(wanted, found, strict=True)
        }

    def texts(self) -> dict[str, tuple[str, str]]:
        """Question and answer of every prompt."""
        table = pq.ParquetFile(self.folder / ANSWERS).read(columns=["question", "answer"]).to_pydict()
        return {prompt: (table["question"][row], table["answer"][row]) for prompt, row in self.rows.items()}


def rows_at(path: Path, numbers: Sequence[int], columns: list[str]) -> list[dict]:
    """Rows of a Parquet file by their numbers, in that order; only their row groups are read."""
    file = pq.ParquetFile(path)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    starts = list(itertools.accumulate(sizes, initial=0))
    found: dict[int, dict] = {}
    for group, (start, stop) in enumerate(itertools.pairwise(starts)):
        inside = [number for number in numbers if start <= number < stop]
        if inside:
            table = file.read_row_group(group, columns=columns).take(pa.array([n - start for n in inside]))
            found |= dict(zip(inside, table.to_pylist(), strict=True))
    return [found[number] for number in numbers]


def answers(folder: Path) -> dict[str, ArmAnswers]:
    """The answers of a run by arm. Raises UserError, OSError or ValueError where they are not as the run wrote them."""
    stat = (folder / ANSWERS).stat()
    return _answers(folder, (stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=KEPT)
def _answers(folder: Path, stamp: tuple[int, int]) -> dict[str, ArmAnswers]:
    path = RunFolder(folder).sound(ANSWERS)
    try:
        table = pq.ParquetFile(path).read(columns=[*_LIGHT, "answer"]).to_pydict()
    except pa.ArrowException as reason:
        raise ValueError(f"{ANSWERS}: {str(reason).splitlines()[0]}") from reason
    rows: dict[str, dict[str, int]] = {}
    for number, (arm, prompt) in enumerate(zip(table["arm"], table["prompt_id"])):
        rows.setdefault(arm, {}).setdefault(prompt, number)
    return {arm: _of_arm(folder, arm, found, table) for arm, found in rows.items()}


def _of_arm(folder: Path, arm: str, rows: dict[str, int], table: dict[str, list]) -> ArmAnswers:
    columns = {name: {prompt: table[name][row] for prompt, row in rows.items()} for name in _LIGHT[2:]}
    said = sorted((prompt, table["answer"][row]) for prompt, row in rows.items())
    digest = hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()
    return ArmAnswers(folder, arm, rows, columns["category"], columns["harmful"], columns["finished"], digest)


def chosen(columns: Sequence[ArmAnswers], *, which: str, category: str, find: str) -> list[str]:
    """The prompts that are asked for, those of the first column first; a choice is of all columns together."""
    prompts = list(dict.fromkeys(prompt for column in columns for prompt in column.rows))
    if category:
        prompts = [p for p in prompts if any(column.category.get(p) == category for column in columns)]
    if which == "harmful":
        prompts = [p for p in prompts if any(column.harmful.get(p) for column in columns)]
    if which == "unfinished":
        prompts = [p for p in prompts if any(column.finished.get(p) is False for column in columns)]
    if which != "differ" and not find:
        return prompts
    texts = [column.texts() for column in columns]
    each = {prompt: [found[prompt] for found in texts if prompt in found] for prompt in prompts}
    if which == "differ":
        prompts = [p for p in prompts if len({answer for _, answer in each[p]}) > 1]
    return [p for p in prompts if find.casefold() in "\n".join(itertools.chain(*each[p])).casefold()]


def categories(columns: Iterable[ArmAnswers]) -> list[str]:
    """The categories of the prompts."""
    return sorted({name for column in columns for name in column.category.values() if name})


def token_rewards(folder: Path) -> list[TokenRewards]:
    """The pairs that were read token by token, the largest R first; none where the run kept no such file."""
    if not (folder / TOKENS).is_file():
        return []
    rows = from_table(TokenRewards, RunFolder(folder).table(TOKENS))
    return sorted(rows, key=lambda row: sum(row.negative_rewards) - sum(row.positive_rewards))


def questions(folder: Path, ids: Iterable[str]) -> dict[str, str]:
    """The questions of some pairs."""
    wanted = set(ids)
    table = pq.ParquetFile(RunFolder(folder).sound(SCORED)).read(columns=["id", "question"]).to_pydict()
    return {key: text for key, text in zip(table["id"], table["question"]) if key in wanted}
