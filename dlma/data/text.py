"""Files of rows, conversations in their common spellings, and the tally of rows that cannot be used.

Two kinds of trouble are kept apart. Unreadable input (no JSON, no column, a value of the wrong type) raises
`UserError` with the file and the row. A readable row that cannot be used (`BadRow`) is dropped and counted.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import re
import unicodedata
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

from dlma.errors import BadRow, UserError, few
from dlma.records import Account, Turn, content_id

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.xz", ".json", ".json.gz", ".json.xz")
_PART = 1 << 20  # bytes that are hashed at once
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp")
_BESIDE_A_TURN = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
_WRITTEN_CHAT = re.compile(r"""\s*\[\s*\{\s*(["'])(role|content|from|value)\1\s*:""")
_MARKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


class Tally:
    """Counts rows into an `Account`; a bad row is dropped, or stops the run when `on_bad_row` is "error"."""

    def __init__(self, *, on_bad_row: str, max_dropped: float) -> None:
        if on_bad_row not in ("drop", "error"):
            raise UserError(f"data.on_bad_row: {on_bad_row!r} is not one of drop, error")
        if not 0 <= max_dropped <= 1:
            raise UserError(f"data.max_dropped: {max_dropped} is not a share between 0 and 1")
        self.on_bad_row = on_bad_row
        self.max_dropped = max_dropped
        self.account = Account()
        self.bad = 0

    def drop(self, where: str, reason: str) -> None:
        """Count a row that cannot be used."""
        if self.on_bad_row == "error":
            raise UserError(f"{where}: {reason} (a row of a file is left out by data.on_bad_row=drop)")
        self.bad += 1
        self.account.drop(reason)

    def trim(self, where: str, reason: str) -> None:
        """Count a row that is kept in a shortened form."""
        if self.on_bad_row == "error":
            raise UserError(f"{where}: {reason} (a row of a file is shortened by data.on_bad_row=drop)")
        self.account.trim(reason)

    def skip(self, reason: str) -> None:
        """Count a good row that is left out on purpose (a duplicate, one beyond the limit)."""
        self.account.drop(reason)

    def stop_if_too_many(self, source: str, advice: str) -> None:
        """Stop when more than `max_dropped` of the rows read were bad, or when none is left."""
        reasons = ", ".join(f"{reason}: {n}" for reason, n in self.account.dropped.items())
        share = self.bad / max(self.account.read, 1)
        if share > self.max_dropped:
            raise UserError(
                f"{source}: {self.bad} of {self.account.read} rows cannot be used ({reasons}), "
                f"more than data.max_dropped={self.max_dropped:g}; {advice}"
            )
        if self.account.kept == 0:
            raise UserError(f"{source}: no usable row among {self.account.read} ({reasons or 'it is empty'})")


def files_of(path: str, *, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The file itself, or every file of a folder with one of the suffixes, in order of name, but no hidden one."""
    root = Path(path).expanduser()
    if root.is_dir():
        inside = (p for p in root.rglob("*") if p.is_file() and p.name.endswith(tuple(suffixes)))
        found = sorted(p for p in inside if not any(part.startswith(".") for part in p.relative_to(root).parts))
        if not found:
            raise UserError(f"{root}: the folder holds no {', '.join(suffixes)} file")
        return found
    if not root.exists():
        raise UserError(f"{root}: no such file or folder")
    if not root.name.endswith(tuple(suffixes)):
        raise UserError(f"{root}: expected a file that ends in {', '.join(suffixes)}")
    return [root]


def fingerprint(path: str, *, suffixes: Sequence[str] = SUFFIXES) -> str:
    """sha256 over the bytes of the file or files; what a stage's key needs beside the path."""
    digest = hashlib.sha256()
    for file in files_of(path, suffixes=suffixes):
        with _readable(file), file.open("rb") as content:
            digest.update(f"{file.stat().st_size}:".encode())
            while part := content.read(_PART):
                digest.update(part)
    return digest.hexdigest()


def read_rows(path: str) -> Iterator[tuple[str, dict]]:
    """(where, row) for each JSON object of JSON-lines files or JSON lists, packed or not."""
    for file in files_of(path):
        yield from rows_of(file)


def unpacked(file: Path) -> bytes:
    """A file's bytes, unpacked where they begin as gzip or xz does."""
    return b"".join(_lines(file))


def _lines(file: Path) -> Iterator[bytes]:
    """The same, a line at a time, each with its end."""
    with _readable(file), file.open("rb") as packed:
        head = packed.read(6)
        packed.seek(0)
        kind = "gzip" if head[:2] == b"\x1f\x8b" else "xz" if head == b"\xfd7zXZ\x00" else ""
        readers: dict[str, Callable[[Any], Any]] = {"gzip": gzip.open, "xz": lzma.open, "": nullcontext}
        try:
            with readers[kind](packed) as content:
                yield from content
        except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError):
            raise UserError(f"{file}: the {kind} data is damaged or cut short; copy the file again") from None


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Says in a line that a file cannot be read."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def rows_of(file: Path) -> Iterator[tuple[str, dict]]:
    """(where, row) for each object of one JSON-lines file or JSON list."""
    lines = _lines(file)
    begun = [next(lines, b"").removeprefix(b"\xef\xbb\xbf")]
    while not begun[-1].strip():
        if not (line := next(lines, b"")):
            raise UserError(f"{file}: the file is empty")
        begun.append(line)
    if begun[-1].strip() == b"{":
        raise UserError(f"{file}: an object over several lines; write each on one line, or all of them as one list")
    if begun[-1].lstrip()[:1] == b"[":
        items: Iterator = iter(enumerate(_loads(str(file), b"".join([*begun, *lines])), start=1))
    else:
        told = ((n, line.removesuffix(b"\n")) for n, line in enumerate(chain(begun, lines), start=1))
        items = ((n, _loads(f"{file}, row {n}", line)) for n, line in told if line.strip())
    try:
        for number, row in items:
            where = f"{file}, row {number}"
            if not isinstance(row, dict):
                raise UserError(f"{where}: not a JSON object")
            yield where, row
    except UserError:
        deque(lines, maxlen=0)  # where the rest says that the file is damaged, that is why
        raise


def _loads(where: str, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=each_once)
    except Twice as twice:
        raise UserError(f"{where}: the key {twice.args[0]!r} twice in one object; name it once") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        at = f"{where}, line {line}" if line > 1 else where
        raise UserError(f"{at}: not UTF-8; save the file in that encoding") from None
    except json.JSONDecodeError as error:
        at = f"{where}, line {error.lineno}" if error.lineno > 1 else where
        raise UserError(f"{at}: not JSON ({error.msg} at column {error.colno})") from None
    except ValueError:  # of Python's own: no integer of more than 4300 digits
        raise UserError(f"{where}: a number of thousands of digits; take it out") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply to be read") from None


class Twice(ValueError):
    """A key of a JSON object that stands there twice."""


def each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its keys and values; raises Twice for a key that is there twice, whose meaning is not known."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise Twice(next(name for name in names if names.count(name) > 1))
    return found


def column(row: Mapping, name: str) -> object:
    """A row's value; raises UserError when the row has no such column."""
    if name not in row:
        names = [" ".join(str(one).split()) for one in row]  # on one line
        raise UserError(f"no column {name!r}; the row has {few(sorted(names), 12) or 'none'}")
    return row[name]


def verbatim(value: object, name: str) -> str:
    """A text value as it stands; broken Unicode makes the row a bad one."""
    if not isinstance(value, str):
        raise UserError(f"{name} is of type {type(value).__name__}, not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow("broken Unicode") from None
    return value


def clean(value: object, name: str) -> str:
    """A text value without outer white space."""
    return verbatim(value, name).strip()


def hh_turns(text: str) -> list[Turn]:
    """The turns of a text in the Anthropic format, with `Human:` and `Assistant:` after blank lines."""
    parts = _MARKER.split(text)
    if len(parts) == 1:
        raise BadRow("no Human: or Assistant: turn")
    if parts[0].strip():
        raise BadRow("text before the first turn")
    return [Turn(_SPEAKERS[name], body.strip()) for name, body in zip(parts[1::2], parts[2::2])]


def chat_turns(messages: object, name: str) -> list[Turn]:
    """The turns of a chat: a list of {role, content}, or one of them, with the roles user and assistant."""
    messages = [messages] if isinstance(messages, Mapping) else messages
    if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages):
        raise UserError(f"{name} is neither text nor a list of turns with role and content")
    for message in messages:
        require_text_only(message, _BESIDE_A_TURN, "a turn with")
    turns = [Turn(clean(column(m, "role"), "role"), _content(column(m, "content"))) for m in messages]
    for turn in turns:
        if turn.role not in ("user", "assistant"):
            raise BadRow("a role other than user and assistant")
    return turns


def require_text_only(held: Mapping, names: Sequence[str], where: str) -> None:
    """Raises BadRow where a row or a turn says something beside its text, which would be lost."""
    found = next((name for name in names if held.get(name)), None)
    if found is not None:
        raise BadRow(f"{where} {found}, of which only the text would be read")


def _content(value: object) -> str:
    """The text of a turn's content: text, or a list of parts that are text."""
    if value is None:
        raise BadRow("a turn without text")
    if isinstance(value, list) and all(isinstance(part, Mapping) for part in value):
        if any(part.get("type", "text") != "text" for part in value):
            raise BadRow("a turn with parts that are no text")
        return "".join(verbatim(column(part, "text"), "text") for part in value).strip()
    return clean(value, "content")


def conversation_turns(value: object, name: str) -> list[Turn]:
    """The turns of a chat, or of a text in the Anthropic format."""
    return hh_turns(clean(value, name)) if isinstance(value, str) else chat_turns(value, name)


def unwritten(value: object, name: str) -> object:
    """The turns of a chat that a cell holds as JSON text; anything else as it is.

    Raises UserError where a text begins as a chat does but is no JSON, such as one that Python printed.
    """
    if not isinstance(value, str) or not _WRITTEN_CHAT.match(value):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise UserError(
            f"{name} holds a chat as text that is no JSON; write it by json.dumps, or the rows as JSON lines"
        ) from None


def conversation(value: object, name: str) -> list[Turn]:
    """The turns of a prompt: plain text, alone or in a list, is one user turn; Anthropic text and chats are read so."""
    if value is None:
        raise BadRow("empty prompt")
    value = unwritten(value, name)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str) and not value.startswith("\n\nHuman:"):
        return [Turn("user", clean(value, name))]
    turns = conversation_turns(value, name)
    return turns[:-1] if isinstance(value, str) and turns[-1] == Turn("assistant", "") else turns


def check_prompt(turns: Sequence[Turn]) -> None:
    """Raises BadRow unless the turns end with a user turn that says something."""
    if not turns:
        raise BadRow("empty prompt")
    if turns[-1].role != "user":
        raise BadRow("no user turn before the answer")
    if is_blank(turns[-1].content):
        raise BadRow("empty prompt")


def is_blank(text: str) -> bool:
    """Whether nothing of a text is seen: white space, control and zero-width characters only."""
    return all(unicodedata.category(letter) in _UNSEEN for letter in text)


def normalised(text: str) -> str:
    """NFKC, case-folded, white space collapsed: the form in which two texts count as the same."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_id(turns: Sequence[Turn]) -> str:
    """The content id of a conversation; equal for conversations whose normalised text is equal."""
    return content_id(*(f"{turn.role}\x1e{normalised(turn.content)}" for turn in turns))
