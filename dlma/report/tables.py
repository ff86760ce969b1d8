"""The tables of a sweep, from the rows of results.csv alone, and their Markdown and LaTeX: same rows, same bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dlma.metrics.summary import BEYOND, arrow, better, label
from dlma.report import markdown as md
from dlma.report import table as renderers
from dlma.report.table import Column, Table, Text, Value, line
from dlma.statistics.format import bounded, interval, number
from dlma.sweep import costs
from dlma.sweep.estimates import BY_NAME
from dlma.sweep.results import Result, bases, by_row, no_worse, over_seeds

Known = Mapping[tuple[str, str, str], str]  # (label, base, metric): the paper's number with its mark
READ_AT = {"kl": "KL", "flops": "FLOPs"}  # what a curve is read at
SHORT = {
    "harmful": "harmful",
    "kl": "KL, nats",
    "malformed": "malformed",
    "sentiment": "sentiment (VADER)",
    "perplexity": "perplexity",
    "tokens": "length",
    "distinct_2": "distinct-2",
    "beyond_curve": "beyond the curve at its KL",
}
FIRST = ("harmful", "harmlessness", "kl", "beyond_curve", "helpfulness", "malformed", "perplexity", "tokens")
FIRST_UNJUDGED = ("sentiment", "perplexity", "kl", "tokens", "distinct_2")
MARGIN = 0.03  # three points: what "no worse" means for a share unless the reader says otherwise


def head(metric: str) -> str:
    """A metric as a column's head, with the wanted direction."""
    return SHORT.get(metric, label(metric)) + arrow(metric)


def what(one: Result) -> str:
    """The metric of a result, and where it was read."""
    at = "" if one.at is None else f" at {READ_AT[one.axis]} {one.at:.3g}"
    return SHORT.get(one.metric, label(one.metric)) + at + arrow(one.metric)


def unit(metric: str) -> str:
    return BY_NAME[metric].unit if metric in BY_NAME else ""


def columns(measured: Sequence[str]) -> list[str]:
    """The metrics that the main table shows: the first ones, and any other with a wanted direction."""
    known = [name for name in BY_NAME if name in measured]
    first = FIRST if "harmful" in known else FIRST_UNJUDGED
    return [name for name in first if name in known] + [n for n in known if n not in first and better(n)]


def value(one: Result | None) -> Value | None:
    """A number in its metric's unit."""
    return None if one is None else Value(one.estimate, unit(one.metric))


def cell(one: Result | None) -> str:
    """A value with its bounds for people."""
    return "–" if one is None else bounded(one.estimate, unit(one.metric))


def changed(one: Result) -> Text:
    """A difference with its sign, in points for shares; a ratio with its sign of multiplication."""
    if one.statistic == "ratio":
        return Text(f"×{number(one.value, '')}", bounds=interval(one.estimate, ""), strong=True)
    shown = "share" if unit(one.metric) == "share" else ""
    values = [number(value, shown).removesuffix(" %") for value in (one.value, one.low, one.high)]
    first, low, high = [value if value.startswith(("-", "–")) else f"+{value}" for value in values]
    return Text(first, bounds=f"[{low}, {high}]" + (" points" if shown else ""), strong=True)


def change(one: Result) -> str:
    """The same on one line."""
    return line(changed(one))


def p_text(p: float) -> str:
    return "–" if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def needed_text(one: Result, needed: float) -> str:
    if math.isnan(needed) or one.value == 0:
        return "–"
    return "more seeds, not prompts" if math.isinf(needed) else f"{needed:,.0f}"


def bound_text(one: Result, margin: float) -> str:
    """How much worse it may still be, and whether that is within the margin (for shares)."""
    bound = no_worse(one, better(one.metric))
    if bound is None:
        return "–"
    if unit(one.metric) != "share":
        return number(bound.worst, "")
    verdict = "no worse" if bound.holds(margin) else "not shown"
    return f"{100 * bound.worst:.1f} points ({verdict})"


def comparisons(found: Sequence[Result]) -> list[Result]:
    return [one for one in found if one.statistic in ("difference", "ratio")]


def wins(found: Sequence[Result]) -> dict[tuple[str, str], list[tuple[str, float, float, float]]]:
    """Per opponent and judge the shares of wins, ties and losses of each row."""
    shares: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for one in found:
        if one.statistic == "share":
            shares.setdefault((one.versus, one.judge), {}).setdefault(one.label, {})[one.metric] = one.value
    names = ("win", "tie", "lose")
    return {key: [(row, *(said[n] for n in names)) for row, said in rows.items()] for key, rows in shares.items()}


def tables(
    found: Sequence[Result],
    known: Known | None = None,
    margin: float = MARGIN,
    show: Sequence[str] | None = None,
) -> list[Table]:
    """Everything that the tables say, per base: means, effects, comparisons, values at matched KL and FLOPs, costs."""
    parts = []
    several = len({one.method for one in found if one.statistic == "effect"}) > 1
    for base in bases(found):
        own = over_seeds(one for one in found if one.base == base)
        effects = [one for one in own if one.statistic == "effect"]
        own = [one for row in by_row(own).values() for one in row]
        made = [
            _means(base, own, known or {}, show),
            _effects(base, effects, margin, several),
            _versus(base, own, margin),
            *(_matched(base, own, axis) for axis in READ_AT),
            _preferred(base, own),
        ]
        parts += [table for table in made if table is not None]
        spent = costs.table(own)
        if spent is not None:
            heads, lines = spent
            title = f"{base}: what each row cost to make, evaluation left out"
            parts.append(Table(title, _columns(1, *heads), lines))
    return parts


def _columns(names: int, *heads: str) -> list[Column]:
    """So many columns of names, and columns of values."""
    return [Column(head, "text" if i < names else "value") for i, head in enumerate(heads)]


def _matched(base: str, own: Sequence[Result], axis: str) -> Table | None:
    """Values at matched KL or FLOPs: per row and metric one cell for each."""
    found: dict[tuple[str, str], dict[float, Value | None]] = {}
    for one in own:
        if one.statistic == "mean" and one.axis == axis:
            found.setdefault((one.label, one.metric), {})[one.at] = value(one)
    levels = sorted({at for cells in found.values() for at in cells})
    shown = [f"at KL {at:g}" if axis == "kl" else f"at {at / 1e12:.3g} TFLOP" for at in levels]
    title = {"kl": "matched KL", "flops": "equal FLOPs of sampling, labelling and training"}[axis]
    rows = [[row, head(name), *(cells.get(at, "not reached") for at in levels)] for (row, name), cells in found.items()]
    return Table(f"{base}: read at {title}", _columns(2, "method", "metric", *shown), rows) if rows else None


def _means(base: str, own: Sequence[Result], known: Known, show: Sequence[str] | None = None) -> Table:
    means = by_row(one for one in own if one.statistic == "mean" and not one.axis)
    measured = {one.metric for rows in means.values() for one in rows}
    names = columns(measured) if show is None else [name for name in show if name in measured]
    lines = []
    for rows in means.values():
        row = {one.metric: one for one in rows if one.metric in names}
        if not row:
            continue
        counts = [len(rows[0].seeds), max(one.n for one in row.values())]
        told = [text for (of, on, _), text in known.items() if (of, on) == (rows[0].label, base)]
        lines.append([rows[0].label, *(value(row.get(name)) for name in names), *counts, "; ".join(told) or None])
    heads = _columns(1, "method", *map(head, names), "seeds", "prompts", "paper")
    keep = len(heads) if any(line[-1] for line in lines) else len(heads) - 1
    return Table(f"{base}: means with 95 % intervals", heads[:keep], [line[:keep] for line in lines])


def _versus(base: str, own: Sequence[Result], margin: float) -> Table | None:
    compared = comparisons(own)
    needed = {one.pair: one.value for one in own if one.statistic == "needed"}
    names = list(dict.fromkeys(one.versus for one in compared))
    heads = _columns(
        2, "method", "metric", "difference", "p (Holm)", "may be worse by", "prompts to see this difference"
    )
    rows = [
        [
            one.label + (f" ({one.versus})" if len(names) > 1 else ""),
            what(one),
            changed(one),
            p_text(one.p_holm),
            bound_text(one, margin),
            needed_text(one, needed.get(one.pair, math.nan)),
        ]
        for one in compared
    ]
    told = " or ".join(names) if len(names) < 3 else "the baseline in brackets"
    return Table(f"{base}: against {told}, paired over prompts and seeds", heads, rows) if rows else None


def _preferred(base: str, own: Sequence[Result]) -> Table | None:
    """Per row and opponent, and per judge, the shares of wins, ties and losses."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for (opponent, judge), lines in wins(own).items():
        for row, *shares in lines:
            shown = " / ".join(number(share, "share").removesuffix(" %") for share in shares)
            found.setdefault((row, opponent), {})[judge] = f"{shown} %"
    judges = list(dict.fromkeys(judge for said in found.values() for judge in said))
    rows = [[row, opponent, *(said.get(judge) for judge in judges)] for (row, opponent), said in found.items()]
    title = f"{base}: win / tie / lose by the judge, asked in both orders"
    return Table(title, _columns(2, "method", "against", *judges), rows) if rows else None


def _effects(base: str, effects: Sequence[Result], margin: float, several: bool) -> Table | None:
    """several: whether effects of several methods are shown, so that each is named."""
    within = f"within {100 * margin:g} points"
    heads = _columns(4, "factor", "level", "against", "metric", "difference", "p (Holm)", within)
    rows = []
    for one in effects:
        ((factor, level),) = one.settings
        name = f"{one.method}, {factor}" if several else factor
        rows.append([name, level, one.versus, head(one.metric), changed(one), p_text(one.p_holm), same(one, margin)])
    return Table(f"{base}: main effects, each averaged over every other choice", heads, rows) if rows else None


def same(one: Result, margin: float) -> str:
    """Whether the whole 95 % interval of a difference of shares lies inside the margin."""
    if unit(one.metric) != "share" or math.isnan(one.low):
        return "–"
    return "yes" if -margin < one.low and one.high < margin else "not shown"


def notes(found: Sequence[Result], margin: float = MARGIN) -> list[str]:
    """What a reader has to know of the intervals and tests."""
    lines = ["Arrows: the wanted direction. Intervals: 95 %, two-sided, over new prompts and new seeds."]
    several = {one.key for one in found if len(one.seeds) > 1}
    if any(one.key not in several for one in found):
        lines.append("Rows with one seed speak of that seed only.")
    if any(one.versus and one.statistic in ("difference", "ratio", "effect") for one in found):
        lines.append(
            "p: paired over prompts and seeds, adjusted by Holm over the comparisons of one kind: of ends, at a KL, at "
            f"FLOPs, of effects. No worse: worse by less than {100 * margin:g} points at one-sided level 97.5 %; "
            "overlap of intervals is never used. Prompts to see a difference: 5 % two-sided, power 0.8, as many seeds."
        )
    for one in found:
        shuffled = one.statistic == "effect" and {one.settings[0][1], one.versus} == {"shuffled", "scored"}
        if shuffled and one.metric != BEYOND.name and same(one, margin) == "yes":  # standing still is no result
            lines.append(
                f"{one.base}: margins in a random order do as well as the real ones, within {100 * margin:g} points of "
                f"{label(one.metric)}: the size of R carries no information there."
            )
    return lines


def markdown(
    found: Sequence[Result],
    known: Known | None = None,
    margin: float = MARGIN,
    show: Sequence[str] | None = None,
) -> str:
    """The tables as Markdown; show: the columns of the first one (None: `columns`)."""
    parts = map(renderers.markdown, tables(found, known, margin, show))
    return "\n\n".join([*parts, *map(md.paragraph, notes(found, margin))]) + "\n"


def latex(found: Sequence[Result], known: Known | None = None, margin: float = MARGIN) -> str:
    """The tables as LaTeX tabulars (booktabs)."""
    parts = map(renderers.latex, tables(found, known, margin))
    return "\n".join([*map(renderers.latex_comment, notes(found, margin)), *parts])
