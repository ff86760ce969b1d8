"""What a stage of a plan computes: the load of each component, from the numbers and lengths of prompts and answers.

Prefixes that trees share are not taken off, so scoring is counted at most (dlma/cost/flops.py). Decoding is bound
by the larger of two times: its operations, and reading weights and cache once a token.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

from omegaconf import DictConfig

from dlma.cost.flops import FORWARD, Workload, sampled, scored, slots_of, trained, work_of
from dlma.plan.dry_run import Sizes


def load_of(name: str, cfg: DictConfig, sizes: Sizes, samples: int) -> Workload | None:
    """The load of a stage, by what it is for in the pipeline; None for a component whose YAML does not say."""
    name, *number = name.split()  # of the round; the last round has none
    if name in ("base", "prompted", "aligned"):
        return _answers(name, cfg, sizes, samples)
    group = _GROUPS.get(name)
    if group is None:
        return Workload()
    if int(number[0]) > 1 if number else cfg.iterations > 1:
        cfg = copy.deepcopy(cfg)
        cfg.update(cfg.iteration.later)
    known = work_of(cfg[group])
    count = _COMPONENTS.get(known["kind"]) if known else None  # rollouts (PPO) are counted after a run, not before
    return count(sizes.train, known, cfg, cfg[group], sizes) if count else None


_GROUPS = {
    "pairs": "pairs",
    "scored": "scorer",
    "scored_otherwise": "scorer",
    "scored_before": "scorer",
    "reward": "reward",
    "policy": "objective",
}


def _answers(name: str, cfg: DictConfig, sizes: Sizes, samples: int) -> Workload:
    """An arm's answers: drawn under each side that takes part, and read under it again and by the base under all."""
    answer, contexts, own = sizes.answer, sizes.contexts, name == "aligned"
    contrasted = own and "contrast" in cfg.objective and cfg.objective.contrast is not None
    sides = ["positive", "negative"] if contrasted else ["positive" if name == "prompted" else "plain"]
    drawn = sizes.held_out * (samples if own else 1)
    read = [contexts[side].mean for side in [*(sides if own else []), *contexts]]
    draws = [sampled(contexts[side].mean, answer.mean, drawn) for side in sides]
    return sum(draws, Workload()) + scored(read, [answer.mean], drawn)


def _pairs(rows: int, known: Mapping, cfg: DictConfig, node: DictConfig, sizes: Sizes) -> Workload:
    if cfg.pairs.path or cfg.scored.path:
        return Workload()
    sides = known.get("contexts") or (cfg.pairs.first, cfg.pairs.second)
    pairs = int(known.get("per_prompt", 1))
    slots = slots_of(sides, pairs)
    times = rows * (pairs if len(slots) == 2 else 1)
    drawn = [sampled(sizes.contexts[side].mean, sizes.answer.mean, times) for side in slots if side is not None]
    return sum(drawn, Workload())


def _labels(rows: int, known: Mapping, cfg: DictConfig, node: DictConfig, sizes: Sizes) -> Workload:
    pairs = work_of(cfg.pairs)
    rows *= pairs.get("per_prompt", 1)
    answers = [sizes.answer.mean] * 2
    sides = [*known["contexts"], *(["plain"] if known.get("base") else [])]
    found = scored([sizes.contexts[side].mean for side in sides], answers, rows)
    question = sizes.contexts["plain"].mean + sum(answers)  # the judge's own words are not counted
    rated = sizes.contexts["plain"].mean + sizes.answer.mean
    asked = scored([question], [], rows * known.get("asked", 0)) + scored([rated], [], rows * known.get("rated", 0))
    return found + asked


def trained_per_prompt(cfg: DictConfig) -> int:
    """Rows of training to a prompt: its pairs, those that the labels make of them, or one of all that go together."""
    made, labelled, trained_on = (work_of(node) for node in (cfg.pairs, cfg.labels, cfg.objective))
    pairs = labelled.get("pairs", made.get("per_prompt", 1))
    return int(pairs) // len(trained_on.get("under", [None]))


def _training(rows: int, known: Mapping, cfg: DictConfig, node: DictConfig, sizes: Sizes) -> Workload:
    rows *= trained_per_prompt(cfg)
    again = "checkpointing" in node and node.checkpointing
    answers = [sizes.answer.mean] * known["answers"]
    if under := known.get("under"):
        sides = [side for own in under for side in own]
        each = [trained(sizes.contexts[side].mean, answers, rows * node.epochs, checkpointing=again) for side in sides]
        return replace(sum(each, Workload()), rows=rows)
    load = trained(sizes.contexts["plain"].mean, answers, rows * node.epochs, checkpointing=again)
    if not known.get("reference"):
        return replace(load, rows=rows)
    teacher = scored([sizes.contexts["positive"].mean], answers, rows * node.epochs)
    share = FORWARD / load.factor  # the teacher's pass has no gradient
    seen = load.seen + share * teacher.seen
    read, targets = load.read + share * teacher.read, load.targets + share * teacher.targets
    return replace(load, rows=rows, read=read, targets=targets, seen=seen)


def _nothing(rows: int, known: Mapping, cfg: DictConfig, node: DictConfig, sizes: Sizes) -> Workload:
    return Workload()


def _steering(rows: int, known: Mapping, cfg: DictConfig, node: DictConfig, sizes: Sizes) -> Workload:
    read = [sizes.contexts[side].mean for side in known["contexts"]]
    return replace(scored(read, [sizes.answer.mean] * 2, min(rows, node.prompts)), targets=0.0)


_COMPONENTS = {"none": _nothing, "sample": _pairs, "score": _labels, "train": _training, "steer": _steering}
