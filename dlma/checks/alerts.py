"""Alerts after a run: the known ways in which alignment goes wrong, each with its figure and threshold.

Changes are paired over prompts, and an alert fires where the whole 95 % interval lies beyond the threshold, so noise
does not fire it. Where an alert asks whether something is absent (a rise in the truth, agreement with the truth),
it fires once the interval is narrow enough to tell; before that it says that it cannot. See docs/alerts.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeGuard

import numpy as np

from dlma.checks.finding import Finding, State
from dlma.checks.margin_facts import four_logps, is_judged, margin_facts
from dlma.metrics.refusals import refuses, reliability
from dlma.metrics.summary import truth_of
from dlma.ranges import Correlation, NotNegative, Positive, PositiveShare, Share
from dlma.records import EvalRow, ScoredPair
from dlma.statistics import intervals
from dlma.statistics.format import bounded, number
from dlma.statistics.intervals import Estimate, mean_interval, ratio_interval, share_interval
from dlma.statistics.paired import change, difference_of_ratios, paired

SAMPLE = 5000  # pairs whose two answers are compared token by token
MIN_STEPS = 4  # logged training steps below which their end says nothing
NO_POLICY = "there is no aligned arm"
NO_PAIRS = "there are no pairs"
NO_JUDGE = "no oracle and no independent judge for this data"


@dataclass(frozen=True)
class Outcome:
    """What a run left to be looked at; `truth` has one item per pair, None where it is not known.

    wins: the policy's win rate over the base by each judge that had no part in the run
    """

    model: str
    evals: Sequence[EvalRow]
    pairs: Sequence[ScoredPair]
    truth: Sequence[float | None]
    train: Sequence[dict[str, float]]
    wins: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """The thresholds (conf/alerts/standard.yaml says what each is) and the checks that they belong to."""

    min_sign_agreement: Share
    min_rank_correlation: Correlation
    min_margin: NotNegative
    max_identical: Share
    max_similarity: Share
    min_reward_rise: NotNegative
    truth_half_width: Positive
    win_half_width: PositiveShare
    max_chosen_fall: NotNegative
    chosen_tail: PositiveShare
    max_length_change: NotNegative
    safe_categories: list[str]
    refusals: list[str]
    max_refusal_rise: Share
    max_help_fall: NotNegative
    max_perplexity_rise: NotNegative
    max_malformed_rise: Share
    max_kl: NotNegative

    def check(self, run: Outcome) -> list[Finding]:
        """Every alert, in the order of docs/alerts.md."""
        return [
            self.unfaithful_reward(run),
            self.low_contrast(run),
            self.low_diversity(run),
            self.over_optimisation(run),
            self.likelihood_displacement(run),
            self.length_drift(run),
            self.over_refusal(run),
            self.perplexity_rise(run),
            self.malformed_rise(run),
            self.large_kl(run),
        ]

    def unfaithful_reward(self, run: Outcome) -> Finding:
        """The sign of R (or the label) does not name the better answer, or R does not rank as the truth does."""
        name, found = "unfaithful_reward", _signal_and_truth(run)
        if found is None:
            return Finding(name, "unknown", NO_JUDGE)
        what, signal, truth = found
        facts = margin_facts(signal, truth, None, None)
        sign, rank = facts.sign_accuracy, facts.spearman
        if not _known(sign):
            return Finding(name, "unknown", "the judge sees a tie everywhere")
        unranked = _known(rank) and rank.high < self.min_rank_correlation
        ranked = f", rank correlation {_said(rank)}" if rank else ""
        text = f"on {run.model}, the sign of {what} is right in {_said(sign, 'share')} of {sign.n:,}{ranked}"
        wanted = f"; alert below {100 * self.min_sign_agreement:g} % or {self.min_rank_correlation:g}"
        unfaithful = unranked or sign.high < self.min_sign_agreement
        if sign.low <= 0.5 and not unfaithful:
            return Finding(name, "unknown", f"{text}: too few to tell from chance")
        return _finding(name, unfaithful, text + wanted)

    def low_contrast(self, run: Outcome) -> Finding:
        """The two prompts hardly move the model: |R| is small."""
        values = None if is_judged(run.pairs) else rewards(run.pairs)
        if values is None:
            return Finding("low_contrast", "unknown", "the pairs have no self-reward" if run.pairs else NO_PAIRS)
        size = mean_interval(np.abs(values))
        text = f"mean |R| of the pairs is {_said(size)} nats; alert below {self.min_margin:g}"
        return _finding("low_contrast", size.high < self.min_margin, text)

    def low_diversity(self, run: Outcome) -> Finding:
        """The two answers of a pair are the same, or nearly so."""
        if not run.pairs:
            return Finding("low_diversity", "unknown", NO_PAIRS)
        sample = run.pairs[:: -(-len(run.pairs) // SAMPLE)]
        same = share_interval([p.positive_ids == p.negative_ids for p in run.pairs])
        alike = mean_interval([similarity(p.positive_ids, p.negative_ids) for p in sample])
        text = (
            f"{_said(same, 'share')} of the pairs have equal answers, alert above {100 * self.max_identical:g} %; "
            f"a pair's answers share {_said(alike, 'share')} of their token pairs, alert above "
            f"{100 * self.max_similarity:g} %"
        )
        return _finding("low_diversity", same.low > self.max_identical or alike.low > self.max_similarity, text)

    def over_optimisation(self, run: Outcome) -> Finding:
        """The policy improves by its own R, and not by any independent judge."""
        name = "over_optimisation"
        reward = change(run.evals, lambda row: row.reward)
        gains = self.gains(run)
        if reward is None or not gains:
            return Finding(name, "unknown", NO_POLICY if reward is None else NO_JUDGE)
        floor = self.reward_floor(run.evals)
        states = {self.parted(reward, gain, floor, width) for gain, width in gains.values()}
        heard = "; ".join(f"{judge} by {_said(gain)}" for judge, (gain, _) in gains.items())
        text = f"R of the answers changes by {_said(reward)} nats, {heard}"
        if "ok" not in states and "unknown" in states:
            width = f"± {number(next(iter(gains.values()))[1], '')}"
            return Finding(name, "unknown", f"{text}: too few prompts to see that to {width}")
        wanted = f"; alert where R rises by more than {number(floor, '')} and no judge sees a rise"
        return Finding(name, "ok" if "ok" in states else "warning", text + wanted)

    def gains(self, run: Outcome) -> dict[str, tuple[Estimate, float]]:
        """What the truth says that the policy has gained, else each independent judge; the half-width to see none."""
        known = truth_of(run.evals)
        gain = None if known is None else change(run.evals, known.value)
        if known is not None and gain is not None:
            return {known.name: (gain, self.truth_half_width)}
        found = {}
        for judge, wins in run.wins.items():
            above = replace(wins, value=wins.value - 0.5, low=wins.low - 0.5, high=wins.high - 0.5)
            found[f"the win rate over the base by {judge}, less a half,"] = (above, self.win_half_width)
        return found

    def reward_floor(self, evals: Sequence[EvalRow]) -> float:
        """The rise of R, nats, from which R counts as optimised."""
        return self.min_reward_rise * _spread(evals)

    def parted(self, reward: Estimate, gain: Estimate, floor: float, half_width: float) -> State:
        """Whether R rises while the judge sees no gain: a warning where both are known well enough to say so."""
        open_question = reward.low > floor and gain.low <= 0 < gain.high
        if open_question and _half(gain) > half_width:
            return "unknown"
        return "warning" if reward.low > floor and gain.low <= 0 else "ok"

    def likelihood_displacement(self, run: Outcome) -> Finding:
        """Training lowers the chosen answers' probability, by much of the reward margin that it gains."""
        name, columns = "likelihood_displacement", ("chosen_reward", "reward_margin")
        rows = [row for row in run.train if all(column in row for column in columns)]
        tail = rows[len(rows) - math.ceil(self.chosen_tail * len(rows)) :]
        if len(tail) < MIN_STEPS:
            return Finding(name, "unknown", "too few training steps, or none that record a chosen reward")
        chosen, margin = (np.array([row[column] for row in tail]) for column in columns)
        fall, excess = mean_interval(-chosen), mean_interval(-chosen - self.max_chosen_fall * margin)
        text = (
            f"over the last {len(tail)} steps the chosen reward is {_said(mean_interval(chosen))}, the reward margin "
            f"{_said(mean_interval(margin))}; alert where it falls by more than "
            f"{100 * self.max_chosen_fall:g} % of the margin"
        )
        return _finding(name, fall.low > 0 and excess.low > 0, text)

    def length_drift(self, run: Outcome) -> Finding:
        """The aligned answers are longer or shorter."""
        both = paired(run.evals, lambda row: row.tokens)
        if both is None or not sum(both[1]):
            return Finding("length_drift", "unknown", NO_POLICY)
        ratio = ratio_interval(*both)
        low, high = 1 - self.max_length_change, 1 + self.max_length_change
        text = f"the aligned answers have {_said(ratio)} times the base's length; alert outside {low:g} to {high:g}"
        return _finding("length_drift", ratio.low > high or ratio.high < low, text)

    def over_refusal(self, run: Outcome) -> Finding:
        """Safe prompts are refused more often, or answered less helpfully."""
        safe = [row for row in run.evals if row.category in self.safe_categories]
        refused = change(safe, lambda row: self.refuses(row.answer))
        if refused is None:
            named = " or ".join(self.safe_categories)
            reason = f"no held-out prompt is of the category {named}"
            return Finding("over_refusal", "unknown", reason if _has_policy(run.evals) else NO_POLICY)
        helps = change(safe, lambda row: row.helpfulness)
        text = (
            f"on safe prompts refusals ({reliability(self.refusals)}) change by {_points(refused)}, alert above "
            f"{100 * self.max_refusal_rise:g} points"
        )
        if helps is not None:
            text += f"; helpfulness by {_said(helps)}, alert below {-self.max_help_fall:g}"
        unhelpful = helps is not None and helps.high < -self.max_help_fall
        return _finding("over_refusal", unhelpful or refused.low > self.max_refusal_rise, text)

    def refuses(self, answer: str) -> bool:
        """Whether an answer holds a phrase of refusal."""
        return refuses(answer, self.refusals)

    def perplexity_rise(self, run: Outcome) -> Finding:
        """The base finds the aligned answers less likely, per token, than its own."""
        nats, tokens = paired(run.evals, lambda row: -row.logp_base), paired(run.evals, lambda row: row.tokens)
        if nats is None or tokens is None or not all(map(sum, tokens)):
            return Finding("perplexity_rise", "unknown", NO_POLICY)
        ratio = intervals.exponential(difference_of_ratios(nats, tokens))
        limit = 1 + self.max_perplexity_rise
        text = f"perplexity under the base is {_said(ratio)} times that of its own answers; alert above {limit:g}"
        return _finding("perplexity_rise", ratio.low > limit, text)

    def malformed_rise(self, run: Outcome) -> Finding:
        """More sentences are outside the grammar."""
        found = change(run.evals, lambda row: row.malformed)
        if found is None:
            return Finding("malformed_rise", "unknown", NO_JUDGE if _has_policy(run.evals) else NO_POLICY)
        limit = 100 * self.max_malformed_rise
        text = f"malformed sentences change by {_points(found)}; alert above {limit:g} points"
        return _finding("malformed_rise", found.low > self.max_malformed_rise, text)

    def large_kl(self, run: Outcome) -> Finding:
        """The policy went far from the base."""
        nats, tokens = paired(run.evals, lambda row: row.log_ratio), paired(run.evals, lambda r: r.tokens)
        if nats is None or tokens is None or not sum(tokens[0]):
            return Finding("large_kl", "unknown", NO_POLICY)
        kl = ratio_interval(nats[0], tokens[0])
        text = f"KL to the base is {_said(kl)} nats per token; alert above {self.max_kl:g}"
        return _finding("large_kl", kl.low > self.max_kl, text)


def rewards(pairs: Sequence[ScoredPair]) -> list[float] | None:
    """The pairs' R in nats, from its four log-probs; else the margins, if they say anything."""
    if four := four_logps(pairs):
        return [(a - b) - (c - d) for a, b, c, d in four]
    margins = [p.margin for p in pairs]
    return margins if len(set(margins)) > 1 else None


def similarity(first: Sequence[int], second: Sequence[int]) -> float:
    """Dice's coefficient of the adjacent token pairs of two answers: 1 for equal ones, 0 where they share none."""
    if first == second:
        return 1.0
    one, two = Counter(pairwise(first)), Counter(pairwise(second))
    return 2 * (one & two).total() / max(1, one.total() + two.total())


def _signal_and_truth(run: Outcome) -> tuple[str, list[float], list[float]] | None:
    """What decides the labels beside the truth of the pairs; else R beside a judge, on the base's answers.

    Without known pairs, the prompted base's answer is held against the base's own to the same prompt.
    """
    values = rewards(run.pairs)
    signal = [1.0 if p.chosen == "positive" else -1.0 for p in run.pairs] if values is None else values
    known = [(mine, true) for mine, true in zip(signal, run.truth, strict=True) if true is not None]
    if known:
        what = "the label" if values is None else "the margin" if is_judged(run.pairs) else "R"
        return what, [mine for mine, _ in known], [true for _, true in known]
    truth, arms = truth_of(run.evals), ("prompted", "base")
    if truth is None:
        return None
    mine, true = paired(run.evals, lambda row: row.reward, arms), paired(run.evals, truth.value, arms)
    if mine is None or true is None or len(mine[0]) != len(true[0]):
        return None
    return "R (prompted answer against base)", list(np.subtract(*mine)), list(np.subtract(*true))


def _spread(evals: Sequence[EvalRow]) -> float:
    return float(np.std([row.reward for row in evals if row.arm == "base"]))


def _has_policy(evals: Sequence[EvalRow]) -> bool:
    return any(row.arm == "aligned" for row in evals)


def _known(estimate: Estimate | None) -> TypeGuard[Estimate]:
    return estimate is not None and math.isfinite(estimate.low)


def _half(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2


def _said(estimate: Estimate, unit: str = "") -> str:
    return bounded(estimate, unit)


def _points(estimate: Estimate) -> str:
    return f"{_said(estimate, 'share').replace(' %', '')} percentage points"


def _finding(name: str, fired: bool, text: str) -> Finding:
    return Finding(name, "warning" if fired else "ok", text)
