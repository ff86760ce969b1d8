"""The tables in the terminal: a run's summary, verdicts and tax, a sweep, the account of rows. All text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from dlma.errors import UserError
from dlma.metrics.contests import Contest
from dlma.metrics.summary import Row, arms_of, arrow, main_arm, rows_from, summary_over_seeds
from dlma.records import Account, EvalRow
from dlma.report import run_tables
from dlma.report.table import WIDE, Cell, Column, Table, Value, print_table
from dlma.runs.folder import RunFolder
from dlma.screen import Console

_SHORT = {
    "harmful": "harmful",
    "harmlessness": "harmless",
    "helpfulness": "helpful",
    "malformed": "malformed",
    "sentiment": "sentiment",
    "perplexity": "perplexity",
    "kl": "KL",
    "tokens": "length",
    "distinct_2": "distinct-2",
}
_MAIN = ("harmful", "kl", "malformed", "helpfulness", "perplexity", "tokens")  # the narrower, the fewer
_MAIN_WITHOUT_ORACLE = ("sentiment", "perplexity", "kl", "tokens", "distinct_2")
_CONTEST = {"win_rate": "win rate", "split": "win / tie / lose", "unparsed": "unparsed"}
_WIDE_CONTEST = _CONTEST | {"consistent": "consistent", "win_rate_lc": "at equal length"}


def print_summary(
    rows: Sequence[Row],
    *,
    method: str,
    model: str,
    seed: int | str,
    cannot: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Arms as columns, metrics as rows; each value with its 95 % interval and n."""
    console = console or Console()
    notes = ["95 % intervals over prompts, for this seed. Arrows: the wanted direction."]
    table = run_tables.summary(rows, f"{method} on {model}, seed {seed}", notes)
    print_table(table, console)
    for line in cannot:
        console.print(escape(line), style="yellow")


def print_contests(found: Sequence[Contest], console: Console | None = None) -> None:
    """Two lines per judge and pair of arms; nothing where nobody judged."""
    if not found:
        return
    console = console or Console()
    note = (
        "Shares of prompts; the win rate counts a tie as half and leaves out what was not parsed. "
        "95 % intervals over prompts, for this seed."
    )
    columns = _WIDE_CONTEST if console.width >= WIDE else _CONTEST
    known = {name: head for name, head in columns.items() if name == "split" or any(name in c.found for c in found)}
    title = "verdicts on the same prompts, both orders"
    print_table(run_tables.contests(found, known, title, [note]), console, stacked=True)


def print_tax(tax: Sequence[Row], console: Console | None = None) -> None:
    """What alignment cost, skill by skill; nothing where nothing of the kind was measured."""
    if tax:
        title = "alignment tax: skills that nobody asked to change"
        print_table(run_tables.tax(tax, title), console or Console())


def print_account(accounts: dict[str, Account], console: Console | None = None) -> None:
    """Rows read, kept, dropped and trimmed, by input; nothing is printed where nothing was lost."""
    for name, account in accounts.items():
        lost = {f"dropped: {reason}": count for reason, count in account.dropped.items()}
        lost |= {f"trimmed: {reason}": count for reason, count in account.trimmed.items()}
        if lost:
            title = f"{name}: {account.kept:,} of {account.read:,} rows kept"
            columns = [Column("reason"), Column("rows", "value")]
            print_table(Table(title, columns, sorted(lost.items())), console or Console())


def print_sweep(cells: Sequence[dict], console: Console | None = None) -> None:
    """One line per cell, one line per group of cells that differ only in the seed, and the work done.

    A cell is {"name", "overrides", "status", "reason", "result"}; `result` may hold "counts"
    ({"run": {stage: n}, "reused": {stage: n}}), "summary" (rows) and "run_dir".
    """
    console = console or Console()
    lines = [(cell["name"], _summary(cell)) for cell in cells]
    groups = [(f"{name} (over {len(members)} seeds)", rows) for name, members, rows in _groups(cells)]
    _print_lines("cells: 95 % intervals over prompts, for that seed", lines, console)
    if groups:
        _print_lines("groups: 95 % intervals over prompts and seeds", groups, console)
    _print_work(cells, console)
    for cell in cells:
        if cell["status"] != "done":
            console.print(f"[red]{escape(cell['status'])}[/red] {escape(cell['name'])}: {escape(str(cell['reason']))}")


def _print_lines(title: str, lines: list[tuple[str, list[Row]]], console: Console) -> None:
    shown = [(name, rows) for name, rows in lines if rows]
    if not shown:
        return
    measured = {row.metric for _, rows in shown for row in rows}
    wanted = _MAIN if "harmful" in measured else _MAIN_WITHOUT_ORACLE
    room = max(2, (console.width - 36) // 17)  # the widest interval takes 14 characters, and 3 of padding
    metrics = [name for name in wanted if name in measured][:room]
    columns = [Column(_SHORT[metric] + arrow(metric), "value") for metric in metrics]
    cells: list[list[Cell]] = []
    for name, rows in shown:
        arm = main_arm(arms_of(rows))
        found = {row.metric: Value(row.estimate, row.unit) for row in rows if row.arm == arm}
        n = run_tables.counts(value.estimate.n for value in found.values())
        cells.append([name, arm, *(found.get(metric) for metric in metrics), n])
    cut = len(metrics) < len(measured.intersection(wanted))
    notes = ["A wider terminal shows more; every metric is in each cell's metrics.csv."] if cut else []
    table = Table(title, [Column("cell"), Column("arm", "code"), *columns, run_tables.N], cells, notes)
    print_table(table, console, stacked=console.width < 2 * WIDE)


def _summary(cell: dict) -> list[Row]:
    return rows_from((cell["result"] or {}).get("summary", []))


def _groups(cells: Sequence[dict]) -> list[tuple[str, list[dict], list[Row]]]:
    """Finished cells whose overrides agree but for the seed, with their table over prompts and seeds.

    The name of a group is what tells it from the others.
    """
    found: dict[tuple[str, ...], list[dict]] = {}
    for cell in cells:
        if cell["status"] == "done" and _summary(cell):
            key = tuple(item for item in cell["overrides"] if not item.startswith("seed="))
            found.setdefault(key, []).append(cell)
    shared = set.intersection(*map(set, found)) if found else set()
    groups = []
    for key, members in found.items():
        seeds = [rows for rows in map(read_eval_rows, members) if rows]
        if len(members) > 1 and len(seeds) == len(members):
            arms = arms_of(_summary(members[0]))
            name = " ".join(item for item in key if item not in shared) or "all cells"
            groups.append((name, members, summary_over_seeds(seeds, arms)))
    return groups


def read_eval_rows(cell: dict) -> list[EvalRow]:
    """The evaluation rows in a cell's run folder (answers.parquet); none where they cannot be read."""
    folder = (cell["result"] or {}).get("run_dir")
    if folder is None:
        return []
    try:
        return RunFolder(Path(folder)).answers()
    except UserError:
        return []


def _print_work(cells: Sequence[dict], console: Console) -> None:
    total = {"run": 0, "reused": 0}
    for cell in cells:
        counts = (cell["result"] or {}).get("counts", {})
        for state in total:
            total[state] += sum(counts.get(state, {}).values())
    done = sum(cell["status"] == "done" for cell in cells)
    console.print(f"{done} of {len(cells)} cells finished; stages: {total['run']} run, {total['reused']} reused")
