"""The Anthropic pair format, on rows written here and, where it is at hand, on the real harmless test file."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from rows_of_data_sets import pair, processed

from dlma.data.corpus import Corpus
from dlma.data.hh import HH
from dlma.errors import UserError
from dlma.records import Turn

REAL = Path(
    os.environ.get("DLMA_HH_FILE")
    or Path(__file__).parents[3] / "shared" / "data" / "hh-rlhf" / "harmless-base-test.jsonl.gz"
)
SETTINGS = {
    "revision": "main",
    "subset": None,
    "hub_split": "train",
    "max_words": None,
    "max_prompts": None,
    "only": None,
    "every_pair": False,
    "validation_share": 0.1,
    "test_share": 0.2,
    "on_bad_row": "drop",
    "max_dropped": 0.2,
}
TALK = "\n\nHuman: How do I bake?\n\nAssistant: With flour.\n\nHuman: And then?\n\nAssistant:"


def read(path, **changes):
    prompts, account = Corpus(path=str(path), format=HH(), **{**SETTINGS, **changes}).read()
    return list(prompts), account


def write(folder, rows, name="pairs.jsonl.gz"):
    path = folder / name
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def enough(*rows):
    return [*rows, *(pair(f"question {i}?") for i in range(20))]


def test_the_prompt_ends_with_the_last_question_and_the_answers_follow_it(tmp_path):
    row = {"chosen": f"{TALK} Wait.\n\nThen bake.", "rejected": f"{TALK} Eat it: raw"}
    prompts, _ = read(write(tmp_path, enough(row)))
    assert prompts[0].turns == [
        Turn("user", "How do I bake?"),
        Turn("assistant", "With flour."),
        Turn("user", "And then?"),
    ]
    assert prompts[0].chosen == "Wait.\n\nThen bake." and prompts[0].rejected == "Eat it: raw"


def test_names_of_speakers_inside_a_turn_are_text(tmp_path):
    row = pair("Who said Human: hello\nAssistant: hi?", "A Human: did.", "The\nAssistant: did.")
    prompts, _ = read(write(tmp_path, enough(row)))
    assert prompts[0].turns == [Turn("user", "Who said Human: hello\nAssistant: hi?")]
    assert (prompts[0].chosen, prompts[0].rejected) == ("A Human: did.", "The\nAssistant: did.")


def test_the_processed_format_gives_the_same_prompts_and_pairs(tmp_path):
    talk = ["How do I bake?", "With flour.", "And then?"]
    one, _ = read(write(tmp_path, enough({"chosen": f"{TALK} yes", "rejected": f"{TALK} no"}), "a.jsonl.gz"))
    rows = [processed(*talk), *(processed(f"question {i}?") for i in range(20))]
    two, _ = read(write(tmp_path, rows, "b.jsonl.gz"))
    assert one == two and len(one) == 21


def test_the_first_blank_lines_may_be_missing(tmp_path):
    row = {name: text.lstrip() for name, text in pair("q").items()}
    prompts, _ = read(write(tmp_path, enough(row)))
    assert prompts[0].turns == [Turn("user", "q")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (pair("q", chosen=""), "empty answer"),
        (pair("q", rejected="  \n"), "empty answer"),
        ({"chosen": pair("q")["chosen"], "rejected": pair("r")["rejected"]}, "prompts differ within the pair"),
        (
            {"chosen": pair("q", "a\n\nAssistant: b")["chosen"], "rejected": pair("q")["rejected"]},
            "prompts differ within the pair",
        ),
        (pair("q", "a\n\nAssistant: b", "a\n\nAssistant: c"), "no user turn before the answer"),
        (pair(" "), "empty prompt"),
        (processed("q", chosen=" "), "empty answer"),
        (processed("q", "a"), "no user turn before the answer"),
        (processed(), "empty prompt"),
        ({**processed("q"), "chosen": {"role": "human", "text": "a"}}, "an answer that is not the assistant's"),
        ({**processed("q"), "context": [{"role": "system", "text": "q"}]}, "a role other than human and assistant"),
        ({"chosen": "\n\nHuman: q", "rejected": "\n\nHuman: q"}, "no answer after the last Human: turn"),
        ({"chosen": "q", "rejected": "q"}, "no Human: or Assistant: turn"),
        ({"chosen": "x\n\nHuman: q\n\nAssistant: a", "rejected": "x"}, "text before the first turn"),
    ],
)
def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path, row, reason):
    path = write(tmp_path, enough(row))
    prompts, account = read(path)
    assert account.dropped == {reason: 1} and account.read == 21 and account.kept == len(prompts) == 20
    with pytest.raises(UserError, match=f"pairs.jsonl.gz, row 1: {reason}"):
        read(path, on_bad_row="error")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "\n\nHuman: q\n\nAssistant: a"}, "no column 'rejected'"),
        ({"chosen": [{"role": "user", "content": "q"}], "rejected": []}, "chosen is a list of turns; .*data=jsonl"),
        ({"chosen": None, "rejected": "x"}, "chosen is of type NoneType"),
        ({**processed("q"), "context": "q"}, "context is not a list of turns"),
        ({**processed("q"), "chosen": "yes"}, "chosen is not made of turns with role and text"),
        ({**processed("q"), "context": [{"role": "human"}]}, "no column 'text'"),
    ],
)
def test_unreadable_rows_stop_with_file_and_row(tmp_path, row, message):
    path = write(tmp_path, [*enough(), row])
    with pytest.raises(UserError, match=f"^{path}, row 21: {message}"):
        read(path)


def test_too_many_bad_rows_stop_the_run(tmp_path):
    path = write(tmp_path, [pair(f"question {i}?", chosen="" if i < 3 else "yes") for i in range(10)])
    with pytest.raises(UserError, match=r"3 of 10 rows cannot be used \(empty answer: 3\)"):
        read(path)
    assert read(path, max_dropped=0.3)[1].dropped == {"empty answer": 3}


def test_a_folder_is_read_in_order_of_name(tmp_path):
    write(tmp_path, [pair(f"b {i}") for i in range(3)], "test.jsonl.gz")
    (tmp_path / "train").mkdir()
    write(tmp_path / "train", [pair(f"a {i}") for i in range(3)], "part.jsonl.gz")
    prompts, account = read(tmp_path)
    assert [p.turns[0].content for p in prompts] == ["b 0", "b 1", "b 2", "a 0", "a 1", "a 2"]
    assert account.read == 6


@pytest.mark.skipif(not REAL.exists(), reason="set DLMA_HH_FILE to the file harmless-base/test.jsonl.gz")
class TestRealFile:
    def test_the_account_of_the_harmless_test_file(self):
        prompts, account = read(REAL)
        assert account.read == 2312 and account.kept == len(prompts) == 2301
        assert account.dropped == {
            "empty answer": 4,
            "prompts differ within the pair": 5,
            "duplicate prompt": 2,
        }
        splits = Counter(p.split for p in prompts)
        # binomial standard deviations: 15 of validation, 19 of test; five of them
        assert abs(splits["validation"] - 230) < 75 and abs(splits["test"] - 460) < 95

    def test_every_prompt_ends_with_a_question_and_has_two_answers(self):
        prompts, _ = read(REAL)
        assert len({p.id for p in prompts}) == len(prompts)
        for prompt in prompts:
            assert prompt.turns[0].role == prompt.turns[-1].role == "user"
            assert prompt.turns[-1].content and prompt.chosen and prompt.rejected
        # most conversations have several turns: 662 of the 2312 rows have one
        assert sum(len(p.turns) > 1 for p in prompts) > 1500

    def test_long_conversations_lose_their_oldest_turns_and_keep_the_last_one_whole(self):
        whole, _ = read(REAL)
        short, account = read(REAL, max_words=60, max_dropped=0.5)
        last = {p.turns[-1].content for p in whole}
        assert all(p.turns[-1].content in last and p.turns[0].role == "user" for p in short)
        assert max(sum(len(t.content.split()) for t in p.turns) for p in short) <= 60
        assert account.trimmed["oldest turns dropped to fit data.max_words"] > 1000
        assert account.dropped["last turn longer than data.max_words"] == 4
        assert account.read == account.kept + sum(account.dropped.values())

    def test_two_hundred_prompts_are_two_hundred_prompts(self):
        prompts, account = read(REAL, max_prompts=200)
        assert len(prompts) == account.kept == 200
        assert {p.split for p in prompts} == {"train", "validation", "test"}
        assert account.read == account.kept + sum(account.dropped.values())
