"""CSV: no cell is a formula, numbers are numbers, and what was written is read back."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlma import csv_text
from dlma.screen import visible

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=", "--x", "'=1", "''=1"]
NUMBERS = ["-0.4", "+1", "-1e-5", "-inf", "nan", "12", ""]


def rows(content):
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_that_a_spreadsheet_would_compute_is_text(text):
    _, (cell, other) = rows(csv_text.table(["a", "b"], [[text, "x"]]))
    assert cell[0] in "'\\" and other == "x"


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_is_a_number(text):
    assert rows(csv_text.table(["a", "b"], [[text, 1]]))[1] == [text, "1"]


def test_numbers_none_and_heads():
    assert csv_text.table(["=a", "b"], [[-1.5, None], [True, -2]]) == b"'=a,b\n-1.5,\nTrue,-2\n"


@given(st.lists(st.tuples(st.text(), st.text(alphabet="'=+-@1 a")), max_size=5))
def test_reading_gives_back_what_was_written(table):
    wanted = [{"a": visible(a), "b": b} for a, b in table]
    found = csv_text.read(io.StringIO(csv_text.table(["a", "b"], table).decode(), newline=""))
    assert found == wanted
    for row in rows(csv_text.table(["a", "b"], table))[1:]:
        for cell in row:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) or csv_text.cell(cell) == cell


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)


@given(
    st.lists(ANY_TEXT, min_size=1, max_size=3, unique_by=visible).flatmap(
        lambda heads: st.lists(st.fixed_dictionaries({head: ANY_TEXT for head in heads}), min_size=1, max_size=3)
    )
)
def test_heads_and_cells_of_any_text_are_read_back_as_they_are_shown(rows):
    content = csv_text.table(list(rows[0]), [[row[head] for head in rows[0]] for row in rows]).decode()
    wanted = [{visible(head): visible(text) for head, text in row.items()} for row in rows]
    assert csv_text.read(io.StringIO(content, newline="")) == wanted


def test_only_one_module_writes_csv_text():
    """Steps of a training (numbers under our own names) aside."""
    import ast

    from source_tree import modules, tree

    found = {
        name
        for name in modules()
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("csv.writer", "csv.DictWriter")
    }
    assert found == {"dlma.csv_text", "dlma.training.rule"}
