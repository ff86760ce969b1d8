"""The typed records that stages pass on, and their Arrow schemas.

A record is a frozen dataclass of plain values; a stage stores a list of them as Parquet.
Token ids are kept from sampling to training: text fields are for people, ids are what is computed on.
Log-probabilities are sums over the response's tokens in nats, float32 precision.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def sparse(group: str) -> typing.Any:
    """A field that is null by default, and whose column is written only where a row fills one of its group."""
    return field(default=None, metadata={"sparse": group})


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation; `role` is "user" or "assistant"."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends with a user turn, and the human pair that came with it, if any."""

    id: str
    turns: list[Turn]
    split: str
    category: str | None = None
    chosen: str | None = None
    rejected: str | None = None

    def is_of(self, split: str) -> bool:
        """Whether it is of a split; "all" is each of them but `untouched`, whose prompts are kept for the last."""
        return self.split == split or (split == "all" and self.split != "untouched")


@dataclass(frozen=True)
class Context:
    """A prompt rendered by a wording: the token ids that precede an answer, for each side.

    `chosen_ids` and `rejected_ids` are the answers of the human pair that came with a training prompt, EOS included;
    null where there is none, or where its ids are not the same after all three contexts.
    """

    prompt_id: str
    question: str
    category: str | None
    wording: str
    plain_ids: list[int]
    positive_ids: list[int]
    negative_ids: list[int]
    dropped_turns: int
    chosen_ids: list[int] | None = None
    rejected_ids: list[int] | None = None


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, with the three contexts under which they can be scored.

    `positive_ids` end with an EOS id if and only if `positive_finished`; likewise the negative side.
    """

    id: str
    prompt_id: str
    question: str
    wording: str
    plain_context_ids: list[int]
    positive_context_ids: list[int]
    negative_context_ids: list[int]
    positive_ids: list[int]
    negative_ids: list[int]
    positive_finished: bool
    negative_finished: bool
    positive_text: str
    negative_text: str


@dataclass(frozen=True)
class ScoredPair(Pair):
    """A pair with its reference log-probs, its margin (the paper's R, nats) and its training label.

    `chosen` is "positive" or "negative"; `margin` is R of positive over negative, whatever was chosen.
    The four `*_under_*` columns are null when the scorer did not need them. `verdict_first` and `verdict_second`
    are a judge's log-odds (nats) that the positive answer is the better one, shown first or shown second; null
    where no judge was asked, or not in that order. `*_token_rewards` are the shares of R of an answer's tokens, and
    `*_token_reference` their reference log-probs (scorer=self_reward_by_token). `*_score` is what the scorer gives each
    answer by itself, where it does (scorer=rating, implicit_reward).
    """

    positive_reference: float
    negative_reference: float
    positive_under_positive: float | None
    positive_under_negative: float | None
    negative_under_positive: float | None
    negative_under_negative: float | None
    margin: float
    chosen: str
    verdict_first: float | None = None
    verdict_second: float | None = None
    positive_score: float | None = sparse("scores")
    negative_score: float | None = sparse("scores")
    positive_token_rewards: list[float] | None = sparse("tokens")
    negative_token_rewards: list[float] | None = sparse("tokens")
    positive_token_reference: list[float] | None = sparse("tokens")
    negative_token_reference: list[float] | None = sparse("tokens")


@dataclass(frozen=True)
class TokenRewards:
    """R token by token: log pi(t|p+,q,...) - log pi(t|p-,q,...) of each token of a pair's answers, nats.

    R is the sum over the positive answer less the sum over the negative one. `*_pieces` are the tokens' texts;
    `*_echo` says of each token whether its word stands in what either prompt adds to the plain one.
    """

    id: str
    positive_rewards: list[float]
    negative_rewards: list[float]
    positive_pieces: list[str]
    negative_pieces: list[str]
    positive_echo: list[bool]
    negative_echo: list[bool]


@dataclass(frozen=True)
class Implicit:
    """Log-probs (nats, summed) of a pair's answers to the plain prompt under a policy and under its reference."""

    id: str
    positive_policy: float
    negative_policy: float
    positive_reference: float
    negative_reference: float


@dataclass(frozen=True)
class Label:
    """A margin (nats, positive over negative) and chosen side that came with a pair."""

    id: str
    margin: float
    chosen: str


@dataclass(frozen=True)
class Truth:
    """How much better a pair's positive answer truly is; null where no truth is known, 0 for a tie."""

    id: str
    value: float | None


@dataclass(frozen=True)
class Reward:
    """What a reward model gives both answers of a pair; their difference is the log-odds that positive is better."""

    id: str
    positive: float
    negative: float


@dataclass(frozen=True)
class Answer:
    """One answer to a held-out prompt by one arm (base, prompted, aligned).

    `logp` is under the arm's own model and context, `logp_base` under the base and the plain context;
    `reward` is the base's self-reward, log pi(a|p+,q) - log pi(a|p-,q). Those are at temperature 1, nothing cut.
    Where answers were drawn otherwise (model/drawn.py), `logp_drawn` is under the distribution that was drawn from,
    `logp_base_drawn` under the base's, drawn from alike (null: it rules the answer out), `logp_base_uncut` under the
    base's at the same temperature, nothing cut. Else all three are null, and no columns.
    """

    prompt_id: str
    arm: str
    question: str
    category: str | None
    text: str
    ids: list[int]
    finished: bool
    logp: float
    logp_base: float
    reward: float
    logp_drawn: float | None = sparse("drawn")
    logp_base_drawn: float | None = sparse("drawn")
    logp_base_uncut: float | None = sparse("drawn")


@dataclass(frozen=True)
class EvalRow:
    """What the evaluation says of one answer; oracle columns are null where there is no oracle.

    `sentiment` is filled where it is the truth (evaluation=sentiment).
    """

    prompt_id: str
    arm: str
    question: str
    category: str | None
    answer: str
    tokens: int
    finished: bool
    logp: float
    logp_base: float
    reward: float
    harmlessness: float | None = None
    helpfulness: float | None = None
    harmful: bool | None = None
    malformed: float | None = None
    logp_drawn: float | None = sparse("drawn")
    logp_base_drawn: float | None = sparse("drawn")
    logp_base_uncut: float | None = sparse("drawn")
    sentiment: float | None = sparse("sentiment")

    @property
    def log_ratio(self) -> float:
        """Log-prob under what the answer was drawn from, over the base's at that temperature, uncut: its mean is KL."""
        if self.logp_drawn is None or self.logp_base_uncut is None:
            return self.logp - self.logp_base
        return self.logp_drawn - self.logp_base_uncut


@dataclass(frozen=True)
class Verdict:
    """What a judge says of an arm's answer against another arm's to the same prompt.

    `shown_first` and `shown_second` are the verdicts for the arm in the two orders, `outcome` what follows from both:
    "win", "tie", "lose" or "unparsed". `margin` is the judge's own measure of how much better the arm's answer is
    (log-odds in nats, a difference of scores), mean of both orders; null for a judge that speaks in words.
    """

    prompt_id: str
    category: str | None
    judge: str
    arm: str
    against: str
    shown_first: str
    shown_second: str
    outcome: str
    margin: float | None = None


# What the outcome of a verdict counts for; one that could not be parsed counts for nothing.
POINTS = {"win": 1.0, "tie": 0.5, "lose": 0.0}


@dataclass(frozen=True)
class MetricValue:
    """One measured value of an arm, on an answer (`item` is its prompt's id) or on an item of a test set.

    A ratio of sums (nats per token) has `value` / `weight`; elsewhere the weight is 1.
    """

    item: str
    category: str | None
    arm: str
    metric: str
    value: float
    weight: float = 1.0


@dataclass
class Account:
    """What was read, what was kept, and why the rest was not; counts of rows."""

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    trimmed: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def trim(self, reason: str) -> None:
        self.trimmed[reason] = self.trimmed.get(reason, 0) + 1


def content_id(*parts: str) -> str:
    """The first 16 hex digits of the sha256 of the parts; equal text has equal ids everywhere."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def not_finite(row: Any) -> list[str]:
    """The fields of a record that hold a nan or an infinity."""
    return [field.name for field in dataclasses.fields(row) if not _finite(getattr(row, field.name))]


def _finite(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


_SCALARS = {str: "string", int: "int64", float: "float64", bool: "bool_"}


def _arrow_type(annotation: Any) -> pa.DataType:
    import pyarrow as pa  # not at the top: a command that reads no rows answers at once

    if annotation in _SCALARS:
        return getattr(pa, _SCALARS[annotation])()
    if typing.get_origin(annotation) is list:
        (item,) = typing.get_args(annotation)
        return pa.list_(pa.int32() if item is int else _arrow_type(item))
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        (inner,) = [a for a in typing.get_args(annotation) if a is not type(None)]
        return _arrow_type(inner)
    return pa.struct(schema(annotation))


def schema(record: type) -> pa.Schema:
    """The Arrow schema of a record class: one column per field, in order."""
    import pyarrow as pa

    hints = typing.get_type_hints(record)
    return pa.schema([pa.field(f.name, _arrow_type(hints[f.name])) for f in dataclasses.fields(record)])


def to_table(record: type, rows: Iterable[Any]) -> pa.Table:
    """Rows of one record class as an Arrow table with that class's schema, without sparse columns that none fills."""
    import pyarrow as pa

    found = [dataclasses.asdict(row) for row in rows]
    group = {f.name: f.metadata["sparse"] for f in dataclasses.fields(record) if "sparse" in f.metadata}
    filled = {group[name] for row in found for name in group if row[name] is not None}
    columns = [column for column in schema(record) if column.name not in group or group[column.name] in filled]
    return pa.Table.from_pylist(found, schema=pa.schema(columns))


def joined(record: type, tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of one record class as one: what `to_table` makes of their rows, without making them again."""
    import pyarrow as pa

    whole = pa.concat_tables(tables, promote_options="default")
    return whole.select([f.name for f in dataclasses.fields(record) if f.name in whole.column_names])


def from_table(record: type, table: pa.Table) -> list:
    """The rows of a table as records; raises KeyError when a column is missing that is not sparse."""
    names = [f.name for f in dataclasses.fields(record) if f.name in table.column_names or not f.metadata.get("sparse")]
    rows = table.select(names).to_pylist()
    if record is Prompt:
        return [Prompt(**{**row, "turns": [Turn(**t) for t in row["turns"]]}) for row in rows]
    return [record(**row) for row in rows]
