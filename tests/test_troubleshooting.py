"""Bad input: every entry of the catalogue leads to just its line, and docs/troubleshooting.md is the catalogue.

`python tests/test_troubleshooting.py` writes the page.
"""

import re
import sys
from collections import Counter
from pathlib import Path

import pytest

if __name__ == "__main__":  # started by hand: the kit is on pytest's path only
    sys.path[:0] = [str(Path(__file__).parent / "kit"), str(Path(__file__).parents[1])]

import catalogue
import catalogue_config
import catalogue_files
from source_tree import ROOT

ROOMS = catalogue_config.ROOMS | catalogue_files.ROOMS
ENTRIES = [one for entries in ROOMS.values() for one in entries]
CASES = [(one, case) for one in ENTRIES for case in one.cases]
PAGE = ROOT / "docs" / "troubleshooting.md"


def test_the_catalogue_is_wide():
    assert len(CASES) >= 300
    assert len({one.message for one in ENTRIES}) == len(ENTRIES) >= 120
    assert max(len(one.cases) for one in ENTRIES) <= 5


@pytest.mark.parametrize(("one", "case"), CASES, ids=[f"{i}-{one.message[:40]}" for i, (one, _) in enumerate(CASES)])
def test_bad_input_is_one_line_that_says_where_and_what_to_do(one, case, tmp_path):
    line = catalogue.said(case, tmp_path)
    assert re.fullmatch(one.pattern, line), line
    assert "\n" not in line and len(line) < 900


def test_the_inputs_of_an_entry_differ():
    again = Counter((one.message, repr(case)) for one, case in CASES)
    assert [key for key, count in again.items() if count > 1] == []


def test_every_entry_says_what_to_do():
    assert [one.message for one in ENTRIES if not re.fullmatch(r"[A-Z`0].+[.]", one.advice, flags=re.DOTALL)] == []


def test_the_page_of_the_docs_is_the_catalogue():
    assert PAGE.read_text(encoding="utf-8") == catalogue.page(ROOMS), f"write it again: {catalogue.COMMAND}"


if __name__ == "__main__":
    PAGE.write_text(catalogue.page(ROOMS), encoding="utf-8")
