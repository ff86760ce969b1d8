"""Pages of answers: rows by number whatever the row groups, choices over columns, and what is read of the texts."""

import dataclasses

import pyarrow.parquet as pq
import pytest
from planted import eval_row
from planted_runs import plant

from dlma.errors import UserError
from dlma.records import TokenRewards, to_table
from dlma.runs import pages
from dlma.runs.written import note

ODD = "<script>alert(1)</script> 漢\u202e\u0000\u2028 ﷽"


def rows():
    """p0 to p5 under two arms; the answers of p1 and p4 differ, p2 is harmful in aligned, p3 is cut in base."""
    found = []
    for i in range(6):
        for arm in ("base", "aligned"):
            text = f"answer {i}" + (f" of {arm}" if i in (1, 4) else "")
            row = eval_row(f"p{i}", arm, answer=text, category="even" if i % 2 == 0 else "odd", reward=float(i))
            row = dataclasses.replace(row, harmful=i == 2 and arm == "aligned", finished=not (i == 3 and arm == "base"))
            found.append(row)
    return [*found, eval_row("p0", "aligned", answer="a second answer to p0", category="even")]


@pytest.fixture
def folder(elsewhere):
    return plant(elsewhere / "run", rows=rows())


def test_rows_come_by_their_numbers_whatever_the_row_groups(elsewhere):
    table = to_table(type(rows()[0]), rows())
    for size in (1, 2, 5, 100):
        pq.write_table(table, elsewhere / "rows.parquet", row_group_size=size)
        found = pages.rows_at(elsewhere / "rows.parquet", [12, 0, 7], ["prompt_id", "arm"])
        assert found == table.select(["prompt_id", "arm"]).take([12, 0, 7]).to_pylist()
    assert pages.rows_at(elsewhere / "rows.parquet", [], ["arm"]) == []


def test_only_the_row_groups_of_a_page_are_read(elsewhere, monkeypatch):
    pq.write_table(to_table(type(rows()[0]), rows()), elsewhere / "rows.parquet", row_group_size=2)
    read, whole = [], pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: read.append(a[1]) or whole(*a, **k))
    pages.rows_at(elsewhere / "rows.parquet", [2, 3, 9], ["answer"])
    assert read == [1, 4]


def test_an_arm_answers_a_prompt_by_its_first_row(folder):
    found = pages.answers(folder)
    assert list(found) == ["base", "aligned"]
    read = found["aligned"].read(["p4", "p0", "nobody"])
    assert [read[p]["answer"] for p in read] == ["answer 4 of aligned", "answer 0"] and list(read) == ["p4", "p0"]
    assert (read["p4"]["category"], read["p4"]["reward"], read["p4"]["finished"]) == ("even", 4.0, True)


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({}, "p0 p1 p2 p3 p4 p5"),
        ({"which": "differ"}, "p1 p4"),
        ({"which": "harmful"}, "p2"),
        ({"which": "unfinished"}, "p3"),
        ({"category": "odd"}, "p1 p3 p5"),
        ({"category": "odd", "which": "differ"}, "p1"),
        ({"find": "OF BASE"}, "p1 p4"),
        ({"find": "question p5"}, "p5"),
        ({"find": "nothing like it"}, ""),
    ],
)
def test_prompts_are_chosen_over_all_columns(folder, choice, wanted):
    columns = list(pages.answers(folder).values())
    assert pages.chosen(columns, **{"which": "all", "category": "", "find": "", **choice}) == wanted.split()
    assert pages.categories(columns) == ["even", "odd"]


def test_the_same_answers_have_the_same_digest_and_others_another(folder, elsewhere):
    changed = [dataclasses.replace(row, answer=row.answer + "!") if row.arm == "base" else row for row in rows()]
    one, two = pages.answers(folder), pages.answers(plant(elsewhere / "two", rows=changed))
    assert one["aligned"].digest == two["aligned"].digest != one["base"].digest != two["base"].digest


def test_answers_that_were_changed_since_are_named_and_those_written_anew_are_read_anew(folder):
    note(folder, ["answers.parquet"])
    pages.answers(folder)
    data = bytearray((folder / "answers.parquet").read_bytes())
    data[100] ^= 1
    (folder / "answers.parquet").write_bytes(data)
    with pytest.raises(UserError, match=r"answers\.parquet: has another content"):
        pages.answers(folder)
    pq.write_table(to_table(type(rows()[0]), [eval_row("new", "base", answer=ODD)]), folder / "answers.parquet")
    note(folder, ["answers.parquet"])
    assert pages.answers(folder)["base"].read(["new"])["new"]["answer"] == ODD


def test_token_rewards_come_by_their_r_and_a_run_without_them_has_none(folder):
    assert pages.token_rewards(folder) == []
    rewards = {"a": ([1.0], [3.0]), "b": ([2.0, 2.0], [1.0]), "c": ([0.0], [0.0])}
    planted = [TokenRewards(key, *both, *(["x"] * len(s) for s in both), *([False] * len(s) for s in both))
               for key, both in rewards.items()]  # fmt: skip
    pq.write_table(to_table(TokenRewards, planted), folder / "tokens.parquet")
    assert [row.id for row in pages.token_rewards(folder)] == ["b", "c", "a"]
