"""What follows from a plan, in lines: where the time goes, what it costs, and what more prompts would run into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dlma.plan.estimate import RunPlan, StagePlan
from dlma.trainer import launch

NAMED = 0.05  # of the time: stages that take less are not named
Todo = Sequence[tuple[RunPlan, StagePlan]]


def time_line(todo: Todo) -> str:
    """The shares of the stages that would run, the longest first, and what each is bound by; empty if all are none."""
    hours: dict[str, Counter[str]] = {}
    for _, line in todo:
        hours.setdefault(line.name, Counter()).update(line.parts)
    total = sum(own.total() for own in hours.values())
    order = sorted(hours.items(), key=lambda item: -item[1].total())
    shown = [(name, own) for name, own in order if own.total() >= NAMED * total > 0]
    words = [f"{name} {own.total() / total:.0%} (mostly {own.most_common(1)[0][0]})" for name, own in shown]
    return f"where the time goes: {', '.join(words)}" if words else ""


def bound_line(todo: Todo) -> str:
    """How much of the time each of compute, bandwidth and network takes; empty if nothing takes time."""
    found = _parts(todo)
    if not found.total():
        return ""
    shares = ", ".join(f"{bound} {hours / found.total():.0%}" for bound, hours in found.most_common())
    return f"bottleneck: {found.most_common(1)[0][0]} ({shares} of the time)"


def bound(todo: Todo) -> str:
    """What takes most of the time of these stages; empty if nothing takes any."""
    found = _parts(todo)
    return found.most_common(1)[0][0] if found.total() else ""


def _parts(todo: Todo) -> Counter[str]:
    """Hours by what they are bound by."""
    found: Counter[str] = Counter()
    for _, line in todo:
        found.update(line.parts)
    return found


def refusals(outlooks: Sequence[RunPlan]) -> list[str]:
    """Why a run would be refused on so many processes, for each cell's own reason once."""
    reasons = [_too_few_pairs(one) or _refusal(one) for one in outlooks]
    return [f"refused: {reason}" for reason in dict.fromkeys(filter(None, reasons))]


def _refusal(outlook: RunPlan) -> str | None:
    return launch.refusal(outlook.cfg, outlook.processes, by=f"trainer.devices={outlook.cfg.trainer.devices}")


def _too_few_pairs(outlook: RunPlan) -> str | None:
    if not 0 < outlook.batch_pairs < outlook.processes:
        return None
    return (
        f"a step's {outlook.batch_pairs} pairs cannot be shared out over {outlook.processes} processes: "
        "raise recipe.batch_pairs"
    )


def cost_line(todo: Todo, price: float | None) -> str:
    """Hours times devices, and times a price."""
    spent = sum((line.hours or 0.0) * outlook.processes for outlook, line in todo)
    words = f"cost: {spent:,.1f} device-hours"
    return words if price is None else f"{words}, {spent * price:,.0f} at {price:g} an hour"


def limit_lines(outlook: RunPlan) -> list[str]:
    """What more prompts would run into, and from how many on; nothing where a node's memory is not known."""
    sizes, devices = outlook.sizes, outlook.cfg.trainer.devices
    held = max(line.volume.held for line in outlook.lines) * devices
    memory = outlook.assumed.host_memory_gb
    if memory is None or not held:
        return []
    most = int(sizes.train * memory * 1e9 / held)
    verdict = f"breaks first, and before {sizes.train:,}" if most < sizes.train else "breaks first"
    return [f"{verdict}: a node's {memory:,.0f} GB hold the rows of {devices} processes up to {most:,} prompts"]
