"""How much memory pairs and scores of so many prompts take under executor=ray: of this process and of its worker.

python tests/kit/ray_memory.py PROMPTS FOLDER prints one JSON object of MB. The prompts are those of the lab, over and
over, under names of their own, written a part at a time; what is measured begins after that.
"""

import dataclasses
import json
import sys
import threading
from pathlib import Path

import psutil
from catalogue import composed

from dlma import pipeline, records
from dlma.context import RunContext
from dlma.records import Account, Context
from dlma.store import shards

AT_ONCE = 1024
WORDS = ("data.train=256", "data.validation=4", "data.test=4", "recipe.max_new_tokens=1", "trainer.shard_rows=64")


def contexts_of(cell: RunContext, count: int):
    """A stage of so many contexts."""
    few = pipeline.render(cell, pipeline.read_prompts(cell), "train")
    rows = list(few.rows(Context))

    def write(folder: Path) -> dict:
        parts = -(-count // AT_ONCE)
        shards.missing_shards(folder, parts)
        for part in range(parts):
            places = range(part * AT_ONCE, min(count, (part + 1) * AT_ONCE))
            own = [dataclasses.replace(rows[place % len(rows)], prompt_id=f"prompt {place}") for place in places]
            shards.write_shard(folder, part, records.to_table(Context, own))
        shards.merge_shards(folder, parts)
        return {"account": dataclasses.asdict(Account(count, count))}

    return cell.make(cell.store.stage("contexts", {"rows": count}, uses=[few]), write)


class Peak:
    """The most memory that this process and the workers below it had while it was looked at, in MB."""

    def __init__(self) -> None:
        self.most, self._over = {"driver": 0.0, "worker": 0.0}, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        own = psutil.Process()
        while not self._over.wait(0.2):
            self._see("driver", own)
            for child in own.children(recursive=True):
                try:
                    if child.name().startswith("ray::ShardWork"):
                        self._see("worker", child)
                except psutil.NoSuchProcess:
                    continue

    def _see(self, who: str, process: psutil.Process) -> None:
        self.most[who] = max(self.most[who], process.memory_info().rss / 1e6)

    def end(self) -> dict[str, float]:
        self._over.set()
        self._thread.join()
        return self.most


if __name__ == "__main__":
    count, folder = int(sys.argv[1]), Path(sys.argv[2])
    words = (*WORDS, f"store.root={folder / 'store'}", "executor=ray", "executor.workers=1")
    cell = RunContext(composed(words), folder / "run")
    with cell.executor.opened():
        contexts = contexts_of(cell, count)
        peak = Peak()
        pairs = pipeline.make_pairs(cell, contexts, contexts)
        scored = pipeline.score(cell, pairs)
        print(json.dumps({"prompts": count, "scored": scored.notes["account"]["kept"], **peak.end()}))
