"""What the tests of the store share: rows, writers, and ways to do harm."""

import os
import resource
from contextlib import contextmanager

import pyarrow as pa

from dlma.store import shards

ROWS = pa.table({"id": ["a", "b", "c"], "ids": [[1, 2], [], [3]], "logp": [-1.5, None, 0.25]})


def write_rows(folder):
    shards.write_table(folder / "rows.parquet", ROWS)


def write_policy(folder):
    (folder / "policy").mkdir(exist_ok=True)
    (folder / "policy" / "model.safetensors").write_bytes(b"weights")
    (folder / "policy" / "config.json").write_text("{}")
    (folder / "train.csv").write_text("step,loss\n")


def never(folder):
    raise AssertionError("work was done twice")


def spoil(path, at=5):
    """Flips one bit and keeps size and mtime, as a failing disk would."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@contextmanager
def no_larger_than(size):
    """In the block no file of this process grows beyond `size` bytes: a full disk for whom it is written (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def seen_by_new_process(monkeypatch):
    monkeypatch.setattr("dlma.store.stage._verified", set())
