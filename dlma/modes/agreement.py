"""mode=agreement: how often R, judges and reward models prefer the answer that people preferred.

The paper's claim that the self-reward tracks people, measured on the human pairs of a data set (`data=hh pairs=human`).
Nothing is trained. The length of the answers stands beside as a control: people and models may both just like length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from dlma import config, files, pipeline, records
from dlma.cell import Cell
from dlma.errors import UserError
from dlma.evaluation import statistics
from dlma.evaluation.judging import Match
from dlma.publish import publish
from dlma.records import Context, Pair, Prompt, ScoredPair, Verdict
from dlma.report.summary import Row, interval, number, write_metrics
from dlma.report.terminal import simple_table
from dlma.stages import Stage

POINTS = {"win": 1.0, "tie": 0.5, "lose": 0.0}


def run(cfg: DictConfig, /) -> dict:
    """Scores the human pairs with `scorer=` and asks every judge of `judges=`; a table of agreements."""
    if not cfg.pairs._target_.endswith(".HumanPairs"):
        raise UserError("mode=agreement: needs pairs=human, the human pairs of a data set such as data=hh")
    cell = Cell(cfg, config.run_folder())
    prompts = pipeline.read_prompts(cell)
    contexts = pipeline.render(cell, prompts, "train")
    pairs = pipeline.make_pairs(cell, contexts, pipeline.render(cell, prompts, cfg.evaluation.split))
    if not pairs.table().num_rows:
        raise UserError("mode=agreement: the training prompts of this data set come with no human pair")
    scored = pipeline.score(cell, pairs, cfg.iteration.scorer)
    bench = cell.bench(None, ["base"])
    judged = {
        name: pipeline.rule(cell, name, node, bench, lambda: _matches(cell, prompts, contexts, pairs), [prompts, pairs])
        for name, node in cfg.judges.items()
    }
    rows = _rows(scored, judged)
    _write(cell, rows, scored, judged)
    _print(rows, cell)
    return {"counts": cell.store.counts, "summary": [row.as_dict() for row in rows], "run_dir": str(cell.folder)}


def _matches(cell: Cell, prompts: Stage, contexts: Stage, pairs: Stage) -> list[Match]:
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


def _rows(scored: Stage, judged: dict[str, Stage]) -> list[Row]:
    """The agreement of each signal, ties as half, and what share of pairs it left undecided."""
    pairs: list[ScoredPair] = records.from_table(ScoredPair, scored.table())
    lengths = [float(len(pair.positive_ids) - len(pair.negative_ids)) for pair in pairs]
    rows = _signal("scorer", "the margin of scorer=", [_points(pair.margin) for pair in pairs], len(pairs))
    rows += _signal("longer", "the longer answer (a control)", [_points(value) for value in lengths], len(pairs))
    for name, stage in judged.items():
        verdicts = records.from_table(Verdict, stage.table())
        points = [POINTS[one.outcome] for one in verdicts if one.outcome in POINTS]
        rows += _signal(name, f"judge {name} ({stage.notes['judge']['criterion']})", points, len(verdicts))
    return rows


def _points(margin: float) -> float:
    return 0.5 if margin == 0 else float(margin > 0)


def _signal(name: str, label: str, points: Sequence[float], asked: int) -> list[Row]:
    """Rows of one signal; without a single verdict there is no agreement to speak of."""
    missing = statistics.share_interval([i >= len(points) for i in range(asked)])
    unparsed = [Row(f"unparsed/{name}", "base", missing, "share", label)]
    if not points:
        return unparsed
    ties = statistics.share_interval([value == 0.5 for value in points])
    found = [("agreement", statistics.fraction_interval(points)), ("ties", ties)]
    return [Row(f"{kind}/{name}", "base", estimate, "share", label) for kind, estimate in found] + unparsed


def reading(row: Row) -> str:
    """What an agreement says about chance, by its interval."""
    if row.estimate.low > 0.5:
        return "better than chance"
    return "worse than chance" if row.estimate.high < 0.5 else "not to be told from chance"


def _write(cell: Cell, rows: Sequence[Row], scored: Stage, judged: dict[str, Stage]) -> None:
    folder: Path = cell.folder
    publish(scored, "rows.parquet", folder / "scored.parquet")
    for name, stage in judged.items():
        publish(stage, "rows.parquet", folder / f"verdicts_{name}.parquet")
    with files.guarded(folder, "hydra.run.dir"):
        files.write_bytes(folder / "config.yaml", yaml.safe_dump(cell.recorded, sort_keys=False).encode())
        write_metrics(folder / "metrics.csv", rows, method="agreement", base=cell.frozen.name, seed=cell.cfg.seed)


def _print(rows: Sequence[Row], cell: Cell, console: Console | None = None) -> None:
    console = console or Console()
    table = simple_table(f"agreement with the human side, {cell.frozen.name}, seed {cell.cfg.seed}")
    for name, justify in (("signal", "left"), ("agrees", "right"), ("ties", "right"), ("unparsed", "right")):
        table.add_column(name, justify=justify)
    table.add_column("n", justify="right", style="dim")
    table.add_column("")
    found = {row.metric: row for row in rows}
    for row in rows:
        kind, _, name = row.metric.partition("/")
        if kind == "agreement":
            shown = [number(found[f"{other}/{name}"].estimate.value, "share") for other in ("ties", "unparsed")]
            value = f"{number(row.estimate.value, 'share')} {escape(interval(row.estimate, 'share'))}"
            table.add_row(escape(row.label), value, *shown, f"{row.estimate.n:,}", reading(row))
        elif kind == "unparsed" and f"agreement/{name}" not in found:
            table.add_row(escape(name), "–", "–", number(row.estimate.value, "share"), "0", "nothing could be parsed")
    console.print(table)
    console.print("Ties count as half. 95 % intervals over pairs.", style="dim")
    console.print(f"files: {escape(str(cell.folder))}")
