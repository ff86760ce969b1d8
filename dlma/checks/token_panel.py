"""R token by token: where it comes from in an answer, how much of it is the affix echoed, and what it goes with.

An echo is a token whose word stands in what a prompt side adds to the plain prompt. All shares and correlations are
over pairs, the independent rows; R per token is r(a1)/|a1| - r(a2)/|a2|, so that length does not enter by itself.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from dlma.checks.margin_facts import margin_facts, spearman
from dlma.ranges import Count
from dlma.records import ScoredPair, TokenRewards
from dlma.statistics.format import bounded, number
from dlma.statistics.intervals import Estimate, ratio_interval, share_interval

EXAMPLES = 6
WORDS_SHOWN = 8
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Echo:
    """The part of R that echoes the affix: its share of the sum of |r(t)| and of the tokens, and R without it.

    flipped: pairs whose R changes sign without the echoes; words: echoed words by their sum of |r(t)|
    `*_rank`, `*_sign`: rank correlation with the truth and share of right signs; None where no truth is known
    """

    share: Estimate
    tokens: Estimate
    mean: Estimate
    mean_without: Estimate
    flipped: Estimate
    rank: Estimate | None
    rank_without: Estimate | None
    sign: Estimate | None
    sign_without: Estimate | None
    words: list[tuple[str, float]]


def echo(rows: Sequence[TokenRewards], truth: Mapping[str, float | None]) -> Echo | None:
    """The echoes in the token rewards of some pairs; None without any reward in them."""
    sizes = [_sums(row, lambda reward, is_echo: (abs(reward) * is_echo, abs(reward))) for row in rows]
    if not sum(total for _, total in sizes):
        return None
    counts = [_sums(row, lambda reward, is_echo: (float(is_echo), 1.0)) for row in rows]
    whole, without = ([_margin(row, keep) for row in rows] for keep in (True, False))
    known = [truth[row.id] for row in rows]
    facts, facts_without = (margin_facts(values, known, None, None) for values in (whole, without))
    return Echo(
        share=ratio_interval(*zip(*sizes)),
        tokens=ratio_interval(*zip(*counts)),
        mean=facts.mean,
        mean_without=facts_without.mean,
        flipped=share_interval([np.sign(a) != np.sign(b) for a, b in zip(whole, without)]),
        rank=facts.spearman,
        rank_without=facts_without.spearman,
        sign=facts.sign_accuracy,
        sign_without=facts_without.sign_accuracy,
        words=_words(rows),
    )


def _sides(row: TokenRewards) -> list[tuple[list[float], list[str], list[bool]]]:
    return [
        (row.positive_rewards, row.positive_pieces, row.positive_echo),
        (row.negative_rewards, row.negative_pieces, row.negative_echo),
    ]


def _sums(row: TokenRewards, of: Callable[[float, bool], tuple[float, float]]) -> tuple[float, float]:
    each = [of(reward, is_echo) for rewards, _, echoes in _sides(row) for reward, is_echo in zip(rewards, echoes)]
    return sum(one for one, _ in each), sum(other for _, other in each)


def _margin(row: TokenRewards, with_echoes: bool) -> float:
    first, second = (
        sum(reward for reward, is_echo in zip(rewards, echoes) if with_echoes or not is_echo)
        for rewards, _, echoes in _sides(row)
    )
    return first - second


def _words(rows: Sequence[TokenRewards]) -> list[tuple[str, float]]:
    sizes: Counter[str] = Counter()
    for row in rows:
        for rewards, pieces, echoes in _sides(row):
            for reward, piece, is_echo in zip(rewards, pieces, echoes):
                if is_echo:
                    sizes[piece.strip().casefold()] += abs(reward)
    return sizes.most_common(WORDS_SHOWN)


@dataclass(frozen=True)
class Link:
    """How R goes with a property of the answers: rank correlations of the pair's differences.

    `whole` is with R; `partial` with R per token, the other properties held fixed.
    """

    name: str
    whole: Estimate | None
    partial: Estimate | None


def partial_correlations(target: Sequence[float], columns: Sequence[Sequence[float]]) -> list[Estimate | None]:
    """Spearman's partial rho of the target with each column, the other columns held fixed.

    From the inverse of the ranks' correlation matrix; interval by Fisher's z with Bonett and Wright's variance, n less
    one for each column held fixed. None for a column that does not vary or is a function of the others.
    """
    from scipy.stats import rankdata

    table = np.array([target, *columns], dtype=np.float64)
    vary = [bool(np.ptp(row) > 0) for row in table]
    kept = [i for i, varies in enumerate(vary) if varies]
    n, others = table.shape[1], len(kept) - 2
    none: list[Estimate | None] = [None] * len(columns)
    if not vary[0] or len(kept) < 2 or n - others < 5:
        return none
    matrix = np.corrcoef([rankdata(table[i]) for i in kept])
    if len(kept) > 2 and np.linalg.cond(matrix) > 1e10:
        return none
    inverse = np.linalg.inv(matrix) if len(kept) > 2 else None
    for place, i in enumerate(kept[1:], start=1):
        rho = matrix[0, 1] if inverse is None else -inverse[0, place] / math.sqrt(inverse[0, 0] * inverse[place, place])
        none[i - 1] = _with_interval(float(np.clip(rho, -1, 1)), n, others)
    return none


def _with_interval(rho: float, n: int, fixed: int) -> Estimate:
    if abs(rho) >= 1 - 1e-12:
        return Estimate(rho, rho, rho, n)
    half = 1.959964 * math.sqrt((1 + rho * rho / 2) / (n - 3 - fixed))
    return Estimate(rho, math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half), n)


@dataclass(frozen=True, kw_only=True)
class TokenPanel:
    """The word lists and the sample (conf/panel): lists of lists, a line each, lower case."""

    source: str
    positive: list[list[str]]
    negative: list[list[str]]
    marks: list[str]
    sample: Count = 200

    def chosen(self, pairs: Sequence[ScoredPair]) -> list[ScoredPair]:
        """At most `sample` pairs, evenly taken."""
        return list(pairs[:: -(-len(pairs) // self.sample)]) if pairs else []

    def sentiment(self, text: str) -> float:
        """Positive words less negative ones, per word of the text."""
        good, bad = ({word for line in lines for word in line} for lines in (self.positive, self.negative))
        words = _WORD.findall(text.casefold())
        return sum((word in good) - (word in bad) for word in words) / max(1, len(words))

    def style(self, text: str) -> float:
        """Style marks per word of the text."""
        return sum(text.count(mark) for mark in self.marks) / max(1, len(_WORD.findall(text)))

    def links(self, pairs: Sequence[ScoredPair], refuses: Callable[[str], bool]) -> list[Link]:
        """What R goes with, over pairs with the four log-probs of the self-reward."""
        properties: dict[str, Callable[[str, list[int]], float]] = {
            "length, tokens": lambda text, ids: len(ids),
            "sentiment": lambda text, ids: self.sentiment(text),
            "refusal": lambda text, ids: float(refuses(text)),
            f"style marks {' '.join(self.marks)}": lambda text, ids: self.style(text),
        }
        rewards = [_rewards(pair) for pair in pairs]
        whole = [first - second for first, second in rewards]
        per_token = [
            first / len(p.positive_ids) - second / len(p.negative_ids) for p, (first, second) in zip(pairs, rewards)
        ]
        columns = [
            [of(p.positive_text, p.positive_ids) - of(p.negative_text, p.negative_ids) for p in pairs]
            for of in properties.values()
        ]
        partial = partial_correlations(per_token, columns)
        simple = [spearman(list(zip(whole, column))) for column in columns]
        return [Link(*row) for row in zip(properties, simple, partial, strict=True)]


def _rewards(pair: ScoredPair) -> tuple[float, float]:
    return (
        pair.positive_under_positive - pair.positive_under_negative,
        pair.negative_under_positive - pair.negative_under_negative,
    )


def figures_of(found: Echo | None, links: Sequence[Link]) -> dict[str, float]:
    """The tracker's summary numbers."""
    numbers = {} if found is None else {"score/echo_share": found.share.value, "score/echo_tokens": found.tokens.value}
    known = {link.name.split(",")[0].split(" ")[0]: link.partial for link in links if link.partial is not None}
    return numbers | {f"score/partial_{name}": estimate.value for name, estimate in known.items()}


def section(
    rows: Sequence[TokenRewards],
    questions: Mapping[str, str],
    found: Echo | None,
    links: Sequence[Link],
    source: str,
) -> str:
    """The report's section: the affix echo, what R goes with, and examples token by token."""
    return (
        f'<p class="lead">Over {len(rows):,} pairs read token by token; intervals are 95 % over pairs.</p>'
        f'<div class="grid2"><div><h3>Echo of the affix</h3>{_echo_table(found)}</div>'
        f"<div><h3>What R goes with</h3>{_links_table(links, source)}</div></div>"
        f"<h3>Examples</h3>{examples(rows, questions)}"
    )


def _echo_table(found: Echo | None) -> str:
    if found is None:
        return '<p class="note">Every token reward is 0.</p>'
    lines = [
        ("tokens whose word stands in the affix", _said(found.tokens, "share"), ""),
        ("their share of the sum of |r(t)|", _said(found.share, "share"), ""),
        ("mean R, nats, with and without them", _said(found.mean), _said(found.mean_without)),
        ("pairs whose R changes sign without them", _said(found.flipped, "share"), ""),
        ("sign(R) right, no ties", _said(found.sign, "share"), _said(found.sign_without, "share")),
        ("rank correlation of R with the truth", _said(found.rank), _said(found.rank_without)),
    ]
    body = "".join(
        f'<tr><td>{name}</td><td class="num">{one}</td><td class="num">{other}</td></tr>'
        for name, one, other in lines
        if one != "–"
    )
    words = ", ".join(f"{escape(word)} {size:.1f}" for word, size in found.words) or "none"
    return (
        '<div class="scroll"><table><thead><tr><th></th><th class="num">as it is</th>'
        f'<th class="num">without echoes</th></tr></thead><tbody>{body}</tbody></table></div>'
        f'<p class="note">Echoed words, by their sum of |r(t)| in nats: {words}.</p>'
    )


def _links_table(links: Sequence[Link], source: str) -> str:
    body = "".join(
        f'<tr><td>{escape(link.name)}</td><td class="num">{_said(link.whole)}</td>'
        f'<td class="num">{_said(link.partial)}</td></tr>'
        for link in links
    )
    return (
        '<div class="scroll"><table><thead><tr><th></th><th class="num">with R</th>'
        f'<th class="num">with R per token</th></tr></thead><tbody>{body}</tbody></table></div>'
        '<p class="note">Rank correlations of the differences within a pair, over all pairs; with R per token, the '
        "other properties are held fixed. A dash: it does not vary here. "
        f"Sentiment counts the words of a list ({escape(source)}).</p>"
    )


def _said(estimate: Estimate | None, unit: str = "") -> str:
    return "–" if estimate is None else bounded(estimate, unit)


def examples(rows: Sequence[TokenRewards], questions: Mapping[str, str]) -> str:
    """Pairs from the largest R to the smallest, each token coloured by its reward, blurred until pressed."""
    ordered = sorted(rows, key=lambda row: -_margin(row, True))
    places = sorted({round(i * (len(ordered) - 1) / max(1, EXAMPLES - 1)) for i in range(EXAMPLES)}) if ordered else []
    shown = [ordered[place] for place in places]
    sizes = [abs(reward) for row in shown for rewards, _, _ in _sides(row) for reward in rewards]
    scale = float(np.quantile(sizes, 0.95)) or 1.0 if sizes else 1.0
    cards = "".join(_example(row, questions[row.id], scale) for row in shown)
    return (
        '<p class="lead">Blue: likelier under the positive prompt; orange: under the negative one; the deeper, the '
        f"more nats (full colour from {number(scale, '')}). Underlined: the word stands in the affix.</p>{cards}"
    )


def _example(row: TokenRewards, question: str, scale: float) -> str:
    arms = "".join(
        f'<div class="arm {css}"><h4>{name} <span class="badge">r = {sum(rewards):+.2f}</span></h4>'
        f'<div class="text" data-veil>{_heat(rewards, pieces, echoes, scale)}</div></div>'
        for (name, css), (rewards, pieces, echoes) in zip(
            (("positive", "c-better"), ("negative", "c-worse")), _sides(row)
        )
    )
    return (
        f'<article class="case"><div class="q"><div class="text" data-veil>{escape(question)}</div>'
        f'<span class="badge">R = {_margin(row, True):+.2f}</span></div><div class="arms">{arms}</div></article>'
    )


def _heat(rewards: Sequence[float], pieces: Sequence[str], echoes: Sequence[bool], scale: float) -> str:
    spans = []
    for reward, piece, is_echo in zip(rewards, pieces, echoes):
        depth = round(70 * min(1.0, abs(reward) / scale))
        colour = "--better" if reward > 0 else "--worse"
        line = ";text-decoration:underline" if is_echo else ""
        spans.append(
            f'<span style="background:color-mix(in srgb,var({colour}) {depth}%,transparent){line}" '
            f'data-tip="{reward:+.3f} nats">{escape(piece)}</span>'
        )
    return "".join(spans)
