"""The terminal: what a model wrote is text there, whoever prints it, and secrets are not."""

import io
import logging
import os
import sys
import traceback
import unicodedata
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dlma import redaction, screen
from dlma.screen import Console, guarded, shown, visible

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\r\x08[red]red[/red][link=http://x]l[/link] :smile: \ud800"
SEEN = r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\x0d\x08[red]red[/red][link=http://x]l[/link] :smile: \ud800"
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_control_characters_stand_there_as_escapes_and_lines_and_tabs_stay():
    assert visible(HOSTILE) == SEEN
    assert visible("a\tb\nc é 漢 👩‍🔬") == "a\tb\nc é 漢 👩‍🔬"


def test_every_control_character_of_unicode_and_every_bidi_control_is_one():
    controls = [chr(code) for code in range(0x300) if unicodedata.category(chr(code)) == "Cc"]
    assert len(controls) == 65
    for one in {*controls, *BIDI} - {"\n", "\t"}:
        assert visible(one).isascii() and visible(one).isprintable() and visible(one).startswith("\\")


@given(st.text())
def test_visible_text_can_be_encoded_is_stable_and_keeps_what_is_harmless(text):
    seen = visible(text)
    seen.encode()
    assert visible(seen) == seen and seen.split("\n") == [visible(line) for line in text.split("\n")]


def test_print_logging_and_tracebacks_go_through_the_guard(capsys, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "planted-key")
    before = sys.stdout, sys.stderr
    with guarded():
        print(HOSTILE, "planted-key")
        handler = logging.StreamHandler()
        handler.emit(logging.makeLogRecord({"msg": f"log {HOSTILE} planted-key"}))
        try:
            raise ValueError(f"odd {HOSTILE} planted-key")
        except ValueError:
            traceback.print_exc()
    assert (sys.stdout, sys.stderr) == before
    out, err = capsys.readouterr()
    assert out == f"{SEEN} {redaction.HIDDEN}\n"
    assert err.count(SEEN) == 2 and "planted" not in err and "\x1b" not in err


def test_the_guard_stands_once_and_is_otherwise_the_stream(capsys):
    with guarded(), guarded():
        print("\x1b")
        assert sys.stdout.isatty() is False and sys.stdout.encoding
    assert capsys.readouterr().out == "\\x1b\n"


@pytest.mark.parametrize(("text", "passes"), [("\r 50%|###", True), ("\n\x1b[A\x1b[A", True), ("\r\x1b[2J", False)])
def test_a_progress_bar_moves_on_standard_error_alone(text, passes, capsys):
    with guarded():
        sys.stderr.write(text)
        sys.stdout.write(text)
    out, err = capsys.readouterr()
    assert (err == text) is passes and out == visible(text)


@pytest.mark.parametrize("how", ["print", "cell", "title", "head", "text", "in a cell"])
def test_rich_shows_hostile_text_as_text(how):
    console = Console(file=io.StringIO(), width=250, force_terminal=True, color_system="truecolor")
    table = Table("x", expand=True, title=escape(HOSTILE) if how == "title" else None)
    if how == "head":
        table.add_column(escape(HOSTILE))
    if how in ("cell", "in a cell"):
        table.add_row(escape(HOSTILE) if how == "cell" else Text(shown(HOSTILE)))
    console.print({"print": escape(HOSTILE), "text": Text(HOSTILE)}.get(how, table), highlight=False)
    said = console.file.getvalue()
    assert SEEN.replace("\\x0d", "").replace("\\x08", "").replace("\\x07", "")[:12] in said
    for sequence in ("\x1b]", "\x1b[2J", "\x9b", "\u202e", "\r", "\x08", "\x1b[31m", "\U0001f604"):
        assert sequence not in said
    assert "[red]red[/red][link=http://x]l[/link] :smile:" in said


def test_richs_own_colours_pass_the_guard_and_secrets_do_not(monkeypatch, capsys):
    monkeypatch.setenv("SOME_TOKEN", "planted-key")
    with guarded():
        console = Console(force_terminal=True, color_system="standard")
        console.print("[red]warn[/red] planted-key", highlight=False)
        console.print(Text("planted-key"))
    out = capsys.readouterr().out
    assert "\x1b[31mwarn\x1b[0m" in out and "planted" not in out and out.count(redaction.HIDDEN) == 2


def test_nobody_makes_a_console_of_richs_own():
    from source_tree import imports, modules

    direct = {i.importer for name in modules() for i in imports(name) if i.name.startswith("rich.console")}
    assert direct == {screen.__name__}


def noise() -> list[str]:
    """What gets through of a library's warnings and of ours."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with screen.quiet():
            warnings.warn("will change", FutureWarning, stacklevel=1)
            warnings.warn("IProgress not found. Please update", UserWarning, stacklevel=1)
            warnings.warn("look at this", UserWarning, stacklevel=1)
            chatty = logging.getLogger("bitsandbytes.backends.cpu.ops").isEnabledFor(logging.WARNING)
    return [str(one.message) for one in caught] + ["kernels"] * chatty


def test_libraries_are_quiet_but_where_a_fault_is_looked_for(monkeypatch):
    before = logging.getLogger("bitsandbytes").level
    assert noise() == ["look at this"]
    assert logging.getLogger("bitsandbytes").level == before and "TRANSFORMERS_VERBOSITY" not in os.environ
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert noise() == ["will change", "IProgress not found. Please update", "look at this", "kernels"]
