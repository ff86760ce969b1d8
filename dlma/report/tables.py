"""The tables of a sweep as Markdown and LaTeX, from the rows of results.csv alone: same rows, same bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlma.metrics.summary import BEYOND, better, label
from dlma.report import markdown as md
from dlma.screen import visible
from dlma.statistics.format import bounded, number
from dlma.statistics.significance import non_inferiority
from dlma.sweep import costs
from dlma.sweep.estimates import BY_NAME, Result
from dlma.sweep.rows import AT, EFFECT, READ_AT, VERSUS, Versus, bases, effects_of, plain, versuses, whole, wins

Known = Mapping[tuple[str, str, str], str]  # (method, base, metric): the paper's number with its mark
ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}
SHORT = {
    "harmful": "harmful",
    "kl": "KL, nats",
    "malformed": "malformed",
    "perplexity": "perplexity",
    "tokens": "length",
    "distinct_2": "distinct-2",
    "beyond_curve": "beyond the curve at its KL",
}
FIRST = ("harmful", "harmlessness", "kl", "beyond_curve", "helpfulness", "malformed", "perplexity", "tokens")
FIRST_UNJUDGED = ("perplexity", "kl", "tokens", "distinct_2")
MARGIN = 0.03  # three points: what "no worse" means for a share unless the reader says otherwise


def head(metric: str) -> str:
    """A metric as a column's head, with the wanted direction."""
    at, name = AT.fullmatch(metric), plain(metric)
    return SHORT.get(name, label(name)) + (f" at {READ_AT[at[2]]} {at[3]}" if at else "") + ARROWS[better(name)]


def unit(metric: str) -> str:
    name = plain(metric)
    return BY_NAME[name].unit if name in BY_NAME else ""


def columns(table: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """The metrics that the main table shows: the first ones, and any other with a wanted direction."""
    measured = [name for name in BY_NAME if any(name in row for row in table.values())]
    first = FIRST if "harmful" in measured else FIRST_UNJUDGED
    rest = [name for name in measured if name not in first and better(name)]
    return [name for name in first if name in measured] + rest


def cell(result: Result | None, metric: str) -> str:
    """A value with its bounds for people."""
    if result is None:
        return "–"
    return bounded(result.estimate, unit(metric))


def change(one: Versus) -> str:
    """A difference with its sign, in points for shares; a ratio with its sign of multiplication."""
    r = one.result
    if one.ratio:
        return f"×{number(r.mean, '')} [{number(r.low, '')}, {number(r.high, '')}]"
    shown = "share" if unit(one.metric) == "share" else ""
    values = [number(value, shown).removesuffix(" %") for value in (r.mean, r.low, r.high)]
    signed = [value if value.startswith(("-", "–")) else f"+{value}" for value in values]
    return f"{signed[0]} [{signed[1]}, {signed[2]}]" + (" points" if shown else "")


def p_text(p: float) -> str:
    return "–" if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def needed_text(one: Versus) -> str:
    if math.isnan(one.needed) or one.result.mean == 0:
        return "–"
    return "more seeds, not prompts" if math.isinf(one.needed) else f"{one.needed:,.0f}"


def bound_text(one: Versus, margin: float) -> str:
    """How much worse it may still be, and whether that is within the margin (for shares)."""
    if one.ratio or not better(plain(one.metric)):
        return "–"
    bound = non_inferiority(one.result.estimate, better(plain(one.metric)))
    if math.isnan(bound.worst):
        return "–"
    if unit(one.metric) != "share":
        return number(bound.worst, "")
    verdict = "no worse" if bound.holds(margin) else "not shown"
    return f"{100 * bound.worst:.1f} points ({verdict})"


def matched(
    table: Mapping[str, Mapping[str, Result]], kind: str = "kl"
) -> tuple[list[str], list[tuple[str, str, list[str]]]]:
    """Values at matched KL or FLOPs: these, and per method and metric one cell for each."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for method, row in table.items():
        for name, result in row.items():
            match = AT.fullmatch(name)
            if match and match[2] == kind:
                found.setdefault((method, match[1]), {})[match[3]] = cell(result, match[1])
    levels = sorted({level for cells in found.values() for level in cells}, key=float)
    lines = [(m, metric, [cells.get(x, "not reached") for x in levels]) for (m, metric), cells in found.items()]
    return levels, lines


def outcomes(table: Mapping[str, Mapping[str, Result]]) -> dict[tuple[str, str], dict[str, str]]:
    """Per method and opponent, and per judge, the shares of wins, ties and losses."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for fight, lines in wins(table).items():
        opponent, _, judge = fight.removeprefix("against ").rpartition(" by ")
        for method, *shares in lines:
            shown = " / ".join(number(share, "share").removesuffix(" %") for share in shares)
            found.setdefault((method, opponent), {})[judge] = f"{shown} %"
    return found


@dataclass(frozen=True)
class Table:
    """A table as text: heads and rows of cells."""

    title: str
    heads: list[str]
    rows: list[list[str]]


def tables(
    found: Sequence[Result],
    known: Known | None = None,
    margin: float = MARGIN,
    show: Sequence[str] | None = None,
) -> list[Table]:
    """Everything that the tables say, per base: means, effects, comparisons, values at matched KL and FLOPs, costs."""
    parts = []
    for base in bases(found):
        table = whole(found, base)
        parts.append(_means(base, table, known or {}, show))
        effects = effects_of(found, base)
        if effects:
            parts.append(_effects(base, effects, margin))
        compared = versuses(table)
        if compared:
            parts.append(_versus(base, compared, margin))
        parts += [one for kind in READ_AT if (one := _matched(base, table, kind)) is not None]
        judged = outcomes(table)
        if judged:
            parts.append(_preferred(base, judged))
        spent = costs.table(table)
        if spent is not None:
            parts.append(Table(f"{base}: what each row cost to make, evaluation left out", *spent))
    return parts


def _matched(base: str, table: Mapping[str, Mapping[str, Result]], kind: str) -> Table | None:
    levels, lines = matched(table, kind)
    shown = {"kl": "at KL {:g}", "flops": "at {:.3g} TFLOP"}[kind]
    heads = ["method", "metric", *(shown.format(float(level) / (1e12 if kind == "flops" else 1)) for level in levels)]
    title = {"kl": "matched KL", "flops": "equal FLOPs of sampling, labelling and training"}[kind]
    rows = [[method, head(metric), *cells] for method, metric, cells in lines]
    return Table(f"{base}: read at {title}", heads, rows) if rows else None


def _means(
    base: str, table: Mapping[str, Mapping[str, Result]], known: Known, show: Sequence[str] | None = None
) -> Table:
    names = columns(table) if show is None else [name for name in show if any(name in row for row in table.values())]
    rows = []
    for method, row in table.items():
        if not any(name in row for name in names):  # a curve, read at matched KL only
            continue
        some = next(iter(row.values()))
        counts = [str(some.seed.count("+") + 1), f"{max(row[name].n for name in names if name in row):,}"]
        told = [text for (of, on, _), text in known.items() if (of, on) == (method, base)]
        rows.append([method, *(cell(row.get(name), name) for name in names), *counts, "; ".join(told) or "–"])
    heads = ["method", *map(head, names), "seeds", "prompts", "paper"]
    keep = len(heads) if any(row[-1] != "–" for row in rows) else len(heads) - 1
    return Table(f"{base}: means with 95 % intervals", heads[:keep], [row[:keep] for row in rows])


def _versus(base: str, compared: Sequence[Versus], margin: float) -> Table:
    names = list(dict.fromkeys(one.baseline for one in compared))
    heads = ["method", "metric", "difference", "p (Holm)", "may be worse by", "prompts to see this difference"]
    rows = [
        [
            one.method + (f" ({one.baseline})" if len(names) > 1 else ""),
            head(one.metric),
            change(one),
            p_text(one.result.p_holm),
            bound_text(one, margin),
            needed_text(one),
        ]
        for one in compared
    ]
    told = " or ".join(names) if len(names) < 3 else "the baseline in brackets"
    return Table(f"{base}: against {told}, paired over prompts and seeds", heads, rows)


def _preferred(base: str, judged: Mapping[tuple[str, str], Mapping[str, str]]) -> Table:
    judges = list(dict.fromkeys(judge for said in judged.values() for judge in said))
    rows = [
        [method, opponent, *(said.get(judge, "–") for judge in judges)] for (method, opponent), said in judged.items()
    ]
    title = f"{base}: win / tie / lose by the judge, asked in both orders"
    return Table(title, ["method", "against", *judges], rows)


def _effects(base: str, effects: Sequence[tuple[str, Versus]], margin: float) -> Table:
    heads = ["factor", "level", "against", "metric", "difference", "p (Holm)", f"within {100 * margin:g} points"]
    rows = [
        [factor, v.method, v.baseline, head(v.metric), change(v), p_text(v.result.p_holm), same(v, margin)]
        for factor, v in effects
    ]
    return Table(f"{base}: main effects, each averaged over every other choice", heads, rows)


def same(one: Versus, margin: float) -> str:
    """Whether the whole 95 % interval of a difference of shares lies inside the margin."""
    if unit(one.metric) != "share" or math.isnan(one.result.low):
        return "–"
    return "yes" if -margin < one.result.low and one.result.high < margin else "not shown"


def notes(found: Sequence[Result], margin: float = MARGIN) -> list[str]:
    """What a reader has to know of the intervals and tests."""
    lines = ["Arrows: the wanted direction. Intervals: 95 %, two-sided, over new prompts and new seeds."]
    several = {(row.method, row.base, row.metric) for row in found if "+" in row.seed}
    if any((row.method, row.base, row.metric) not in several for row in found):
        lines.append("Rows with one seed speak of that seed only.")
    if any(form.fullmatch(row.metric) for row in found for form in (VERSUS, EFFECT)):
        lines.append(
            "p: paired over prompts and seeds, adjusted by Holm over the comparisons of one kind: of ends, at a KL, at "
            f"FLOPs, of effects. No worse: worse by less than {100 * margin:g} points at one-sided level 97.5 %; "
            "overlap of intervals is never used. Prompts to see a difference: 5 % two-sided, power 0.8, as many seeds."
        )
    for base in bases(found):
        for _, v in effects_of(found, base):
            shuffled = {v.method, v.baseline} == {"shuffled", "scored"}
            if shuffled and v.metric != BEYOND.name and same(v, margin) == "yes":  # standing still is no result
                lines.append(
                    f"{base}: margins in a random order do as well as the real ones, within {100 * margin:g} points of "
                    f"{label(v.metric)}: the size of R carries no information there."
                )
    return lines


def markdown(
    found: Sequence[Result],
    known: Known | None = None,
    margin: float = MARGIN,
    show: Sequence[str] | None = None,
) -> str:
    """The tables as Markdown; show: the columns of the first one (None: `columns`)."""
    parts = []
    for table in tables(found, known, margin, show):
        rows = [list(map(md.plain, row)) for row in table.rows]
        parts.append(f"### {md.plain(table.title)}\n\n" + md.table(list(map(md.plain, table.heads)), rows))
    return "\n\n".join([*parts, *map(md.paragraph, notes(found, margin))]) + "\n"


def latex(found: Sequence[Result], known: Known | None = None, margin: float = MARGIN) -> str:
    """The tables as LaTeX tabulars (booktabs)."""
    parts = [f"% {_one_line(line)}" for line in notes(found, margin)]
    for table in tables(found, known, margin):
        parts += [
            f"% {_tex(table.title)}",
            r"\begin{tabular}{l" + "r" * (len(table.heads) - 1) + "}",
            r"\toprule",
            _tex_row(table.heads),
            r"\midrule",
            *map(_tex_row, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    return "\n".join(parts)


_TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"↑": r"$\uparrow$", "↓": r"$\downarrow$", "×": r"$\times$", "–": "--", "<": "$<$", ">": "$>$", "\0": "{}"},
}


def _tex(text: str) -> str:
    """Text on one line as LaTeX's text; two hyphens make no dash."""
    return "".join(_TEX.get(c, c) for c in re.sub("(?<=-)-", "\0-", _one_line(text)))


def _one_line(text: str) -> str:
    return " ".join(visible(text).split())


def _tex_row(cells: Sequence[str]) -> str:
    """A row; a first cell like `[2cm]` or `*` would be read as an argument of the line before."""
    line = " & ".join(map(_tex, cells))
    return (f"{{{line[0]}}}{line[1:]}" if line.startswith(("[", "*")) else line) + r" \\"
