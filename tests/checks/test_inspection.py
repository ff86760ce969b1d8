"""What is counted of records is the same from a list and from a file, each record looked at once.

That each fault is found, by name and with its first place, is shown in test_preflight.py.
"""

import dataclasses

import pytest
from planted_records import BOS, EOS, PAD, healthy, prompt

from dlma.checks.inspection import Specials, inspect
from dlma.records import Context, Pair, Prompt, ScoredPair, Turn
from dlma.store import shards
from dlma.store.rows import StoredRows

SPECIALS = Specials(bos=BOS, eos=frozenset({EOS}), pad=PAD, filler=PAD, written=frozenset({99}))
KINDS = {"prompts": Prompt, "contexts": Context, "held_out": Context, "pairs": Pair, "scored": ScoredPair}
replace = dataclasses.replace


def faulty() -> dict[str, list]:
    """Records with a fault for every check that counts any."""
    found = healthy()
    found["prompts"] += [prompt("WHAT is 3?", "train"), prompt("how  do i 7?", "train")]
    found["prompts"].append(Prompt("talk", [Turn("assistant", "w"), Turn("user", "q")], "train"))
    found["contexts"][4] = replace(found["contexts"][4], negative_ids=[10, BOS], dropped_turns=1)
    found["contexts"].append(replace(found["contexts"][5], prompt_id="talk", dropped_turns=1))  # which loses nothing
    found["pairs"].append(replace(found["pairs"][0], id="blank", positive_text=" "))
    scored = found["scored"]
    scored[1] = replace(scored[1], positive_ids=scored[1].negative_ids, negative_finished=False)
    scored[2] = replace(scored[2], prompt_id=found["held_out"][0].prompt_id, margin=float("nan"))
    scored[3] = replace(scored[3], plain_context_ids=[BOS, 9], positive_ids=[PAD, EOS])
    scored.append(replace(scored[6], id="again"))
    return found


class Once(StoredRows):
    """Rows of a file that say how often they are gone through."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


@pytest.fixture
def stored(tmp_path) -> dict[str, Once]:
    for name, rows in faulty().items():
        shards.write_rows(tmp_path / name, KINDS[name], rows)
    return {name: Once(tmp_path / name, record) for name, record in KINDS.items()}


def test_rows_of_a_file_have_the_counts_of_a_list(stored):
    counts = inspect(SPECIALS, **stored)
    assert counts == inspect(SPECIALS, **faulty())
    assert {name for name, count in counts.items() if not count["bad"]} == {"padding"}


def test_each_record_is_looked_at_once_and_a_prompt_again_only_to_be_named(stored):
    inspect(SPECIALS, **stored)
    # the first prompt in two splits and the first that repeats another are looked up by their numbers
    assert {name: rows.times for name, rows in stored.items()} == dict.fromkeys(KINDS, 1) | {"prompts": 3}


def test_the_first_fault_of_contexts_comes_before_those_of_answers():
    records = healthy()
    records["scored"][0] = replace(records["scored"][0], positive_ids=[PAD, EOS])
    records["scored"][5] = replace(records["scored"][5], negative_context_ids=[BOS, PAD])
    count = inspect(SPECIALS, **records)["specials"]
    assert (count["bad"], count["first"]) == (2, f"pair {records['scored'][5].id}, negative")
