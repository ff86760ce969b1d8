"""From prompts to the checks before training, in a process of its own that may be given little memory.

python tests/kit/many_prompts.py FOLDER [--limit MB] [--listed] [words of the command line] takes `model` and
`prompts.parquet` of the folder, and prints one JSON object: the rows, and in MB the most memory that this process held
(VmHWM), what it has asked for (VmData), and the most of each worker of executor=ray.
"""

import argparse
import json
import re
import resource
from pathlib import Path

import psutil
from catalogue import composed

from dlma import pipeline
from dlma.context import RunContext
from dlma.records import Context, Pair, Prompt, ScoredPair
from dlma.store import shards

WORDS = ("model=hf", "data=jsonl", "data.validation_share=0.01", "data.test_share=0.01")
WORDS += ("recipe.max_new_tokens=1", "recipe.dtype=float32", "trainer.shard_rows=256", "trainer.threads=1")
KINDS = {"prompts": Prompt, "contexts": Context, "held_out": Context, "pairs": Pair, "scored": ScoredPair}


def memory(name: str, process: int | str = "self") -> float:
    """A line of a process's status, in MB."""
    (found,) = re.findall(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return int(found) / 1e3


def made(cell: RunContext) -> dict:
    """All stages before training, and the truth that the evaluation has of the pairs."""
    prompts = pipeline.read_prompts(cell)
    found = dict(prompts=prompts, contexts=pipeline.render(cell, prompts, "train"))
    found["held_out"] = pipeline.render(cell, prompts, cell.cfg.evaluation.split)
    found["pairs"] = pipeline.make_pairs(cell, found["contexts"], found["held_out"])
    found["scored"] = pipeline.score(cell, found["pairs"])
    pipeline.read_tokens(cell, found["scored"])
    pipeline.evaluate(cell, [], found["scored"])
    pipeline.preflight(cell, **found)
    return found


def workers() -> list[float]:
    children = psutil.Process().children(recursive=True)
    return [memory("VmHWM", one.pid) for one in children if one.name().startswith("ray::ShardWork")]


def main() -> None:
    read = argparse.ArgumentParser()
    read.add_argument("folder", type=Path)
    read.add_argument("--limit", type=float)
    read.add_argument("--listed", action="store_true")
    read.add_argument("--group", type=int, default=shards._ROW_GROUP)
    asked, words = read.parse_known_args()
    folder, shards._ROW_GROUP = asked.folder, asked.group
    here = (
        f"model.path={folder / 'model'}",
        f"data.path={folder / 'prompts.parquet'}",
        f"store.root={folder / 'store'}",
    )
    cell = RunContext(composed((*WORDS, *here, *words)), folder / "run")
    with cell.executor.opened():
        if hasattr(cell.executor, "_join"):
            cell.executor._join()  # before the limit, which the cluster's processes would inherit
        if asked.limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (int(asked.limit * 1e6), resource.RLIM_INFINITY))
        stages = made(cell)
        held = [list(stage.rows(KINDS[name])) for name, stage in stages.items() if asked.listed]
        rows = {name: len(stage.rows(KINDS[name])) for name, stage in stages.items()}
        peak = {"peak": memory("VmHWM"), "asked": memory("VmData"), "workers": workers()}
        print(json.dumps({"rows": rows, "listed": sum(map(len, held)), **peak}))


if __name__ == "__main__":
    main()
