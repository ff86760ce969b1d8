"""Reading the costs of a run: from its stages while it ends, from costs.json afterwards.

A finished run without costs.json, with one round, is counted from the records in its folder when it is read.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from dlma.config.build import build
from dlma.config.recorded import Recorded
from dlma.cost.flops import ModelSize
from dlma.cost.spent import Costs, Questions, Round, count
from dlma.errors import UserError
from dlma.model.load import ModelSpec, at_hand
from dlma.store.fingerprint import key_of
from dlma.store.owned import TRAIN
from dlma.store.stage import Stage

if TYPE_CHECKING:
    import pyarrow as pa

_NEEDED = ("pairs", "scored", "scorer", "reward", "objective", "iterations", "model")  # of the config
_COUNTING = ("pairs", "scorer", "reward", "objective", "iteration")  # whose `_work_` says what was done
COUNTED = 2  # raised when another number is counted
Remembered = Callable[[str, str, Callable[[], dict]], dict]  # Store.remembered
NO_ACCOUNT = {"kept": 0, "dropped": {}}


def noted(rounds: Sequence[Mapping[str, Stage]], values: Mapping, remembered: Remembered) -> dict:
    """The costs of a run as its folder keeps them; what the same training cost before is remembered."""
    policy = rounds[-1]["policy"].key
    key = key_of([COUNTED, policy, {name: values[name] for name in _COUNTING}])
    return remembered("costs", key, lambda: dataclasses.asdict(of_stages(rounds, values)))


def of_stages(rounds: Sequence[Mapping[str, Stage]], values: Mapping) -> Costs:
    """The costs of a run from the stages of its rounds; values: its resolved config."""
    apart = values["iteration"]["scorer"] != values["iteration"]["reference"]
    made = [_of_stages(one, apart and number > 0) for number, one in enumerate(rounds)]
    return count(values, made, _questions(values["model"]), model_shape(values["model"]))


def _of_stages(stages: Mapping[str, Stage], again: bool) -> Round:
    reward = steps_of(stages["reward"].read(TRAIN)) if "reward" in stages else []
    policy, steps = stages["policy"], steps_of(stages["policy"].read(TRAIN))
    account = policy.notes.get("account", NO_ACCOUNT)
    scorings = 2 if "scored_before" in stages else 1
    return Round(stages["pairs"].table(), stages["scored"].table(), account, steps, reward, again, scorings)


def recounted(
    recorded: Recorded,
    manifest: Mapping,
    *,
    pairs: pa.Table,
    scored: pa.Table,
    steps: Sequence[Mapping],
    reward: Sequence[Mapping],
) -> Costs | None:
    """The costs of a finished run of one round from its records; None where its config does not say enough.

    steps, reward: of the policy's training, and of the reward model's
    """
    values = recorded.values
    if not all(name in values for name in _NEEDED) or values["iterations"] > 1:  # earlier rounds are in the store only
        return None
    account = manifest["policy"]["notes"].get("account", NO_ACCOUNT)
    one = Round(pairs, scored, account, steps, reward)
    model = _or_none(lambda: recorded.model(trust=False, bits=None))
    values = {**values, "scorer": {**values["scorer"], **_questioned(recorded)}}
    asked = _remembered(_questions(model), manifest["scored"]["key"])
    return count(values, [one], asked, None if model is None else model_shape(model))


def steps_of(content: bytes) -> list[dict[str, str]]:
    """The rows of a train.csv."""
    return list(csv.DictReader(io.StringIO(content.decode())))


def model_shape(model: Mapping) -> ModelSize | None:
    """The sizes of a config's model, from its config.json; None where it is not on this machine."""
    return _shape(json.dumps(model, sort_keys=True))


@cache
def _shape(model: str) -> ModelSize | None:
    from dlma.cost.memory import shape_of
    from dlma.cost.meta_model import drawn, read_config

    spec = _spec(json.loads(model))
    if spec is None:
        return None
    try:
        config = read_config(str(spec.folder), "main", spec.trust_remote_code)
    except UserError:  # it needs code that may not be run
        return None
    with drawn(spec, config) as blueprint:
        return shape_of(blueprint, config)


def _spec(model: dict) -> ModelSpec | None:
    """The config's model, if it is on this machine; nothing is fetched."""
    try:
        folder = at_hand(model)
        if folder is None:
            return None
        if "path" in model:
            model = {**model, "path": str(folder)}
        return build({**model, "bits": None})
    except UserError:
        return None


def _or_none(read_component: Callable[[], dict]) -> dict | None:
    """A component that a run folder names; None where it is none of ours, or wants code of its own to be run."""
    try:
        return read_component()
    except UserError:
        return None


def _questioned(recorded: Recorded) -> dict[str, dict | None]:
    """The question that a run's scorer put, by its key; none where it asked nothing."""
    if "rating" not in recorded.values["scorer"]:
        return {"ab": _or_none(lambda: recorded.component("scorer.ab", "judge_prompt"))}
    scorer = _or_none(lambda: recorded.component("scorer", "scorer"))
    return {"rating": None if scorer is None else scorer["rating"]}


def _questions(model: Mapping | None) -> Questions:
    """The questions that a scorer's judge puts, in the tokens of its model; unknown where either is."""

    def ask(scorer: Mapping, scored_pairs: pa.Table) -> list[tuple[Sequence[int], Sequence[Sequence[int]]]] | None:
        from dlma.judge_prompt import question_lengths, rating_lengths

        node = scorer.get("rating", scorer.get("ab"))
        spec = _spec(dict(model)) if model is not None and node is not None else None
        if spec is None:
            return None
        prompt, seed = build(node), scorer["seed"]
        if "rating" in scorer:
            return [rating_lengths(prompt, spec.tokenizer, side) for side in _rated(scored_pairs, spec.tokenizer)]
        orders = _comparisons(scored_pairs, spec.tokenizer)
        return [question_lengths(prompt, spec.tokenizer, order, seed=seed) for order in orders if order]

    return ask


def _comparisons(scored_pairs: pa.Table, tokenizer) -> tuple[list, list]:
    """What a judge was shown, in each order."""
    from dlma.judge_prompt import AnswerPair

    orders: tuple[list, list] = ([], [])
    for row in scored_pairs.to_pylist():
        conversation = tokenizer.decode(row["plain_context_ids"], skip_special_tokens=True)
        texts = (row["positive_text"], row["negative_text"])
        one = AnswerPair(row["prompt_id"], conversation, row["question"], *texts)
        for order, shown, verdict in zip(orders, (one, one.swapped()), ("verdict_first", "verdict_second")):
            if row[verdict] is not None:
                order.append(shown)
    return orders


def _rated(scored_pairs: pa.Table, tokenizer) -> tuple[list, list]:
    """What a judge rated: the answers of either side."""
    from dlma.judge_prompt import RatedAnswer

    sides: tuple[list, list] = ([], [])
    for row in scored_pairs.to_pylist():
        conversation = tokenizer.decode(row["plain_context_ids"], skip_special_tokens=True)
        for side, text in zip(sides, (row["positive_text"], row["negative_text"]), strict=True):
            side.append(RatedAnswer(conversation, row["question"], text))
    return sides


def _remembered(questions: Questions, key: str) -> Questions:
    """The same, asked once for the scored pairs of this key."""

    def ask(scorer: Mapping, scored_pairs: pa.Table) -> list[tuple[Sequence[int], Sequence[Sequence[int]]]] | None:
        if key not in _asked_before:
            _asked_before[key] = questions(scorer, scored_pairs)
        return _asked_before[key]

    return ask


_asked_before: dict[str, list | None] = {}
