"""docs/promises.md: every test that it names exists, and every promise names one."""

import ast
import re

from source_tree import ROOT

PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def functions_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def promises(page: str) -> list[str]:
    """The items of the lists and the rows of the tables, less their heads."""
    items = re.findall(r"^- .*(?:\n  .*)*", page, flags=re.MULTILINE)
    return items + re.findall(r"^\| \d.*", page, flags=re.MULTILINE)


def test_every_test_that_a_promise_names_exists():
    named = NAMED.findall(PAGE)
    assert [f"{path}::{test}" for path, test in named if test not in functions_in(path)] == []


def test_every_promise_names_a_test():
    found = promises(PAGE)
    assert len(found) >= 20
    assert [promise for promise in found if not NAMED.search(promise)] == []


def test_a_promise_without_a_test_is_seen():
    assert promises("- one\n  two\n- three `tests/a.py::test_b`\n\n| 0 | done |\n") == [
        "- one\n  two",
        "- three `tests/a.py::test_b`",
        "| 0 | done |",
    ]
