"""The one form of a number: its columns, the round trip, names that hold any text."""

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_runs import options, plant
from source_tree import ROOT

from dlma.errors import UserError
from dlma.report import tables as sweep_tables
from dlma.runs import cells as run_folders
from dlma.screen import visible
from dlma.sweep import all_results, estimates
from dlma.sweep.results import (
    COLUMNS,
    STATISTICS,
    Result,
    by_row,
    over_seeds,
    read_csv,
    settings_of,
    settings_text,
    write_csv,
)
from dlma.sweep.settings import settings

COMMITTED = sorted((ROOT / "experiments").glob("*/results.csv"))
HARD = ["a minus b by c", "x at kl 1", "cost flops over y, prompts needed", "a;b=%3D,c", "=1+1", " ", "win against z"]


def whole(name: str) -> Result:
    """A number with every field set, its names all the same text."""
    return Result(
        base=name, method=name, metric=name, n=3, value=0.1 + 0.2, low=-math.inf, high=math.inf, p_holm=1e-9,
        settings=((name, name), ("lr", "9e-05")), arm="aligned", seeds=(0, 12), statistic="difference", versus=name,
        axis="kl", at=0.1, judge=name,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["dlma", *HARD])
def test_a_number_is_read_back_as_it_was_whatever_its_names_hold(name, tmp_path):
    found = [whole(name), Result(name, name, "kl", 1, math.nan), replace(whole(name), judge="", settings=(), seeds=())]
    path = tmp_path / "results.csv"
    path.write_bytes(write_csv(found))
    assert read_csv(path) == found
    assert write_csv(read_csv(path)) == path.read_bytes()


NAME = st.text(max_size=8).map(visible)
NUMBER = st.just(math.nan) | st.floats(allow_nan=False)
ANY_RESULT = st.builds(
    Result, base=NAME, method=NAME, metric=NAME, n=st.integers(0), value=NUMBER, low=NUMBER, high=NUMBER, p_holm=NUMBER,
    settings=st.lists(st.tuples(NAME, NAME), max_size=3).map(tuple), arm=NAME,
    seeds=st.lists(st.integers(0, 2**63), max_size=3).map(tuple), statistic=st.sampled_from(STATISTICS), versus=NAME,
    axis=NAME, at=st.none() | st.floats(allow_nan=False), judge=NAME,
)  # fmt: skip


@given(st.lists(ANY_RESULT, max_size=3))
def test_numbers_of_any_names_and_sizes_are_read_back_as_they_were(found):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.csv"
        path.write_bytes(write_csv(found))
        again = read_csv(path)
    assert [repr(one) for one in again] == [repr(one) for one in found]  # nan is no equal of itself
    assert write_csv(again) == write_csv(found)


@pytest.mark.parametrize("name", HARD)
def test_settings_have_one_text_and_it_gives_them_back(name):
    told = ((name, name), ("beta", "1.2"))
    assert settings_of(settings_text(told)) == told
    assert settings_text((("beta", "1.2"), ("lr", "9e-05"))) == "beta=1.2;lr=9e-05"


def test_the_columns_are_the_fields():
    assert set(COLUMNS) == set(Result.__dataclass_fields__)
    assert write_csv([]).decode() == ",".join(COLUMNS) + "\n"


def test_a_number_of_no_known_statistic_is_said(tmp_path):
    path = tmp_path / "results.csv"
    path.write_bytes(write_csv([Result("b", "m", "kl", 1, 0.0)]).replace(b",mean,", b",mode,"))
    with pytest.raises(UserError, match=r"results\.csv: no results.csv of a sweep.*'mode' is none of mean, difference"):
        read_csv(path)


def test_of_a_number_the_one_over_all_seeds_stands_for_it_and_rows_keep_their_order():
    one = Result("b", "m", "kl", 1, 0.0, seeds=(0,))
    other = replace(one, method="n")
    both = replace(one, value=1.0, seeds=(0, 1))
    assert over_seeds([one, other, both]) == [both, other]
    assert list(by_row([one, other, both])) == [("m", (), "aligned"), ("n", (), "aligned")]
    assert one.key == both.key != replace(both, versus="x").key


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_every_committed_number_has_the_one_form(path: Path):
    """Metrics are identifiers, no number stands there twice, and the file is what its rows write."""
    found = read_csv(path)
    assert found and all(one.metric.isidentifier() for one in found)
    assert len({(one.key, one.seeds) for one in found}) == len(found)
    assert write_csv(found) == path.read_bytes()


@pytest.fixture
def odd(tmp_path):
    """Two methods whose names read like columns of old, two betas each, judged by one whose name does too."""
    said = [{"prompt_id": f"p{i}", "judge": "x at kl 1", "arm": "aligned", "against": "base", "outcome": "win"}
            for i in range(3)]  # fmt: skip
    folders = [
        plant(tmp_path / f"{i}{beta}{seed}", method=method, seed=seed, kl=1 / beta, harm=0.2 + 0.2 * i, tag=str(beta),
              overrides={"recipe.beta": beta}, verdicts=said)
        for i, method in enumerate(("a minus b by c", "kl over a, prompts needed")) for beta in (0.5, 2.0)
        for seed in (0, 1)
    ]  # fmt: skip
    return settings([run_folders.read_cell(folder) for folder in folders])


def test_a_method_and_a_judge_of_any_name_pass_the_whole_table(odd, tmp_path):
    first, second = "a minus b by c", "kl over a, prompts needed"
    found = all_results.results(odd, options(baseline=second))
    path = tmp_path / "results.csv"
    path.write_bytes(write_csv(found))
    again = read_csv(path)
    assert again == found
    assert sweep_tables.markdown(again) == sweep_tables.markdown(found)
    assert sweep_tables.latex(again) == sweep_tables.latex(found)
    tables = sweep_tables.tables(found)
    (means,) = [table for table in tables if table.title == "lab-standard: means with 95 % intervals"]
    labels = [f"{method}, beta={beta}" for method in (first, second) for beta in (0.5, 2.0)]
    assert [row[0] for row in means.rows] == ["base", "prompted", *labels]
    (judged,) = [table for table in tables if "win / tie / lose" in table.title]
    assert judged.heads == ["method", "against", "x at kl 1"]
    assert {tuple(row) for row in judged.rows} == {(label, "base", "100.0 / 0.0 / 0.0 %") for label in labels}
    curve = [one for one in found if one.axis == "kl" and one.statistic == "difference"]
    assert [(one.label, one.versus, one.at) for one in curve if one.metric == "harmful"] == [(first, second, 0.5)]


def test_prompts_needed_are_written_as_they_are_read_again(tmp_path):
    row = Result("b", "m", "kl", 10, 0.5, 0.4, 0.6, statistic="difference", versus="base")
    written = write_csv(estimates.tested(row, 0.01, estimates.Needed(16, 5)))
    (tmp_path / "results.csv").write_bytes(written)
    assert b",16.0," in written and b",5.0," in written and write_csv(read_csv(tmp_path / "results.csv")) == written
