"""Sources of rows: files on this machine, a folder with a data set card, or a data set on the hub.

JSON, CSV and Parquet files are read here, so that a bad row is named by its file and number. What has a card
(README.md) or was saved by `datasets` is read by that library, which knows configurations and splits. A hub name
is first brought here as the snapshot of one commit: its data files and its card, never its code.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dlma.data import text
from dlma.errors import UserError, few

TABLES = (".csv", ".csv.gz", ".parquet")
SUFFIXES = (*text.SUFFIXES, *TABLES)
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LONGEST_CELL = 2**31 - 1  # characters; Python's own limit, 131072, is less than a long conversation
_TOGETHER = 1024  # rows of a Parquet file that are held at once
_SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves
# What Parquet can hold and Python cannot: text that is no UTF-8, dates and durations out of range, unknown time zones.
_NOT_IN_PYTHON = (ValueError, OverflowError, LookupError)
_DATA_FILES = [f"*{suffix}" for suffix in (*SUFFIXES, ".arrow", ".md")]


class Source:
    """One corpus as rows: `path` is a file, a folder or a hub name; see corpus.Corpus."""

    def __init__(
        self, path: str, *, revision: str, subset: str | None, split: str, only: Mapping[str, Any] | None
    ) -> None:
        self.path = path
        self.revision = revision
        self.subset = subset
        self.split = split
        self.only = only or {}
        self._commit: Path | None = None

    def fingerprint(self) -> str:
        """The commit of a hub's snapshot, else the sha256 over the bytes of the files."""
        if self._on_hub():
            return self._folder().name
        folder = self._folder()
        if folder.is_dir() and self._needs_datasets(folder):
            return _sha256(p for p in sorted(folder.rglob("*")) if p.is_file() and ".git" not in p.parts)
        return text.fingerprint(str(self._inner(folder)), suffixes=SUFFIXES)

    def rows(self) -> Iterator[tuple[str, dict]]:
        """(where, row) for each row that `only` leaves, in order; raises UserError where it leaves none."""
        found = False
        for where, row in self._rows():
            if all(_is(_value(where, row, name), value) for name, value in self.only.items()):
                found = True
                yield where, row
        if self.only and not found:
            wanted = ", ".join(f"{name}={value}" for name, value in self.only.items())
            raise UserError(f"{self.path}: no row has {wanted} (data.only)")

    def _rows(self) -> Iterator[tuple[str, dict]]:
        folder = self._folder()
        if folder.is_dir() and self._needs_datasets(folder):
            yield from self._by_datasets(folder)
            return
        for file in text.files_of(str(self._inner(folder)), suffixes=SUFFIXES):
            yield from rows_of(file)

    def _on_hub(self) -> bool:
        return is_on_hub(self.path)

    def _folder(self) -> Path:
        """The file or folder on this machine; a hub's snapshot is fetched once."""
        if not self._on_hub():
            return Path(self.path).expanduser()
        if self._commit is None:
            self._commit = snapshot(self.path, self.revision)
        return self._commit

    def _inner(self, folder: Path) -> Path:
        """A folder's subset, where it has one of that name."""
        if self.subset is None or not folder.is_dir():
            return folder
        if not (folder / self.subset).is_dir():
            raise UserError(f"subset={self.subset}: {folder} has no such folder, and no card that names it")
        return folder / self.subset

    def _needs_datasets(self, folder: Path) -> bool:
        return self._on_hub() or _has_card(folder) or _was_saved(folder)

    def _by_datasets(self, folder: Path) -> Iterator[tuple[str, dict]]:
        import datasets

        try:
            if _was_saved(folder):
                found = datasets.load_from_disk(str(folder))
                table = found[self.split] if isinstance(found, datasets.DatasetDict) else found
            else:
                table = datasets.load_dataset(str(folder), split=self.split, streaming=True, **self._part(folder))
            yield from ((f"{self.path}, {self.split} row {n}", dict(row)) for n, row in enumerate(table, start=1))
        except (ValueError, KeyError, OSError, datasets.exceptions.DatasetsError) as reason:
            raise UserError(
                f"{self.path}: the split {self.split!r} of {self.subset or 'its default subset'} does not load "
                f"({_first(reason)}); hub_split and subset choose others"
            ) from None

    def _part(self, folder: Path) -> dict:
        if self.subset is None:
            return {}
        return {"data_dir": self.subset} if (folder / self.subset).is_dir() else {"name": self.subset}


def _has_card(folder: Path) -> bool:
    """Whether a folder's README.md is a data set card: it begins with settings between lines of dashes."""
    page = folder / "README.md"
    return page.is_file() and page.read_bytes().removeprefix(b"\xef\xbb\xbf").startswith(b"---")


def _value(where: str, row: Mapping, name: str) -> object:
    try:
        return text.column(row, name)
    except UserError as error:
        raise UserError(f"{where}: {error} (data.only)") from None


def _is(found: object, wanted: object) -> bool:
    """Whether a value is the one that is wanted; a table of text has its own spelling of true and false."""
    told, asked = str(found), str(wanted)
    return told.casefold() == asked.casefold() if isinstance(wanted, bool) else told == asked


def is_on_hub(path: str) -> bool:
    """Whether a path names a data set on the hub: nothing here, and `owner/name` without a file's ending."""
    here = Path(path).expanduser().exists()
    return not here and bool(_HUB_NAME.fullmatch(path)) and not path.endswith(SUFFIXES)


def rows_of(file: Path) -> Iterator[tuple[str, dict]]:
    """(where, row) for each row of a JSON, CSV or Parquet file."""
    if file.name.endswith((".csv", ".csv.gz")):
        return _csv_rows(file)
    return _parquet_rows(file) if file.suffix == ".parquet" else text.rows_of(file)


def _csv_rows(file: Path) -> Iterator[tuple[str, dict]]:
    """A header and rows of text; an empty cell is null."""
    content = text.unpacked(file)
    try:
        lines = io.StringIO(content.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8; save the file in that encoding") from None
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        if not header:
            raise UserError(f"{file}: the file is empty")
        _refuse_doubles(file, header)
        for number, cells in enumerate((cells for cells in reader if cells), start=1):
            where = f"{file}, row {number}"
            if len(cells) != len(header):
                raise UserError(f"{where}: {len(cells)} cells under {len(header)} column names")
            yield where, {name: cell or None for name, cell in zip(header, cells, strict=True)}
    except csv.Error as reason:
        raise UserError(f"{file}, line {reader.line_num}: not CSV ({reason})") from None


def _parquet_rows(file: Path) -> Iterator[tuple[str, dict]]:
    try:
        table = pq.ParquetFile(file)
        _refuse_doubles(file, table.schema_arrow.names)
        found = (row for batch in table.iter_batches(_TOGETHER) for row in batch.to_pylist())
        yield from ((f"{file}, row {number}", row) for number, row in enumerate(found, start=1))
    except (pa.ArrowException, OSError, *_NOT_IN_PYTHON) as reason:
        raise UserError(f"{file}: not a readable Parquet file ({_first(reason)})") from None


def _refuse_doubles(file: Path, columns: list[str]) -> None:
    """Of two columns of one name a row would keep the later one."""
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise UserError(
            f"{file}: several columns are named {few([repr(name) for name in twice])}; rename or remove one"
        )


def _was_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _SAVED)


def _sha256(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def snapshot(path: str, revision: str) -> Path:
    """The folder of a data set's commit in the hub's cache; raises UserError when it cannot be had."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, repo_type="dataset", revision=revision, allow_patterns=_DATA_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as reason:
        raise UserError(
            f"{path}: neither a file or folder here nor a data set on the hub that could be fetched "
            f"({_first(reason)}); without a network, fetch it elsewhere by `hf download {path} --repo-type dataset "
            f"--revision {revision} --local-dir FOLDER` and give FOLDER as its path; a gated one needs `hf auth login`"
        ) from None


def _first(reason: BaseException) -> str:
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0]
