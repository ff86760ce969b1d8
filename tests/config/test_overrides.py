"""Overrides one by one: which set the same thing, what is a mistake, and how Hydra gets them."""

import re

import pytest

from dlma.app import conf_dir
from dlma.config import overrides
from dlma.config.compose import search_path
from dlma.config.hydra_internals import Loader
from dlma.config.overrides import Reading


@pytest.fixture(scope="module")
def loader():
    made = Loader(search_path(conf_dir(), None))
    made.ensure_main_config_source_available()
    return made


def normal(loader, line):
    reading = Reading(loader)
    return overrides.normal(overrides.read(line, reading), reading)


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("recipe.beta=1", "++recipe.beta=1"),
        ("+recipe.beta=1", "++recipe.beta=1"),
        ("++recipe.beta=1", "++recipe.beta=1"),
        ("~recipe.beta", "~recipe.beta"),
        ("method=rlcd", "method=rlcd"),
        ("+method=rlcd", "method=rlcd"),
        ("++method=rlcd", "method=rlcd"),
        ("hydra.job.chdir=true", "hydra.job.chdir=true"),
        ("judges@other=llm", "judges@other=llm"),
    ],
)
def test_prefixes_matter_only_where_they_mean_something(loader, written, given):
    assert normal(loader, written) == given


def test_of_two_that_set_the_same_the_later_one_counts(loader):
    reading = Reading(loader)
    lines = ["seed=1", "+recipe.beta=2", "recipe.beta=3", "method=rlcd", "++seed=4"]
    found = overrides.by_slot(overrides.read(line, reading) for line in lines)
    assert {slot: override.input_line for slot, override in found.items()} == {
        "seed": "++seed=4",
        "recipe.beta": "recipe.beta=3",
        "method": "method=rlcd",
    }


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("seed", "seed: not an override; .* did you mean seed=...?"),
        ("=1", "not an override; write key=value"),
        ("++=", "not an override; write key=value"),
        ("seed=glob(*)", "glob is for the options of a group"),
        ("method=rlcdd", "method=rlcdd: no such option; did you mean method=rlcd?"),
        ("method=dlma,rlcdd", "method=rlcdd: no such option"),
        ("method=null", "leave method out"),
    ],
)
def test_a_mistake_is_one_line_and_the_override_is_left_out(loader, line, mistake):
    reading = Reading(loader)
    assert overrides.read(line, reading) is None
    (found,) = reading.mistakes
    assert re.search(mistake, found)


def test_a_sweep_is_taken_apart_by_its_values_and_an_interval_by_its_bounds(loader):
    reading = Reading(loader)
    singles = [overrides.singles_of(overrides.read(line, reading)) for line in ("seed=1,2,5", "seed=interval(1,9)")]
    assert [[one.value() for one in each] for each in singles] == [[1, 2, 5], [1.0, 9.0]]
