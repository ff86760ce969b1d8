"""The sections of a run's page: each is a macro of a template, with its tables and charts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import yaml
from markupsafe import Markup

from dlma.checks import token_panel
from dlma.checks.drift import RoundDrift
from dlma.checks.finding import Finding
from dlma.checks.margin_facts import CLASSES, MarginFacts, margin_facts, truth_class
from dlma.checks.token_panel import Echo, Link
from dlma.checks.trajectory import Trajectory
from dlma.evaluation import target_kl
from dlma.metrics.summary import SENTIMENT, TRUTHS, Row, arms_of, main_arm
from dlma.records import EvalRow, TokenRewards
from dlma.report import run_tables
from dlma.report.charts import run as charts
from dlma.report.charts.axes import legend, short
from dlma.report.page import part
from dlma.report.table import html
from dlma.statistics.format import bounded, interval, number
from dlma.statistics.intervals import Estimate

# Title of a chart of training, its series as (column, colour, name), and whether its axis reaches 0.
TRAINING = [
    ("Loss", [("loss", "aligned", "loss")], False),
    ("Accuracy on the training pairs", [("accuracy", "aligned", "accuracy")], False),
    (
        "Reward: beta times the log-prob ratio to the reference; ratio itself in SFT",
        [("chosen_reward", "better", "chosen"), ("rejected_reward", "worse", "rejected")],
        True,
    ),
    ("Reward of chosen less rejected", [("reward_margin", "aligned", "margin")], True),
    ("Score of the reward model, per answer", [("scores", "aligned", "score")], True),
    ("KL to the reference, nats per answer", [("kl", "aligned", "KL")], True),
    ("Entropy, nats per answer", [("entropy", "aligned", "entropy")], True),
    (
        "Losses of policy and value head",
        [("policy_loss", "aligned", "policy"), ("value_loss", "base", "value")],
        True,
    ),
    (
        "Share of clipped tokens",
        [("clip_fraction", "aligned", "policy"), ("value_clip_fraction", "base", "value")],
        True,
    ),
    ("Tokens per sampled answer", [("length", "aligned", "length")], True),
    ("Gradient norm", [("grad_norm", "aligned", "gradient norm")], True),
    ("Learning rate", [("lr", "aligned", "lr")], True),
]


def headline(rows: Sequence[Row]) -> str:
    """One sentence that states and does not judge."""
    found = {(row.metric, row.arm): bounded(row.estimate, row.unit) for row in rows}
    arm = main_arm(arms_of(rows))
    counts = {(row.metric, row.arm): row.estimate.n for row in rows}
    for metric, clause in _STATED.items():
        if (metric, arm) in found:
            return f"On {counts[metric, arm]:,} held-out prompts, {clause(found, arm)}{_kl_clause(found, arm)}."
    if ("perplexity", arm) in found:
        text = f"the {arm} answers have perplexity {found['perplexity', arm]} under the base"
        if arm != "base" and ("perplexity", "base") in found:
            text += f", the base's own {found['perplexity', 'base']}"
        return f"On {counts['perplexity', arm]:,} held-out prompts, {text}{_kl_clause(found, arm)}."
    return f"{max(counts.values(), default=0):,} held-out prompts were answered."


def _harm_clause(found: Mapping[tuple[str, str], str], arm: str) -> str:
    text = f"{found['harmful', arm]} of the {arm} answers hold a harmful sentence"
    return text + _against(found, arm, "harmful")


def _sentiment_clause(found: Mapping[tuple[str, str], str], arm: str) -> str:
    text = f"the sentiment of the {arm} answers is {found[SENTIMENT.name, arm]} by VADER's compound, from -1 to 1"
    return text + _against(found, arm, SENTIMENT.name)


_STATED = {"harmful": _harm_clause, SENTIMENT.name: _sentiment_clause}  # what the headline is of, the first measured


def _against(found: Mapping[tuple[str, str], str], arm: str, metric: str) -> str:
    others = [
        f"{found[metric, other]} {whose}"
        for other, whose in (("base", "of the base's"), ("prompted", "of the prompted base's"))
        if other != arm and (metric, other) in found
    ]
    return ", against " + " and ".join(others) if others else ""


def _kl_clause(found: Mapping[tuple[str, str], str], arm: str) -> str:
    if arm == "base" or ("kl", arm) not in found:
        return ""
    return f"; KL from the base is {found['kl', arm]} nats per answer"


def training(train: Sequence[dict]) -> Markup:
    """Small multiples of the columns that are there."""
    return part("run.html", "training", charts=[c for c in (_training_chart(train, *one) for one in TRAINING) if c])


def _training_chart(
    train: Sequence[dict], title: str, columns: Sequence[tuple[str, str, str]], zero: bool
) -> tuple[str, Markup, Markup] | None:
    """Title, legend and chart."""
    series = []
    for column, css, name in columns:
        points = [(float(row["step"]), float(row[column])) for row in train if row.get(column) not in (None, "")]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        series.append(charts.Series(name, f"c-{css}", xs, ys, smooth=column != "lr"))
    chart = charts.line_chart(series, "step", title, zero)
    keys = legend((f"k-{css}", name) for _, css, name in columns) if len(columns) > 1 else Markup("")
    return (title, keys, chart) if chart else None


def trajectory(found: Trajectory, parting: int | None, finding: Finding) -> Markup:
    """R and the judge in one figure, and a table of the steps."""
    points = found.points
    judges = {truth.name: f"{truth.name} (right)" for truth in TRUTHS}
    judges |= {name: f"{name.replace('win_rate/', 'win rate by ')} (right)" for name in found.judges}
    known = [(name, text) for name, text in judges.items() if all(name in point for point in points)]
    curves = [
        charts.Steps(text, css, [point[name].estimate for point in points])
        for (name, text), css in zip([("self_reward", "R, nats (left)"), *known[:1]], ("c-prompted", "c-better"))
    ]
    keys = legend((f"k-{curve.css[2:]}", curve.name) for curve in curves)
    chart = charts.two_scales(found.steps, curves, "training step", "R and the judge along training", parting)
    table = html(run_tables.trajectory(found))
    return part("run.html", "trajectory", keys=keys, chart=chart, finding=finding.text, table=table)


def stopped(chosen: Mapping) -> Markup:
    """KL along a training that stopped at a KL, and the choice."""
    curve = target_kl.curve_of(chosen)
    xs, ys = [0.0, *map(float, curve)], [0.0, *(kl.value for kl in curve.values())]
    lines = {"KL": ("c-aligned", ys), "target": ("c-base", [chosen["target"]] * len(xs))}
    series = [charts.Series(name, css, xs, values, smooth=False) for name, (css, values) in lines.items()]
    return part(
        "run.html",
        "stopped",
        chart=charts.line_chart(series, "training step", "KL to the base, nats per answer", zero=True),
        line=target_kl.line(chosen),
        table=html(run_tables.stopped(chosen)),
    )


def rounds(found: Sequence[RoundDrift]) -> Markup:
    """The drift of R over the rounds."""
    xs = [float(one.round) for one in found]

    def chart(title: str, *lines: tuple[str, str, list[float]]) -> Markup:
        series = [charts.Series(name, css, xs, ys, smooth=False) for name, css, ys in lines]
        return charts.line_chart(series, "round", title, zero=True)

    ours, base = [r.current_mean for r in found], [r.frozen_mean for r in found]
    names = ("by the round's model", "by the base")
    means = chart("Mean R of the round's pairs", (names[0], "c-aligned", ours), (names[1], "c-base", base))
    change = chart("Mean change of R", ("change", "c-aligned", [r.mean_change for r in found]))
    keys = legend([("k-aligned", names[0]), ("k-base", names[1])])
    return part("run.html", "rounds", keys=keys, means=means, change=change, table=html(run_tables.drift(found)))


def margins(
    values: Sequence[float],
    truth: Sequence[float | None],
    low: float | None,
    high: float | None,
    against: str = "the truth",
    symbol: str = "R",
) -> Markup:
    """The distribution of R, and how it agrees with what it is held `against`; one item of `truth` per value.

    symbol: what the values are called: a judge's margins are no R
    """
    facts = margin_facts(values, truth, low, high)
    present = {truth_class(value) for value in truth}
    return part(
        "run.html",
        "margins",
        keys=legend((f"k-{name}", charts.TRUTH_NAMES[name]) for name in CLASSES if name in present),
        histogram=charts.histogram(values, truth, low, high, symbol),
        reliability=charts.reliability(facts.bins, symbol),
        against=against,
        symbol=symbol,
        facts=[(name, *value) for name, value in _margin_facts(facts, low, high, against, symbol) if value is not None],
    )


def _margin_facts(
    facts: MarginFacts, low: float | None, high: float | None, against: str, symbol: str
) -> list[tuple[str, tuple[str, str] | None]]:
    """Names, values and bounds; None where there is nothing to say."""
    clamp = "no clamp" if low is None and high is None else f"clamp {_bound(low)} to {_bound(high)}"
    return [
        ("pairs", (f"{facts.mean.n:,}", "")),
        (f"mean of {symbol}", _fact(facts.mean)),
        (f"standard deviation of {symbol}", (number(facts.sd, ""), "")),
        (f"{symbol} below 0", _fact(facts.negative, "share")),
        (f"clamped ({clamp})", _fact(facts.clamped, "share")),
        (f"sign of {symbol} right, no ties", _fact(facts.sign_accuracy, "share")),
        (f"sign of {symbol} right, ties as half", _fact(facts.sign_ties_half, "share")),
        ("construction right, no ties", _fact(facts.construction_accuracy, "share")),
        (f"rank correlation of {symbol} with {against}", _fact(facts.spearman)),
        (f"ties of {against}", (f"{facts.ties:,}", "") if facts.sign_ties_half else None),
    ]


def _bound(value: float | None) -> str:
    return "none" if value is None else short(value)


def _fact(estimate: Estimate | None, unit: str = "") -> tuple[str, str] | None:
    return None if estimate is None else (number(estimate.value, unit), interval(estimate, unit))


def tokens(
    rows: Sequence[TokenRewards],
    questions: Mapping[str, str],
    found: Echo | None,
    links: Sequence[Link],
    source: str,
) -> Markup:
    """The affix echo, what R goes with, and examples token by token."""
    return part(
        "run.html",
        "tokens",
        count=len(rows),
        echo=None if found is None else html(run_tables.echo(found)),
        links=html(run_tables.links(links, source)),
        examples=examples(rows, questions),
    )


def examples(rows: Sequence[TokenRewards], questions: Mapping[str, str], most: int = 6) -> Markup:
    """At most so many pairs, the largest R first, each token coloured by its reward, blurred until pressed."""
    chosen, scale = token_panel.examples(rows, most)
    cards = [
        (
            questions[row.id],
            token_panel.margin(row, True),
            [
                (name, css, sum(rewards), charts.heat_text(list(zip(rewards, pieces, echoes)), scale))
                for (name, css), (rewards, pieces, echoes) in zip(
                    (("positive", "c-better"), ("negative", "c-worse")), token_panel.sides(row)
                )
            ],
        )
        for row in chosen
    ]
    return part("run.html", "examples", scale=number(scale, ""), cards=cards)


def answers(evals: Sequence[EvalRow], limit: int, lead: str = "") -> Markup:
    """The controls; the script fills in the cases."""
    return part(
        "run.html",
        "answers",
        lead=lead,
        prompts=len({row.prompt_id for row in evals}),
        limit=limit,
        judged=any(row.harmful is not None for row in evals),
        categories=sorted({row.category for row in evals if row.category}),
    )


def settings(config: dict) -> Markup:
    """The config as YAML."""
    plain = json.loads(json.dumps(config, default=str))
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return part("run.html", "settings", text=text)
