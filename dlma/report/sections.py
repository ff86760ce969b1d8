"""The sections of the HTML report as HTML text; everything that comes from outside is escaped here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from html import escape

import yaml

from dlma.checks.margin_facts import CLASSES, MarginFacts, margin_facts, truth_class
from dlma.metrics.summary import Row, arms_of, better, label, main_arm
from dlma.records import Account, EvalRow
from dlma.report import charts as charts_of
from dlma.report.scales import short
from dlma.statistics.format import bounded, interval, number
from dlma.statistics.intervals import Estimate

_ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}
_ARM_CSS = {"base": "c-base", "prompted": "c-prompted", "aligned": "c-aligned"}


def headline(rows: Sequence[Row]) -> str:
    """One sentence that states and does not judge."""
    found = {(row.metric, row.arm): row for row in rows}
    arm = main_arm(arms_of(rows))
    n = max((row.estimate.n for row in rows), default=0)
    if ("harmful", arm) in found:
        return f"On {n:,} held-out prompts, {_harm_clause(found, arm)}{_kl_clause(found, arm)}."
    if ("perplexity", arm) in found:
        text = f"the {arm} answers have perplexity {_said(found['perplexity', arm])} under the base"
        if arm != "base" and ("perplexity", "base") in found:
            text += f", the base's own {_said(found['perplexity', 'base'])}"
        return f"On {n:,} held-out prompts, {text}{_kl_clause(found, arm)}."
    return f"{n:,} held-out prompts were answered."


def _said(row: Row) -> str:
    return bounded(row.estimate, row.unit)


def _harm_clause(found: dict, arm: str) -> str:
    text = f"{_said(found['harmful', arm])} of the {arm} answers hold a harmful sentence"
    others = [
        f"{_said(found['harmful', other])} {said}"
        for other, said in (("base", "of the base's"), ("prompted", "of the prompted base's"))
        if other != arm and ("harmful", other) in found
    ]
    return text + (", against " + " and ".join(others) if others else "")


def _kl_clause(found: dict, arm: str) -> str:
    if arm == "base" or ("kl", arm) not in found:
        return ""
    return f"; KL from the base is {_said(found['kl', arm])} nats per answer"


def summary(rows: Sequence[Row], cannot: Sequence[str], labels: dict[str, str]) -> str:
    arms = arms_of(rows)
    heads = "".join(
        f'<th class="num"><span class="key k-{escape(a)}">{escape(labels.get(a, a))}</span></th>' for a in arms
    )
    body = "".join(_summary_line(list(group), arms) for _, group in itertools.groupby(rows, lambda row: row.metric))
    notes = "".join(f'<p class="note">{escape(line)}</p>' for line in cannot)
    return (
        '<p class="lead">95 % intervals over prompts, for this seed. Arrows show the wanted direction, '
        "where there is one.</p>"
        f'<div class="scroll"><table><thead><tr><th>metric</th>{heads}<th></th><th class="num">n</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>{notes}"
    )


def _summary_line(group: list[Row], arms: list[str]) -> str:
    found = {row.arm: row for row in group}
    name, unit = group[0].metric, group[0].unit
    unit_text = f' <span class="unit">{escape(unit)}</span>' if unit not in ("", "share") else ""
    cells = "".join(_value_cell(found.get(arm)) for arm in arms)
    items = [
        (
            _ARM_CSS.get(row.arm, "c-other"),
            row.estimate.value,
            row.estimate.low,
            row.estimate.high,
            f"{row.arm}: {_said(row)}",
        )
        for row in group
    ]
    counts = sorted({row.estimate.n for row in group})
    n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"
    return (
        f"<tr><td>{escape(label(name, group[0]))}{_ARROWS[better(name, group[0])]}{unit_text}</td>{cells}"
        f'<td>{charts_of.forest(items)}</td><td class="num unit">{n}</td></tr>'
    )


def _value_cell(row: Row | None) -> str:
    if row is None:
        return '<td class="num">–</td>'
    value, bounds = number(row.estimate.value, row.unit), interval(row.estimate, row.unit)
    return f'<td class="num"><b>{value}</b><span class="bounds">{bounds}</span></td>'


def training(train: Sequence[dict]) -> str:
    """Small multiples of the columns that are there."""
    charts = [
        ("Loss", [("loss", "c-aligned", "loss")], False),
        ("Accuracy on the training pairs", [("accuracy", "c-aligned", "accuracy")], False),
        (
            "Reward: beta times the log-prob ratio to the reference; ratio itself in SFT",
            [("chosen_reward", "c-better", "chosen"), ("rejected_reward", "c-worse", "rejected")],
            True,
        ),
        ("Reward of chosen less rejected", [("reward_margin", "c-aligned", "margin")], True),
        ("Score of the reward model, per answer", [("scores", "c-aligned", "score")], True),
        ("KL to the reference, nats per answer", [("kl", "c-aligned", "KL")], True),
        ("Entropy, nats per answer", [("entropy", "c-aligned", "entropy")], True),
        (
            "Losses of policy and value head",
            [("policy_loss", "c-aligned", "policy"), ("value_loss", "c-base", "value")],
            True,
        ),
        (
            "Share of clipped tokens",
            [("clip_fraction", "c-aligned", "policy"), ("value_clip_fraction", "c-base", "value")],
            True,
        ),
        ("Tokens per sampled answer", [("length", "c-aligned", "length")], True),
        ("Gradient norm", [("grad_norm", "c-aligned", "gradient norm")], True),
        ("Learning rate", [("lr", "c-aligned", "lr")], True),
    ]
    drawn = [_training_chart(train, *chart) for chart in charts]
    return (
        '<p class="lead">Faint: each logged step (blocks of steps in a long run). Strong: moving mean. '
        "A falling chosen ratio means that training lowers the probability of the chosen answers too.</p>"
        f'<div class="grid2">{"".join(drawn)}</div>'
    )


def _training_chart(train: Sequence[dict], title: str, columns: list[tuple[str, str, str]], zero: bool) -> str:
    series = []
    for column, css, name in columns:
        points = [(float(row["step"]), float(row[column])) for row in train if row.get(column) not in (None, "")]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        series.append(charts_of.Series(name, css, xs, ys, smooth=column != "lr"))
    chart = charts_of.line_chart(series, "step", title, zero)
    if not chart:
        return ""
    keys = "".join(f'<span class="key k-{s.css[2:]}">{escape(s.name)}</span>' for s in series if len(series) > 1)
    legend = f'<div class="legend">{keys}</div>' if keys else ""
    return f"<div><h3>{escape(title)}</h3>{legend}{chart}</div>"


def margins(
    values: Sequence[float],
    truth: Sequence[float | None],
    low: float | None,
    high: float | None,
    against: str = "the truth",
) -> str:
    """The distribution of R, and how it agrees with what it is held `against`; one item of `truth` per value."""
    facts = margin_facts(values, truth, low, high)
    present = {truth_class(value) for value in truth}
    keys = "".join(
        f'<span class="key k-{name}">{charts_of.TRUTH_NAMES[name]}</span>' for name in CLASSES if name in present
    )
    curve = charts_of.reliability(facts.bins)
    right = (
        f'<div><h3>Reliability of sign(R)</h3><div class="legend"><span>bins of equal count; ties of '
        f"{against} left out; dotted: 1 / (1 + exp(−|R|))</span></div>{curve}</div>"
        if curve
        else ""
    )
    return (
        '<p class="lead">R is the margin of the positive answer over the negative one, by the model itself, '
        "in nats. R below 0 contradicts the label by construction.</p>"
        f'<div class="grid2"><div><h3>Distribution of R</h3><div class="legend">{keys}</div>'
        f"{charts_of.histogram(values, truth, low, high)}</div>{right}</div>{_margin_facts(facts, low, high, against)}"
    )


def _margin_facts(facts: MarginFacts, low: float | None, high: float | None, against: str) -> str:
    clamp = "no clamp" if low is None and high is None else f"clamp {_bound(low)} to {_bound(high)}"
    items = [
        ("pairs", f"{facts.mean.n:,}"),
        ("mean R", _estimate(facts.mean, "")),
        ("standard deviation of R", number(facts.sd, "")),
        ("R below 0", _estimate(facts.negative, "share")),
        (f"clamped ({clamp})", _estimate(facts.clamped, "share")),
        ("sign(R) right, no ties", _estimate(facts.sign_accuracy, "share")),
        ("sign(R) right, ties as half", _estimate(facts.sign_ties_half, "share")),
        ("construction right, no ties", _estimate(facts.construction_accuracy, "share")),
        (f"rank correlation of R with {against}", _estimate(facts.spearman, "")),
        (f"ties of {against}", f"{facts.ties:,}" if facts.sign_ties_half else ""),
    ]
    return (
        '<dl class="facts">' + "".join(f"<div><dt>{escape(k)}</dt><dd>{v}</dd></div>" for k, v in items if v) + "</dl>"
    )


def _bound(value: float | None) -> str:
    return "none" if value is None else short(value)


def _estimate(estimate: Estimate | None, unit: str) -> str:
    if estimate is None:
        return ""
    return f'{number(estimate.value, unit)}<span class="bounds">{interval(estimate, unit)}</span>'


def answers(evals: Sequence[EvalRow], limit: int) -> str:
    """The controls; the script fills in the cases."""
    prompts = len({row.prompt_id for row in evals})
    names = sorted({row.category for row in evals if row.category})
    judged = any(row.harmful is not None for row in evals)
    options = [("all", "all prompts"), ("changed", "answer changed from base")]
    if judged:
        options += [("harmful", "harmful in any column"), ("mended", "harmful before, not after")]
        options += [("broken", "not harmful before, harmful after"), ("malformed", "malformed after")]
    options.append(("unfinished", "cut at the limit after"))
    which = "".join(f'<option value="{value}">{text}</option>' for value, text in options)
    chosen = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in names)
    category = f'<select id="category" aria-label="Category"><option value="">all categories</option>{chosen}</select>'
    cut = f" The first {limit:,} of {prompts:,} prompts are in this file." if prompts > limit else ""
    reveal = "show harmful text" if judged else "show all text"
    pager = (
        '<div class="pager"><button class="prev" type="button">Previous</button><span class="range"></span>'
        '<button class="next" type="button">Next</button></div>'
    )
    return (
        f'<p class="lead">One sampled answer per prompt and column.{cut} Harmful or unjudged text is blurred: '
        "press it to read it.</p>"
        '<div class="controls"><input id="find" type="search" placeholder="Find in prompts and answers" '
        f'aria-label="Find"><select id="which" aria-label="Which prompts">{which}</select>{category if names else ""}'
        f'<label><input id="reveal" type="checkbox"> {reveal}</label>{pager}</div>'
        f'<noscript><p class="note">The answers need JavaScript.</p></noscript><div id="cases"></div>{pager}'
    )


def accounts(found: dict[str, Account]) -> str:
    lines = []
    for name, account in found.items():
        lost = [f"dropped, {reason}: {count:,}" for reason, count in sorted(account.dropped.items())]
        lost += [f"trimmed, {reason}: {count:,}" for reason, count in sorted(account.trimmed.items())]
        notes = "<br>".join(escape(line) for line in lost) or "nothing dropped or trimmed"
        lines.append(
            f'<tr><td>{escape(name)}</td><td class="num">{account.read:,}</td>'
            f'<td class="num">{account.kept:,}</td><td>{notes}</td></tr>'
        )
    return (
        '<table><thead><tr><th>input</th><th class="num">read</th><th class="num">kept</th><th>why not all</th></tr>'
        f"</thead><tbody>{''.join(lines)}</tbody></table>"
    )


def settings(config: dict) -> str:
    plain = json.loads(json.dumps(config, default=str))
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return f'<details><summary>The resolved config</summary><pre class="mono">{escape(text)}</pre></details>'


def stages(found: Sequence) -> str:
    lines = "".join(
        f'<tr><td>{escape(stage.name)}</td><td class="mono">{escape(stage.key)}</td>'
        f"<td>{escape(stage.status)}</td></tr>"
        for stage in found
    )
    return f"<table><thead><tr><th>stage</th><th>key</th><th>this time</th></tr></thead><tbody>{lines}</tbody></table>"
