"""mode=annotate: people compare answers on a blinded page; what they say, against the self-reward and the judges.

Without `labels` it writes the page; with them it reads what people downloaded. Sides, order and drawn prompts are a
function of the run and the seed, so nothing that could unblind anybody is kept in between.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig
from rich.markup import escape

from dlma import files
from dlma.errors import UserError
from dlma.ranges import Count, Seed
from dlma.records import POINTS, EvalRow, content_id
from dlma.report.annotation_page import Blind, PersonVerdicts, read_labels, render
from dlma.report.table import Column, Table, print_table
from dlma.runs.folder import VERDICTS, RunFolder
from dlma.screen import Console
from dlma.statistics.format import bounded, number
from dlma.statistics.intervals import Estimate, fraction_interval, share_interval
from dlma.statistics.kappa import cohen_kappa, fleiss_kappa

OUTCOMES = ("win", "tie", "lose")
PAGE, RESULTS = "annotate.html", "annotations.json"
REWARD = "self-reward R"
# What people are compared with: a number for each answer, the larger the better; null where there is none.
SCORES: dict[str, Callable[[EvalRow], float | None]] = {
    REWARD: lambda row: row.reward,
    "oracle": lambda row: row.harmlessness,
    "sentiment": lambda row: row.sentiment,
}
Preferences = dict[str, dict[str, float]]  # by who prefers, by prompt: above 0 for the arm under study


@dataclass(frozen=True)
class BlindedPair:
    """Two answers to one prompt; `side` is where the arm under study stands."""

    blind: Blind
    side: str
    studied: EvalRow
    rival: EvalRow


def annotate(
    cfg: DictConfig,
    /,
    *,
    run: str,
    arm: str,
    against: str | None,
    against_arm: str,
    pairs: Count,
    seed: Seed,
    ask: str,
    labels: list[str],
    out: str | None,
) -> None:
    """Write the page, or say what people found."""
    studied, rival = _answers(Path(run), arm), _answers(Path(against or run), against_arm)
    drawn, same = draw(studied, rival, pairs, seed)
    if not drawn:
        raise UserError(f"mode.run={run}: no prompt has two different answers of {arm} and {against_arm}")
    folder = Path(out or run)
    if same:
        print(f"{same} prompts with two identical answers are left out: nobody can tell them apart")
    blinds = [contest.blind for contest in drawn]
    with files.guarded(folder, "mode.out"):
        if not labels:
            files.write_bytes(folder / PAGE, render(blinds, ask))
            print(f"{len(drawn)} pairs, {arm} against {against_arm}, sides at random: {folder / PAGE}")
            return
        said = scores(drawn, rewarded=_rewarded_alike(run, against))
        others = {**said, **({} if against else verdicts(Path(run), arm, against_arm))}
        found = findings(drawn, read_labels([Path(path) for path in labels], blinds), others)
        files.write_bytes(folder / RESULTS, json.dumps(_plain(found), indent=2).encode())
    show(found, f"{arm} against {against_arm}")
    print(f"figures: {folder / RESULTS}")


def _answers(run: Path, arm: str) -> dict[str, EvalRow]:
    """The first answer of an arm to each prompt of a finished run."""
    folder = RunFolder(run)
    folder.need_finished("mode.run")
    rows = folder.answers()
    found: dict[str, EvalRow] = {}
    for row in rows:
        if row.arm == arm:
            found.setdefault(row.prompt_id, row)
    if not found:
        arms = ", ".join(dict.fromkeys(row.arm for row in rows))
        raise UserError(f"mode.arm={arm}: {run} has no such arm (there are {arms})")
    return found


def draw(
    studied: dict[str, EvalRow], rival: dict[str, EvalRow], pairs: int, seed: int
) -> tuple[list[BlindedPair], int]:
    """Up to `pairs` common prompts in random order, each with a random side; and how many had identical answers."""
    common = sorted(prompt for prompt in studied if prompt in rival)
    chosen = random.Random(seed).sample(common, min(pairs, len(common)))
    contests = [_contest(studied[prompt], rival[prompt], seed) for prompt in chosen]
    different = [contest for contest in contests if contest.studied.answer != contest.rival.answer]
    return different, len(contests) - len(different)


def _contest(studied: EvalRow, rival: EvalRow, seed: int) -> BlindedPair:
    coin = content_id("side", str(seed), studied.prompt_id)
    side = "left" if int(coin, 16) % 2 else "right"
    left, right = (studied, rival) if side == "left" else (rival, studied)
    name = content_id("pair", str(seed), studied.prompt_id)
    return BlindedPair(Blind(name, studied.question, left.answer, right.answer), side, studied, rival)


def _rewarded_alike(run: str, against: str | None) -> bool:
    """Whether R is of one base under one pair of prompts in both runs; says where it is not."""
    of = [RunFolder(Path(one)).recorded.values for one in (run, against or run)]
    apart = [name for name in ("model", "prompts") if of[0].get(name) != of[1].get(name)]
    if apart:
        print(f"{against}: {' and '.join(apart)} not as in {run}, so that R is no measure of both: left out")
    return not apart


def scores(contests: Sequence[BlindedPair], *, rewarded: bool = True) -> Preferences:
    """What the self-reward prefers, and the truth where one is known; rewarded: whether R is one for both."""
    found: Preferences = {}
    for name, score in SCORES.items():
        if name == REWARD and not rewarded:
            continue
        for contest in contests:
            one, other = score(contest.studied), score(contest.rival)
            if one is not None and other is not None:
                found.setdefault(name, {})[contest.studied.prompt_id] = one - other
    return found


def verdicts(run: Path, arm: str, against_arm: str) -> Preferences:
    """What the run's judges prefer between two of its arms.

    Of another run's answers there is none: mode=versus names a rival by its method, which many runs have.
    """
    found: Preferences = {}
    for row in RunFolder(run).rows(VERDICTS):
        if (row["arm"], row["against"]) == (arm, against_arm) and row["outcome"] in POINTS:
            found.setdefault(f"judge {row['judge']}", {})[row["prompt_id"]] = 2 * POINTS[row["outcome"]] - 1
    return found


def findings(contests: Sequence[BlindedPair], people: Sequence[PersonVerdicts], others: Preferences) -> dict:
    """Win, tie and lose of the arm under study per person and over all, kappa, and agreement with the scores."""
    outcomes = {one.annotator: _outcomes(contests, one) for one in people}
    lefts = [side == "left" for one in people for side in one.verdicts.values() if side != "tie"]
    return {
        "people": {name: _shares([[said] for said in one.values()]) for name, one in outcomes.items()},
        "all": _shares([said for c in contests if (said := _said(outcomes, c))]),
        "left": share_interval(lefts) if lefts else None,
        "kappa": _kappa(contests, outcomes),
        "agreement": {
            name: same for name, preferred in others.items() if (same := _agreement(contests, outcomes, preferred))
        },
    }


def _outcomes(contests: Sequence[BlindedPair], one: PersonVerdicts) -> dict[str, str]:
    """What a person said of each pair, as the arm under study sees it."""
    found = {}
    for contest in contests:
        verdict = one.verdicts.get(contest.blind.id)
        if verdict is not None:
            found[contest.blind.id] = "tie" if verdict == "tie" else "win" if verdict == contest.side else "lose"
    return found


def _said(outcomes: dict[str, dict[str, str]], contest: BlindedPair) -> list[str]:
    return [one[contest.blind.id] for one in outcomes.values() if contest.blind.id in one]


def _shares(rows: Sequence[Sequence[str]]) -> dict[str, Estimate]:
    """Share of each outcome over pairs, a pair with several verdicts counting as their mean."""
    found = {}
    for outcome in OUTCOMES:
        values = [row.count(outcome) / len(row) for row in rows]
        coins = all(value in (0.0, 1.0) for value in values)
        found[outcome] = share_interval(values) if coins else fraction_interval(values)
    return found


def _kappa(contests: Sequence[BlindedPair], outcomes: dict[str, dict[str, str]]) -> dict | None:
    """Kappa over the pairs that all people labelled: Cohen's for two, Fleiss' for more."""
    rows = [row for c in contests if len(row := _said(outcomes, c)) == len(outcomes)]
    if len(outcomes) < 2 or not rows:
        return None
    two = len(outcomes) == 2
    value = cohen_kappa(*zip(*rows, strict=True)) if two else fleiss_kappa(rows)
    return {"name": "Cohen's kappa" if two else "Fleiss' kappa", "value": value, "n": len(rows)}


def _agreement(
    contests: Sequence[BlindedPair], outcomes: dict[str, dict[str, str]], preferred: dict[str, float]
) -> Estimate | None:
    """Of the pairs on which people and the other both prefer one side: how often it is the same side."""
    same = []
    for contest in contests:
        said = _said(outcomes, contest)
        people = said.count("win") - said.count("lose")
        other = preferred.get(contest.studied.prompt_id, 0.0)
        if people and other:
            same.append((people > 0) == (other > 0))
    return share_interval(same) if same else None


def _plain(found: object) -> object:
    """The figures as JSON holds them; what is not a number is null."""
    if isinstance(found, Estimate):
        return _plain(asdict(found))
    if isinstance(found, dict):
        return {name: _plain(value) for name, value in found.items()}
    return None if isinstance(found, float) and math.isnan(found) else found


def show(found: dict, title: str) -> None:
    """The figures in the terminal."""
    console = Console()
    several = {"all": found["all"]} if len(found["people"]) > 1 else {}
    columns = [Column("who"), *(Column(name, "value", "share") for name in OUTCOMES), Column("pairs", "count")]
    lines = [
        [name, *(shares[outcome] for outcome in OUTCOMES), shares["win"].n]
        for name, shares in {**found["people"], **several}.items()
    ]
    print_table(Table(title, columns, lines), console)
    if (left := found["left"]) is not None:
        console.print(f"left side preferred: {_share(left)} of {left.n}; 50 % without a position bias")
    if found["kappa"]:
        kappa = found["kappa"]
        console.print(f"{kappa['name']} {number(kappa['value'], '')} over {kappa['n']} pairs that all labelled")
    for name, estimate in found["agreement"].items():
        console.print(f"agree with people, {escape(name)}: {_share(estimate)} of {estimate.n} pairs that both decide")


def _share(estimate: Estimate) -> str:
    return escape(bounded(estimate, "share"))
