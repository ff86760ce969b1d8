"""The terminal's tables: intervals and n are there, model text cannot style them, sweeps add up."""

import dataclasses
import io

import pyarrow.parquet as pq
import pytest
from planted import eval_row

from dlma.checks.finding import Finding, print_findings
from dlma.metrics.summary import Row, summary_over_seeds, summary_rows
from dlma.records import Account, EvalRow, to_table
from dlma.report.terminal import print_account, print_summary, print_sweep, print_tax
from dlma.screen import Console, visible
from dlma.statistics.intervals import Estimate


def _console(width: int = 200) -> Console:
    return Console(file=io.StringIO(), width=width)


def _evals(seed: int) -> list[EvalRow]:
    return [
        eval_row(
            f"p{i}",
            arm,
            tokens=10 + i + seed,
            harmful=(i + seed) % 2 == 0,
            harmlessness=0.5,
            helpfulness=0.25,
            malformed=0.0,
        )
        for i in range(8)
        for arm in ("base", "aligned")
    ]


def _cell(folder, seed: int, **changes) -> dict:
    run_dir = folder / f"seed={seed}"
    run_dir.mkdir()
    pq.write_table(to_table(EvalRow, _evals(seed)), run_dir / "answers.parquet")
    summary = [row.as_dict() for row in summary_rows(_evals(seed), ["base", "aligned"])]
    counts = {"run": {"pairs": 1, "answers": 2}, "reused": {"prompts": 1}}
    cell = {
        "name": f"seed={seed}",
        "overrides": ["method=dlma", f"seed={seed}"],
        "status": "done",
        "reason": None,
        "result": {"counts": counts, "summary": summary, "run_dir": str(run_dir)},
    }
    return {**cell, **changes}


@pytest.mark.parametrize("width", [80, 200])
def test_the_summary_shows_value_interval_and_n_per_arm(width):
    console = _console(width)
    rows = [
        Row("harmful", "base", Estimate(0.8, 0.77, 0.83, 1000), "share"),
        Row("harmful", "aligned", Estimate(0.362, 0.333, 0.392, 1000), "share"),
        Row("kl", "aligned", Estimate(0.97, 0.91, 1.03, 1000), "nats/answer"),
    ]
    print_summary(rows, method="dlma", model="lab/standard", seed=3, cannot=["no oracle here"], console=console)
    text = console.file.getvalue()
    for part in ("dlma on lab/standard, seed 3", "36.2 %", "[33.3, 39.2]", "1,000", "for this seed", "no oracle here"):
        assert part in text
    assert max(map(len, text.splitlines())) <= width


def test_markup_in_names_is_shown_not_obeyed():
    console = _console()
    rows = [Row("kl", "[red]arm[/red]", Estimate(0.1, 0.0, 0.2, 5))]
    print_summary(rows, method="[bold]m", model="[/]x", seed=0, cannot=["[blink]no"], console=console)
    print_account({"[u]data": Account(2, 1, dropped={"[/b]why": 1})}, console=console)
    text = console.file.getvalue()
    for part in ("[red]arm[/red]", "[bold]m on [/]x", "[blink]no", "[u]data", "[/b]why"):
        assert part in text


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x9b31m", "\u202egnp", "\r\x08x", "\x1b]8;;http://x\x07"])
def test_terminal_escapes_in_names_and_reasons_are_shown_not_obeyed(hostile, tmp_path):
    console = _console()
    rows = [Row("kl", f"arm{hostile}", Estimate(0.1, 0.0, 0.2, 5))]
    print_summary(rows, method=hostile, model=hostile, seed=0, cannot=[f"no {hostile}"], console=console)
    print_account({f"data {hostile}": Account(2, 1, dropped={f"why {hostile}": 1})}, console=console)
    failed = {"name": hostile, "overrides": [hostile], "status": "failed", "reason": f"at {hostile}", "result": None}
    print_sweep([_cell(tmp_path, 0), failed], console=console)
    print_findings(f"checks {hostile}", [Finding(f"name {hostile}", "warning", f"text {hostile}")], console=console)
    text = console.file.getvalue()
    assert not any(one in text for one in "\x1b\x9b\u202e\r\x08\x07")
    for part in ("arm", "no ", "data ", "why ", "at ", "checks ", "name ", "text "):
        assert f"{part}{visible(hostile)}" in text


def test_the_account_counts_what_was_lost_and_is_silent_where_nothing_was():
    console = _console()
    print_account(
        {"hh": Account(2312, 2300, dropped={"empty answer": 12}, trimmed={"oldest turns": 31}), "lab": Account(5, 5)},
        console=console,
    )
    text = console.file.getvalue()
    assert "hh: 2,300 of 2,312 rows kept" in text and "12" in text and "31" in text and "lab" not in text


@pytest.mark.parametrize("width", [80, 100, 150])
def test_a_narrow_sweep_table_drops_columns_and_never_cuts_one(tmp_path, width):
    console = _console(width)
    print_sweep([_cell(tmp_path, seed) for seed in range(2)], console=console)
    text = console.file.getvalue()
    assert "seed=0" in text and "aligned" in text and "harmful ↓" in text and "KL" in text and "…" not in text
    assert ("length" in text) == (width == 150) == ("metrics.csv" not in text)


def test_a_sweep_lists_cells_and_the_interval_over_prompts_and_seeds(tmp_path):
    console = _console(400)
    cells = [_cell(tmp_path, seed) for seed in range(3)]
    print_sweep(cells, console=console)
    text = console.file.getvalue()
    assert "over prompts, for that seed" in text and "over prompts and seeds" in text
    assert "all cells (over 3 seeds)" in text
    pooled = summary_over_seeds([_evals(seed) for seed in range(3)], ["aligned"])
    (tokens,) = [row.estimate for row in pooled if row.metric == "tokens"]
    assert f"[{tokens.low:.2f}, {tokens.high:.2f}]" in text
    assert "3 of 3 cells finished; stages: 9 run, 3 reused" in text


def test_a_group_is_named_by_what_tells_it_from_the_others(tmp_path):
    console, folders = _console(400), {name: tmp_path / name for name in ("dlma", "rlcd")}
    for folder in folders.values():
        folder.mkdir()
    cells = [
        _cell(folder, seed, overrides=[f"method={method}", "trainer.threads=1", f"seed={seed}"])
        for method, folder in folders.items()
        for seed in range(2)
    ]
    print_sweep(cells, console=console)
    text = console.file.getvalue()
    assert "method=dlma (over 2 seeds)" in text and "method=rlcd (over 2 seeds)" in text and "threads" not in text


def test_failed_cells_are_named_with_their_reason_and_join_no_group(tmp_path):
    console = _console()
    failed = {
        "name": "seed=1",
        "overrides": ["seed=1"],
        "status": "failed",
        "reason": "out of [b]memory",
        "result": None,
    }
    print_sweep([_cell(tmp_path, 0), failed], console=console)
    text = console.file.getvalue()
    assert "failed seed=1: out of [b]memory" in text and "1 of 2 cells finished" in text
    assert "prompts and seeds" not in text


def test_without_readable_answers_there_is_no_interval_over_seeds(tmp_path):
    console = _console()
    cells = [_cell(tmp_path, seed) for seed in range(2)]
    (tmp_path / "seed=1" / "answers.parquet").write_bytes(b"not parquet")
    print_sweep(cells, console=console)
    assert "prompts and seeds" not in console.file.getvalue()


def test_a_cell_without_a_policy_shows_the_base_not_the_prompted_base(tmp_path):
    console = _console()
    cell = _cell(tmp_path, 0)
    cell["result"]["summary"] = [
        Row("kl", "base", Estimate(0.0, 0.0, 0.0, 5)),
        Row("kl", "prompted", Estimate(1.0, 0.5, 1.5, 5)),
    ]
    print_sweep([cell], console=console)
    assert "base" in console.file.getvalue() and "prompted" not in console.file.getvalue()


def test_cells_without_an_oracle_show_what_was_measured(tmp_path):
    console = _console()
    bare = [
        dataclasses.replace(row, harmful=None, harmlessness=None, helpfulness=None, malformed=None) for row in _evals(0)
    ]
    cell = _cell(tmp_path, 0)
    cell["result"]["summary"] = summary_rows(bare, ["base", "aligned"])
    print_sweep([cell], console=console)
    text = console.file.getvalue()
    assert "perplexity" in text and "distinct-2" in text and "harmful" not in text


@pytest.mark.parametrize("width", [80, 200])
def test_names_stay_readable_beside_wide_values(width):
    console = _console(width)
    share = Estimate(1.0, 0.984, 1.0, 240)
    rows = [Row("skill", arm, share, "share", "skill: counting") for arm in ("base", "aligned")]
    print_tax([*rows, Row("change/skill", "aligned", share, "share", "change", "higher")], console=console)
    assert "skill: counting" in console.file.getvalue() and max(map(len, console.file.getvalue().splitlines())) <= width
