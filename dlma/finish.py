"""The end of a run: files with readable names, the table in the terminal, the report, the tables of the tracker."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import yaml
from markupsafe import Markup

from dlma import files, records
from dlma.checks import finding as findings
from dlma.checks import token_panel
from dlma.checks import trajectory as trajectories
from dlma.checks.alerts import Outcome
from dlma.checks.drift import RoundDrift, drift, rounds_csv
from dlma.checks.finding import Finding
from dlma.config.build import build
from dlma.context import RunContext
from dlma.cost import record as cost_record
from dlma.evaluation import target_kl
from dlma.metrics import contests as contest_rows
from dlma.metrics import summary
from dlma.metrics.base import by_own_names
from dlma.metrics.categories import CategoryRow, categories_csv, category_rows
from dlma.metrics.scores import part_tax, score_rows
from dlma.records import Account, EvalRow, MetricValue, ScoredPair, TokenRewards, Truth, Verdict
from dlma.report import run_page, sections, terminal
from dlma.runs import folder as names
from dlma.runs import leftovers, policies
from dlma.runs.publish import publish, publish_tree
from dlma.runs.written import note
from dlma.statistics.intervals import Estimate
from dlma.store import shards
from dlma.store.owned import MANIFEST, ROWS, TRAIN, TRUTH
from dlma.store.stage import Stage

_RECORDS = {
    "prompts": names.PROMPTS,
    "pairs": names.PAIRS,
    "scored": names.SCORED,
    "tokens": names.TOKENS,
    "evaluated": names.ANSWERS,
}
SAMPLES = 64  # answers of each arm that go to the tracker


def present(
    cell: RunContext,
    stages: dict[str, Stage],
    rounds: Sequence[dict[str, Stage]],
    judged: dict[str, Stage],
    measured: dict[str, Stage],
) -> dict:
    """Write the run folder, print the summary, close the tracker; what a sweep needs to know of the run.

    stages: those of the last round, and of what comes before and after all rounds
    """
    evals = records.from_table(EvalRow, stages["evaluated"].table())
    arms = list(dict.fromkeys(row.arm for row in evals))
    contests = contest_rows.contests(
        _all(judged, Verdict), {name: stage.notes["judge"] for name, stage in judged.items()}, evals
    )
    read = by_own_names({name: (_all({name: s}, MetricValue), s.notes["columns"]) for name, s in measured.items()})
    scores, columns = [one for some, _ in read for one in some], [one for _, some in read for one in some]
    rows, tax = part_tax(summary.summary_rows(evals, arms) + [row for one in read for row in score_rows(*one)])
    every = rows + tax + [row for one in contests for row in one.rows()]
    accounts = {name: Account(**stage.notes["account"]) for name, stage in stages.items() if "account" in stage.notes}
    train = train_rows(stages["policy"])
    by_category = category_rows(evals, scores, columns, contests)
    writes = leftovers.written(stages, rounds=rounds, judged=judged, measured=measured, by_category=by_category)
    leftovers.clear(cell.folder, stages, writes)
    shown = stages | {f"judge {name}": stage for name, stage in judged.items()}
    shown |= {f"metric {name}": stage for name, stage in measured.items()}
    fill_folder(cell, shown, every, by_category)
    publish_together(judged, Verdict, cell.folder / names.VERDICTS)
    publish_together(measured, MetricValue, cell.folder / names.METRIC_VALUES, scores)
    with files.guarded(cell.folder, "hydra.run.dir"):
        costs = cost_record.noted(rounds, cell.recorded, cell.store.remembered)
        files.write_json(cell.folder / names.COSTS, costs)
    curve = curve_of(cell, stages, judged, evals, train)
    drifts = drift_of(rounds, cell.cfg.iteration.scorer) if "scored_otherwise" in rounds[-1] else []
    keep_drift(cell, drifts)
    wins = contest_rows.independent_wins(contests)
    data = report_data(cell, shown | earlier(rounds), rows, evals, train, accounts, curve, drifts, wins)
    data = dataclasses.replace(data, contests=contests, tax=tax, categories=by_category)
    with files.guarded(cell.folder, "hydra.run.dir"):
        run_page.write_report(cell.folder / names.REPORT, data)
    note(cell.folder, [*leftovers.ALWAYS, *(name for name, here in writes.items() if here)])
    terminal.print_account(accounts)
    terminal.print_summary(
        rows, method=cell.method, model=cell.frozen.name, seed=cell.cfg.seed, cannot=summary.cannot(evals)
    )
    terminal.print_tax(tax)
    terminal.print_contests(contests)
    findings.print_findings("alerts", data.checks["alerts"])
    say_where(cell, stages["policy"])
    track(cell, every, evals, data.pairs, train)
    cell.summary |= findings.numbers(data.checks)
    keep_policies(cell, stages["policy"], rows)
    return {
        "counts": cell.store.counts,
        "summary": [row.as_dict() for row in every],
        "alerts": [one.name for one in data.checks["alerts"] if one.state == "warning"],
        "run_dir": str(cell.folder),
    }


def _all(stages: dict[str, Stage], record: type) -> list:
    return [row for stage in stages.values() for row in records.from_table(record, stage.table())]


def publish_together(stages: dict[str, Stage], record: type, target: Path, rows: Sequence[object] = ()) -> None:
    """The rows of several stages as one file; none where there are no stages.

    rows: the stages' rows in order, if some were renamed
    """
    if not stages:
        return
    changed = bool(rows) and list(rows) != _all(stages, record)
    tables = [stage.table() for stage in stages.values()]
    with files.guarded(target.parent, "hydra.run.dir"):
        shards.write_table(target, records.to_table(record, rows) if changed else records.joined(record, tables))


def fill_folder(
    cell: RunContext, stages: dict[str, Stage], rows: Sequence[summary.Row], by_category: Sequence[CategoryRow]
) -> None:
    """The records, the models, the metrics, the resolved config and where all came from, under readable names."""
    folder = cell.folder
    for name, target in _RECORDS.items():
        publish(stages[name], ROWS, folder / target)
    publish(stages["policy"], TRAIN, folder / names.TRAIN)
    if "reward" in stages:
        publish(stages["reward"], TRAIN, folder / names.REWARD_TRAIN)
        publish(stages["reward"], ROWS, folder / names.REWARDS)
    again = cell.cfg.store.keep_policies == "all" and cell.ranks.count == 1  # pruned elsewhere: it is trained again
    wanted = not stages["policy"].pruned or again
    if stages["policy"].notes["trained"] and wanted:
        publish_tree(stages["policy"], "policy", folder / names.POLICY, link=cell.cfg.store.link)
    if "tuned" in stages:
        publish_tree(stages["tuned"], "policy", folder / names.TUNED, link=cell.cfg.store.link)
    with files.guarded(folder, "hydra.run.dir"):
        files.write_json(folder / MANIFEST, {name: origin(stage) for name, stage in stages.items()})
        files.write_bytes(folder / names.CONFIG, yaml.safe_dump(cell.recorded, sort_keys=False).encode())
        run = {"method": cell.method, "base": cell.frozen.name, "seed": cell.cfg.seed}
        summary.write_metrics(folder / names.METRICS, rows, **run)
        if by_category:
            files.write_bytes(folder / names.CATEGORIES, categories_csv(by_category, **run))


def earlier(rounds: Sequence[dict[str, Stage]]) -> dict[str, Stage]:
    """The stages of all rounds but the last, under names of their own."""
    before = enumerate(rounds[:-1], start=1)
    return {f"{name}, round {number}": stage for number, stages in before for name, stage in stages.items()}


def drift_of(rounds: Sequence[dict[str, Stage]], scorer: str) -> list[RoundDrift]:
    """R of each round's pairs by the model at its start and by the base."""
    found = []
    for number, stages in enumerate(rounds, start=1):
        if number > 1 and "scored_otherwise" not in stages:  # a scorer that is relative to the base
            continue
        scored = _margins(stages["scored"])
        otherwise = _margins(stages["scored_otherwise"]) if number > 1 else scored
        current, frozen = (scored, otherwise) if scorer == "current" else (otherwise, scored)
        found.append(drift(number, current, frozen))
    return found


def _margins(scored: Stage) -> list[float]:
    return scored.table().column("margin").to_pylist()


def keep_drift(cell: RunContext, drifts: Sequence[RoundDrift]) -> None:
    """The drift in the run folder and at the tracker."""
    if not drifts:
        return
    with files.guarded(cell.folder, "hydra.run.dir"):
        files.write_bytes(cell.folder / names.ROUNDS, rounds_csv(drifts))
    for one in drifts:
        row = {f"rounds/{name}": value for name, value in dataclasses.asdict(one).items() if value is not None}
        cell.tracker.log(row, step_key="rounds/round")


def origin(stage: Stage) -> dict:
    """A stage's manifest without the config, which is the run's, and without the store's list of files."""
    return {name: value for name, value in stage.manifest.items() if name not in ("config", "files")}


def train_rows(policy: Stage) -> list[dict[str, float]]:
    """The steps of train.csv."""
    reader = csv.DictReader(io.StringIO(policy.read(TRAIN).decode()))
    return [{name: float(value) for name, value in row.items()} for row in reader]


def report_data(
    cell: RunContext,
    stages: dict[str, Stage],
    rows: Sequence[summary.Row],
    evals: list[EvalRow],
    train: list[dict],
    accounts: dict[str, Account],
    curve: tuple[Markup, list[Finding]],
    drifts: Sequence[RoundDrift],
    wins: dict[str, Estimate],
) -> run_page.ReportData:
    """All that the HTML report shows."""
    pairs = records.from_table(ScoredPair, stages["scored"].table())
    truth = [row.value for row in records.from_table(Truth, stages["evaluated"].table(TRUTH))]
    section, parted = curve
    token_part = token_section(cell, stages, pairs, truth)
    outcome = Outcome(cell.frozen.name, evals, pairs, truth, train, wins)
    checks = run_checks(cell, stages["preflight"], outcome, parted)
    return run_page.ReportData(
        method=cell.method,
        model=cell.frozen.title,
        seed=cell.cfg.seed,
        title=cell.folder.name,
        rows=list(rows),
        evals=evals,
        cannot=summary.cannot(evals),
        train=train,
        pairs=pairs,
        truth=truth,
        rounds=list(drifts),
        clamp=tuple(stages["policy"].notes["clamp"]),
        accounts=accounts,
        config=cell.recorded,
        stages=[run_page.StageLine(name, stage.key, cell.store.fate(stage)) for name, stage in stages.items()],
        warnings=[line for found in checks.values() for line in findings.warnings(found)],
        checks=checks,
        along=section,
        tokens=token_part,
        is_lab=cell.data.artificial,
    )


def run_checks(cell: RunContext, preflight: Stage, outcome: Outcome, parted: list[Finding]) -> dict[str, list[Finding]]:
    """What was checked before training, and what the outcome sets off; `parted`, what is known along training."""
    before = build(cell.cfg.preflight).judge(preflight.notes["counts"])
    return {"preflight": before, "alerts": build(cell.cfg.alerts).check(outcome) + parted}


def curve_of(
    cell: RunContext, stages: dict[str, Stage], judged: dict[str, Stage], evals: list[EvalRow], train: list[dict]
) -> tuple[Markup, list[Finding]]:
    """The run along training, if policies were kept on the way: its CSV, the tracker's curves, section and check.

    Of a training to a KL it is the KL that was read, and the choice.
    """
    if chosen := stages["policy"].notes.get("target_kl"):
        finding = Finding("target_kl", "ok" if chosen["reached"] else "warning", target_kl.line(chosen))
        return sections.stopped(chosen), [finding]
    if "intermediate" not in stages:
        return Markup(""), []
    on_the_way = records.from_table(EvalRow, stages["intermediate"].table())
    publish(stages["intermediate"], ROWS, cell.folder / names.TRAJECTORY_ANSWERS)
    apart = {name: stage for name, stage in judged.items() if not stage.notes["judge"]["self_reported"]}
    said = {name: _all({name: stage, "": stages[f"intermediate {name}"]}, Verdict) for name, stage in apart.items()}
    found = trajectories.trajectory(evals, on_the_way, last=int(train[-1]["step"]), verdicts=said)
    part, finding = trajectories.parting(found, build(cell.cfg.alerts))
    with files.guarded(cell.folder, "hydra.run.dir"):
        files.write_bytes(cell.folder / names.TRAJECTORY, trajectories.trajectory_csv(found, part))
    for step, point in zip(found.steps, found.points):
        values = {f"intermediate/{name}": row.estimate.value for name, row in point.items()}
        cell.tracker.log({"intermediate/step": step} | values, "intermediate/step")
    return sections.trajectory(found, part, finding), [finding]


def token_section(
    cell: RunContext, stages: dict[str, Stage], pairs: Sequence[ScoredPair], truth: Sequence[float | None]
) -> Markup:
    """What R is made of, token by token; its figures go to the tracker's summary."""
    read = records.from_table(TokenRewards, stages["tokens"].table())
    if not read:
        return Markup("")
    panel = build(cell.cfg.panel)
    found = token_panel.echo(read, {pair.id: value for pair, value in zip(pairs, truth, strict=True)})
    links = panel.links(pairs, build(cell.cfg.alerts).refuses)
    cell.summary |= token_panel.figures_of(found, links)
    return sections.tokens(read, {pair.id: pair.question for pair in pairs}, found, links, panel.source)


def say_where(cell: RunContext, policy: Stage) -> None:
    """Where the results lie, and what was computed for them."""
    for kind, counts in cell.store.counts.items():
        listed = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
        print(f"stages {kind}: {listed}")
    print(f"report: {cell.folder / names.REPORT}")
    if policy.notes["trained"] and (cell.folder / names.POLICY).exists():
        print(f"policy: {cell.folder / names.POLICY}")
    if chosen := policy.notes.get("target_kl"):
        print(f"target_kl: {target_kl.line(chosen)}")


def track(
    cell: RunContext, rows: Sequence[summary.Row], evals: list[EvalRow], pairs: list[ScoredPair], train: list[dict]
) -> None:
    """The tracker's curves (what was not logged while training), samples, scored pairs and summary numbers."""
    for row in train:
        cell.log_step(row)
    shown: dict[str, int] = {}
    samples = []
    for one in evals:
        shown[one.arm] = shown.get(one.arm, 0) + 1
        if shown[one.arm] <= SAMPLES:
            samples.append((one.arm, one.question, one.answer, one.reward, one.harmful))
    cell.tracker.table("samples", ("arm", "question", "answer", "self_reward", "harmful"), samples)
    columns = ("question", "positive_text", "negative_text", "margin", "chosen")
    cell.tracker.table("scored_pairs", columns, [[getattr(pair, name) for name in columns] for pair in pairs])
    cell.summary |= {f"eval/{row.arm}/{row.metric}": row.estimate.value for row in rows}


def keep_policies(cell: RunContext, policy: Stage, rows: Sequence[summary.Row]) -> None:
    """Drop the weights that store.keep_policies does not keep; the best has the largest held-out self-reward."""
    reward = [row.estimate.value for row in rows if (row.arm, row.metric) == ("aligned", "self_reward")]
    if not reward:
        return
    rule, published = cell.cfg.store.keep_policies, cell.folder / names.POLICY
    dropped = policies.keep(cell.store, rule, policy, score=reward[0], group=cell.group_folder, published=published)
    for line in dropped:
        print(line)
