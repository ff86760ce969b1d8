"""Where rows come from: one content in every kind of file, folder, saved data set and hub snapshot is one corpus."""

import csv
import gzip
import io
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlma.data.sources import Source
from dlma.errors import UserError

ROWS = [
    {"prompt": "naïve {x}\nand, more", "category": "Odd", "chosen": "yes", "rejected": "no"},
    {"prompt": '"quoted"', "category": None, "chosen": None, "rejected": None},
    {"prompt": "  three", "category": "Odd", "chosen": "a", "rejected": "b"},
]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def source(path, revision="main", subset=None, split="train", only=None):
    return Source(str(path), revision=revision, subset=subset, split=split, only=only)


def rows(*args, **options):
    return [row for _, row in source(*args, **options).rows()]


def as_csv(records):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().encode()


def as_lines(records):
    return "".join(json.dumps(row) + "\n" for row in records).encode()


def test_every_kind_of_file_holds_the_same_rows(tmp_path):
    contents = {
        "a.jsonl": as_lines(ROWS),
        "a.jsonl.xz": lzma.compress(as_lines(ROWS)),
        "a.csv": as_csv(ROWS),
        "b.csv": b"\xef\xbb\xbf" + as_csv(ROWS),
        "a.csv.gz": gzip.compress(as_csv(ROWS), mtime=0),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=1)
    for path in tmp_path.iterdir():
        assert rows(path) == ROWS, path.name
    assert rows(tmp_path) == ROWS * 6


def test_a_row_is_named_by_its_file_and_number(tmp_path):
    (tmp_path / "a.csv").write_bytes(as_csv(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=2)
    for name in ("a.csv", "a.parquet"):
        path = tmp_path / name
        assert [where for where, _ in source(path).rows()] == [f"{path}, row {n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"", ": the file is empty"),
        ("x.csv", b"prompt,category\na,b\nc\n", ", row 2: 1 cells under 2 column names"),
        ("x.csv", b'prompt\n"a\n', ", line 2: not CSV"),
        ("x.csv", "prompt\nnaïve\n".encode("latin-1"), ": not UTF-8"),
        ("x.csv.gz", gzip.compress(b"prompt\na\n" * 99, mtime=0)[:-9], ": the gzip data is damaged"),
        ("x.parquet", b"PAR1", ": not a readable Parquet file"),
    ],
)
def test_an_unreadable_file_gives_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        rows(path)
    assert str(caught.value).startswith(f"{path}{message}") and "\n" not in str(caught.value)


def test_a_subset_is_a_folder_and_an_unknown_one_is_named(tmp_path):
    for name in ("harmless", "helpful"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_bytes(as_lines([{"prompt": name}]))
    assert rows(tmp_path, subset="helpful") == [{"prompt": "helpful"}]
    assert source(tmp_path, subset="helpful").fingerprint() != source(tmp_path, subset="harmless").fingerprint()
    with pytest.raises(UserError, match=r"^subset=other: .* has no such folder"):
        rows(tmp_path, subset="other")


def test_only_rows_with_these_values_are_read_whatever_spells_them(tmp_path):
    records = [{"prompt": str(n), "style": "base" if n % 2 else "slang", "number": n % 3} for n in range(12)]
    (tmp_path / "a.jsonl").write_bytes(as_lines(records))
    (tmp_path / "a.csv").write_bytes(as_csv(records))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        found = rows(tmp_path / name, only={"style": "base", "number": 1})
        assert [row["prompt"] for row in found] == ["1", "7"], name
    truths = [{"prompt": str(n), "safe": word} for n, word in enumerate(("true", "True", "FALSE", "1"))]
    (tmp_path / "b.csv").write_bytes(as_csv(truths))
    (tmp_path / "b.jsonl").write_bytes(as_lines([{**row, "safe": n < 2} for n, row in enumerate(truths)]))
    for name in ("b.csv", "b.jsonl"):
        assert [row["prompt"] for row in rows(tmp_path / name, only={"safe": True})] == ["0", "1"], name
    with pytest.raises(UserError, match=r"no row has style=none \(data\.only\)"):
        rows(tmp_path / "a.csv", only={"style": "none"})
    with pytest.raises(UserError, match=r"a\.csv, row 1: no column 'tone'.* \(data\.only\)"):
        rows(tmp_path / "a.csv", only={"tone": "base"})


def test_a_split_of_parquet_files_is_found_by_its_folder_without_a_card(tmp_path):
    """As the hub converts a data set: SUBSET/SPLIT/0000.parquet."""
    for name in ("harmless", "helpful"):
        path = tmp_path / name / "test" / "0000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([{"targets": {"choices": [name, "x"], "labels": [1, 0]}}]), path)
    (tmp_path / "README.md").write_text("")  # such a folder has none; with one it is read as a hub's snapshot is
    (row,) = rows(tmp_path, subset="helpful", split="test")
    assert row == {"targets": {"choices": ["helpful", "x"], "labels": [1, 0]}}


def test_a_folder_whose_page_is_no_card_is_all_its_files(tmp_path):
    for name in ("train", "more"):
        (tmp_path / f"{name}.jsonl").write_bytes(as_lines([{"prompt": name}]))
    (tmp_path / "README.md").write_text("# Notes\n\n---\n")
    assert sorted(prompts(tmp_path)) == ["more", "train"]


def with_card(folder):
    """A data set as the hub holds it: a card that names its configurations and splits."""
    for name, text in (("one/train", "a"), ("one/test", "b"), ("two/train", "c")):
        path = folder / "data" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_lines([{"prompt": text}, {"prompt": text * 2, "messages": [{"role": "user"}]}]))
    configs = [
        {
            "config_name": name,
            "data_files": [{"split": s, "path": f"data/{name}/{s}.jsonl"} for s in splits],
            **({"default": True} if name == "one" else {}),
        }
        for name, splits in (("one", ("train", "test")), ("two", ("train",)))
    ]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n# About\n")
    return folder


def prompts(*args, **options):
    return [row["prompt"] for row in rows(*args, **options)]


def test_a_folder_with_a_card_is_read_by_its_configurations_and_splits(tmp_path):
    folder = with_card(tmp_path / "set")
    assert prompts(folder) == ["a", "aa"]
    assert prompts(folder, split="test") == ["b", "bb"]
    assert prompts(folder, subset="two") == ["c", "cc"]
    assert prompts(folder, subset="data/two") == ["c", "cc"]
    for wrong in ({"split": "dev"}, {"subset": "three"}):
        with pytest.raises(UserError, match=r"does not load .* hub_split and subset choose others") as caught:
            prompts(folder, **wrong)
        assert "\n" not in str(caught.value)


def test_a_saved_data_set_is_read_back(tmp_path):
    import datasets

    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(tmp_path / "alone")
    datasets.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(tmp_path / "both")
    assert rows(tmp_path / "alone") == rows(tmp_path / "both") == ROWS
    assert rows(tmp_path / "both", split="test") == ROWS[:1]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache that holds one commit of a data set; there is no network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "datasets--someone--some-set"
    with_card(place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)


def test_a_hub_name_is_one_commit_and_is_known_by_it(hub):
    assert source("someone/some-set").fingerprint() == COMMIT
    assert prompts("someone/some-set") == ["a", "aa"]
    assert prompts("someone/some-set", revision=COMMIT, subset="two") == ["c", "cc"]


@pytest.mark.parametrize(("path", "revision"), [("someone/some-set", "other"), ("someone/another", "main")])
def test_what_is_not_here_and_cannot_be_fetched_gives_one_line_that_says_what_to_do(hub, path, revision):
    with pytest.raises(UserError) as caught:
        prompts(path, revision=revision)
    line = str(caught.value)
    assert line.startswith(f"{path}: neither a file or folder here nor a data set on the hub")
    assert f"hf download {path} --repo-type dataset --revision {revision} --local-dir FOLDER" in line
    assert "\n" not in line


@pytest.mark.parametrize("path", ["missing.jsonl", "some/missing.jsonl", "a/b/c", "./here", "nowhere"])
def test_what_cannot_be_a_hub_name_is_a_missing_file(path):
    with pytest.raises(UserError, match=f"^{Path(path)}: no such file or folder"):
        rows(path)
