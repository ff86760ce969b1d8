"""The one form of every number of a sweep: a `Result` says in typed fields what it is; results.csv has these columns.

Nothing is read out of a name: the name of a method, a judge or a metric may hold any text. What stands for a row of a
table is its base and its `row` (method, settings, arm); `label` is that row's name for people. What a statistic means:
    mean        the metric over prompts and seeds; with an axis, a curve's value read at `at`
    difference  the row less the row named `versus`, paired over prompts and seeds; with an axis, of two curves
    ratio       the same as a quotient, for metrics that are an exponential, such as perplexity
    needed      prompts with which a difference of this size is found (power 0.8), in `value`; needed_seeds: seeds
    gap         the places (`low`, `high`) of the settings between which a curve's value was read; `n` settings were
                of the base left out to know what the line between them misses, which the interval holds; 0: it does not
    missed      by how much such a setting is missed, root of the mean square over `n` of the row's own curve
    effect      a level of one factor less its level `versus`, over every other choice; `settings` is the one factor
    share       the share of prompts on which `judge` said win, tie, lose or unparsed against the answers of `versus`
    sd          the standard deviation of what `axis` (prompts, bases, seeds) does to the metric
    cost        what a run of the row cost, on average; with `versus`, the quotient to what that row cost
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict, Unpack, get_args
from urllib.parse import unquote

from dlma import csv_text
from dlma.errors import UserError
from dlma.statistics.intervals import Estimate
from dlma.statistics.significance import Bound, non_inferiority, shown_within

Statistic = Literal[
    "mean", "difference", "ratio", "needed", "needed_seeds", "effect", "share", "sd", "cost", "gap", "missed"
]
STATISTICS = get_args(Statistic)
OUTCOMES = ("win", "tie", "lose", "unparsed")
ALIGNED, INTERMEDIATE = "aligned", "intermediate"  # arms: a run's end; a curve through the policies on the way
SEVERAL_BASES = " + "  # between the names of the bases that a row is over
Settings = tuple[tuple[str, str], ...]


def label(method: str, settings: Settings, arm: str = ALIGNED) -> str:
    """A row's name for people: "dlma, beta=1.2, lr=9e-05"; never read back."""
    told = [f"{key}={value}" for key, value in settings]
    return ", ".join([method, *told, *(["on the way"] if arm == INTERMEDIATE else [])])


@dataclass(frozen=True)
class Result:
    """One number with its interval, and what it is a number of.

    base: the base's name; of a row over several bases all of them, joined
    method: the method, or "base" and "prompted" for the base's own answers; settings: what else tells the row apart
    arm: whose answers: aligned, base, prompted; intermediate for a curve through policies on the way
    seeds: of the runs behind it; metric: its name; n: prompts, of a cost runs
    versus: the label of the row it is held against, of an effect the other level; judge: who judged
    axis, at: where a curve was read: "kl" in nats, "flops" in operations
    value, low, high: nan where unknown; p_holm: adjusted over the comparisons of its kind
    """

    base: str
    method: str
    metric: str
    n: int
    value: float
    low: float = math.nan
    high: float = math.nan
    p_holm: float = math.nan
    settings: Settings = ()
    arm: str = ALIGNED
    seeds: tuple[int, ...] = ()
    statistic: Statistic = "mean"
    versus: str = ""
    axis: str = ""
    at: float | None = None
    judge: str = ""

    @property
    def row(self) -> tuple[str, Settings, str]:
        """The row of a table that this stands in, within its base."""
        return self.method, self.settings, self.arm

    @property
    def key(self) -> tuple:
        """What number this is, whatever its value; alike for one seed and for all of them."""
        return (*self.pair, self.statistic, self.judge)

    @property
    def pair(self) -> tuple:
        """What is compared with what; alike for a difference and the prompts that it takes."""
        return self.base, self.row, self.metric, self.versus, self.axis, self.at

    @property
    def label(self) -> str:
        return label(*self.row)

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.value, self.low, self.high, self.n, max(1, len(self.seeds)))


class Further(TypedDict, total=False):
    """Fields of a `Result` beside the row and the estimate that it is made of, or in their place."""

    n: int
    value: float
    low: float
    high: float
    p_holm: float
    statistic: Statistic
    versus: str
    axis: str
    at: float | None
    judge: str


class Measured(Protocol):
    """What numbers are of: a setting or a curve."""

    @property
    def base(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def arm(self) -> str: ...


def result(row: Measured, metric: str, e: Estimate, seeds: Iterable[int], **what: Unpack[Further]) -> Result:
    """An estimate of a row; `what` are further fields."""
    own = (row.settings, row.arm, tuple(sorted(seeds)))
    found = Result(row.base, row.method, metric, e.n, e.value, e.low, e.high, math.nan, *own)
    return replace(found, **what)


_NAMED = ("base", "method", "settings", "arm", "seeds", "metric", "statistic", "versus", "axis", "at", "judge")
COLUMNS = (*_NAMED, "n", "value", "low", "high", "p_holm")


def bases(found: Iterable[Result]) -> list[str]:
    return list(dict.fromkeys(one.base for one in found))


def over_seeds(found: Iterable[Result]) -> list[Result]:
    """Of every number the one over all its seeds, which stands after those of each seed."""
    return list({one.key: one for one in found}.values())


def by_row(found: Iterable[Result]) -> dict[tuple[str, Settings, str], list[Result]]:
    """The numbers of each row of a table, in the order of the file; of one base."""
    table: dict[tuple[str, Settings, str], list[Result]] = {}
    for one in found:
        table.setdefault(one.row, []).append(one)
    return table


def no_worse(one: Result, better: str) -> Bound | None:
    """How much worse a difference may still be; None without a wanted direction or an interval, and of a ratio."""
    if one.statistic == "ratio" or not better:
        return None
    bound = non_inferiority(one.estimate, better)
    return None if math.isnan(bound.worst) else bound


def within(one: Result, margin: float, gaps: Sequence[Result | None] = ()) -> bool | None:
    """Whether a difference is shown to be smaller than the margin, or not smaller; None where neither is.

    gaps: of a difference of curves, over what both were read; where it is not known what a line there misses, nothing
    is shown
    """
    if any(gap is None or not gap.n for gap in gaps):
        return None
    return shown_within(one.estimate, margin)


def write_csv(found: Sequence[Result]) -> bytes:
    """results.csv; what is unknown is empty."""
    return csv_text.table(COLUMNS, [[_cell(one, name) for name in COLUMNS] for one in found])


def _cell(one: Result, name: str) -> object:
    match name:
        case "settings":
            return settings_text(one.settings)
        case "seeds":
            return "+".join(map(str, one.seeds))
    value = getattr(one, name)
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    return value


def settings_text(settings: Settings) -> str:
    """The canonical text of settings: "beta=1.2;lr=9e-05"."""
    return ";".join(f"{_escaped(key)}={_escaped(value)}" for key, value in settings)


def settings_of(text: str) -> Settings:
    """The settings of a canonical text."""
    pairs = (part.partition("=") for part in text.split(";") if part)
    return tuple((unquote(key), unquote(value)) for key, _, value in pairs)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace(";", "%3B").replace("=", "%3D")


def read_csv(path: Path) -> list[Result]:
    """The rows of a results.csv. Raises UserError where it is none."""
    try:
        with path.open(newline="", encoding="utf-8") as source:
            return [_result(line) for line in csv_text.read(source)]
    except (OSError, KeyError, ValueError, TypeError, AttributeError, csv.Error) as reason:
        raise UserError(f"{path}: no results.csv of a sweep ({type(reason).__name__}: {reason})") from reason


def _result(line: dict[str, str]) -> Result:
    values: dict[str, Any] = {field.name: line[field.name] for field in fields(Result)}
    if values["statistic"] not in STATISTICS:
        raise ValueError(f"statistic {values['statistic']!r} is none of {', '.join(STATISTICS)}")
    numbers = {name: float(values[name]) if values[name] else math.nan for name in ("value", "low", "high", "p_holm")}
    return Result(**values | numbers | {
        "settings": settings_of(values["settings"]),
        "seeds": tuple(map(int, filter(None, values["seeds"].split("+")))),
        "n": int(values["n"]),
        "at": float(values["at"]) if values["at"] else None,
    })  # fmt: skip
