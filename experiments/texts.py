"""Prose whose numbers are filled in from committed results: a template FOLDER/MARK.md, shown between the marks MARK.

A template is Jinja2; nothing of what it says about a result is typed as a number (tests/test_claims.py). It sees
  mean, minus, differences, at, effect, pick, every    numbers of its own experiment's results.csv (`Numbers`)
  text(COLUMN, FILE)         what is the same in all rows of another of its files
  own_point(RULE, METHOD)    the row that a rule chooses of a method (own_points.csv)
  numbers(NAME)              those of another one:  numbers("frontier").mean("base", "perplexity")
  claim(condition, words)    the words, if the results bear them; else nothing is rendered
  own(NAME)                  an experiment's table.py
  bench(FILE)                what benchmarks/results/FILE.json found (`Bench`)
  came_home()                the table of the runs that came home (homecoming.py)
and the filters percent, points, number (each with digits; of a list its span), less (the negated difference), p, word,
clear (those whose interval leaves 0 out), within (those whose interval lies inside the margin), magnitude.
"""

from __future__ import annotations

import csv
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks import table as bench_table
from benchmarks import targets
from dlma.errors import UserError
from dlma.report.result_text import MARGIN
from dlma.statistics.intervals import Estimate
from dlma.sweep.results import Result, over_seeds
from experiments import homecoming, pooled

HERE = Path(__file__).resolve().parent
PAGES = {  # folders of texts that are no experiment
    "readme": "README.md",
    "findings": "docs/findings.md",
    "results": "docs/results.md",
    "built": "docs/how_it_is_built.md",
    "speed": "benchmarks/README.md",
    "bfloat16": "docs/real_models.md",
}
WIDTH = 120
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def templates() -> list[Path]:
    """Every template; its folder says the page, its name the mark."""
    return sorted(path for path in HERE.glob("*/*.md") if path.name != "README.md")


@cache
def rows(path: Path) -> list[tuple[dict[str, str], Result | None]]:
    """The rows of a committed file as text; of a results.csv each with its number. Prose reads results here alone."""
    if path.name != "results.csv":
        with path.open(newline="", encoding="utf-8") as source:
            return [(line, None) for line in csv.DictReader(source)]
    return [(_columns(one), one) for one in over_seeds(pooled.results(path.parent))]


def _columns(one: Result) -> dict[str, str]:
    """A result's fields as text, and each of its settings; `row` is its label, `at` as "kl 0.5"."""
    names = ("base", "method", "arm", "metric", "statistic", "versus", "judge")
    text = {name: getattr(one, name) for name in names}
    return dict(one.settings) | text | {"row": one.label, "at": "" if one.at is None else f"{one.axis} {one.at:g}"}


class Numbers:
    """The committed numbers of one experiment."""

    def __init__(self, name: str) -> None:
        self.folder = HERE / name

    def every(self, column: str = "", file: str = "results.csv", **patterns: str) -> list[Result]:
        """The rows whose columns match these patterns as a whole; of results.csv means, unless a statistic is named.

        column: of another file the column that is read, with its bounds; else `mean`, `low` and `high`
        """
        if file == "results.csv":
            patterns = {"statistic": "mean", "at": "", **patterns}
        return [
            one or _result(row, column)
            for row, one in rows(self.folder / file)
            if all(re.fullmatch(pattern, row.get(key, "")) for key, pattern in patterns.items())
        ]

    def pick(self, column: str = "", file: str = "results.csv", **keys: str) -> Result:
        """The one row whose columns are these; raises LookupError unless there is exactly one."""
        found = self.every(column, file, **{key: re.escape(str(value)) for key, value in keys.items()})
        if len(found) != 1:
            raise LookupError(f"{self.folder.name}/{file}: {len(found)} rows with {keys}")
        return found[0]

    def own_point(self, rule: str, method: str, base: str = "lab-standard") -> str:
        """The row of a method that a rule of own_points.csv chooses: by_reward or by_kl."""
        lines = [line for line, _ in rows(self.folder / "own_points.csv")]
        (found,) = [x["row"] for x in lines if (x["base"], x["method"], x[rule]) == (base, method, "1")]
        return found

    def text(self, column: str, file: str) -> str:
        """What stands in a column of every row of a file, where that is the same."""
        (found,) = {row[column] for row, _ in rows(self.folder / file)}
        return found

    def mean(self, row: str, metric: str, **keys: str) -> Result:
        return self.pick(row=row, metric=metric, **keys)

    def minus(self, row: str, metric: str, baseline: str, at: str = "", **keys: str) -> Result:
        """A row's paired difference from a baseline, at a KL or at operations ("kl 0.5") where curves are read."""
        return self.pick(row=row, metric=metric, statistic="difference", versus=baseline, at=at, **keys)

    def differences(self, metric: str, baseline: str, at: str = "", **patterns: str) -> list[Result]:
        """All such differences whose baseline and place match these patterns."""
        return self.every(metric=metric, statistic="difference", versus=baseline, at=at, **patterns)

    def at(self, row: str, metric: str, kl: str, **keys: str) -> Result:
        """A curve's value at a KL."""
        return self.pick(row=row, metric=metric, at=f"kl {kl}", **keys)

    def effect(self, level: tuple[str, str], metric: str, against: str) -> Result:
        """A factor's level, as (key, value), against another one, averaged over all other choices."""
        return self.pick(metric=metric, statistic="effect", versus=against, **dict([level]))


def _result(row: dict[str, str], column: str) -> Result:
    """A number of a file that is no results.csv, under the name of its column or of its row."""
    names = (column, f"{column}_low", f"{column}_high") if column else ("mean", "low", "high")
    values = [float(row.get(name) or "nan") for name in names]
    return Result(
        row.get("base", ""), row.get("method", ""), row.get("metric", column), int(row.get("n") or 0), *values
    )


class Bench:
    """What a file of benchmarks/results says."""

    wall, work, peak = map(staticmethod, (targets.wall, targets.work, targets.peak))
    rate, tokens = map(staticmethod, (targets.dense_rate, targets.best_rate))

    def __init__(self, file: str) -> None:
        self.results = bench_table.read(bench_table.RESULTS / f"{file}.json")
        self.lines = targets.lines(self.results)

    def found(self, work: str, against: str, which: int = 0) -> float:
        """The median that a target's line shows; of a comparison's lines the speed stands first, the memory second."""
        return float(self._line(work, against, which).found.split(" ")[0])

    def beyond(self, work: str, against: str) -> float:
        """The ratio of memory beyond the loaded model."""
        return float(re.search(r"beyond the loaded model ([\d.]+)", self._line(work, against, 1).found)[1])

    def _line(self, work: str, against: str, which: int) -> targets.Line:
        return [line for line in self.lines if (line.work, line.against) == (work, against)][which]

    def met(self) -> int:
        return sum(line.met is True for line in self.lines)

    def measured(self) -> str:
        """The table of the targets that this file has results for."""
        lines = bench_table.target_table(self.results).splitlines()
        return "\n".join(line for line in lines if "| not measured |" not in line)

    def side(self, group: str, side: str, value: Callable[[dict], float]) -> float:
        return targets.median(targets.sound(self.results, group, side), value)

    def ratio(self, group: str, one: str, other: str, value: Callable[[dict], float]) -> float:
        """The median of one side over that of the other."""
        return self.side(group, one, value) / self.side(group, other, value)


def claim(condition: bool, words: str) -> str:
    """The words, where the results bear them; raises ValueError where they do not."""
    if not condition:
        raise ValueError(f"the results do not say so: {words}")
    return words


def _values(x: Result | Estimate | float) -> tuple[float, float, float]:
    if isinstance(x, Result):
        return x.value, x.low, x.high
    return (x.value, x.low, x.high) if isinstance(x, Estimate) else (float(x), math.nan, math.nan)


def _text(x, scale: float, digits: int, bounds: bool = False, sign: bool = False) -> str:
    """A value, its interval where `bounds`; of several values the least and the largest."""
    form = f"{{:{'+' if sign else ''},.{digits}f}}"
    if not isinstance(x, Result | Estimate | float | int):
        ends = [form.format(scale * end(_values(one)[0] for one in x)) for end in (min, max)]
        return " to ".join(dict.fromkeys(ends))
    mean, low, high = (form.format(scale * value) for value in _values(x))
    return f"{mean} [{low}, {high}]" if bounds else mean


def percent(x, digits: int = 1, bounds: bool = False) -> str:
    text = _text(x, 100, digits, bounds)
    return text.replace(" [", " % [") if bounds else f"{text} %"


def points(x, digits: int = 1, bounds: bool = False, sign: bool = False) -> str:
    """A difference of shares; its unit stands before the bounds: "6.4 points [4.0, 8.8]"."""
    text = _text(x, 100, digits, bounds, sign)
    return text.replace(" [", " points [") if bounds else f"{text} points"


def number(x, digits: int = 2, bounds: bool = False, sign: bool = False) -> str:
    return _text(x, 1, digits, bounds, sign)


def less(x: Result | Estimate | Sequence[Result]) -> Result | Estimate | list[Result]:
    """The difference the other way round."""
    if not isinstance(x, Result | Estimate):
        return [less(one) for one in x]
    return replace(x, value=-x.value, low=-x.high, high=-x.low)


def p_words(x: Result) -> str:
    return "p < 0.01" if x.p_holm < 0.01 else f"p {x.p_holm:.2g}"


def word(count: int | Sequence) -> str:
    n = count if isinstance(count, int) else len(count)
    return WORDS[n] if n < len(WORDS) else f"{n:,}"


def clear(found: Sequence[Result]) -> list[Result]:
    return [one for one in found if one.low > 0 or one.high < 0]


def within(found: Sequence[Result], margin: float = MARGIN) -> list[Result]:
    """Those shown to be none: two one-sided tests at 2.5 % each, which is the whole 95 % interval inside the margin."""
    return [one for one in found if -margin < one.low and one.high < margin]


def magnitude(found: Sequence[Result]) -> float:
    """The largest size of these values."""
    return max(abs(one.value) for one in found)


@cache
def _environment(own: Callable) -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        extensions=["jinja2.ext.do"],
        keep_trailing_newline=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": percent, "points": points, "number": number, "less": less, "p": p_words, "word": word,
                     "clear": clear, "within": within, "magnitude": magnitude}  # fmt: skip
    made.globals |= {"numbers": Numbers, "bench": Bench, "claim": claim, "own": own, "came_home": homecoming.table}
    return made


def render(template: Path, own: Callable) -> str:
    """The text of a template, its numbers filled in; `own` gives an experiment's table.py by its name.

    Raises UserError where the results do not bear a claim, or lack a row that it reads.
    """
    mine = Numbers(template.parent.name)
    known = ("mean", "minus", "differences", "at", "effect", "pick", "every", "text", "own_point")
    names = {name: getattr(mine, name) for name in known}
    try:
        text = _environment(own).get_template(f"{template.parent.name}/{template.name}").render(**names)
    except (ValueError, LookupError) as reason:
        raise UserError(f"experiments/{template.parent.name}/{template.name}: {reason}; mend the text") from reason
    return "\n\n".join(map(_wrapped, text.strip("\n").split("\n\n")))


def _wrapped(paragraph: str) -> str:
    """A paragraph, or the items of a list, in lines of the page's width; a table as it is."""
    if paragraph.startswith("|"):
        return paragraph
    items = re.split(r"\n(?=- )", paragraph)
    indents = ["  " if item.startswith("- ") else "" for item in items]
    return "\n".join(
        textwrap.fill(
            " ".join(item.split()), WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        for item, indent in zip(items, indents, strict=True)
    )
