"""mode=agreement: how often R, judges, a reward model and the construction prefer the better answer of a pair.

The truth is the human side of human pairs (`data=hh pairs=human`, or a set of right and wrong answers such as
data=reward_bench), or one of `judges=`: on the lab its oracle, elsewhere a judge that is trusted. The signals are
`scorer=`, those of `mode.scorers`, the other judges, with `reward=` a reward model trained on the training prompts'
pairs as `mode.labeller` labels them, and the longer answer as a control. Nothing else is trained. agreement.parquet
holds what each signal says of each pair: metrics/signal_agreement.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import yaml
from omegaconf import DictConfig
from rich.markup import escape

from dlma import files, pipeline, records
from dlma.config.run_names import run_folder
from dlma.config.schema import Component
from dlma.context import RunContext
from dlma.data.text import prompt_id
from dlma.errors import UserError
from dlma.judges.base import Match
from dlma.metrics.categories import CategoryRow, categories_csv
from dlma.metrics.signal_agreement import SignalAgreement, accuracy_rows, category_agreements
from dlma.metrics.summary import Row, write_metrics
from dlma.ranges import NotNegative
from dlma.records import POINTS, Context, Pair, Prompt, Reward, ScoredPair, Verdict
from dlma.report import run_tables
from dlma.report.run_tables import N
from dlma.report.table import Cell, Column, Table, Value, print_table
from dlma.runs.folder import AGREEMENT, CATEGORIES, CONFIG, METRICS, REWARDS, SCORED
from dlma.runs.publish import publish
from dlma.screen import Console
from dlma.statistics.format import number
from dlma.store.owned import ROWS
from dlma.store.stage import Stage

HUMAN = "the human side"


@dataclasses.dataclass(frozen=True)
class Asked:
    """The pairs under study, and every stage that says something of them."""

    prompts: Stage
    pairs: Stage
    scored: dict[str, Stage]
    rewarded: Stage | None
    judged: dict[str, Stage]


def run(
    cfg: DictConfig,
    /,
    *,
    split: Literal["train", "test", "validation", "all"],
    truth: str | None,
    sizes: list[NotNegative],
    scorers: dict[str, Component],
    labeller: str | None,
) -> dict:
    """A table of agreements.

    split: whose prompts' pairs are looked at
    truth: one of judges=; None: the human side
    sizes: bounds between small and large true differences, in the judge's own measure
    scorers: further scorers by name; labeller: which of them labels the reward model's pairs, and is no signal itself
    """
    _check(cfg, split, truth, scorers, labeller)
    if list(sizes) != sorted(set(sizes)):
        raise UserError(f"mode.sizes={list(sizes)}: bounds rise, such as [0.25,0.5]")
    cell = RunContext(cfg, run_folder())
    signals = {name: node for name, node in scorers.items() if name != labeller}
    asked = ask(cell, split, signals, None if labeller is None else scorers.get(labeller))
    rows = report(cell, asked, truth, sizes)
    return {"counts": cell.store.counts, "summary": [row.as_dict() for row in rows], "run_dir": str(cell.folder)}


def _check(cfg: DictConfig, split: str, truth: str | None, scorers: dict, labeller: str | None) -> None:
    if truth is None and not cfg.pairs._target_.endswith(".HumanPairs"):
        raise UserError(
            "mode=agreement: needs pairs=human, the human pairs of a data set such as data=hh, "
            "or mode.truth=, one of judges="
        )
    if truth is not None and truth not in cfg.judges:
        raise UserError(f"mode.truth={truth}: must be one of judges=, which has {', '.join(cfg.judges) or 'none'}")
    if cfg.pairs.path or cfg.scored.path:
        raise UserError(
            "mode=agreement: reads the pairs of data=; give the file of pairs there: data=jsonl data.path=FILE "
            "data.every_pair=true pairs=human"
        )
    if cfg.reward._target_ is None:
        if labeller is not None:
            raise UserError(f"mode.labeller={labeller}: labels the pairs of reward=, and there is none")
        return
    if labeller not in scorers:
        raise UserError(f"mode.labeller={labeller}: reward= needs one of mode.scorers to label its pairs")
    if split in ("train", "all"):
        raise UserError(
            f"mode.split={split}: the reward model is trained on these pairs: mode.split=test, or reward=none"
        )


def ask(cell: RunContext, split: str, scorers: dict[str, Component], labeller: Component | None) -> Asked:
    """The stages: pairs of the split, what each scorer, reward model and judge says of them."""
    cfg = cell.cfg
    pipeline.instruction_tune(cell)
    prompts = pipeline.read_prompts(cell)
    contexts = pipeline.render(cell, prompts, split, human=split)
    held_out = pipeline.render(cell, prompts, cfg.evaluation.split)
    pairs = pipeline.make_pairs(cell, contexts, held_out)
    if not pairs.table().num_rows:
        raise UserError(f"mode=agreement: the prompts of this data set (mode.split={split}) come with no human pair")
    scored = {"scorer": pipeline.score(cell, pairs, cfg.iteration.scorer)}
    scored |= {name: pipeline.score(cell.under(scorer=node), pairs) for name, node in scorers.items()}
    rewarded = None
    if cfg.reward._target_ is not None:
        assert labeller is not None
        learnt = pipeline.make_pairs(cell, pipeline.render(cell, prompts, "train"), held_out)
        reward = pipeline.train_reward(cell, pipeline.score(cell.under(scorer=labeller), learnt))
        assert reward is not None
        rewarded = reward_pairs(cell, reward, pairs)
    bench = cell.bench(None, ["base"])
    judged = {
        name: pipeline.judge(
            cell, name, node, bench, lambda: _matches(cell, prompts, contexts, pairs), [prompts, pairs]
        )
        for name, node in cfg.judges.items()
    }
    return Asked(prompts, pairs, scored, rewarded, judged)


def reward_pairs(cell: RunContext, reward: Stage, pairs: Stage) -> Stage:
    """What the reward model gives both answers of pairs that it was not trained on."""

    def write(folder: Path) -> dict:
        from dlma.pairs.sampled import usable
        from dlma.scorer.reward_model import RewardScorer

        rows, _ = usable(records.from_table(Pair, pairs.table()))
        module = RewardScorer(cell.reward_model(reward.path("reward")))
        return {"engine": cell.runtime.predict(module, rows, Reward, folder, "rewards")}

    return cell.make(cell.store.stage("rewarded", cell.weights, uses=[reward, pairs]), write)


def _matches(cell: RunContext, prompts: Stage, contexts: Stage, pairs: Stage) -> list[Match]:
    """The preferred answer against the other one, as judges want them."""
    known = {prompt.id: prompt for prompt in records.from_table(Prompt, prompts.table())}
    dropped = {row.prompt_id: row.dropped_turns for row in records.from_table(Context, contexts.table())}
    return [
        Match(
            prompt_id=pair.prompt_id,
            category=known[pair.prompt_id].category,
            turns=known[pair.prompt_id].turns[dropped[pair.prompt_id] :],
            conversation=cell.frozen.tokenizer.decode(pair.plain_context_ids, skip_special_tokens=True),
            arm="chosen",
            against="rejected",
            answer=pair.positive_text,
            other=pair.negative_text,
        )
        for pair in records.from_table(Pair, pairs.table())
    ]


def signals(asked: Asked, truth: str | None) -> Iterator[list[SignalAgreement]]:
    """Every signal's view of the pairs that all could be asked about."""
    pairs: list[Pair] = records.from_table(Pair, asked.pairs.table())
    known = {pair.id for pair in pairs if pair.positive_text.strip() and pair.negative_text.strip()}
    judged = {name: records.from_table(Verdict, stage.table()) for name, stage in asked.judged.items()}
    real = [1.0] * len(pairs) if truth is None else [_size(verdict) for verdict in judged[truth]]
    prompts = {prompt.id: prompt for prompt in records.from_table(Prompt, asked.prompts.table())}
    blank = {
        pair.id: _by_length(pair, prompts[pair.prompt_id], value)
        for pair, value in zip(pairs, real, strict=True)
        if pair.id in known and not math.isnan(value)
    }

    def view(signal: str, label: str, said: dict[str, dict]) -> list[SignalAgreement]:
        return [dataclasses.replace(one, signal=signal, label=label, **said[name]) for name, one in blank.items()]

    for name, stage in asked.scored.items():
        label = "the margin of scorer=" if name == "scorer" else f"scorer {name}"
        yield view(name, label, {row.id: _of_scorer(row) for row in records.from_table(ScoredPair, stage.table())})
    if asked.rewarded is not None:
        rewards = records.from_table(Reward, asked.rewarded.table())
        said = {row.id: {"points": _points(row.positive - row.negative)} for row in rewards}
        yield view("reward", "the reward model", said)
    yield list(blank.values())
    for name, verdicts in judged.items():
        if name != truth:
            label = f"judge {name} ({asked.judged[name].notes['judge']['criterion']})"
            yield view(name, label, {pair.id: _of_judge(one) for pair, one in zip(pairs, verdicts, strict=True)})


def _by_length(pair: Pair, prompt: Prompt, truth: float) -> SignalAgreement:
    """The control's view of a pair: the longer answer."""
    longer = len(pair.positive_ids) - len(pair.negative_ids)
    found = SignalAgreement(pair.id, "longer", "the longer answer (a control)", truth, longer, _points(longer))
    return dataclasses.replace(found, prompt=prompt_id(prompt.turns), category=prompt.category)


def _size(verdict: Verdict) -> float:
    """How much better the first answer is: the judge's margin, else its word; nan where it could not be read."""
    if verdict.outcome not in POINTS:
        return math.nan
    if verdict.margin is None or verdict.outcome == "tie":
        return 2 * POINTS[verdict.outcome] - 1
    return verdict.margin


def _of_scorer(pair: ScoredPair) -> dict[str, float | None]:
    """A judge's log-odds, R, or the label where a scorer gives nothing else."""
    looks = [pair.verdict_first, pair.verdict_second]
    asked = [value for value in looks if value is not None]
    if asked:
        first, second = (None if value is None else _points(value) for value in looks)
        return {"points": _points(sum(asked) / len(asked)), "shown_first": first, "shown_second": second}
    by_reward = pair.positive_under_positive is not None
    return {"points": _points(pair.margin) if by_reward else float(pair.chosen == "positive")}


def _of_judge(verdict: Verdict) -> dict[str, float | None]:
    looks = (verdict.outcome, verdict.shown_first, verdict.shown_second)
    return dict(zip(("points", "shown_first", "shown_second"), map(POINTS.get, looks), strict=True))


def _points(margin: float) -> float:
    return 0.5 if margin == 0 else float(margin > 0)


def reading(row: Row) -> str:
    """What an agreement says about chance, by its interval."""
    if row.estimate.low > 0.5:
        return "better than chance"
    return "worse than chance" if row.estimate.high < 0.5 else "not to be told from chance"


def report(cell: RunContext, asked: Asked, truth: str | None, sizes: Sequence[float]) -> list[Row]:
    """The table of agreements, written into the run folder and printed."""
    views = list(signals(asked, truth))
    held = [one for signal in views for one in signal]
    rows, by_category = accuracy_rows([held], sizes), category_agreements(views)
    _write(cell, rows, by_category, asked, held)
    _print(rows, cell, truth or HUMAN)
    if by_category:
        print_table(run_tables.agreements(by_category), Console())
    return rows


def _write(
    cell: RunContext,
    rows: Sequence[Row],
    by_category: Sequence[CategoryRow],
    asked: Asked,
    held: Sequence[SignalAgreement],
) -> None:
    import pyarrow.parquet as pq

    folder: Path = cell.folder
    stages = {SCORED: asked.scored.get("scorer"), REWARDS: asked.rewarded}
    for name, stage in stages.items():
        if stage is not None:
            publish(stage, ROWS, folder / name)
    for name, stage in asked.judged.items():
        publish(stage, ROWS, folder / f"verdicts_{name}.parquet")
    with files.guarded(folder, "hydra.run.dir"):
        pq.write_table(records.to_table(SignalAgreement, held), folder / AGREEMENT)
        files.write_bytes(folder / CONFIG, yaml.safe_dump(cell.recorded, sort_keys=False).encode())
        run = {"method": "agreement", "base": cell.frozen.name, "seed": cell.cfg.seed}
        write_metrics(folder / METRICS, rows, **run)
        if by_category:
            files.write_bytes(folder / CATEGORIES, categories_csv(by_category, **run))


def _print(rows: Sequence[Row], cell: RunContext, truth: str, console: Console | None = None) -> None:
    console = console or Console()
    found = {row.metric: row for row in rows}
    lines: list[list[Cell]] = []
    for row in rows:
        kind, _, name = row.metric.partition("/")
        if kind == "agreement":
            shares = [number(found[f"{other}/{name}"].estimate.value, "share") for other in ("ties", "unparsed")]
            lines.append([row.label, Value(row.estimate, "share"), *shares, row.estimate.n, reading(row)])
        elif kind == "unparsed" and f"agreement/{name}" not in found:
            unparsed = number(row.estimate.value, "share")
            lines.append([name, None, None, unparsed, 0, "nothing could be parsed"])
    columns = [Column("signal"), *(Column(head, "value") for head in ("agrees", "ties", "unparsed")), N, Column("")]
    notes = [
        "Undecided pairs count as half; ties of the truth are left out. 95 % intervals over prompts.",
        "All pairs of a prompt, size of the difference, length and position bias: metrics.csv",
    ]
    title = f"agreement with {truth}, {cell.frozen.name}, seed {cell.cfg.seed}"
    print_table(Table(title, columns, lines, notes), console)
    console.print(f"files: {escape(str(cell.folder))}")
