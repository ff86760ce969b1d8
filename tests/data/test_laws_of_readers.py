"""Laws of the readers: whatever a file or a row holds, it is read as it was written or refused in one line.

The same law is driven by coverage, for as long as one likes, in benchmarks/fuzz_readers.py.
"""

import csv
import gzip
import io
import json
import lzma
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dlma import records
from dlma.data.alpaca import Alpaca
from dlma.data.choices import Choices
from dlma.data.corpus import Corpus
from dlma.data.hh import HH
from dlma.data.jsonl import Columns
from dlma.data.pku_saferlhf import PkuSafeRlhf
from dlma.data.sources import SUFFIXES, rows_of
from dlma.data.split import read_prompts
from dlma.data.text import BadRow, Tally, check_prompt, is_blank
from dlma.errors import UserError
from dlma.records import Prompt, Turn

FORMATS = {
    "columns": Columns(prompt_column="prompt", category_column="category", category=None),
    "hh": HH(),
    "pku": PkuSafeRlhf(prefer="safer"),
    "alpaca": Alpaca(),
    "choices": Choices(prompt_column="prompt", category_column="category", category=None),
}
NAMES = [
    *("prompt", "messages", "chosen", "rejected", "category", "context", "role", "content", "text", "type", "system"),
    *("response_0", "response_1", "safer_response_id", "instruction", "input", "output", "tool_calls", "thinking"),
    *("targets", "choices", "labels"),
]
WORDS = ["user", "assistant", "human", "\n\nHuman: a\n\nAssistant: b", "\n\nHuman:", "Assistant:", "text", "", " ", "a"]
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=12)  # lone surrogates too, which JSON can spell
TEXT = st.sampled_from(WORDS) | ANY_TEXT
LEAF = TEXT | st.none() | st.booleans() | st.integers(-2, 2) | st.integers() | st.floats()


def rows_over(inner):
    return st.dictionaries(st.sampled_from(NAMES) | ANY_TEXT, inner, max_size=5)


TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "human"]) | LEAF, "content": LEAF, "text": LEAF},
    optional={"tool_calls": LEAF},
)
JSON = st.recursive(LEAF, lambda inner: st.lists(inner | TURN, max_size=3) | rows_over(inner), max_leaves=8)
ROW = rows_over(JSON | TURN | st.lists(TURN, max_size=3))
GOOD_ROWS = [
    {"prompt": "one", "chosen": "a", "rejected": "b"},
    {"messages": [{"role": "user", "content": "two"}]},
    {"chosen": "\n\nHuman: x\n\nAssistant: y", "rejected": "\n\nHuman: x\n\nAssistant: z"},
    {"context": [{"role": "human", "text": "q"}], "chosen": {"role": "assistant", "text": "a"}, "rejected": None},
]


def one_line(reason):
    line = str(reason)
    assert line.strip() and len(line.splitlines()) == 1 and len(line) < 2000
    return line


# --- any row


@settings(max_examples=400)
@given(st.sampled_from(sorted(FORMATS)), ROW)
@example("columns", {"\n": 1})
@example("columns", {"prompt": "a", "category": "\ud800"})
@example("choices", {"prompt": "a", "chosen": ["b", "c"], "rejected": ["d"]})
@example("pku", {"prompt": "a", "response_0": "b", "response_1": "c", "safer_response_id": list(range(999))})
def test_any_row_is_a_prompt_or_a_reason_in_one_line(name, row):
    try:
        found = FORMATS[name].found(row)
        found = found[0] if isinstance(found, list) else found
        check_prompt(found.turns)
    except (BadRow, UserError) as reason:
        one_line(reason)
        return
    kept = Prompt("id", found.turns, "train", found.category, found.chosen, found.rejected)
    table = records.to_table(Prompt, [kept])
    out = io.BytesIO()
    pq.write_table(table, out)  # what a reader gives can be stored
    assert records.from_table(Prompt, pq.read_table(out)) == [kept]
    assert kept.turns[-1].role == "user" and {turn.role for turn in kept.turns} <= {"user", "assistant"}


@settings(max_examples=100)
@given(st.lists(ROW | st.sampled_from(GOOD_ROWS), max_size=6), st.sampled_from(["drop", "error"]))
def test_every_row_of_a_file_is_kept_or_counted(rows, on_bad_row):
    tally = Tally(on_bad_row=on_bad_row, max_dropped=1.0)
    shares = {"max_words": 5, "max_prompts": None, "validation_share": 0.1, "test_share": 0.2}
    numbered = [(f"row {number}", row) for number, row in enumerate(rows, start=1)]
    try:
        found, account = read_prompts(lambda: numbered, FORMATS["columns"].found, tally, source="file", **shares)
        prompts = list(found)
    except UserError as reason:
        assert one_line(reason).startswith(("row ", "file: "))
        return
    assert account.read == len(rows) == len(prompts) + sum(account.dropped.values())
    assert len({prompt.id for prompt in prompts}) == account.kept == len(prompts)


# --- any bytes


def as_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows):
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerows([list(rows[0]), *([row[name] for name in rows[0]] for row in rows)])
    return out.getvalue().encode()


def as_parquet(rows):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in rows[0]])), out)
    return out.getvalue()


WRITERS = {
    ".jsonl": as_lines,
    ".jsonl.gz": lambda rows: gzip.compress(as_lines(rows), mtime=0),
    ".jsonl.xz": lambda rows: lzma.compress(as_lines(rows)),
    ".json": lambda rows: json.dumps(rows, ensure_ascii=False, indent=1).encode(),
    ".csv": as_csv,
    ".csv.gz": lambda rows: gzip.compress(as_csv(rows), mtime=0),
    ".parquet": as_parquet,
}
WHOLE = [write([{"prompt": "one", "chosen": "é"}, {"prompt": "two", "chosen": ""}]) for write in WRITERS.values()]


@st.composite
def damaged(draw):
    """A sound file with bytes put over it somewhere, and perhaps an end cut off."""
    content = draw(st.sampled_from(WHOLE))
    start = draw(st.integers(0, len(content)))
    content = content[:start] + draw(st.binary(max_size=4)) + content[start + draw(st.integers(0, 4)) :]
    return content[: draw(st.integers(0, len(content)) | st.just(len(content)))]


def read(content, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{suffix}"
        path.write_bytes(content)
        return [row for _, row in rows_of(path)]


CONTENT = st.binary(max_size=60) | damaged() | JSON.map(lambda value: json.dumps(value).encode())


@settings(max_examples=400)
@given(CONTENT, st.sampled_from(SUFFIXES))
def test_any_bytes_are_rows_or_one_line_that_names_the_file(content, suffix):
    try:
        rows = read(content, suffix)
    except UserError as reason:
        assert f"rows{suffix}" in one_line(reason)
        return
    assert all(isinstance(row, dict) for row in rows)


def wrong_text():
    """A column of text whose bytes are no UTF-8, which Parquet does not look at."""
    offsets = pa.array([0, 2], pa.int32()).buffers()[1]
    return pa.table({"prompt": pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])})


def doubled():
    inner = pa.StructArray.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["x", "x"])
    return pa.table({"prompt": inner})


@pytest.mark.parametrize(
    "table",
    [
        wrong_text,
        doubled,
        lambda: pa.table({"prompt": pa.array([2**30], pa.date32())}),
        lambda: pa.table({"prompt": pa.array([2**62], pa.duration("s"))}),
        lambda: pa.table({"prompt": pa.array([0], pa.timestamp("s", tz="Nowhere/Land"))}),
    ],
    ids=["text", "doubled", "date", "duration", "zone"],
)
def test_a_value_that_parquet_can_hold_and_python_cannot_is_one_line(table):
    out = io.BytesIO()
    pq.write_table(table(), out)
    with pytest.raises(UserError, match=r"rows\.parquet: not a readable Parquet file"):
        read(out.getvalue(), ".parquet")


# --- what was written is read

CELL = st.text(max_size=10).filter(lambda text: "\x00" not in text)
HEADS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=3, unique=True)


@settings(max_examples=80)
@given(HEADS.flatmap(lambda heads: st.lists(st.fixed_dictionaries({head: CELL for head in heads}), min_size=1)))
def test_a_row_that_was_written_is_read_back_as_itself(rows):
    assume(not next(iter(rows[0])).startswith("\ufeff"))  # to a reader the mark of UTF-8
    for suffix, write in WRITERS.items():
        emptied = [{name: cell or None for name, cell in row.items()} for row in rows]  # CSV has no empty text
        assert read(write(rows), suffix) == (emptied if suffix.startswith(".csv") else rows), suffix


def test_a_cell_of_any_length_is_read():
    rows = [{"prompt": "a" * 200_000}]
    assert all(read(write(rows), suffix) == rows for suffix, write in WRITERS.items())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_two_columns_of_one_name_are_refused(suffix):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"]), out)
    content = {".csv": b"prompt,prompt\na,b\n", ".parquet": out.getvalue()}[suffix]
    with pytest.raises(UserError, match=f"rows{suffix}: several columns are named 'prompt'; rename or remove one"):
        read(content, suffix)


# --- a conversation is the same in every format

SAID = st.text(min_size=1, max_size=10).map(str.strip).filter(lambda text: not is_blank(text))
PLAIN = SAID.filter(lambda text: "Human:" not in text and "Assistant:" not in text)


def chat(turns, role="role", text="content", user="user"):
    return [{role: user if i % 2 == 0 else "assistant", text: content} for i, content in enumerate(turns)]


def as_hh(turns):
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {content}" for i, content in enumerate(turns))


def written(turns, good, bad):
    """The same conversation and pair in every format that can hold it, with the format's reader."""
    yield "columns", {"prompt": chat(turns), "chosen": good, "rejected": bad}
    yield "columns", {"messages": chat(turns), "chosen": chat([*turns, good]), "rejected": chat([*turns, bad])}
    yield "columns", {"chosen": chat([*turns, good]), "rejected": chat([*turns, bad])}
    yield "columns", {"prompt": as_hh(turns), "chosen": good, "rejected": bad}
    yield "hh", {"chosen": as_hh([*turns, good]), "rejected": as_hh([*turns, bad])}
    answers = [{"role": "assistant", "text": text} for text in (good, bad)]
    yield "hh", {"context": chat(turns, text="text", user="human"), "chosen": answers[0], "rejected": answers[1]}
    if len(turns) == 1:
        yield "pku", {"prompt": turns[0], "response_0": bad, "response_1": good, "safer_response_id": 1}


@settings(max_examples=150)
@given(st.lists(PLAIN, min_size=1, max_size=5).filter(lambda turns: len(turns) % 2), PLAIN, PLAIN)
def test_a_conversation_and_its_pair_are_the_same_in_every_format(turns, good, bad):
    wanted = [Turn(("user", "assistant")[i % 2], content) for i, content in enumerate(turns)]
    for name, row in written(turns, good, bad):
        found = FORMATS[name].found(row)
        assert (found.turns, found.chosen, found.rejected) == (wanted, good, bad), row


@given(SAID, st.none() | SAID, SAID)
def test_an_instruction_is_read_with_its_input_and_answer(instruction, given_, output):
    found = Alpaca().found({"instruction": instruction, "input": given_, "output": output})
    (turn,) = found.turns
    assert turn.content == (instruction if given_ is None else f"{instruction} {given_}")
    assert (turn.role, found.chosen, found.rejected) == ("user", output, None)


def test_a_corpus_drops_what_it_cannot_store(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(as_lines([{"prompt": f"q{i}", "category": c} for i, c in enumerate("ab\ud800")]))
    limits = {"max_words": None, "max_prompts": None, "validation_share": 0.0, "test_share": 0.3}
    corpus = Corpus(
        path=str(tmp_path / "a.jsonl"), revision="main", subset=None, hub_split="train", format=FORMATS["columns"],
        only=None, every_pair=False, on_bad_row="drop", max_dropped=0.5, **limits,
    )  # fmt: skip
    prompts, account = corpus.read()
    assert [prompt.category for prompt in prompts] == ["a", "b"] and account.dropped == {"broken Unicode": 1}
