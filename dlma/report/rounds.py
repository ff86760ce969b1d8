"""How R drifts over the rounds of `iterations`: the same pairs scored by the round's own model and by the frozen base.

In the first round both are the base. Later the round's model is the last policy, which has learnt to please R; where
its R and the base's part ways, a scorer that follows the policy grades another thing than it did at the start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dlma import csv_text
from dlma.checks.margin_facts import margin_facts
from dlma.report import charts as charts_of
from dlma.statistics.format import number


@dataclass(frozen=True)
class RoundDrift:
    """One round's R, nats. Two are None where either R has no spread to compare.

    sign_agreement: share of pairs where both models prefer the same answer, a tie of one as half
    rank_correlation: Spearman's rho of the two
    """

    round: int
    pairs: int
    current_mean: float
    current_sd: float
    frozen_mean: float
    frozen_sd: float
    mean_change: float
    sign_agreement: float | None
    rank_correlation: float | None


def drift(number: int, current: Sequence[float], frozen: Sequence[float]) -> RoundDrift:
    """A round's R by its own model and by the base, both (pairs,), nats."""
    ours, base = margin_facts(current, frozen, None, None), margin_facts(frozen, current, None, None)
    return RoundDrift(
        round=number,
        pairs=len(current),
        current_mean=ours.mean.value,
        current_sd=ours.sd,
        frozen_mean=base.mean.value,
        frozen_sd=base.sd,
        mean_change=sum(abs(a - b) for a, b in zip(current, frozen, strict=True)) / max(1, len(current)),
        sign_agreement=None if ours.sign_ties_half is None else ours.sign_ties_half.value,
        rank_correlation=None if ours.spearman is None else ours.spearman.value,
    )


def rounds_csv(rounds: Sequence[RoundDrift]) -> bytes:
    """One line a round."""
    return csv_text.table([field.name for field in dataclasses.fields(RoundDrift)], map(dataclasses.astuple, rounds))


def panel(rounds: Sequence[RoundDrift]) -> str:
    """The drift as a chart and a table."""
    xs = [float(one.round) for one in rounds]
    means = charts_of.line_chart(
        [
            charts_of.Series("by the round's model", "c-aligned", xs, [r.current_mean for r in rounds], smooth=False),
            charts_of.Series("by the base", "c-base", xs, [r.frozen_mean for r in rounds], smooth=False),
        ],
        "round",
        "Mean R of the round's pairs",
        zero=True,
    )
    change = charts_of.line_chart(
        [charts_of.Series("change", "c-aligned", xs, [r.mean_change for r in rounds], smooth=False)],
        "round",
        "Mean change of R",
        zero=True,
    )
    legend = (
        '<div class="legend"><span class="key k-aligned">by the round\'s model</span>'
        '<span class="key k-base">by the base</span></div>'
    )
    return (
        '<p class="lead">Each round samples pairs from the policy it begins with; here R of the same pairs by that '
        "policy and by the base, in nats. In round 1 they are one model.</p>"
        f'<div class="grid2"><div><h3>Mean R of the round\'s pairs</h3>{legend}{means}</div>'
        f"<div><h3>Mean change of R from the base's, per pair</h3>{change}</div></div>{_table(rounds)}"
    )


def _table(rounds: Sequence[RoundDrift]) -> str:
    names = [field.name for field in dataclasses.fields(RoundDrift)]
    heads = "".join(f'<th class="num">{escape(name.replace("_", " "))}</th>' for name in names)
    lines = "".join(
        "<tr>" + "".join(f'<td class="num">{_cell(getattr(one, name))}</td>' for name in names) + "</tr>"
        for one in rounds
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else number(value, "")
