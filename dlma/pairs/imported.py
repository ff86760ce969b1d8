"""Pairs from a person's own file: our Parquet read back exactly, or text in TRL's columns, encoded once.

Text rows hold a prompt (`prompt` or `messages`; text or turns) and two answers, as they stand, in `positive` and
`negative`, or in `chosen` and `rejected`, which then are the positive and the negative side. An answer's ids are
what follows the context in the ids of context and answer together; a row where that boundary moves, or where the
three contexts disagree on the answer's ids, is dropped and counted. Answers of a file count as finished and get
their end (EOS, or what the chat template writes after an answer), if there is one, unless `finished` (or
`positive_finished`, `negative_finished`) says false.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dlma import records
from dlma.data import sources, text
from dlma.data.jsonl import CUT_ANSWER, answered, without_answer
from dlma.data.preference_forms import in_our_columns
from dlma.data.text import Tally
from dlma.errors import BadRow, UserError
from dlma.model.tokens import Characters, answer_ids, require_rows, with_eos
from dlma.prompts.contexts import ADVICE, Fitted, count_fit, fit
from dlma.prompts.rendering import answer_end, rendered_ids
from dlma.prompts.wording import SIDES, Wording
from dlma.records import Account, Pair, Turn, content_id, from_table, schema
from dlma.store.stage import Stage

SUFFIXES = sources.SUFFIXES
ANSWERS = ("positive", "negative")
_TOGETHER = 256  # rows that are looked at at once
LARGEST = 1_000_000_000  # nats: a margin beyond it would overflow the loss
DUPLICATE = "duplicate pair"
HELD_OUT = "prompt held out from training"
CUT = "answer cut at max_response_tokens"

Label = tuple[float, str] | None  # margin and chosen side, or None where no margin is asked for


def kept_apart(held_out: Stage, *, with_validation: bool) -> set[str]:
    """Ids of the prompts that no pair may be on, and of their texts, as which a file's prompts are known.

    held_out: the contexts of those that are evaluated; with_validation: a KL is read on validation prompts too
    """
    (prompts,) = held_out.uses
    names = set(held_out.table().column("prompt_id").to_pylist())
    rows = prompts.rows(records.Prompt)
    apart = [row for row in rows if row.id in names or (with_validation and row.split == "validation")]
    return {row.id for row in apart} | {text.prompt_id(row.turns) for row in apart}


def fingerprint(path: str) -> str:
    """sha256 of the file or files; what a stage's key needs."""
    return text.fingerprint(path, suffixes=SUFFIXES)


class _Limits(NamedTuple):
    seed: int
    max_prompt_tokens: int
    max_response_tokens: int
    vocabulary: int | None


class FilePairs:
    """The pairs of `pairs.path`, or of `scored.path` with their margins, as they are asked for, once.

    `account` and `labels` are whole when the pairs have been gone through, with nothing else held of them than ids. A
    label's margin is in nats (positive over negative); its chosen side is the positive one unless, beside `positive`
    and `negative` (or our own ids), a column `chosen` names the side. The reference log-probs are the caller's to
    compute: they belong to a model, not to a file.
    held_out: ids of prompts whose pairs are left out
    vocabulary: ids that the model has a row for; None: as many as its tokenizer has entries
    """

    def __init__(
        self,
        path: str,
        tokenizer,
        wording: Wording,
        /,
        *,
        with_margin: bool,
        seed: int,
        max_prompt_tokens: int,
        max_response_tokens: int,
        held_out: Collection[str] = (),
        vocabulary: int | None = None,
        on_bad_row: str = "drop",
        max_dropped: float = 0.2,
    ) -> None:
        tally = Tally(on_bad_row=on_bad_row, max_dropped=max_dropped)
        limits = _Limits(seed, max_prompt_tokens, max_response_tokens, vocabulary)
        reader = _Reader(tokenizer, wording, tally, limits, with_margin=with_margin)
        self.account = tally.account
        self.labels: list[records.Label] = []
        self._found = reader.read(path, "scored.path" if with_margin else "pairs.path", set(held_out))

    def __iter__(self) -> Iterator[Pair]:
        for pair, label in self._found:
            if label is not None:
                self.labels.append(records.Label(pair.id, *label))
            yield pair


def aligned_pairs(
    rows: Sequence[tuple[str, dict]],
    tokenizer,
    wording: Wording,
    /,
    *,
    seed: int,
    max_prompt_tokens: int,
    max_response_tokens: int,
    on_bad_row: str,
    max_dropped: float,
    vocabulary: int | None = None,
    parse: Callable[[dict], Mapping] = lambda row: row,
) -> tuple[list[Pair | None], Account]:
    """The pair of each (where, row) of a text file, duplicates included; None for a row that cannot be used.

    parse: gives a row of another format the columns prompt, chosen and rejected
    """
    tally = Tally(on_bad_row=on_bad_row, max_dropped=max_dropped)
    limits = _Limits(seed, max_prompt_tokens, max_response_tokens, vocabulary)
    found = _Reader(tokenizer, wording, tally, limits, with_margin=False).aligned(rows, parse)
    tally.account.kept = sum(item is not None for item in found)
    tally.stop_if_too_many("pairs", f"mend the rows, {ADVICE}")
    return [item and item[0] for item in found], tally.account


@dataclass(frozen=True)
class _TextRow:
    where: str
    prompt_id: str
    turns: list[Turn]
    cut_prompt: bool
    answers: dict[str, str]
    finished: dict[str, bool]
    label: Label


class _Reader:
    """One file or folder, one tokenizer and wording, one tally."""

    def __init__(
        self,
        tokenizer,
        wording: Wording,
        tally: Tally,
        limits: _Limits,
        *,
        with_margin: bool,
    ) -> None:
        self.vocabulary = len(tokenizer) if limits.vocabulary is None else limits.vocabulary
        self.tokenizer = tokenizer
        self.wording = wording
        self.tally = tally
        self.with_margin = with_margin
        self.seed = limits.seed
        self.max_prompt_tokens = limits.max_prompt_tokens
        self.max_response_tokens = limits.max_response_tokens

    @cached_property
    def end(self) -> int | None:
        """The id that ends an answer."""
        return answer_end(self.tokenizer, self.wording)

    def read(self, path: str, key: str, held_out: set[str]) -> Iterator[tuple[Pair, Label]]:
        """The pairs of all files, each once; raises UserError, where too many are bad, at the end."""
        kept: set[str] = set()
        try:
            for pair, label in chain.from_iterable(map(self._file, text.files_of(path, suffixes=SUFFIXES))):
                if pair.prompt_id in held_out:
                    self.tally.skip(HELD_OUT)
                elif pair.id in kept:
                    self.tally.skip(DUPLICATE)
                else:
                    kept.add(pair.id)
                    yield pair, label
        except UserError as error:
            raise UserError(f"{key}: {error}") from None
        self.tally.account.kept = len(kept)
        self.tally.stop_if_too_many(f"{key}: {path}", f"mend the rows, {ADVICE}")

    def _file(self, file: Path) -> Iterator[tuple[Pair, Label]]:
        """The usable pairs of a file, some rows at a time."""
        if file.suffix == ".parquet" and set(_columns(file)) >= set(schema(Pair).names):
            count = 0
            for table in _tables(file):
                yield from self._own(file, table, count)
                count += table.num_rows
            return
        rows = sources.rows_of(file)
        while some := list(islice(rows, _TOGETHER)):
            yield from (item for item in self.aligned(some) if item is not None)

    def _own(self, file: Path, table: pa.Table, before: int) -> list[tuple[Pair, Label]]:
        """Our own pairs: the ids are taken as they stand, once this model is seen to have them.

        before: rows of the file before these
        """
        names = schema(Pair).names
        try:
            pairs = from_table(Pair, table.select(names).cast(schema(Pair)))
        except (pa.ArrowException, ValueError) as error:
            raise UserError(f"{file}: columns of the wrong type ({_line(error)})") from None
        labels = table.select([c for c in table.column_names if c not in names]).to_pylist()
        found = []
        for number, (pair, row) in enumerate(zip(pairs, labels, strict=True), start=before + 1):
            where = f"{file}, row {number}"
            self.tally.account.read += 1
            _check_values(where, pair)
            _check_ids(where, pair, self.vocabulary)
            with _counted(self.tally, where):
                found.append((pair, _label(row, answer_columns=ANSWERS) if self.with_margin else None))
        return found

    def aligned(
        self, rows: Sequence[tuple[str, dict]], parse: Callable[[dict], Mapping] = lambda row: row
    ) -> list[tuple[Pair, Label] | None]:
        """One item per row, None where it cannot be used."""
        parsed: dict[int, _TextRow] = {}
        for number, (where, row) in enumerate(rows):
            self.tally.account.read += 1
            with _counted(self.tally, where):
                parsed[number] = _parsed(where, parse(row), with_margin=self.with_margin)
                if parsed[number].cut_prompt:
                    self.tally.trim(where, CUT_ANSWER)
        prompts = [(row.prompt_id, row.turns) for row in parsed.values()]
        fits = fit(prompts, self.tokenizer, self.wording, seed=self.seed, max_prompt_tokens=self.max_prompt_tokens)
        fitting = {
            number: (row, one)
            for (number, row), one in zip(parsed.items(), fits, strict=True)
            if count_fit(one, self.tally, row.where, self.vocabulary)
        }
        found: list[tuple[Pair, Label] | None] = [None] * len(rows)
        for number, ids in self._joined(fitting).items():
            one, fitted = fitting[number]
            with _counted(self.tally, one.where):
                found[number] = (self._pair(one, fitted, ids), one.label)
        return found

    def _joined(self, fitting: Mapping[int, tuple[_TextRow, Fitted]]) -> dict[int, dict[str, list[list[int]]]]:
        """For each row and answer the ids of context and answer together, one for each side's context."""
        characters = Characters(self.tokenizer)
        answers: dict[int, list[str]] = {}
        for number, (row, _) in fitting.items():
            with _counted(self.tally, row.where):
                answers[number] = [characters.answer(row.answers[answer], self.end) for answer in ANSWERS]
        texts = [fitting[n][1].texts[side] + told for n, both in answers.items() for told in both for side in SIDES]
        ids = iter(rendered_ids(self.tokenizer, self.wording, texts))
        return {number: {answer: [next(ids) for _ in SIDES] for answer in ANSWERS} for number in answers}

    def _pair(self, row: _TextRow, fitted: Fitted, joined: dict[str, list[list[int]]]) -> Pair:
        contexts = [fitted.ids[side] for side in SIDES]
        require_rows((ids for answer in ANSWERS for ids in joined[answer]), self.vocabulary)
        end = self.end
        whole = {a: with_eos(answer_ids(contexts, joined[a], end), row.finished[a], end) for a in ANSWERS}
        cut = {answer: len(ids) > self.max_response_tokens for answer, (ids, _) in whole.items()}
        if any(cut.values()):
            self.tally.trim(row.where, CUT)
        ids = {answer: ids[: self.max_response_tokens] for answer, (ids, _) in whole.items()}
        return Pair(
            id=content_id(row.prompt_id, row.answers["positive"], row.answers["negative"]),
            prompt_id=row.prompt_id,
            question=row.turns[-1].content,
            wording=self.wording.label(fitted.index),
            plain_context_ids=fitted.ids["plain"],
            positive_context_ids=fitted.ids["positive"],
            negative_context_ids=fitted.ids["negative"],
            positive_ids=ids["positive"],
            negative_ids=ids["negative"],
            positive_finished=whole["positive"][1] and not cut["positive"],
            negative_finished=whole["negative"][1] and not cut["negative"],
            positive_text=self._text(row, "positive", ids, cut),
            negative_text=self._text(row, "negative", ids, cut),
        )

    def _text(self, row: _TextRow, answer: str, ids: dict[str, list[int]], cut: dict[str, bool]) -> str:
        if not cut[answer]:
            return row.answers[answer]
        return self.tokenizer.decode(ids[answer], skip_special_tokens=True)


@contextmanager
def _counted(tally: Tally, where: str) -> Iterator[None]:
    """A bad row met inside is counted, and its row left out; unreadable input stops, with the row's place."""
    try:
        yield
    except BadRow as reason:
        tally.drop(where, str(reason))
    except UserError as error:
        raise error if where in str(error) else UserError(f"{where}: {error}") from None


def _columns(file: Path) -> list[str]:
    with _parquet(file):
        return pq.read_schema(file).names


def _tables(file: Path) -> Iterator[pa.Table]:
    with _parquet(file):
        for batch in pq.ParquetFile(file).iter_batches(_TOGETHER):
            yield pa.Table.from_batches([batch])


@contextmanager
def _parquet(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: not a readable Parquet file ({_line(error)})") from None


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_values(where: str, pair: Pair) -> None:
    """No column of our own pairs is without a value, nor is an id."""
    for name, value in vars(pair).items():
        if value is None or (isinstance(value, list) and None in value):
            raise UserError(f"{where}: {name} lacks a value; another program wrote the file")


def _check_ids(where: str, pair: Pair, size: int) -> None:
    contexts = (pair.plain_context_ids, pair.positive_context_ids, pair.negative_context_ids)
    for ids in (*contexts, pair.positive_ids, pair.negative_ids):
        if not ids or min(ids) < 0 or max(ids) >= size:
            raise UserError(f"{where}: token ids beyond this model's {size} rows; another model wrote the file")


def _parsed(where: str, row: Mapping, *, with_margin: bool) -> _TextRow:
    row = in_our_columns(row)
    names = ANSWERS if "positive" in row else ("chosen", "rejected")
    for name in names:
        text.column(row, name)
    turns, *found = answered(row, names, prompt_column="prompt")
    answers = [answer for answer in found if answer is not None]
    if len(answers) < len(found):
        raise BadRow("empty answer")
    kept = without_answer(turns)
    text.check_prompt(kept)
    return _TextRow(
        where=where,
        prompt_id=text.prompt_id(kept),
        turns=kept,
        cut_prompt=len(kept) < len(turns),
        answers=dict(zip(ANSWERS, answers, strict=True)),
        finished={answer: _finished(row, answer, name) for answer, name in zip(ANSWERS, names, strict=True)},
        label=_label(row, answer_columns=names) if with_margin else None,
    )


def _finished(row: Mapping, answer: str, name: str) -> bool:
    for column in (f"{answer}_finished", f"{name}_finished", "finished"):
        if row.get(column) is not None:
            if str(row[column]).lower() not in ("true", "false"):  # a table of text spells it out
                raise UserError(f"{column} is {row[column]!r}, not true or false")
            return str(row[column]).lower() == "true"
    return True


def _label(row: Mapping, *, answer_columns: tuple[str, str]) -> tuple[float, str]:
    margin = _number(text.column(row, "margin"))
    if isinstance(margin, bool) or not isinstance(margin, int | float | None):
        raise UserError(f"margin is of type {type(margin).__name__}, not a number")
    if margin is None or not abs(margin) <= LARGEST:  # nan is not either
        raise BadRow(f"margin is not a number from -{LARGEST:,} to {LARGEST:,}")
    chosen = row.get("chosen", "positive") if answer_columns == ANSWERS else "positive"
    if chosen not in ANSWERS:
        raise UserError("chosen must say positive or negative, beside columns of those names")
    return float(margin), chosen


def _number(value: object) -> object:
    """A number that a table of text spells out; any other value as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
