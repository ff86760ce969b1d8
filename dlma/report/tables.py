"""The tables of a sweep, from the rows of results.csv alone, and their Markdown and LaTeX: same rows, same bytes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from dlma.metrics.summary import BEYOND, better, label
from dlma.report import markdown as md
from dlma.report import table as renderers
from dlma.report.result_text import (
    MARGIN,
    NEEDED,
    NEITHER,
    READ_AT,
    bound_text,
    changed,
    gap_text,
    head,
    missed_text,
    needed_text,
    p_text,
    same,
    unit,
    value,
    what,
)
from dlma.report.table import Cell, Column, Table, Text
from dlma.statistics.format import interval, number
from dlma.sweep import costs
from dlma.sweep.estimates import BY_NAME
from dlma.sweep.results import SEVERAL_BASES, Result, bases, by_row, over_seeds

Known = Mapping[tuple[str, str, str], str]  # (label, base, metric): the paper's number with its mark
FIRST = ("harmful", "harmlessness", "kl", "beyond_curve", "helpfulness", "malformed", "perplexity", "tokens")
FIRST_UNJUDGED = ("sentiment", "perplexity", "kl", "tokens", "distinct_2")


def columns(measured: Collection[str]) -> list[str]:
    """The metrics that the main table shows: the first ones, and any other with a wanted direction."""
    known = [name for name in BY_NAME if name in measured]
    first = FIRST if "harmful" in known else FIRST_UNJUDGED
    return [name for name in first if name in known] + [n for n in known if n not in first and better(n)]


def comparisons(found: Sequence[Result]) -> list[Result]:
    return [one for one in found if one.statistic in ("difference", "ratio")]


def wins(found: Sequence[Result]) -> dict[tuple[str, str], list[tuple[str, float, float, float]]]:
    """Per opponent and judge the shares of wins, ties and losses of each row."""
    shares: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for one in found:
        if one.statistic == "share":
            shares.setdefault((one.versus, one.judge), {}).setdefault(one.label, {})[one.metric] = one.value
    return {
        key: [(row, said["win"], said["tie"], said["lose"]) for row, said in rows.items()]
        for key, rows in shares.items()
    }


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
            *(table for axis in READ_AT for table in (_apart(base, own, axis, margin), _matched(base, own, axis))),
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


def _gaps(own: Sequence[Result]) -> dict[tuple, Result]:
    """By (row's name, metric, axis, place) between which settings of its curve a value was read."""
    return {(one.label, one.metric, one.axis, one.at): one for one in own if one.statistic == "gap"}


def _matched(base: str, own: Sequence[Result], axis: str) -> Table | None:
    """Values at matched KL or FLOPs, each with its gap, and by how much a setting left out is missed."""
    found: dict[tuple[str, str], dict[float, Result]] = {}
    missed = {(one.label, one.metric): one for one in own if (one.statistic, one.axis) == ("missed", axis)}
    gaps = _gaps(own)
    for one in own:
        if one.statistic == "mean" and one.axis == axis and one.at is not None:
            found.setdefault((one.label, one.metric), {})[one.at] = one
    levels = sorted({at for cells in found.values() for at in cells})
    shown = [f"at KL {at:g}" if axis == "kl" else f"at {at / 1e12:.3g} TFLOP" for at in levels]
    title = {"kl": "matched KL", "flops": "equal FLOPs of sampling, labelling and training"}[axis]
    rows: list[list[Cell]] = []
    for key, cells in found.items():
        read = [_read(cells.get(at), gaps.get((*key, axis, at))) for at in levels]
        rows.append([key[0], head(key[1]), *read, missed_text(missed.get(key))])
    heads = _columns(2, "method", "metric", *shown, "a setting left out is missed by")
    return Table(f"{base}: read at {title}", heads, rows) if rows else None


def _read(one: Result | None, gap: Result | None) -> Text:
    """A value read off a curve, and under it the places of the settings around it."""
    if one is None:
        return Text("not reached")
    shown = unit(one.metric)
    below = () if gap is None else (f"over {gap_text(gap)}",)
    return Text(number(one.value, shown), bounds=interval(one.estimate, shown), below=below, strong=True)


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
    """Differences of ends, and what they take."""
    compared = [one for one in comparisons(own) if not one.axis]
    names = list(dict.fromkeys(one.versus for one in compared))
    needs = _needs(compared, own)
    heads = _columns(
        2, "method", "metric", "difference", "p (Holm)", "may be worse by", *(NEEDED[name] for name in needs)
    )
    rows: list[list[Cell]] = []
    for one in compared:
        told = [p_text(one.p_holm), bound_text(one, margin)]
        rows.append([_named(one, names), what(one), changed(one), *told, *_needed(one, own, needs)])
    return Table(f"{base}: against {_told(names)}, paired over prompts and seeds", heads, rows) if rows else None


def _apart(base: str, own: Sequence[Result], axis: str, margin: float) -> Table | None:
    """Differences of curves, each with the gaps that both were read over, and whether it is shown to be none."""
    compared, gaps = [one for one in comparisons(own) if one.axis == axis], _gaps(own)
    names = list(dict.fromkeys(one.versus for one in compared))
    within, unit_of = f"within {100 * margin:g} points", {"kl": "nats", "flops": "TFLOP"}[axis]
    needs = _needs(compared, own)
    heads = _columns(
        2, "method", "metric", "difference", "p (Holm)", within, f"read over, {unit_of}", f"{_told(names)} over"
    )
    rows: list[list[Cell]] = []
    for one in compared:
        both = [gaps.get((label, one.metric, axis, one.at)) for label in (one.label, one.versus)]
        read = [same(one, margin, both), *map(gap_text, both)]
        rows.append([_named(one, names), what(one), changed(one), p_text(one.p_holm), *read, *_needed(one, own, needs)])
    title = f"{base}: against {_told(names)} at the same {READ_AT[axis]}, paired over prompts and seeds"
    return Table(title, [*heads, *_columns(0, *(NEEDED[name] for name in needs))], rows) if rows else None


def _named(one: Result, names: Sequence[str]) -> str:
    return one.label + (f" ({one.versus})" if len(names) > 1 else "")


def _told(names: Sequence[str]) -> str:
    return " or ".join(names) if len(names) < 3 else "the baseline in brackets"


def _needs(compared: Sequence[Result], own: Sequence[Result]) -> list[str]:
    """What is known of what these differences take: prompts, and seeds where there are several."""
    pairs = {one.pair for one in compared}
    return [name for name in NEEDED if any(one.statistic == name and one.pair in pairs for one in own)]


def _needed(one: Result, own: Sequence[Result], needs: Sequence[str]) -> list[str]:
    """The prompts and the seeds that a difference of this size takes."""
    values: dict[str, float] = {other.statistic: other.value for other in own if other.pair == one.pair}
    if needs and all(math.isinf(values.get(name, math.nan)) for name in NEEDED) and one.value != 0:
        return [NEITHER] * len(needs)
    return [needed_text(one, values.get(name, math.nan), name) for name in needs]


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
    rows: list[list[Cell]] = []
    for one in effects:
        ((factor, level),) = one.settings
        name = f"{one.method}, {factor}" if several else factor
        rows.append([name, level, one.versus, head(one.metric), changed(one), p_text(one.p_holm), same(one, margin)])
    return Table(f"{base}: main effects, each averaged over every other choice", heads, rows) if rows else None


def notes(found: Sequence[Result], margin: float = MARGIN) -> list[str]:
    """What a reader has to know of the intervals and tests."""
    lines = ["Arrows: the wanted direction. Intervals: 95 %, two-sided, over new prompts and new seeds."]
    several = {one.key for one in found if len(one.seeds) > 1 or SEVERAL_BASES in one.base}
    if any(one.key not in several for one in found):
        lines.append("Rows with one seed speak of that seed only.")
    if any(SEVERAL_BASES in one.base for one in found):
        lines.append(
            "Rows over several bases: over new prompts and new bases, whose values are means over their seeds; at the "
            "same KL the variance between bases is pooled over the differences."
        )
    if any(one.versus and one.statistic in ("difference", "ratio", "effect") for one in found):
        lines.append(
            "p: paired over prompts and seeds, adjusted by Holm over the comparisons of one kind: of ends, at a KL, at "
            f"FLOPs, of effects. No worse: worse by less than {100 * margin:g} points at one-sided level 97.5 %; "
            "overlap of intervals is never used. Prompts to see a difference: 5 % two-sided, power 0.8, as many seeds"
            + ("; seeds to see it: as many prompts." if any(one.statistic == "needed_seeds" for one in found) else ".")
        )
    shown = [one for one in found if one.statistic == "effect" or (one.statistic == "difference" and one.axis)]
    if any(unit(one.metric) == "share" for one in shown):
        lines.append(
            f"Within {100 * margin:g} points: two one-sided tests at 2.5 % each, which is the whole interval inside "
            "(yes) or outside (no); else neither a difference nor its absence is shown."
        )
    if any(one.axis in READ_AT and one.statistic == "gap" for one in found):
        lines.append(_of_curves(found))
    for one in found:
        shuffled = one.statistic == "effect" and {one.settings[0][1], one.versus} == {"shuffled", "scored"}
        if shuffled and one.metric != BEYOND.name and same(one, margin) == "yes":  # standing still is no result
            lines.append(
                f"{one.base}: margins in a random order do as well as the real ones, within {100 * margin:g} points of "
                f"{label(one.metric)}: the size of R carries no information there."
            )
    return lines


def _of_curves(found: Sequence[Result]) -> str:
    """What is in the interval of a value read off a curve."""
    lines = (
        "Read off a curve: between the two settings around the place, whose places stand with it. Values along KL are "
        "of a fit that falls or rises all along, shares as logits, in the root of KL."
    )
    if not any(one.statistic == "gap" and one.n for one in found):
        return lines + (
            " No setting lies between two others of its curve: what a line between two of them misses is not known, "
            "and not in the interval, so that nothing is shown to be within the margin."
        )
    lines += (
        " The interval holds what the line between two settings misses, as those of the base's curves say that were "
        "left out in turn and left as much room."
    )
    if any(one.statistic == "needed_seeds" and one.axis for one in found):
        lines += " Of differences at one place the seeds' variance is pooled."
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
