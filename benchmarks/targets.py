"""What the results say: ratios of medians with their spread, and whether each target is met."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks import sweeps
from benchmarks.cell import EARLIER
from benchmarks.measure import Results
from benchmarks.plan import name_of_real
from benchmarks.shapes import REAL

BYTES_OF_STATE = 12  # a weight and the two moments of AdamW, float32
Value = Callable[[dict], float]


@dataclass(frozen=True)
class Line:
    """One target: what was wanted and found; met is None when there is no result."""

    work: str
    against: str
    wanted: str
    found: str
    met: bool | None


def sound(results: Results, group: str, side: str) -> list[dict]:
    """The results of a side without those that failed."""
    return [run for run in results.runs.get(group, {}).get(side, []) if "error" not in run]


def median(runs: Sequence[dict], value: Value) -> float:
    return statistics.median(map(value, runs))


def wall(run: dict) -> float:
    return run["wall"]


def work(run: dict) -> float:
    return run["seconds"]["work"]


def peak(run: dict) -> float:
    return run["peak"]


def steady(run: dict) -> float:
    """Seconds of the steps after the first."""
    return sum(run["steps"][1:])


def dense_rate(run: dict) -> float:
    """Operations that unshared, unpadded scoring needs, per second that was taken."""
    return run["flops"] / work(run)


def best_rate(run: dict) -> float:
    """Tokens per second at the best batch size."""
    return max(run["rates"].values())


def share_of_machine(run: dict) -> float:
    """Needed operations of the later steps per second, over the best matrix rate of the same process."""
    return run["later_flops"] / steady(run) / run["gemm"]["rate"]


def share_of_bound(run: dict) -> float:
    """The seconds that sampling takes at least by the rates of the same process, over those that it took."""
    return run["bound"] / work(run)


def scoring_share(run: dict) -> float:
    """Operations that our scoring did per second, over the best matrix rate of the same process."""
    return run["done_flops"] / work(run) / run["gemm"]["rate"]


def beyond_load(run: dict) -> float:
    """Peak bytes beyond the process with its loaded model."""
    return run["peak"] - run["loaded"]


def beyond_state(run: dict) -> float:
    """Peak bytes beyond weights and optimizer."""
    return run["peak"] - BYTES_OF_STATE * run["parameters"]


@dataclass(frozen=True)
class Ratio:
    """top / bottom of medians, and the least and largest ratio of a round."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(top: Sequence[dict], bottom: Sequence[dict], value: Value) -> Ratio | None:
    """The ratio of two sides; None when either has no result."""
    if not top or not bottom:
        return None
    rounds = [value(a) / value(b) for a, b in zip(top, bottom, strict=False)]
    return Ratio(median(top, value) / median(bottom, value), min(rounds), max(rounds))


def alone(runs: Sequence[dict], value: Value) -> Ratio | None:
    """A figure that is a ratio by itself."""
    if not runs:
        return None
    values = [value(run) for run in runs]
    return Ratio(statistics.median(values), min(values), max(values))


def at_least(work: str, against: str, found: Ratio | None, wanted: float, shown: str = "") -> Line:
    return _line(work, against, shown or f"{wanted:g}x", found, found is not None and found.value >= wanted)


def memory(work: str, against: str, ours: Sequence[dict], theirs: Sequence[dict], wanted: float) -> Line:
    """The peaks of whole processes, which is the target; beside it what they rose above the loaded model."""
    line = at_most(work, against, ratio(ours, theirs, peak), wanted)
    if not all("touched" in run for run in [*ours, *theirs]):
        return line
    above = ratio(ours, theirs, beyond_load)
    return line if above is None else replace(line, found=f"{line.found}; beyond the loaded model {above}")


def at_most(work: str, against: str, found: Ratio | None, wanted: float, shown: str = "") -> Line:
    return _line(work, against, shown or f"{wanted:g}x memory", found, found is not None and found.value <= wanted)


def _line(work: str, against: str, wanted: str, found: Ratio | None, met: bool) -> Line:
    return Line(work, against, wanted, "not measured" if found is None else str(found), None if found is None else met)


def lines(results: Results) -> list[Line]:
    """Every target, in the order of the issue."""
    short = "hh" if "scoring, 40M, hh" in results.runs else "imposed"
    large = [
        *_training(results),
        *_scoring(results, "short affix", f"scoring, 40M, {short}", 3.0),
        *_scoring(results, "long system text", "scoring, 40M, long", 8.0),
        _sampling(results, "40M", 1.5),
    ]
    if name_of_real(True) in results.runs:  # in place of the 40 M shape, of which no more is shown than was measured
        large = [line for line in large if line.met is not None]
    lab = [_sampling(results, "lab", 2.5), *_cell(results), *_sweep(results), _vocabulary(results)]
    return [*large, *lab, *_real(results)]


def _training(results: Results) -> list[Line]:
    whole, tuned = "DPO, 40M, imposed, default allocator", "DPO, 40M, imposed, tuned allocator"
    ours, ours_tuned = sound(results, whole, "ours"), sound(results, tuned, "ours")
    found = []
    for peer, times in (("TRL", 4.0), ("TRL precomputed", 3.0)):
        theirs = sound(results, whole, peer)
        found.append(at_least("DPO, 40M, whole process", peer, ratio(theirs, ours, wall), times))
        found.append(at_most("DPO, 40M, whole process", peer, ratio(ours, theirs, peak), 0.35))
    for peer, times in (("TRL", 2.0), ("TRL precomputed", 1.8)):
        later = ratio(sound(results, tuned, peer), ours_tuned, steady)
        found.append(at_least("DPO, 40M, steady steps, tuned allocator", peer, later, times))
    share = ratio(
        ours_tuned, [dict(unit=True)] * len(ours_tuned), lambda r: 1.0 if "unit" in r else share_of_machine(r)
    )
    found.append(at_least("DPO, 40M, steady steps, share of the best GEMM rate", "the machine", share, 0.65, "0.65"))
    return found


def _scoring(results: Results, name: str, group: str, times: float) -> list[Line]:
    ours, fair, official = (sound(results, group, side) for side in ("ours", "fair", "official"))
    bound = ours[0]["bound"] if ours else 0.0
    wanted = f"{0.8 * bound:.2f}x (0.8 of the bound {bound:.2f})" if ours else "0.8 of the bound"
    most = ours[0].get("official_bound") if ours else None
    shown = f"{times:g}x" + (f" (the bound is {most:.2f})" if most else "")
    work = f"scoring, 40M, {name}"
    return [
        at_least(work, "fair plain scorer", ratio(ours, fair, dense_rate), 0.8 * bound, wanted),
        memory(work, "fair plain scorer", ours, fair, 0.3),
        at_least(work, "as the official code", ratio(ours, official, dense_rate), times, shown),
        memory(work, "as the official code", ours, official, 0.2),
    ]


def _sampling(results: Results, shape: str, wanted: float) -> Line:
    group = f"sampling, {shape}, one_line"
    found = ratio(sound(results, group, "ours"), sound(results, group, "generate"), best_rate)
    return at_least(f"sampling, {shape}", "generate, best batch", found, wanted)


def _sweep(results: Results) -> list[Line]:
    group, cells = "margin sweep, lab, 12 cells", 12
    swept, single = sound(results, group, "one sweep"), sound(results, group, "single runs")
    name, against = "12-cell margin sweep", "12 single runs"
    if not swept or not single:
        return [Line(name, against, "within 10 % of the bound", "not measured", None)]
    parts = [sweeps.parts(run["stages"], cells) for run in swept]
    bound = statistics.median(sweeps.bound(*part, cells) for part in parts)
    wanted = f"{1.1 * bound:.2f} of the time (1.1 times the bound {bound:.2f})"
    passes = max(sum(stage["stage"] == "scored" for stage in run["stages"]) for run in swept)
    return [
        at_most(name, against, ratio(swept, single, work), 1.1 * bound, wanted),
        Line(name, "reference passes in the sweep", "1", str(passes), passes == 1),
    ]


def _real(results: Results) -> list[Line]:
    """Throughput of the steps after the first, and the peak; nothing where the real model was not at hand."""
    found = []
    for lora, name in ((True, "LoRA"), (False, "all weights")):
        group = name_of_real(lora)
        for peer, times in (("TRL", 4.0), ("TRL precomputed", 3.0)) if group in results.runs else ():
            ours, theirs = sound(results, group, "ours"), sound(results, group, peer)
            found.append(at_least(f"DPO, real model, {name}, steady steps", peer, ratio(theirs, ours, steady), times))
            found.append(at_most(f"DPO, real model, {name}, whole process", peer, ratio(ours, theirs, peak), 0.4))
    return [*found, *_real_inference(results), *_pipeline(results)]


def _real_inference(results: Results) -> list[Line]:
    scoring, sampling = f"scoring, {REAL}, answered", f"sampling, {REAL}, answered"
    if scoring not in results.runs or sampling not in results.runs:
        return []
    ours, fair = sound(results, scoring, "ours"), sound(results, scoring, "fair")
    answers, theirs = sound(results, sampling, "ours"), sound(results, sampling, "generate")
    share = alone(ours, scoring_share)
    return [
        at_least("scoring, real model", "fair plain scorer", ratio(ours, fair, dense_rate), 1.6),
        at_least("scoring, real model, share of the best GEMM rate", "the machine", share, 0.7, "0.7"),
        at_least("sampling, real model", "generate, best batch", ratio(answers, theirs, best_rate), 2.0),
        at_least("sampling, real model", "its own bound", alone(answers, share_of_bound), 0.6, "0.6"),
        *[
            at_least("sampling, real model", peer, ratio(answers, sound(results, sampling, peer), best_rate), 1.0)
            for peer in results.runs[sampling]
            if peer.startswith("llama.cpp")
        ],
    ]


def _pipeline(results: Results) -> list[Line]:
    group = "pipeline, real model, 200 prompts"
    if group not in results.runs:
        return []
    ours, theirs = sound(results, group, "ours"), sound(results, group, "one script")
    return [
        at_least("whole pipeline, real model, 200 prompts", "one script", ratio(theirs, ours, wall), 3.0),
        at_most("whole pipeline, real model, 200 prompts", "one script", ratio(ours, theirs, peak), 0.5),
    ]


def _cell(results: Results) -> list[Line]:
    group = "one cell, lab"
    if group not in results.runs:
        return []
    found = ratio(sound(results, group, "now"), sound(results, group, EARLIER), wall)
    return [at_most("one cell, lab, whole process", f"itself at {EARLIER}", found, 0.6, "0.6 of the time")]


def _vocabulary(results: Results) -> Line:
    once, wide = (sound(results, "growth, 40M, vocabulary", f"vocabulary {times}x") for times in (1, 4))
    found = ratio(wide, once, beyond_state)
    name = "peak memory beyond weights and optimizer, vocabulary 4x"
    return at_most(name, "itself", found, 1.15, "at most 1.15x")
