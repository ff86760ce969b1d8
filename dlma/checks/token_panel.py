"""R token by token: where it comes from in an answer, how much of it is the affix echoed, and what it goes with.

An echo is a token whose word stands in what a prompt side adds to the plain prompt. All shares and correlations are
over pairs, the independent rows; R per token is r(a1)/|a1| - r(a2)/|a2|, so that length does not enter by itself.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dlma.checks.margin_facts import four_logps, margin_facts, spearman
from dlma.ranges import Count
from dlma.records import ScoredPair, TokenRewards
from dlma.statistics.intervals import Estimate, ratio_interval, share_interval
from dlma.statistics.ranks import ranks

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
    whole, without = ([margin(row, keep) for row in rows] for keep in (True, False))
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


def sides(row: TokenRewards) -> list[tuple[list[float], list[str], list[bool]]]:
    return [
        (row.positive_rewards, row.positive_pieces, row.positive_echo),
        (row.negative_rewards, row.negative_pieces, row.negative_echo),
    ]


def _sums(row: TokenRewards, of: Callable[[float, bool], tuple[float, float]]) -> tuple[float, float]:
    each = [of(reward, is_echo) for rewards, _, echoes in sides(row) for reward, is_echo in zip(rewards, echoes)]
    return sum(one for one, _ in each), sum(other for _, other in each)


def margin(row: TokenRewards, with_echoes: bool) -> float:
    first, second = (
        sum(reward for reward, is_echo in zip(rewards, echoes) if with_echoes or not is_echo)
        for rewards, _, echoes in sides(row)
    )
    return first - second


def _words(rows: Sequence[TokenRewards]) -> list[tuple[str, float]]:
    sizes: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        for rewards, pieces, echoes in sides(row):
            for reward, piece, is_echo in zip(rewards, pieces, echoes):
                if is_echo:
                    sizes[piece.strip().casefold()] += abs(reward)
    return sorted(sizes.items(), key=lambda item: item[1], reverse=True)[:WORDS_SHOWN]


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
    table = np.array([target, *columns], dtype=np.float64)
    vary = [bool(np.ptp(row) > 0) for row in table]
    kept = [i for i, varies in enumerate(vary) if varies]
    n, others = table.shape[1], len(kept) - 2
    none: list[Estimate | None] = [None] * len(columns)
    if not vary[0] or len(kept) < 2 or n - others < 5:
        return none
    matrix = np.corrcoef([ranks(table[i]) for i in kept])
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
        """At most `sample` pairs, evenly taken of those with the four log-probs of the self-reward."""
        known = [place for place, pair in enumerate(pairs) if pair.positive_under_positive is not None]
        return [pairs[place] for place in known[:: -(-len(known) // self.sample)]] if known else []

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
        four = four_logps(pairs)
        assert four is not None
        rewards = [(one - two, three - four) for one, two, three, four in four]
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


def figures_of(found: Echo | None, links: Sequence[Link]) -> dict[str, float]:
    """The tracker's summary numbers."""
    numbers = {} if found is None else {"score/echo_share": found.share.value, "score/echo_tokens": found.tokens.value}
    known = {link.name.split(",")[0].split(" ")[0]: link.partial for link in links if link.partial is not None}
    return numbers | {f"score/partial_{name}": estimate.value for name, estimate in known.items()}


def examples(rows: Sequence[TokenRewards], most: int = 6) -> tuple[list[TokenRewards], float]:
    """At most so many pairs, evenly from the largest R to the smallest, and a large reward among their tokens, nats."""
    ordered = sorted(rows, key=lambda row: -margin(row, True))
    places = sorted({round(i * (len(ordered) - 1) / (most - 1)) for i in range(most)}) if ordered else []
    chosen = [ordered[place] for place in places]
    sizes = [abs(reward) for row in chosen for rewards, _, _ in sides(row) for reward in rewards]
    return chosen, (float(np.quantile(sizes, 0.95)) or 1.0) if sizes else 1.0
