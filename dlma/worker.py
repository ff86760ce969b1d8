"""The process of a rank above 0: `python -m dlma.worker`, which only dlma/launch.py starts.

Orders come as JSON lines on the standard input, the first with the config; when the input ends, so does the process.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path


def main() -> int:
    """Follow one run to its end; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the leader too, which ends its followers
    voice, sys.stdout = sys.stdout, sys.stderr
    first = json.loads(sys.stdin.readline())
    orders: queue.Queue = queue.Queue()
    over = threading.Event()
    threading.Thread(target=_listen, args=(orders, over), daemon=True).start()

    from omegaconf import OmegaConf

    from dlma import pipeline
    from dlma.errors import UserError
    from dlma.launch import READY, WorkerContext
    from dlma.trainer import collectives

    cell = WorkerContext(OmegaConf.create(first["cfg"]), Path(first["folder"]), orders)
    print(READY, file=voice, flush=True)
    try:
        gpu = cell.cfg.trainer.accelerator == "gpu"
        collectives.join(first["number"], first["processes"], first["port"], gpu=gpu)
        pipeline.stages(cell)
    except UserError as reason:
        print(f"error: {reason}", file=sys.stderr, flush=True)
        return 2
    over.set()
    collectives.leave()
    return 0


def _listen(orders: queue.Queue, over: threading.Event) -> None:
    """Hand the orders on; when there will be no more, the leader is gone or done."""
    for line in sys.stdin:
        orders.put(json.loads(line))
    if not over.wait(5):
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
