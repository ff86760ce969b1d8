"""A fuzz of the readers, driven by coverage and run by hand: any bytes are rows or one line.

    python -m venv --system-site-packages FUZZ && FUZZ/bin/pip install atheris     (no dependency of ours)
    FUZZ/bin/python -m benchmarks.fuzz_readers CORPUS -max_total_time=300 -timeout=20 -rss_limit_mb=4096

CORPUS is a folder that keeps what reached new code; a second run goes on from it. The first byte of an input chooses
the name of a file whose content is the rest, or says that the rest spells one row, value by value. It ends at the first
input that breaks the law, which it leaves as `crash-*`: give that file in place of CORPUS to see the traceback. What
came out stands in docs/promises.md.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dlma.data"]):
    from dlma.data.alpaca import Alpaca
    from dlma.data.choices import Choices
    from dlma.data.hh import HH
    from dlma.data.jsonl import Columns
    from dlma.data.pku_saferlhf import PkuSafeRlhf
    from dlma.data.sources import SUFFIXES, rows_of
    from dlma.data.text import check_prompt

from dlma.errors import BadRow, UserError

COLUMNS = {"prompt_column": "prompt", "category_column": "category"}
FORMATS = [Columns(**COLUMNS), Choices(**COLUMNS), HH(), PkuSafeRlhf(prefer="safer"), Alpaca()]
TURNS = [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}]
SEEDS = [
    {"prompt": "a", "category": "c", "chosen": "b", "rejected": TURNS[1:]},
    {"messages": TURNS[:1], "chosen": TURNS, "rejected": TURNS, "system": None},
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    {"context": [{"role": "human", "text": "a"}], "chosen": {"role": "assistant", "text": "b"}, "rejected": None},
    {"prompt": "a", "response_0": "b", "response_1": "c", "safer_response_id": 0},
    {"instruction": "a", "input": "b", "output": "c"},
]


def seeds() -> list[bytes]:
    """One input of every kind of file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = "".join(json.dumps(row) + "\n" for row in SEEDS).encode()
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"prompt": "a", "chosen": "b"}]), table)
    contents = {
        ".jsonl": lines,
        ".jsonl.gz": gzip.compress(lines, mtime=0),
        ".json.xz": lzma.compress(json.dumps(SEEDS).encode()),
        ".csv": b'prompt,chosen\n"a, b",c\n',
        ".parquet": table.getvalue(),
    }
    return [bytes([SUFFIXES.index(suffix)]) + content for suffix, content in contents.items()]


NAMES = sorted({name for row in SEEDS for name in row} | {"role", "content", "text", "type", "tool_calls", "input"})
TEXTS = ["user", "assistant", "human", "\n\nHuman: a\n\nAssistant: b", "\n\nHuman:", "text", "", " ", "\ud800", "\n"]


def drawn(source: atheris.FuzzedDataProvider, depth: int = 4) -> object:
    """A value as JSON has it."""
    kind = source.ConsumeIntInRange(0, 7 if depth else 5)
    if kind == 7:
        return [drawn(source, depth - 1) for _ in range(source.ConsumeIntInRange(0, 3))]
    if kind == 6:
        return drawn_row(source, depth - 1)
    match kind:
        case 0:
            return None
        case 1:
            return source.ConsumeBool()
        case 2:
            return source.ConsumeIntInRange(-2, 2)
        case 3:
            return source.ConsumeUnicode(8)
    return source.PickValueInList(TEXTS)


def drawn_row(source: atheris.FuzzedDataProvider, depth: int) -> dict[str, object]:
    names = (source.PickValueInList([*NAMES, source.ConsumeUnicode(3)]) for _ in range(source.ConsumeIntInRange(0, 5)))
    return {name: drawn(source, depth) for name in names}


def require_one_line(reason: Exception) -> None:
    line = str(reason)
    if not line.strip() or len(line.splitlines()) != 1:
        raise AssertionError(f"not one line: {line!r}") from reason


def read(data: bytes) -> None:
    """The rows of one input, by every format; raises where the law does not hold."""
    if data[0] < 128:
        path = FOLDER / f"rows{SUFFIXES[data[0] % len(SUFFIXES)]}"
        path.write_bytes(data[1:])
        rows = [row for _, row in rows_of(path)]
    else:
        rows = [drawn_row(atheris.FuzzedDataProvider(data[1:]), 4)]
    for row in rows:
        for format in FORMATS:
            try:
                found = format.found(row)
                check_prompt((found[0] if isinstance(found, list) else found).turns)
            except (BadRow, UserError) as reason:
                require_one_line(reason)


def one_input(data: bytes) -> None:
    try:
        if data:
            read(data)
    except UserError as reason:
        require_one_line(reason)


if __name__ == "__main__":
    given = next((Path(word) for word in sys.argv[1:] if not word.startswith("-")), None)
    if given is not None and not given.is_file():
        given.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate([*seeds(), b"\xff" * 200]):
            (given / f"seed-{number}").write_bytes(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        FOLDER = Path(folder)
        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()
