"""One of two processes that work together, for tests/trainer/test_ranks.py: `ranks_worker.py folder port what...`.

Each thing to do is done by a fork, with a port of its own: to import torch takes longer than all of them.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from omegaconf import OmegaConf

from dlma import stopping
from dlma.errors import UserError
from dlma.store.store import Store
from dlma.trainer import collectives, pulse, ranks

CFG = OmegaConf.create({"trainer": {"accelerator": "cpu"}})


def make_stages(ours, folder):
    """A stage that both work on, one of the first alone, and the first again; what they hold and who wrote it."""
    store = Store(folder / "store", writes=not ours.number)

    def work(place):
        (place / f"{ours.number}.txt").write_text("mine")
        return {"told": ours.same(lambda: f"by {ours.number}")}

    kinds = [("pairs", True), ("contexts", False), ("pairs", True)]
    made = [ours.make(store, store.stage(n, {}), work, config={}, together=both) for n, both in kinds]
    return [[stage.notes["told"], sorted(path.name for path in stage.folder.glob("*.txt"))] for stage in made]


def broken_off(ours, how, who):
    """One of the two ends in some way, while the other waits for it, or is busy."""
    if str(ours.number) != who:
        return time.sleep(60) if how == "silent-beside-a-busy" else ours.same(lambda: None)
    if how == "mistaken":
        raise UserError("data.path: has gone")
    if how == "at-fault":
        raise ZeroDivisionError("by 0")
    os.kill(os.getpid(), signal.SIGKILL)


def run(folder, what):
    """Do one thing, and leave what came of it in <what>.<rank>.json, with the seconds since both were there."""
    began = [time.monotonic()]

    def leave(**said):
        seconds = time.monotonic() - began[0]
        (folder / f"{what}.{os.environ['RANK']}.json").write_text(json.dumps({**said, "seconds": seconds}))

    try:
        with stopping.last_words(lambda *words: leave(words=words)), ranks.joined(CFG):
            ours = ranks.here()
            began[0] = time.monotonic()
            leave(made=make_stages(ours, folder) if what == "stages" else broken_off(ours, *what.split()))
    except Exception as error:
        leave(kind=type(error).__name__, text=str(error))


def main(folder, port, *things):
    pulse.SILENCE = 4.0
    assert collectives.world() == 1  # imported before the forks
    for place, what in enumerate(things):
        os.environ["MASTER_PORT"] = str(port + place)
        if not (child := os.fork()):
            run(folder, what)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
