"""Two hosts on one machine: network namespaces with an address and a name each, a wire between them, one shared folder.

`python tests/kit/two_hosts.py FOLDER` starts a run of the lab by torchrun over both, has one host vanish while the run
samples and while it trains, takes the run up again each time, and compares what comes out with a run of one process.
Root alone may make namespaces, with iproute2.
"""

from __future__ import annotations

import csv
import itertools
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
WIRE, PORT = "wire", 29_400
SIZES = ("data.train=96", "data.validation=2", "data.test=16", "recipe.max_new_tokens=24", "recipe.epochs=2")
OPTIONS = (*SIZES, "recipe.batch_pairs=8", "trainer.shard_rows=4", "trainer.threads=1", "trainer.checkpoint_steps=2")
SAMPLING, TRAINING = "sampling", "training"  # moments: some shards of the pairs are there; some steps are done
SHARDS = 24  # of 96 prompts, four in each
RETRIES = 5  # times that a packet is sent again before a connection is given up: about 13 seconds
WITHIN = 30.0  # seconds from a host's end to that of the run


def impossible() -> str:
    """Why there cannot be two hosts here; nothing where there can."""
    if os.geteuid() or shutil.which("ip") is None:
        return "network namespaces are made by root, with iproute2"
    name = f"dlma-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if not made.returncode:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return made.stderr.strip()


_made = itertools.count()


class Host:
    """One of the two; the first holds the store in which both meet."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.space = f"dlma-{os.getpid()}-{next(_made)}"
        self.name = f"host{number}"
        self.address = f"10.211.7.{number + 1}"

    def call(self, *words: str) -> str:
        """What a command says that is run on this host."""
        return ip("netns", "exec", self.space, *words)

    def start(self, command: list[str], folder: Path, log: Path) -> subprocess.Popen:
        """A command on this host, in a folder that both share."""
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name, *command]
        own = {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": WIRE, "OMP_NUM_THREADS": "1"}
        with log.open("wb") as said:
            words = ["ip", "netns", "exec", self.space, *named]
            return subprocess.Popen(words, cwd=folder, env=os.environ | own, stdout=said, stderr=subprocess.STDOUT)

    def vanish(self) -> None:
        """As when the power goes: nothing leaves the wire any more, no process closes a connection."""
        self.call("ip", "link", "set", WIRE, "down")
        for number in map(int, ip("netns", "pids", self.space).split()):
            os.kill(number, signal.SIGKILL)

    def come_back(self) -> None:
        self.call("ip", "link", "set", WIRE, "up")

    def sent(self) -> int:
        """Bytes that have left over the wire."""
        return int(self.call("cat", f"/sys/class/net/{WIRE}/statistics/tx_bytes"))


@contextmanager
def two_hosts() -> Iterator[list[Host]]:
    """Both hosts, connected; nothing of them is left after the block."""
    hosts = [Host(0), Host(1)]
    try:
        for host in hosts:
            ip("netns", "add", host.space)
        ends = [word for host in hosts for word in ("name", WIRE, "netns", host.space, "peer")][:-1]
        ip("link", "add", *ends[:4], "type", "veth", *ends[4:])
        for host in hosts:
            host.call("ip", "address", "add", f"{host.address}/24", "dev", WIRE)
            for device in ("lo", WIRE):
                host.call("ip", "link", "set", device, "up")
            # torchrun asks the first host's store, and without it would wait as long as Linux sends again: 15 minutes
            host.call("sysctl", "-w", f"net.ipv4.tcp_retries2={RETRIES}")
        yield hosts
    finally:
        for host in hosts:
            listed = subprocess.run(["ip", "netns", "pids", host.space], capture_output=True, text=True)
            for number in map(int, listed.stdout.split()):
                os.kill(number, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", host.space], capture_output=True)


def ip(*words: str) -> str:
    """What iproute2 says."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Run:
    """A run by torchrun over both hosts, with one process on each."""

    def __init__(self, hosts: list[Host], folder: Path, *options: str, restarts: int = 0) -> None:
        self.hosts, self.folder, self.options, self.restarts = hosts, folder, options, restarts
        self.logs = [folder / f"{host.name}.log" for host in hosts]
        self.processes = [self.start(host) for host in hosts]

    def start(self, host: Host) -> subprocess.Popen:
        """torchrun on one host."""
        meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={self.hosts[0].address}:{PORT}", "--rdzv-id=two"]
        own = [f"--rdzv-conf=is_host={1 - host.number}", f"--local-addr={host.address}"]
        size = ["--nnodes=2", "--nproc-per-node=1", f"--max-restarts={self.restarts}"]
        command = [str(Path(sys.executable).with_name("torchrun")), *size, *meeting, *own, str(ROOT / "run.py")]
        return host.start([*command, *OPTIONS, *self.options], self.folder, self.logs[host.number])

    def said(self) -> str:
        """What the run has said so far; only its first process speaks."""
        return "".join(log.read_text(errors="replace") for log in self.logs)

    def until(self, moment: str) -> None:
        """Return in the middle of it."""
        while not self.is_in(moment):
            if any(process.poll() is not None for process in self.processes):
                raise RuntimeError(f"the run ended before it was seen {moment}:\n{self.said()}")
            time.sleep(0.02)

    def is_in(self, moment: str) -> bool:
        """Of sampling: a shard is there, and not all of them."""
        if moment == TRAINING:
            return re.search(r" train: .* [1-9][\d.k]*/", self.said()) is not None
        return 0 < sum(1 for _ in self.folder.glob("store*/pairs/*/scratch/*/*.parquet")) < SHARDS

    def codes(self, seconds: float) -> list[int]:
        """The exit codes of both hosts' torchrun, which are to end within so many seconds."""
        until = time.monotonic() + seconds
        return [process.wait(max(0.1, until - time.monotonic())) for process in self.processes]


def one_process(folder: Path) -> Path:
    """The folder of a run of one process."""
    command = [sys.executable, str(ROOT / "run.py"), *OPTIONS, "hydra.run.dir=one", "store.root=store-of-one"]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    return folder / "one"


def differences(one: Path, two: Path) -> list[str]:
    """In what the run of two processes is not that of one: bytes of what is not trained, losses up to rounding."""
    found = [name for name in ("prompts", "pairs", "scored") if _bytes(one, name) != _bytes(two, name)]
    rows = [pq.read_table(folder / "answers.parquet").to_pylist() for folder in (one, two)]
    if not _untrained(rows[0]) or _untrained(rows[0]) != _untrained(rows[1]):
        found.append("answers of the untrained arms")
    curves = [list(csv.DictReader((folder / "train.csv").open())) for folder in (one, two)]
    steps = [(float(a["loss"]), float(b["loss"])) for a, b in zip(*curves, strict=True)]
    if not steps or not all(math.isclose(*losses, rel_tol=2e-4, abs_tol=2e-5) for losses in steps):
        found.append("losses")
    return found


def _bytes(folder: Path, name: str) -> bytes:
    return (folder / f"{name}.parquet").read_bytes()


def _untrained(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["arm"] != "aligned"]


def lose(hosts: list[Host], lost: int, folder: Path, at: str, *options: str) -> tuple[float, str]:
    """Have a host vanish in mid-run: the seconds until the other one's part has ended, and what was said until then."""
    run = Run(hosts, folder, *options)
    run.until(at)
    hosts[lost].vanish()
    began = time.monotonic()
    run.processes[1 - lost].wait(300)
    seconds = time.monotonic() - began
    hosts[lost].come_back()
    run.processes[lost].wait(10)
    return seconds, run.said()


def reasons(said: str) -> list[str]:
    """The lines in which a run says why it ended, each behind what its bar showed; torchrun repeats them, indented."""
    return re.findall(r"(?<!traceback : )error: .*", said)


def finish(hosts: list[Host], folder: Path, *options: str) -> int:
    """The same run to its end; the bytes that went over the wire."""
    before = sum(host.sent() for host in hosts)
    run = Run(hosts, folder, *options)
    if run.codes(900) != [0, 0]:
        raise RuntimeError(run.said())
    return sum(host.sent() for host in hosts) - before


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    one = one_process(folder)
    with two_hosts() as hosts:
        wire = finish(hosts, folder, "hydra.run.dir=whole", "store.root=store-whole")
        print(
            f"two hosts: differ from one process in {differences(one, folder / 'whole')}; {wire:,} bytes over the wire"
        )
        for lost in (1, 0):
            own = [f"hydra.run.dir=lost{lost}", f"store.root=store-{lost}"]
            for moment in (SAMPLING, TRAINING):
                seconds, said = lose(hosts, lost, folder, moment, *own)
                print(f"host {lost} vanished in mid-{moment}: ended after {seconds:.1f} s: {reasons(said)}", flush=True)
            finish(hosts, folder, *own)
            print(f"taken up again: differs from one process in {differences(one, folder / f'lost{lost}')}", flush=True)


if __name__ == "__main__":
    sys.exit(impossible() or main(Path(sys.argv[1]).absolute()))
