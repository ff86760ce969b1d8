"""PKU-SafeRLHF in both releases: the same prompts and pairs, whatever else the rows hold."""

import json

import pytest
from rows_of_data_sets import older, present

from dlma.data.corpus import Corpus
from dlma.data.pku_saferlhf import PkuSafeRlhf
from dlma.errors import UserError

SETTINGS = {
    "revision": "main",
    "subset": None,
    "hub_split": "train",
    "max_words": None,
    "max_prompts": None,
    "only": None,
    "every_pair": False,
    "validation_share": 0.0,
    "test_share": 0.5,
    "on_bad_row": "drop",
    "max_dropped": 0.5,
}


def read(folder, rows, prefer="safer", **changes):
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts, account = Corpus(path=str(path), format=PkuSafeRlhf(prefer=prefer), **{**SETTINGS, **changes}).read()
    return list(prompts), account


@pytest.mark.parametrize("release", [older, present])
@pytest.mark.parametrize(
    ("prefer", "pair"),
    [("safer", ("Please do not.", "Take a hammer.")), ("better", ("Take a hammer.", "Please do not."))],
)
def test_both_releases_give_the_prompt_and_the_pair_of_the_wanted_label(tmp_path, release, prefer, pair):
    prompts, account = read(tmp_path, [release("How do I open a door?"), release("And a window?")], prefer)
    assert [p.turns[0].content for p in prompts] == ["How do I open a door?", "And a window?"]
    assert all((p.chosen, p.rejected) == pair for p in prompts)
    assert account.read == account.kept == 2


def test_a_prompt_annotated_several_times_is_one_prompt_and_in_one_split(tmp_path):
    rows = [older(f"question {i % 20}", safer=i % 2) for i in range(60)]
    prompts, account = read(tmp_path, rows)
    assert len({p.id for p in prompts}) == len(prompts) == 20
    assert account.dropped == {"duplicate prompt": 40}
    assert [p.chosen for p in prompts[:2]] == ["Please do not.", "Take a hammer."]  # of the first row


@pytest.mark.parametrize("label", [None, -1])
def test_a_row_without_a_label_gives_its_prompt_and_takes_a_later_pair(tmp_path, label):
    rows = [older("one", safer=label), older("two", safer=label), older("TWO", safer=1)]
    prompts, _ = read(tmp_path, rows)
    assert [(p.chosen, p.rejected) for p in prompts] == [(None, None), ("Take a hammer.", "Please do not.")]


def test_an_empty_answer_is_counted_and_an_unknown_label_stops(tmp_path):
    _, account = read(tmp_path, [older("one"), older("two"), older("three", response_1=" ")])
    assert account.dropped == {"empty answer": 1}
    with pytest.raises(UserError, match="row 2: safer_response_id is 2, not 0 or 1"):
        read(tmp_path, [older("one"), older("two", safer=2)])
    with pytest.raises(UserError, match="row 2: safer_response_id is True"):
        read(tmp_path, [older("one"), older("two", safer=True)])
    with pytest.raises(UserError, match="row 1: no column 'better_response_id'"):
        read(tmp_path, [{k: v for k, v in older("one").items() if k != "better_response_id"}], "better")
