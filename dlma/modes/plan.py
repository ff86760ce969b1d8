"""mode=plan: what a config or a sweep would cost, before anything is spent.

Which stages the store has and which would run, each stage counted once however many cells of a sweep share it; the
model's parameters; memory of a device by part; the largest micro-batch that fits; tokens, operations and hours.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import cast

from omegaconf import OmegaConf
from rich import box
from rich.markup import escape
from rich.table import Table

from dlma.plan.dry_run import DryRunContext
from dlma.plan.estimate import Assumptions, RunPlan, StagePlan
from dlma.plan.volume import Volume
from dlma.plan.words import bound, bound_line, cost_line, limit_lines, refusals, time_line
from dlma.ranges import Count, Few, PartialShare, Positive, PositiveShare
from dlma.screen import Console

Stages = dict[str, list[tuple[RunPlan, StagePlan]]]


@dataclass
class DeviceNode:
    memory_gb: Positive
    bfloat16: Positive
    float32: Positive
    bandwidth: Positive
    link: Positive
    source: str


def show(
    cfgs: list,
    /,
    *,
    device: str,
    memory_gb: Positive | None,
    reserve: PartialShare,
    prompts: Count | None,
    held_out: Count | None,
    answer_tokens: Count | None,
    nodes: Few,
    network: Positive,
    host_memory_gb: Positive | None,
    price: Positive | None,
    compute_share: PositiveShare,
    bandwidth_share: PositiveShare,
    devices: dict[str, DeviceNode],
) -> None:
    """Print the plan of all cells; their configs have been checked."""
    assumed = Assumptions(reserve, compute_share, bandwidth_share, answer_tokens, nodes, network, host_memory_gb)
    cells = [DryRunContext(cfg, prompts=prompts, held_out=held_out) for cfg in cfgs]
    shapes: dict = {}
    outlooks = [RunPlan(cell, assumed, cast("dict[str, dict]", devices), device, memory_gb, shapes) for cell in cells]
    for outlook in outlooks:
        outlook.require_room()
    console = Console(width=None if sys.stdout.isatty() else 120)
    _print_head(console, outlooks)
    stages = by_name(outlooks)
    todo = [one for found in stages.values() for one in found if not one[1].stage.done]
    console.print(stage_table(outlooks, stages))
    if outlooks[0].processes > 1 and todo:
        console.print(moved_table(todo))
    largest = _distinct(outlooks)
    console.print(memory_table(largest))
    lines = [*refusals(outlooks), time_line(todo), bound_line(todo), cost_line(todo, price), *limit_lines(outlooks[0])]
    for line in filter(None, lines):
        console.print(escape(line), highlight=False, soft_wrap=True)
    for outlook in largest:
        console.print(escape(fitting_line(outlook)), highlight=False, soft_wrap=True)
    for line in remarks(outlooks):
        console.print(escape(line), highlight=False, soft_wrap=True)


def _print_head(console: Console, outlooks: Sequence[RunPlan]) -> None:
    for outlook in _distinct(outlooks, by=lambda o: (str(o.cell.spec), o.device.name)):
        shape, spec, device = outlook.shape, outlook.cell.spec, outlook.device
        nodes = f" in {outlook.assumed.nodes} nodes" if outlook.assumed.nodes > 1 else ""
        why = f" ({spec.why})" if spec.why else ""
        text = (
            f"{spec.name}: {shape.parameters:,} parameters, {shape.trained:,} trained, {spec.dtype}{why}; on "
            f"{outlook.processes} x {device.name}{nodes} ({device.memory / 1e9:.0f} GB, "
            f"{device.rate / 1e12:.3g} TFLOP/s, {device.bandwidth / 1e9:.0f} GB/s: {device.source})"
        )
        console.print(escape(text), highlight=False, soft_wrap=True)


def _distinct(outlooks: Sequence[RunPlan], by=None) -> list[RunPlan]:
    """One outlook of those that need the same memory."""
    found: dict[object, RunPlan] = {}
    for outlook in outlooks:
        found.setdefault((by or _memory_key)(outlook), outlook)
    return list(found.values())


def _memory_key(outlook: RunPlan) -> tuple:
    cfg = outlook.cfg
    objective = {key: OmegaConf.select(cfg.objective, key) for key in _OF_MEMORY}
    lengths = tuple(length.most for length in outlook.sizes.contexts.values())
    return (
        str(outlook.cell.spec),
        str(objective),
        str(cfg.sampler),
        lengths,
        outlook.sizes.answer.most,
        str(cfg.trainer),
    )


_OF_MEMORY = ("_target_", "optim.optimizer", "batch_pairs", "token_budget", "checkpointing")


def by_name(outlooks: Sequence[RunPlan]) -> Stages:
    """The stages of all cells by what they are for, each once."""
    seen: set = set()
    rows: Stages = {}
    for outlook in outlooks:
        for line in outlook.lines:
            if line.stage.folder not in seen:
                seen.add(line.stage.folder)
                rows.setdefault(line.name, []).append((outlook, line))
    return rows


def stage_table(outlooks: Sequence[RunPlan], rows: Stages) -> Table:
    """A row for each kind of stage: how many the store has, how many would run, and what those would cost."""
    cells = f", {len(outlooks)} cells" if len(outlooks) > 1 else ""
    table = _table(f"stages{cells}", "stage", "cached", "to run", "prompts", "tokens", "TFLOP", "hours", "bound by")
    total = 0.0
    for name, found in rows.items():
        todo = [(o, line) for o, line in found if not line.stage.done]
        hours = sum(line.hours or 0.0 for _, line in todo)
        total += hours
        table.add_row(name, str(len(found) - len(todo)), str(len(todo)), *_costs(todo, hours))
    table.add_section()
    table.add_row(
        "all",
        "",
        str(sum(not line.stage.done for found in rows.values() for _, line in found)),
        "",
        "",
        "",
        _hours(total),
        "",
    )
    return table


def moved_table(todo: Sequence[tuple[RunPlan, StagePlan]]) -> Table:
    """What each stage moves: sent by a device, written to the shared folder, held by a process; in GB, else in MB."""
    rows: dict[str, list[Volume]] = {}
    for _, line in todo:
        rows.setdefault(line.name, []).append(line.volume)
    found = {
        name: [sum(one.sent for one in own), sum(one.written for one in own), max(one.held for one in own)]
        for name, own in rows.items()
    }
    unit, size = ("GB", 1e9) if max(map(max, found.values())) >= 1e9 else ("MB", 1e6)
    columns = ("a device sends", "written", "rows in a process", "shards")
    table = _table(f"moved, {unit}", "stage", *columns)
    for name, values in found.items():
        shards = sum(one.shards for one in rows[name])
        if any(values):
            cells = [f"{value / size:,.2f}" if value else "" for value in values]
            table.add_row(name, *cells, f"{shards:,}" if shards else "")
    return table


def _costs(todo: Sequence[tuple[RunPlan, StagePlan]], hours: float) -> list[str]:
    if any(line.load is None for _, line in todo):
        return ["not counted", "", "", "", ""]
    loads = [(o, line.load) for o, line in todo if line.load is not None and line.load.tokens]
    if not loads:
        return ["", "", "", "", ""]
    operations = sum(load.operations(o.shape) for o, load in loads)
    counts = (sum(load.rows for _, load in loads), sum(load.tokens for _, load in loads))
    return [f"{counts[0]:,}", f"{counts[1]:,.0f}", f"{operations / 1e12:,.3g}", _hours(hours), bound(todo)]


def _hours(hours: float) -> str:
    return f"{hours:,.2f}" if hours >= 0.01 else f"{hours * 3600:.2g} s"


def memory_table(outlooks: Sequence[RunPlan]) -> Table:
    """Bytes of a device by part, for each kind of work; in GB where something takes one, else in MB."""
    from dlma.cost.memory import Footprint

    names = [part.name for part in fields(Footprint)]
    rows = [(kind, found) for outlook in outlooks for kind, found in outlook.footprints.items()]
    unit, size = ("GB", 1e9) if max(found.total for _, found in rows) >= 1e9 else ("MB", 1e6)
    table = _table(f"memory of a device, {unit}", "work", *names, "in all")
    for kind, found in rows:
        values = [*(getattr(found, name) for name in names), found.total]
        table.add_row(kind, *(f"{value / size:,.2f}" if value else "" for value in values))
    return table


def fitting_line(outlook: RunPlan) -> str:
    """The largest micro-batch that fits, in words."""
    device, reserve = outlook.device, outlook.assumed.reserve
    room = f"{device.memory / 1e9:.0f} GB with {reserve:.0%} left free"
    for kind in ("sampling", "scoring"):
        if outlook.footprints[kind].total > (1 - reserve) * device.memory:
            return f"{kind} does not fit {room}: take a larger device, a smaller model, or fewer sampler.rows"
    if "training" not in outlook.footprints:
        return "nothing is trained, or by an objective whose memory is not counted"
    size = outlook.fitting
    if size is None:
        return f"training does not fit {room}, not even one row: adapter=lora, checkpointing, or more devices"
    whole = " (all of a step's pairs)" if size.rows >= outlook.pairs else ""
    return (
        f"largest micro-batch in {room}: {size.rows} rows of {size.width} tokens{whole}: "
        f"objective.token_budget={size.tokens}; the config's own gives {outlook.micro.rows}"
    )


def remarks(outlooks: Sequence[RunPlan]) -> list[str]:
    """What the figures rest on."""
    first = outlooks[0]
    lines = [f"lengths: {first.sizes.source}"]
    if first.cell.folder_here is None:
        state = "not on this machine" if first.cell.file is None else "not dequantised yet"
        lines.append(f"the weights are {state}: no stage can be found in the store")
    if any(o.cfg.intermediate for o in outlooks):
        lines.append("not counted: the answers of policies kept on the way (intermediate)")
    missing = {line.name for o in outlooks for line in o.lines if line.load is None}
    if missing:
        lines.append(f"not counted (their components are not known): {', '.join(sorted(missing))}")
    shares = (
        f"{first.assumed.compute_share:.0%} of the peak rate and {first.assumed.bandwidth_share:.0%} of the bandwidth"
    )
    lines.append(f"hours assume {shares} (mode.compute_share, mode.bandwidth_share)")
    if first.processes > 1:
        wires = f"{first.cluster.rate / 1e9:g} GB/s on the slowest wire of a ring through all devices"
        lines.append(f"and {wires} (link, mode.network), with nothing sent while computing")
        lines.append("not counted: reading and writing, and what rank 0 does alone (contexts, joining, reports)")
    return lines


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    return table
