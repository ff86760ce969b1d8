"""mode=versus: one method's answers against the other methods' on the same prompts, from finished runs.

The judges are those of the command line; an LLM's verdicts are cached in the store, so a second start asks nothing
twice. Runs are paired by model, data set, wording and seed. A judge that shares its weights with the model of a run
is headed "self-reported".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig

from dlma import files, records
from dlma.config.build import build
from dlma.errors import UserError
from dlma.evaluation.context import EvaluationContext
from dlma.judges.base import Match, matches
from dlma.metrics.contests import Contest, contests
from dlma.metrics.summary import metrics_csv
from dlma.model.load import ModelSpec
from dlma.records import Answer, EvalRow, Verdict
from dlma.report.terminal import print_contests
from dlma.runs import written
from dlma.runs.finished import FinishedRun
from dlma.runs.folder import FINISHED, VERSUS, VERSUS_VERDICTS, RunFolder
from dlma.store import shards
from dlma.store.owned import ROWS
from dlma.store.store import Store

SHARED = ("model", "data", "prompts", "seed")  # what two runs must have in common to be compared


class Entry(FinishedRun):
    """A finished run with answers of its own: the first aligned one to each prompt."""

    KEYS = SHARED

    def __init__(self, folder: Path, present: DictConfig, *, trust: bool) -> None:
        super().__init__(folder, present, trust=trust)
        self.field = json.dumps([self.config[name] for name in SHARED], default=str)
        self.answers = {row.prompt_id: row for row in reversed(self.records.answers()) if row.arm == "aligned"}

    @cached_property
    def base(self) -> ModelSpec:
        """The model that was aligned, in the run's own precision."""
        return self._base()


def versus(
    cfg: DictConfig, /, *, runs: list[str], method: str, against: list[str] | None, trust_remote_code: bool
) -> None:
    """Judge, print, and leave versus.csv and versus.parquet in each run of `method`."""
    if not cfg.judges:
        raise UserError("mode=versus: there is no judge: choose judges=[...]")
    found = [entry for entry in entries(runs, cfg, trust=trust_remote_code) if entry.answers]
    studied = [entry for entry in found if entry.method == method]
    if not studied:
        there = ", ".join(dict.fromkeys(entry.method for entry in found)) or "none with answers of its own"
        raise UserError(f"mode.method={method}: no such run in {', '.join(runs)} (there is {there})")
    for entry in studied:
        rivals = [rival for rival in found if rival.field == entry.field and rival.method != method]
        rivals = [rival for rival in rivals if against is None or rival.method in against]
        if not rivals:
            raise UserError(f"{entry.folder}: no run of another method shares its {', '.join(SHARED)}")
        said, judged = judge(cfg, entry, named(rivals))
        print(f"{entry.folder}: aligned by {method}, seed {entry.config['seed']}")
        print_contests(judged)
        write(entry, said, judged)


def entries(runs: Sequence[str], present: DictConfig, *, trust: bool) -> list[Entry]:
    """The finished runs in the folders, themselves or one level below."""
    folders = [folder for run in runs for folder in (Path(run), *sorted(Path(run).glob("*")))]
    whole = [folder for folder in folders if RunFolder(folder).missing is None]
    if not whole:
        raise UserError(f"mode.runs={', '.join(runs)}: no finished run there (a folder with {', '.join(FINISHED)})")
    return [Entry(folder, present, trust=trust) for folder in {folder.resolve(): folder for folder in whole}.values()]


def named(rivals: Sequence[Entry]) -> dict[str, Entry]:
    """The runs by their method; of several runs of one method each by its folder too, so that none is another's row."""
    methods = [rival.method for rival in rivals]
    alone = {rival.method: rival for rival in rivals if methods.count(rival.method) == 1}
    places = unique([rival.folder for rival in rivals if methods.count(rival.method) > 1])
    return alone | {f"{rival.method} ({places[rival.folder]})": rival for rival in rivals if rival.folder in places}


def unique(folders: Sequence[Path]) -> dict[Path, str]:
    """The shortest ends of the folders' paths, of one length for all, that tell them apart."""
    whole = {folder: folder.resolve().parts for folder in folders}
    ends: dict[Path, str] = {}
    length = 1
    while len(set(ends.values())) < len(whole):
        ends = {folder: ":".join(parts[-length:]) for folder, parts in whole.items()}
        length += 1
    return ends


def judge(cfg: DictConfig, entry: Entry, rivals: dict[str, Entry]) -> tuple[list[Verdict], list[Contest]]:
    """What every judge says of the run against each rival, by the rival's method."""
    from dlma.judges.module import JudgeModule

    store, base = Store(cfg.store.root), entry.base
    store.claim()
    weights = [store.fingerprint(folder) for folder in base.folders]
    bench = EvaluationContext(
        {"base": base.load}, weights, store.fingerprint, store.root / "cache", cfg.trainer.accelerator
    )
    rows, runtime = _matches(entry, rivals), build(cfg.trainer)
    said: list[Verdict] = []
    notes = {}
    for name, node in cfg.judges.items():
        one = build(node, bench)
        with TemporaryDirectory() as folder:
            runtime.predict(JudgeModule(one, name=name), rows, Verdict, Path(folder), name)
            said += records.from_table(Verdict, shards.read_table(Path(folder) / ROWS))
        notes[name] = {"criterion": one.criterion, "self_reported": bool(set(one.identity()) & set(weights))}
    answers = [replace(row, arm=name) for name, rival in rivals.items() for row in rival.answers.values()]
    return said, contests(said, notes, [*entry.answers.values(), *answers])


def _matches(entry: Entry, rivals: dict[str, Entry]) -> list[Match]:
    """A match for every rival and prompt that both answered, with the conversation as the run's model read it."""
    from dlma.prompts.contexts import render_contexts

    recorded, tokenizer = entry.recorded, entry.base.tokenizer
    prompts = [prompt for prompt in entry.prompts().values() if prompt.id in entry.answers]
    seed, most = recorded.value("seed"), recorded.value("recipe.max_prompt_tokens")
    wording = build(recorded.component("prompts", "prompts", chosen=entry.present.prompts._target_))
    contexts, _ = render_contexts(prompts, tokenizer, wording, max_dropped=1.0, seed=seed, max_prompt_tokens=most)
    answered = {"aligned": entry, **rivals}
    given = {arm: [_answer(row, arm) for row in one.answers.values()] for arm, one in answered.items()}
    return matches(prompts, contexts, given, tokenizer)


def _answer(row: EvalRow, arm: str) -> Answer:
    ids: list[int] = []  # judges read text
    return Answer(
        row.prompt_id,
        arm,
        row.question,
        row.category,
        row.answer,
        ids,
        row.finished,
        row.logp,
        row.logp_base,
        row.reward,
    )


def write(entry: Entry, said: Sequence[Verdict], judged: Sequence[Contest]) -> None:
    """versus.csv, with the columns of metrics.csv, and versus.parquet, every verdict under its judge's heading."""
    rows = [row for one in judged for row in one.rows()]
    headings = {one.judge: one.heading for one in judged}
    said = [replace(verdict, judge=headings[verdict.judge]) for verdict in said]
    with files.guarded(entry.folder, "mode.runs"):
        about = entry.records.about()
        content = metrics_csv(rows, method=entry.method, base=about["base"], seed=int(about["seed"]))
        shards.write_table(entry.folder / VERSUS_VERDICTS, records.to_table(Verdict, said))
        files.write_bytes(entry.folder / VERSUS, content)
    written.note(entry.folder, (VERSUS_VERDICTS, VERSUS))
