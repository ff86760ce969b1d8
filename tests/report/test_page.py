"""The frame of every page, in a browser: what is wide scrolls in its own box, never the page."""

import asyncio

import chromium
import pytest
from planted import eval_row, scored_pair
from planted_runs import answers, options, plant

from dlma.checks import token_panel
from dlma.checks.token_panel import Link
from dlma.metrics.categories import category_rows
from dlma.metrics.summary import summary_rows
from dlma.records import Account, TokenRewards
from dlma.report import run_page, sections, sweep_page
from dlma.report.run_page import ReportData, StageLine
from dlma.runs import cells as run_folders
from dlma.statistics.intervals import Estimate
from dlma.sweep import all_results
from dlma.sweep import settings as sweep_settings

LONG = "w" * 300
FAR = Estimate(-0.123456, -0.234567, 0.345678, 1000)
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def run_report() -> bytes:
    """A page with every kind of part, and text without a place to break it."""
    evals = [*answers("base", 0, prompts=9, harm=0.5), *answers("aligned", 0, prompts=9, harm=0.1, kl=1.0)]
    evals += [eval_row("long", arm, question=LONG, answer=LONG, category=LONG[:40]) for arm in ("base", "aligned")]
    rows = [TokenRewards(f"x{i}", [0.5, -1.0], [0.1], [LONG, " b"], ["c"], [True, False], [False]) for i in range(8)]
    links = [Link(name, FAR, FAR) for name in ("length, tokens", "refusal", "style marks ! ? …")]
    found = token_panel.echo(rows, dict.fromkeys((row.id for row in rows), 1.0))
    data = ReportData(
        method="dlma",
        model=LONG,
        seed=0,
        title=LONG,
        rows=summary_rows(evals, ["base", "aligned"]),
        evals=evals,
        categories=category_rows(evals, [], [], []),
        train=[{"step": i, "loss": 0.7, "chosen_reward": 0.1, "rejected_reward": 0.0} for i in range(5)],
        pairs=[scored_pair(i, i - 20.0) for i in range(60)],
        truth=[float(i - 25) for i in range(60)],
        clamp=(-10.0, 30.0),
        accounts={"data": Account(10, 7, dropped={LONG: 3})},
        config={"note": LONG},
        stages=[StageLine("pairs", "0123456789abcdef", "run")],
        warnings=[LONG],
        tokens=sections.tokens(rows, {row.id: LONG for row in rows}, found, links, LONG),
    )
    return run_page.render(data)


def sweep_report(folder) -> bytes:
    made = [plant(folder / f"{m}-{seed}", method=m, seed=seed, prompts=9) for m in ("dlma", "rlcd") for seed in (0, 1)]
    cells = [run_folders.read_cell(one) for one in made]
    rows = sweep_settings.settings(cells)
    found = all_results.results(rows, options())
    return sweep_page.render(sweep_page.SweepPage("title", folder, cells, rows, found, options(), missing=1))


@pytest.mark.skipif(chromium.BINARY is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_no_page_scrolls_sideways_on_a_narrow_screen(elsewhere):
    pages = {"run.html": run_report(), "sweep.html": sweep_report(elsewhere / "cells")}
    for name, content in pages.items():
        (elsewhere / name).write_bytes(content)
    found = asyncio.run(widths(elsewhere, list(pages)))
    assert found == {(name, width): 0 for name in pages for width in (420, 320)}


async def widths(folder, names):
    """By how many pixels each page is wider than the screen."""
    found = {}
    async with chromium.browser(folder / "browser") as page:
        for name in names:
            for width in (420, 320):
                await page.resize(width)
                await page.open(folder / name)
                found[name, width] = await page.value(SIDEWAYS)
    return found
