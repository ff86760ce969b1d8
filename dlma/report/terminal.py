"""The tables in the terminal: one run's summary, a sweep, the account of rows. All text is escaped."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from dlma.metrics.summary import Row, arms_of, better, label, main_arm, rows_from, summary_over_seeds
from dlma.records import Account, EvalRow
from dlma.runs.folder import RunFolder
from dlma.screen import Console
from dlma.statistics.format import interval, number

_ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}
_SHORT = {
    "harmful": "harmful",
    "harmlessness": "harmless",
    "helpfulness": "helpful",
    "malformed": "malformed",
    "perplexity": "perplexity",
    "kl": "KL",
    "tokens": "length",
    "distinct_2": "distinct-2",
}
_MAIN = ("harmful", "kl", "malformed", "helpfulness", "perplexity", "tokens")  # the narrower, the fewer
_MAIN_WITHOUT_ORACLE = ("perplexity", "kl", "tokens", "distinct_2")
WIDE = 100


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
    arms = arms_of(rows)
    table = simple_table(f"{method} on {model}, seed {seed}")
    table.add_column("metric")
    for arm in arms:
        table.add_column(escape(arm), justify="right")
    table.add_column("n", justify="right", style="dim")
    for metric, group in itertools.groupby(rows, key=lambda row: row.metric):
        cells = {row.arm: row for row in group}
        first = next(iter(cells.values()))
        unit = f", {first.unit}" if first.unit not in ("", "share") else ""
        name = label(metric, first) + unit + _ARROWS[better(metric, first)]
        shown = [_cell(cells.get(arm), console.width >= WIDE) for arm in arms]
        table.add_row(escape(name), *shown, _counts([row.estimate.n for row in cells.values()]))
    console.print(table)
    console.print("95 % intervals over prompts, for this seed. Arrows: the wanted direction.", style="dim")
    for line in cannot:
        console.print(escape(line), style="yellow")


def simple_table(title: str) -> Table:
    """An empty table in the style of all of them."""
    return Table(title=escape(title), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left", pad_edge=False)


def _cell(row: Row | None, wide: bool) -> str:
    if row is None:
        return "–"
    bounds = escape(interval(row.estimate, row.unit))
    return f"{number(row.estimate.value, row.unit)}{' ' if wide else chr(10)}[dim]{bounds}[/dim]"


def _counts(counts: Iterable[int]) -> str:
    distinct = sorted(set(counts))
    return f"{distinct[0]:,}" if len(distinct) == 1 else f"{distinct[0]:,}–{distinct[-1]:,}"


def print_account(accounts: dict[str, Account], console: Console | None = None) -> None:
    """Rows read, kept, dropped and trimmed, by input; nothing is printed where nothing was lost."""
    console = console or Console()
    for name, account in accounts.items():
        lost = {f"dropped: {reason}": count for reason, count in account.dropped.items()}
        lost |= {f"trimmed: {reason}": count for reason, count in account.trimmed.items()}
        if not lost:
            continue
        table = simple_table(f"{name}: {account.kept:,} of {account.read:,} rows kept")
        table.add_column("reason")
        table.add_column("rows", justify="right")
        for reason, count in sorted(lost.items()):
            table.add_row(escape(reason), f"{count:,}")
        console.print(table)


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
    table = simple_table(title)
    table.add_column("cell", overflow="fold", min_width=14)
    table.add_column("arm", no_wrap=True)
    for metric in metrics:
        table.add_column(_SHORT[metric] + _ARROWS[better(metric)], justify="right", no_wrap=True)
    table.add_column("n", justify="right", style="dim")
    for name, rows in shown:
        arm = main_arm(arms_of(rows))
        found = {row.metric: row for row in rows if row.arm == arm}
        cells = [_cell(found.get(metric), console.width >= 2 * WIDE) for metric in metrics]
        table.add_row(escape(name), escape(arm), *cells, _counts(row.estimate.n for row in found.values()))
    console.print(table)
    if len(metrics) < len(measured.intersection(wanted)):
        console.print("A wider terminal shows more; every metric is in each cell's metrics.csv.", style="dim")


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
    import pyarrow as pa

    folder = (cell["result"] or {}).get("run_dir")
    if folder is None:
        return []
    try:
        return RunFolder(Path(folder)).answers()
    except (OSError, KeyError, pa.ArrowException):
        return []


def _print_work(cells: Sequence[dict], console: Console) -> None:
    total = {"run": 0, "reused": 0}
    for cell in cells:
        counts = (cell["result"] or {}).get("counts", {})
        for state in total:
            total[state] += sum(counts.get(state, {}).values())
    done = sum(cell["status"] == "done" for cell in cells)
    console.print(f"{done} of {len(cells)} cells finished; stages: {total['run']} run, {total['reused']} reused")
