"""What a sweep survives, part by part; each must end with the bytes of an undisturbed one.

python tests/kit/torture.py [--short] [--only PART ...] [--PART N ...]
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":  # started by hand: the package is on pytest's path only
    sys.path[:0] = [str(Path(__file__).parents[2])]

from torture_disks import full, read_only
from torture_harm import damage
from torture_moments import clock, crowd, kills, terms
from torture_runs import runs
from torture_sweep import Calm, Part, calm_in

# How many of each by default, and in the short form; 1 or 0 where a part is all or nothing. The longest come first.
PARTS: dict[str, tuple[int, int, str, Callable[[Path, Calm, int], Part]]] = {
    "damages": (1000, 4, "harms to files of every kind", damage),
    "kills": (100, 3, "SIGKILLs in every stage and while stages and run folders are published", kills),
    "runs": (200, 8, "runs in one process", lambda here, calm, count: runs(here, count)),
    "terms": (14, 1, "stages in which SIGTERM comes", terms),
    "full": (14, 1, "stages in which the disk is full", full),
    "closed": (1, 1, "read-only store and run folders", lambda here, calm, _: read_only(here, calm)),
    "clock": (1, 0, "a clock that is set back", lambda here, calm, _: clock(here, calm)),
    "processes": (4, 2, "processes at once on one store", crowd),
}


def main(argv: list[str]) -> int:
    """Run the parts; prints a line for each, then what was found. Gives 1 when anything was."""
    asked = _asked(argv)
    here, faults = Path(tempfile.mkdtemp(prefix="torture")), []
    began = time.monotonic()
    calm = calm_in(here / "calm")
    print(f"undisturbed: {len(calm.stages)} stages, {len(calm.results)} results in {_since(began)}", flush=True)
    wanted = [name for name in PARTS if getattr(asked, name) and name in (asked.only or PARTS)]

    def run(name: str) -> list[str]:
        start = time.monotonic()
        done = PARTS[name][3](here, calm, getattr(asked, name))
        told = [f"{name}: {done.did}; {len(done.faults)} faults, {_since(start)}", *(f"  {one}" for one in done.faults)]
        print("\n".join(told), flush=True)
        return done.faults

    with ThreadPoolExecutor(asked.cores) as pool:  # the longest first
        faults += [line for found in pool.map(run, wanted) for line in found]
    print(f"{len(faults)} faults in {_since(began)}" if faults else f"all as undisturbed, in {_since(began)}")
    if faults:
        print(f"what was left: {here}")
    else:
        shutil.rmtree(here)
    return 1 if faults else 0


def _asked(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a few of each")
    parser.add_argument("--cores", type=int, default=2, help="parts at once (2)")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="only these parts")
    short = "--short" in argv
    for name, (many, few, what, _) in PARTS.items():
        parser.add_argument(f"--{name}", type=int, default=few if short else many, metavar="N", help=f"{what} ({many})")
    return parser.parse_args(argv)


def _since(start: float) -> str:
    return f"{time.monotonic() - start:.0f} s"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
