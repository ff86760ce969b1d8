"""The lab's prompts as a data set."""

import re

import pytest
from source_tree import ROOT

from dlma.data.lab import LabPrompts
from dlma.errors import UserError
from dlma.lab import world
from dlma.records import Account, Prompt, from_table, to_table


def _read(**changes):
    return LabPrompts(**{"train": 30, "validation": 10, "test": 20, "seed": 0, **changes}).read()


def test_all_splits_come_in_one_list_of_the_asked_sizes():
    rows, account = _read()
    counts = {split: sum(row.split == split for row in rows) for split in ("train", "validation", "test")}
    assert counts == {"train": 30, "validation": 10, "test": 20}
    assert account == Account(read=60, kept=60)


def test_no_prompt_stands_twice():
    rows, _ = _read(train=2_000, validation=500, test=1_000)
    assert len({row.id for row in rows}) == 3_500


def test_the_seed_alone_decides_which_prompts():
    assert _read() == _read() != _read(seed=1)


def test_more_test_prompts_leave_the_train_prompts_as_they_are():
    assert _read()[0][:30] == _read(test=500)[0][:30]


def test_the_rows_survive_a_table():
    rows, _ = _read()
    assert from_table(Prompt, to_table(Prompt, rows)) == rows


def test_untouched_prompts_are_test_prompts_and_none_of_those_that_are_looked_at():
    rows, account = _read(test=1_500, untouched=3_000)
    kept = [row for row in rows if row.split == "untouched"]
    others = {row.id for row in rows if row.split != "untouched"}
    assert account.kept == len(rows) and len({row.id for row in kept}) == 3_000
    assert not others & {row.id for row in kept}
    asked = {(q.verb, q.object) for q in (world.parse_question(row.turns[0].content) for row in kept)}
    assert asked <= set(world.combinations("test"))


@pytest.mark.parametrize("changes", [{"test": 5}, {"seed": 1}, {"test": 6_000}])
def test_what_the_experiments_looked_at_is_never_untouched(changes):
    seen = {row.id for row in _read(test=1_000)[0] if row.split == "test"}
    rows, _ = _read(untouched=30_000, **changes)
    assert not seen & {row.id for row in rows if row.split == "untouched"}


def test_how_many_are_untouched_is_in_the_key_of_the_prompts():
    found = {LabPrompts(train=1, validation=1, test=1, seed=0, untouched=n).fingerprint() for n in (0, 1, 2)}
    assert len(found) == 3 and "built-in" in found  # which is that of runs without any


def test_untouched_prompts_leave_all_others_as_they_are():
    assert _read(untouched=50)[0][:60] == _read()[0]


def test_more_untouched_prompts_than_there_are_is_refused():
    with pytest.raises(UserError, match=r"data\.untouched=80000: the lab has 49760 untouched prompts"):
        _read(untouched=80_000)


def test_the_file_of_options_says_how_many_prompts_there_are():
    stated = (ROOT / "conf/data/base/lab.yaml").read_text()
    found = {split: int(n.replace(",", "")) for split, n in re.findall(r"(\w+): \d+ +# ours; of ([\d,]+)", stated)}
    assert found == {split: world.prompt_count(split) for split in world.SPLIT_SHARES}
