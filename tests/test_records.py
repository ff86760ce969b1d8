"""Records and their tables: what is written comes back, each record has one schema, ids follow the text."""

import dataclasses
import math
import types
import typing

import pyarrow as pa
import pytest

from dlma import records
from dlma.records import Account, EvalRow, Prompt, Turn, content_id, from_table, joined, not_finite, schema, to_table
from dlma.store.shards import table_bytes, table_of

RECORDS = [
    found
    for found in vars(records).values()
    if dataclasses.is_dataclass(found) and found.__module__ == records.__name__ and found not in (Account, Turn)
]


def example(annotation, empty):
    """A value of a field's type; `empty`: null where a field may be null."""
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return None if empty else example(inner[0], empty)
    if typing.get_origin(annotation) is list:
        return [] if empty else [example(inner[0], empty), example(inner[0], empty)]
    if dataclasses.is_dataclass(annotation):
        return row_of(annotation, empty)
    return {str: "é\n'", int: 7, float: 0.1, bool: True}[annotation]


def row_of(record, empty=False):
    hints = typing.get_type_hints(record)
    return record(**{f.name: example(hints[f.name], empty) for f in dataclasses.fields(record)})


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_rows_come_back_as_they_were(record):
    rows = [row_of(record), row_of(record, empty=True)]
    table = to_table(record, rows)
    assert table.schema == schema(record)
    assert from_table(record, table) == rows
    assert from_table(record, to_table(record, [])) == []


def test_a_sparse_column_is_there_where_one_of_its_group_is_filled():
    row = EvalRow("p", "base", "q", None, "a", 1, True, 0.0, 0.0, 0.0)
    plain = set(to_table(EvalRow, [row]).column_names)
    drawn = {"logp_drawn", "logp_base_drawn", "logp_base_uncut"}
    for name, added in {"sentiment": {"sentiment"}, "logp_drawn": drawn}.items():
        rows = [row, dataclasses.replace(row, **{name: 0.5})]
        table = to_table(EvalRow, rows)
        assert set(table.column_names) - plain == added and from_table(EvalRow, table) == rows


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_tables_that_are_joined_have_the_bytes_of_their_rows_in_one(record):
    parts = [[row_of(record, empty=True)], [row_of(record), row_of(record, empty=True)]]
    read = [table_of(table_bytes(to_table(record, rows))) for rows in parts]
    whole = table_bytes(to_table(record, [row for rows in parts for row in rows]))
    assert table_bytes(joined(record, read)) == whole
    assert table_bytes(joined(record, read[:1])) == table_bytes(to_table(record, parts[0]))


def test_a_missing_column_is_an_error_and_a_further_one_is_not():
    table = to_table(Prompt, [row_of(Prompt)])
    with pytest.raises(KeyError):
        from_table(Prompt, table.drop_columns(["id"]))
    assert from_table(Prompt, table.append_column("more", pa.array([1]))) == [row_of(Prompt)]


def test_what_is_no_number_is_named_by_its_field():
    @dataclasses.dataclass
    class Row:
        name: str
        value: float | None
        several: list

    assert not_finite(Row("nan", None, [1.0, [2.0]])) == []
    assert not_finite(Row("a", math.inf, [1.0, [math.nan]])) == ["value", "several"]


def test_an_id_is_that_of_the_parts_and_not_of_their_join():
    assert content_id("ab", "c") == content_id("ab", "c") != content_id("a", "bc") != content_id("abc")
    assert len(content_id("")) == 16 and set(content_id("x")) <= set("0123456789abcdef")


def test_an_account_counts_by_reason():
    account = Account(read=3, kept=1)
    for reason in ("empty", "long", "empty"):
        account.drop(reason)
    account.trim("turns")
    assert (account.dropped, account.trimmed) == ({"empty": 2, "long": 1}, {"turns": 1})


def test_all_splits_are_each_but_the_one_that_is_kept_for_the_last():
    def asked(split):
        return [of for of in ("train", "test", "untouched") if Prompt("id", [], of).is_of(split)]

    assert (asked("all"), asked("test"), asked("untouched")) == (["train", "test"], ["test"], ["untouched"])
