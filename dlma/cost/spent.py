"""The cost of a run's policy: labels, judge calls, tokens, floating-point operations; evaluation is left out.

Counted from a run's own records, as if nothing had been shared with other runs, by the formula of mode=plan
(dlma/cost/flops.py). With labels.max_pairs the pairs beyond it are not charged; those that min_margin turns away
are, for they had to be scored. Tokens trained on are the mean of the pairs times the pairs of all steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlma.cost.flops import ModelSize, Workload, sampled, scored, slots_of, trained, work_of

if TYPE_CHECKING:
    import pyarrow as pa

BEYOND = "beyond labels.max_pairs"  # as dlma/labels.py counts them
SIDES = ("positive", "negative")
# Of a scorer's node and its scored pairs, per order in which a judge was asked or answer that it rated: tokens of the
# questions, and of each verdict; None: not known.
Questions = Callable[[Mapping, "pa.Table"], "list[tuple[Sequence[int], Sequence[Sequence[int]]]] | None"]
RATED = ("positive_score", "negative_score")


@dataclass(frozen=True)
class Costs:
    """Of one run; None: a component whose work is not known.

    tokens_sampled: of answers, without prompts; tokens_scored: read to label or reward, under p+ and p-, by a judge,
    by a reward model or PPO; tokens_reference: read for the reference's log-probs; tokens_trained: forward and backward
    """

    human_labels: float | None = 0.0
    judge_calls: float | None = 0.0
    tokens_sampled: float | None = 0.0
    tokens_scored: float | None = 0.0
    tokens_reference: float | None = 0.0
    tokens_trained: float | None = 0.0
    flops: float | None = 0.0


@dataclass(frozen=True)
class Round:
    """What one round of a run left.

    pairs, scored: its records; account: of the labels; steps, reward_steps: of training policy and reward model
    again: whether the reference's log-probs were computed in a pass of their own
    scorings: how often the pairs were scored for their labels
    """

    pairs: pa.Table
    scored: pa.Table
    account: Mapping
    steps: Sequence[Mapping[str, str]]
    reward_steps: Sequence[Mapping[str, str]] = ()
    again: bool = False
    scorings: int = 1

    @property
    def charged(self) -> float:
        """The share of the pairs that had to be made and labelled for those that were kept."""
        kept, beyond = self.account["kept"], self.account["dropped"].get(BEYOND, 0)
        return kept / (kept + beyond) if beyond else 1.0

    def lengths(self, column: str) -> np.ndarray:
        """Tokens of a column of every scored pair."""
        return lengths(self.scored, column)

    def answers(self, known: Mapping) -> list[np.ndarray]:
        """Tokens of the answers that are trained on: both, or the chosen one."""
        both = [self.lengths(f"{side}_ids") for side in SIDES]
        if known["answers"] == 2:
            return both
        return [np.where(np.array(self.scored["chosen"].to_pylist()) == SIDES[0], *both)]


def lengths(table: pa.Table, column: str) -> np.ndarray:
    """Tokens of every row of a column."""
    import pyarrow.compute as pc

    return pc.list_value_length(table[column]).to_numpy().astype(float)


def every(table: pa.Table, number: int, each: int) -> pa.Table:
    """Of prompts with so many pairs each the pairs of one number, in the order in which a prompt has them."""
    if each == 1:
        return table
    seen: dict[str, int] = {}
    kept = []
    for place, prompt in enumerate(table["prompt_id"].to_pylist()):
        seen[prompt] = seen.get(prompt, -1) + 1
        kept += [place] if seen[prompt] == number else []
    return table.take(kept)


def count(values: Mapping, rounds: Sequence[Round], questions: Questions, shape: ModelSize | None) -> Costs:
    """The costs of a run with this resolved config; shape: the model's, None if it is not known."""
    found = dataclasses.asdict(Costs())
    for number, one in enumerate(rounds):
        if number:  # later rounds may have pairs, scorer and objective of their own
            values = {**values, **values["iteration"].get("later", {})}
        found["human_labels"] = _plus(found["human_labels"], _human_labels(values, one))
        found["judge_calls"] += one.charged * sum(_asked(values, one.scored))
        for kind, load in _loads(values, one, questions):
            tokens = None if load is None else load.drawn if kind == "sampled" else load.tokens
            found[f"tokens_{kind}"] = _plus(found[f"tokens_{kind}"], tokens)
            flops = None if load is None or shape is None else load.operations(shape)
            found["flops"] = _plus(found["flops"], flops)
    return Costs(**found)


def _plus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _asked(values: Mapping, scored_pairs: pa.Table) -> list[int]:
    """Questions put to a judge in each order, or of each answer; none in records of before judges were written down."""
    rated = "rating" in values["scorer"]
    names = RATED if rated else [f"verdict_{place}" for place in ("first", "second")]
    return [len(scored_pairs) - scored_pairs[name].null_count for name in names if name in scored_pairs.column_names]


def _human_labels(values: Mapping, one: Round) -> float | None:
    """The labels that people gave: of an annotator, or those that came with pairs whose order was kept."""
    if sum(_asked(values, one.scored)) or not len(one.scored):
        return 0.0
    given = bool(values["pairs"]["path"] or values["scored"]["path"])
    labels = "pairs" if values["scored"]["path"] else work_of(values["scorer"]).get("labels")
    if labels == "pairs":
        labels = "human" if given else work_of(values["pairs"]).get("labels")
    once = work_of(values.get("labels", {})).get("labels") == "first"
    labelled = len(one.scored["prompt_id"].unique()) if once else len(one.scored)
    known: dict[str | None, float] = {"human": one.charged * labelled, "model": 0.0}
    return known.get(labels)


def _loads(values: Mapping, one: Round, questions: Questions) -> Iterator[tuple[str, Workload | None]]:
    """What was computed, as (sampled, scored, reference or trained, load); None for a component that is not known."""
    if not len(one.scored):
        return
    yield from _sampling(values, one)
    yield from _labelling(values, one, questions)
    if values["reward"]["_target_"] is not None:
        yield from _reward(values["reward"], one)
    yield from _training(values["objective"], one)


def _sampling(values: Mapping, one: Round) -> Iterator[tuple[str, Workload | None]]:
    node, known = values["pairs"], work_of(values["pairs"])
    if node["path"] or values["scored"]["path"] or known.get("kind") == "none":
        return
    if not known:
        yield "sampled", None
        return
    sides = known.get("contexts") or (node["first"], node["second"])
    slots = slots_of(sides, known.get("per_prompt", 1))
    for n, side in enumerate(slots):
        if side is not None:
            rows = every(one.pairs, n // 2, len(slots) // 2)
            context, answer = lengths(rows, f"{side}_context_ids"), lengths(rows, f"{SIDES[n % 2]}_ids")
            yield "sampled", sampled(context, answer, one.charged)


def _labelling(values: Mapping, one: Round, questions: Questions) -> Iterator[tuple[str, Workload | None]]:
    """What the scored pairs show: the reference's log-probs always, both prompts' and a judge's where they stand."""
    answers = [one.lengths(f"{side}_ids") for side in SIDES]
    if len(one.scored) > one.scored["positive_under_positive"].null_count:
        contrast = scored([one.lengths(f"{side}_context_ids") for side in SIDES], answers, one.charged)
        yield from [("scored", contrast)] * one.scorings
    if any(_asked(values, one.scored)):
        asked = questions(values["scorer"], one.scored)
        loads = [None] if asked is None else [scored([begun], said, one.charged) for begun, said in asked]
        yield from (("scored", load) for load in loads)
    plain = scored([one.lengths("plain_context_ids")], answers, one.charged)
    yield from [("reference", plain)] * (one.scorings + one.again)  # each scoring reads them too
    if work_of(values["scorer"]).get("base"):
        yield from [("scored", plain)] * one.scorings


def _reward(node: Mapping, one: Round) -> Iterator[tuple[str, Workload | None]]:
    """The reward model: its training, and one reading of the pairs that it is centred on."""
    yield from _training(node, one, one.reward_steps)
    if work_of(node):
        kept = one.account["kept"] / len(one.scored)
        both = [one.lengths(f"{side}_ids") for side in SIDES]
        yield "scored", _headless(scored([one.lengths("plain_context_ids")], both, kept))


def _training(
    node: Mapping, one: Round, steps: Sequence[Mapping[str, str]] | None = None
) -> Iterator[tuple[str, Workload | None]]:
    known, steps = work_of(node), one.steps if steps is None else steps
    if not known:
        yield "trained", None
    elif known["kind"] == "rollouts":
        yield from _rollouts(node, one)
    elif known["kind"] == "steer":
        share = min(1.0, node["prompts"] / len(one.scored))
        read = [one.lengths(f"{side}_context_ids") for side in known["contexts"]]
        yield "scored", _headless(scored(read, [one.lengths(f"{side}_ids") for side in SIDES], share))
    elif known["kind"] == "train":
        again = "checkpointing" in node and node["checkpointing"]
        if under := known.get("under"):
            yield from (("trained", load) for load in _under(under, node, one, steps, again))
            return
        times = len(steps) * min(node["batch_pairs"], one.account["kept"]) / len(one.scored)
        answers = one.answers(known)
        load = trained(one.lengths("plain_context_ids"), answers, times, checkpointing=again)
        yield "trained", load if known.get("head", True) else _headless(load)
        if known.get("reference"):
            yield "reference", scored([one.lengths("positive_context_ids")], answers, times)


def _under(
    under: Sequence[Sequence[str]], node: Mapping, one: Round, steps: Sequence, checkpointing: bool
) -> Iterator[Workload]:
    """Of a prompt's pairs, trained on together, each with its answers after sides of its own."""
    prompts = one.account["kept"] / len(under)
    for n, sides in enumerate(under):
        rows = every(one.scored, n, len(under))
        answers = [lengths(rows, f"{side}_ids") for side in SIDES]
        times = len(steps) * min(node["batch_pairs"], prompts) / max(1, len(rows))
        for side in sides:
            yield trained(lengths(rows, f"{side}_context_ids"), answers, times, checkpointing=checkpointing)


def _rollouts(node: Mapping, one: Round) -> Iterator[tuple[str, Workload]]:
    """PPO: each answer is sampled, read by reward model, policy and reference, and trained on in every epoch."""
    first = dict(zip(one.scored["prompt_id"].to_pylist(), one.lengths("plain_context_ids"), strict=True))
    answer = np.array([float(step["length"]) for step in one.steps])  # the mean of each step
    context = np.full(len(answer), np.mean(list(first.values())))
    read = scored([context], [answer], node["batch"] / node["epochs"])
    yield "sampled", sampled(context, answer, node["batch"] / node["epochs"])
    yield "scored", _headless(read)
    yield "scored", read
    yield "reference", read
    again = "checkpointing" in node and node["checkpointing"]
    yield "trained", trained(context, [answer], node["batch"], checkpointing=again)


def _headless(load: Workload) -> Workload:
    return dataclasses.replace(load, targets=0.0)
