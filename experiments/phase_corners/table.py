"""The corners of the map at the same KL: harm by method over affix obedience x judge skill, three bases a corner.

python experiments/tables.py run phase_corners    # its commands, then this table
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from dlma.report import markdown
from dlma.report.result_text import MARGIN, cell, change, p_text, same
from dlma.statistics import intervals, significance
from dlma.sweep import curves, estimates, pooled_curves, readings
from dlma.sweep.curves import Curve
from dlma.sweep.pooled_curves import Terms
from dlma.sweep.readings import Read
from dlma.sweep.results import ALIGNED, Result, bases, over_seeds, result, within
from dlma.sweep.settings import SHARED_ARMS, Setting, said
from experiments import base_cards
from experiments.base_cards import CARD, DIALS

SUBJECT, RIVALS, LEVELS = "dlma", ("rlcd", "rlaif"), (0.1, 0.3)
METHODS = (SUBJECT, *RIVALS)
PLANNED = 4 * len(RIVALS) * len(LEVELS)  # comparisons, of four corners
ALPHA = 0.05
Corner = tuple[float, float]  # affix obedience, share of judge documents that tell the truth
Taken = dict[tuple[Corner, str, float], list[Read]]  # by corner, method and level: one reading a base
MEASURED = ("harmful", "kl")


def results(settings: Sequence[Setting]) -> list[Result]:
    """Each base's card and ends, harm at a KL base by base and over a corner's bases, the differences and effects."""
    ends = [row for row in settings if row.final and row.arm != "prompted"]
    found = [one for one in over_seeds(estimates.results(ends, tested=[])) if _is_shown(one)]
    cards = [line for row in ends if row.arm == "base" for line in base_cards.results(row)]
    corners = corners_of(cards)
    chosen = _chosen(curves.along_kl(settings, []))
    read = {(corner, *key): [chosen[base, *key] for base in inside if (base, *key) in chosen]
            for corner, inside in corners.items() for key in itertools.product(METHODS, LEVELS)}  # fmt: skip
    taken = {key: reads for key, reads in read.items() if len(reads) == len(corners[key[0]])}
    return [*found, *cards, *_read(taken), *_differences(taken), *_effects(taken)]


def _is_shown(one: Result) -> bool:
    return one.metric in MEASURED and one.statistic == "mean"


def corners_of(cards: Sequence[Result]) -> dict[Corner, list[str]]:
    """The bases of each corner by name, which ends with the seed, by the dials of their cards."""
    dials = {(one.base, one.metric): one.value for one in cards}
    found: dict[Corner, list[str]] = {}
    for base in sorted(bases(cards)):
        obedience, judge = (dials[base, name] for name in DIALS)
        found.setdefault((obedience, judge), []).append(base)
    return dict(sorted(found.items()))


def _chosen(drawn: Sequence[Curve]) -> dict[tuple[str, str, float], Read]:
    """By base, method and level the reading on the way of the gentler setting, and where that ends short the other."""
    found = {}
    gentlest_first = sorted(drawn, key=lambda curve: -float(said(curve.points[0], "recipe.beta") or "nan"))
    for base in dict.fromkeys(curve.base for curve in drawn):
        inside = [curve for curve in gentlest_first if curve.base == base]
        for read in readings.reads(inside, LEVELS, "harmful", own=True).values():
            found.setdefault((base, read.curve.method, read.at), read)
    return found


def name_of(corner: Corner) -> str:
    return f"o{corner[0]}j{corner[1]}"


def _as_row(corner: Corner, method: str) -> Result:
    return Result(name_of(corner), method, "harmful", 0, 0.0, axis="kl")


def _read(taken: Taken) -> list[Result]:
    """What was read on each base and over what, and over the bases of a corner."""
    found = []
    for (corner, method, at), reads in taken.items():
        for read in reads:
            found += readings.told(replace(read, curve=replace(read.curve, settings=(), arm=ALIGNED)))
        found += _combined(_as_row(corner, method), at, [[(1, read)] for read in reads])
    return found


def _share(e: intervals.Estimate) -> intervals.Estimate:
    return replace(e, low=max(0.0, e.low), high=min(1.0, e.high))


def _combined(row: Result, at: float, columns: Sequence[Terms]) -> list[Result]:
    over = pooled_curves.combined(columns)
    if over is None:
        return []
    seeds, table, beside = over
    e = intervals.crossed_interval(table, beside)
    e = _share(e) if row.statistic == "mean" else e
    return [result(row, "harmful", e, seeds, axis="kl", at=at, statistic=row.statistic, versus=row.versus)]


def _differences(taken: Taken) -> list[Result]:
    """Each rival less dlma in each corner, the bases' variance pooled over a corner's comparisons.

    Holm over all that the plan has: those not measured, or not reached, count as p of 1.
    """
    compared = []
    for corner, at in itertools.product(dict.fromkeys(key[0] for key in taken), LEVELS):
        family = []
        for rival in RIVALS:
            over = _less(taken, corner, at, rival, SUBJECT)
            if over is not None:
                seeds, table, beside = over
                row = replace(_as_row(corner, rival), statistic="difference", versus=SUBJECT)
                e = intervals.crossed_interval(table, beside)
                what = {"axis": "kl", "at": at, "statistic": "difference", "versus": SUBJECT}
                family.append((result(row, "harmful", e, seeds, **what), table, beside))
        compared += readings.over_pooled_seeds(family) if family else []
    p_values = [significance.p_value(table, beside) for _, table, beside in compared]
    adjusted = significance.holm([*p_values, *[1.0] * (PLANNED - len(compared))])
    return [replace(row, p_holm=p) for (row, _, _), p in zip(compared, adjusted)]


def _less(taken: Taken, corner: Corner, at: float, one: str, other: str) -> pooled_curves.Over | None:
    if not {(corner, one, at), (corner, other, at)} <= taken.keys():
        return None
    pairs = zip(taken[corner, one, at], taken[corner, other, at], strict=True)
    return pooled_curves.combined([[(1, first), (-1, second)] for first, second in pairs])


def _effects(taken: Taken) -> list[Result]:
    """What judge skill adds to rlaif less dlma, and obedience to dlma less rlcd; bases of one seed are paired."""
    found = []
    corners = sorted({key[0] for key in taken})
    for at, (low, high) in itertools.product(LEVELS, itertools.combinations(corners, 2)):
        if (low[0] == high[0]) == (low[1] == high[1]):
            continue  # both dials differ
        judged = low[0] == high[0]
        one, other = ("rlaif", SUBJECT) if judged else (SUBJECT, "rlcd")
        needed = list(itertools.product((high, low), (one, other), [at]))
        if not set(needed) <= taken.keys():
            continue
        signs = (1, -1, -1, 1)
        by_seed = [{_seed(read): read for read in taken[key]} for key in needed]
        shared = sorted(set.intersection(*map(set, by_seed)))
        columns = [list(zip(signs, (reads[seed] for reads in by_seed), strict=True)) for seed in shared]
        fixed = ("obedience", low[0]) if judged else ("judge", low[1])
        row = replace(_as_row(low, one), base=f"{fixed[0]} {fixed[1]:g}", statistic="effect", versus=other)
        found += _combined(row, at, columns) if len(columns) > 1 else []
    return found


def _seed(read: Read) -> str:
    return read.curve.base.rpartition("s")[2]


def render(found: Sequence[Result]) -> str:
    cards = [one for one in found if one.method == CARD]
    corners = corners_of(cards)
    parts = [
        _map(found, list(corners)),
        _tests(found, list(corners)),
        _between(found),
        base_cards.table(found, itertools.chain(*corners.values())),
    ]
    return "\n\n".join([*parts, _ends(found, corners)])


def map_rows(found: Sequence[Result]) -> list[list[str]]:
    """The map at each level: a row for each obedience, a column for each judge."""
    told = read_of(found)
    corners = {(one.base, one.at) for one in told.values()}
    dials = sorted({tuple(map(float, base[1:].split("j"))) for base, _ in corners})
    obediences, judges = (sorted({corner[i] for corner in dials}) for i in (0, 1))
    return [
        [f"{obedience:g}", f"{at:g} nats", *(_outcome(found, name_of((obedience, judge)), at) for judge in judges)]
        for obedience, at in itertools.product(obediences, LEVELS)
    ]


def read_of(found: Sequence[Result]) -> dict[tuple[str, str, float], Result]:
    """Harm at a KL over the bases of a corner, by corner, method and level."""
    told = [one for one in found if (one.axis, one.statistic) == ("kl", "mean") and not one.base.startswith("lab-")]
    return {(one.base, one.method, float(one.at or 0)): one for one in told}


def differences(found: Sequence[Result]) -> list[Result]:
    return [one for one in found if one.statistic == "difference"]


def _outcome(found: Sequence[Result], corner: str, at: float) -> str:
    """Every method's harm, the least first, and what is known of the differences."""
    harm = {method: one.value for (base, method, level), one in read_of(found).items() if (base, level) == (corner, at)}
    shown = ", ".join(f"`{method}` {100 * harm[method]:.1f}" for method in sorted(harm, key=harm.get))
    tests = [one for one in differences(found) if (one.base, one.at) == (corner, at)]
    sure = [one for one in tests if one.p_holm < ALPHA]
    alike = [one for one in tests if one not in sure and within(one, MARGIN, _gaps(found, one))]
    missing = [f"`{method}`" for method in METHODS if method not in harm]
    said = [f"**`{one.method}` {'worse' if one.value > 0 else 'better'} than `{SUBJECT}`**" for one in sure]
    said += [f"`{one.method}` within {100 * MARGIN:g} points" for one in alike]
    said += [f"`{one.method}` not told apart" for one in tests if one not in (*sure, *alike)]
    said += [f"{' and '.join(missing)} not on every base"] if missing else []
    return "; ".join([shown, *said])


def _gaps(found: Sequence[Result], one: Result) -> list[Result]:
    """Over what the readings behind a difference stand, of every base."""
    both = (one.method, one.versus)
    told = [gap for gap in found if gap.statistic == "gap" and gap.at == one.at and gap.method in both]
    return [gap for gap in told if gap.base.removeprefix("lab-").rpartition("s")[0] == one.base]


def _map(found: Sequence[Result], corners: Sequence[Corner]) -> str:
    judges = sorted({judge for _, judge in corners})
    heads = ["affix obedience", "at", *(f"judge documents that tell the truth: {judge:g}" for judge in judges)]
    head = (
        "Answers with harm in percent at the same KL, the least first, means over three bases; whom Holm over the "
        f"{PLANNED} comparisons of four corners tells apart from `{SUBJECT}`:\n\n"
    )
    return head + markdown.table(heads, map_rows(found))


def _tests(found: Sequence[Result], corners: Sequence[Corner]) -> str:
    told, rows = read_of(found), []
    compared = {(one.base, one.method, one.at): one for one in differences(found)}
    for corner, at, method in itertools.product(map(name_of, corners), LEVELS, METHODS):
        mean, less = told.get((corner, method, at)), compared.get((corner, method, at))
        gaps = [gap for gap in _gaps(found, less) if gap.method == method] if less else []
        tested = [change(less), p_text(less.p_holm), same(less, MARGIN, _gaps(found, less))] if less else ["–"] * 3
        over = f"{min(gap.low for gap in gaps):.2f}–{max(gap.high for gap in gaps):.2f}" if gaps else "–"
        rows.append([corner, f"{at:g} nats", f"`{method}`", cell(mean) if mean else "not reached", *tested, over])
    head = (
        f"Every method at each KL, and its harm less that of `{SUBJECT}`; p by Holm over the {PLANNED} comparisons of "
        "four corners:\n\n"
    )
    within_ = f"within {100 * MARGIN:g} points"
    heads = ["corner", "at", "method", "answers with harm", "difference", "p", within_, "read over, nats"]
    return head + markdown.table(heads, rows)


def effects(found: Sequence[Result]) -> list[Result]:
    return [one for one in found if one.statistic == "effect"]


def _between(found: Sequence[Result]) -> str:
    rows = []
    for one in effects(found):
        what = "good judgements less none" if one.base.startswith("obedience") else "obedience 0.75 less 0.1"
        shown = f"{100 * one.value:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}] points"
        rows.append([what, one.base, f"`{one.method}` less `{one.versus}`", f"{one.at:g} nats", shown])
    head = "What a dial adds to the difference of two methods (not tested):\n\n"
    return head + markdown.table(["dial", "the other dial", "of", "at", "change of the difference"], rows)


def _ends(found: Sequence[Result], corners: dict[Corner, list[str]]) -> str:
    ends = {
        (one.base, one.label, one.metric): one
        for one in found
        if one.statistic == "mean" and not one.axis and one.method in METHODS and one.arm not in SHARED_ARMS
    }
    labels = list(dict.fromkeys(label for _, label, _ in ends))
    rows = [
        [f"`{base}`", label, *(cell(ends[base, label, metric]) for metric in MEASURED)]
        for base, label in itertools.product(itertools.chain(*corners.values()), labels)
        if (base, label, "kl") in ends
    ]
    head = "Where every training ended:\n\n"
    return head + markdown.table(["base", "method", "answers with harm", "KL, nats"], rows)
