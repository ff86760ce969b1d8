"""Duplicates, nested subsets and splits by prompt hash."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlma.data.split import (
    BEYOND,
    DUPLICATE,
    SHORTENED,
    TOO_MANY_WORDS,
    Found,
    position,
    read_prompts,
    split_of,
)
from dlma.data.text import BadRow, Tally, prompt_id
from dlma.errors import UserError
from dlma.records import Turn, content_id

SHARES = {"validation_share": 0.1, "test_share": 0.2}


def user(text):
    return [Turn("user", text)]


def read(texts, *, max_words=None, max_prompts=None, on_bad_row="drop", max_dropped=0.2, parse=None, **options):
    rows = [(f"row {i}", {"text": text}) for i, text in enumerate(texts, start=1)]
    tally = Tally(on_bad_row=on_bad_row, max_dropped=max_dropped)
    parse = parse or (lambda row: Found(user(row["text"])))
    sizes = {"max_words": max_words, "max_prompts": max_prompts, **SHARES, **options}
    prompts, account = read_prompts(lambda: rows, parse, tally, source="file", **sizes)
    return list(prompts), account


def test_one_text_has_one_id_whatever_its_case_space_and_unicode_form():
    same = ["Cafe\u0301  au lait?", "café au\nlait?", " CAFÉ AU LAIT? ", "ｃａｆé au lait?"]
    assert len({prompt_id(user(text)) for text in same}) == 1
    assert prompt_id(user("café au lait")) != prompt_id(user("café au lait?"))


def test_who_said_what_is_part_of_the_id():
    talk = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")]
    assert prompt_id(talk) != prompt_id([Turn("user", "a"), Turn("user", "b"), Turn("user", "c")])
    assert prompt_id(talk) != prompt_id(user("a b c"))


def test_duplicates_are_removed_and_counted_and_never_make_the_run_stop():
    prompts, account = read(["How?", "how?", " HOW? ", "Why?"], max_dropped=0.0, on_bad_row="error")
    assert [p.turns[0].content for p in prompts] == ["How?", "Why?"]
    assert account.read == 4 and account.kept == 2 and account.dropped == {DUPLICATE: 2}


def test_a_prompts_split_does_not_depend_on_the_other_prompts():
    few, _ = read([f"question {i}" for i in range(300)])
    many, _ = read([f"question {i}" for i in reversed(range(1000))])
    split = {p.id: p.split for p in many}
    assert all(split[p.id] == p.split for p in few)
    assert all(p.split == split_of(p.id, **SHARES) for p in many)


def test_splits_have_their_shares():
    prompts, _ = read([f"question {i}" for i in range(5000)])
    share = {s: sum(p.split == s for p in prompts) / 5000 for s in ("train", "validation", "test")}
    # five standard deviations of a share of 0.2 over 5000 prompts are 0.028
    assert share == pytest.approx({"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.03)


def test_a_smaller_limit_takes_a_subset_in_file_order_and_all_splits_of_it():
    texts = [f"question {i}" for i in range(2000)]
    everything, _ = read(texts)
    large, _ = read(texts, max_prompts=1000)
    small, account = read(texts, max_prompts=200)
    assert len(small) == account.kept == 200 and account.dropped == {BEYOND: 1800}
    assert {p.id for p in small} < {p.id for p in large}
    order = {p.id: i for i, p in enumerate(everything)}
    assert [order[p.id] for p in small] == sorted(order[p.id] for p in small)
    assert small == [p for p in everything if p.id in {q.id for q in small}]
    # the subset's hash is independent of the split's: 40 test prompts expected, standard deviation 5.7
    assert 15 < sum(p.split == "test" for p in small) < 70


@settings(max_examples=200)
@given(st.sets(st.integers(0, 10**6), min_size=2, max_size=6))
def test_even_the_smallest_set_trains_and_tests(numbers):
    prompts, _ = read([f"question {i}" for i in numbers])
    assert {"train", "test"} <= {p.split for p in prompts}
    assert len({p.id for p in prompts}) == len(numbers)


def talk(row):
    """`one two|three|four` is a user's two words, an answer of one, and a last turn of one."""
    parts = row["text"].split("|")
    return Found([Turn(("user", "assistant")[i % 2], text) for i, text in enumerate(parts)])


@pytest.mark.parametrize(
    ("text", "limit", "kept"),
    [
        ("a b|c|d e", 5, ["a b", "c", "d e"]),
        ("a b|c|d e", 4, ["d e"]),  # an answer without its question goes with it
        ("a|b|c|d|e f", 4, ["c", "d", "e f"]),
        ("a|b|c|d|e f", 2, ["e f"]),
    ],
)
def test_over_the_word_limit_the_oldest_turns_go_and_the_last_stays_whole(text, limit, kept):
    prompts, account = read([text, "x"], max_words=limit, parse=talk)
    assert [turn.content for turn in prompts[0].turns] == kept
    assert account.trimmed == ({SHORTENED: 1} if len(kept) < len(text.split("|")) else {})


def test_a_last_turn_over_the_word_limit_drops_the_prompt_and_shortened_ones_can_be_duplicates():
    prompts, account = read(["a b|c|d e f", "g|h|i", "j|k|I", "l"], max_words=2, parse=talk, max_dropped=0.5)
    assert [[turn.content for turn in p.turns] for p in prompts] == [["i"], ["l"]]
    assert account.dropped == {TOO_MANY_WORDS: 1, DUPLICATE: 1}


def test_a_prompt_without_a_pair_takes_that_of_its_duplicate_and_keeps_its_own():
    pairs = {"1": (None, None), "2": ("b", None), "3": ("c", "d"), "4": ("e", "f")}

    def parse(row):
        text, number = row["text"].split()
        return Found(user(text), chosen=pairs[number][0], rejected=pairs[number][1])

    prompts, account = read(["one 1", "one 2", "one 3", "one 4", "two 4", "two 3"], parse=parse)
    assert [(p.chosen, p.rejected) for p in prompts] == [("c", "d"), ("e", "f")]
    assert account.dropped == {DUPLICATE: 4}


def several(row):
    """Three pairs of a prompt, the third as its first."""
    return [Found(user(row["text"]), chosen="a", rejected=other) for other in ("b", "c", "b")]


@pytest.mark.parametrize("count", [2, 60])
def test_every_pair_of_a_prompt_is_a_prompt_of_its_own_in_the_split_of_its_text(count):
    texts = [f"question {i}" for i in range(count)]
    prompts, account = read(texts, parse=several, every_pair=True)
    assert (account.read, account.kept, account.dropped) == (3 * count, 2 * count, {DUPLICATE: count})
    assert [(p.turns[0].content, p.rejected) for p in prompts] == [(text, one) for text in texts for one in "bc"]
    assert len({p.id for p in prompts}) == 2 * count
    once, _ = read(texts, parse=several)
    split = {p.turns[0].content: p.split for p in once}
    assert [p.split for p in prompts] == [split[p.turns[0].content] for p in prompts]
    assert [p.rejected for p in once] == ["b"] * count


def test_one_prompt_is_too_few_whatever_its_pairs():
    with pytest.raises(UserError, match="one usable prompt"):
        read(["one"], parse=several, every_pair=True)


def test_one_prompt_is_too_few():
    with pytest.raises(UserError, match="at least 2"):
        read(["only one"])


def test_places_are_uniform():
    places = [position(f"{i}", "split") for i in range(2000)]
    assert 0 <= min(places) < 0.01 and 0.99 < max(places) < 1


def bad_after(n):
    def parse(row):
        if int(row["text"]) >= n:
            raise BadRow("empty answer")
        return Found(user(row["text"]))

    return parse


def test_bad_rows_up_to_the_limit_are_dropped_and_more_stop_the_run():
    texts = [str(i) for i in range(10)]
    _, account = read(texts, parse=bad_after(8))
    assert (account.read, account.kept, account.dropped) == (10, 8, {"empty answer": 2})
    with pytest.raises(UserError, match=r"file: 3 of 10 rows cannot be used \(empty answer: 3\).*max_dropped=0.2"):
        read(texts, parse=bad_after(7))


def test_strict_mode_names_the_first_bad_row():
    with pytest.raises(UserError, match=r"^row 9: empty answer \(a row of a file is left out by data.on_bad_row=drop"):
        read([str(i) for i in range(10)], parse=bad_after(8), on_bad_row="error")


def test_unknown_row_policies_are_refused():
    with pytest.raises(UserError, match=r"data.on_bad_row"):
        Tally(on_bad_row="warn", max_dropped=0.2)
    with pytest.raises(UserError, match=r"data.max_dropped"):
        Tally(on_bad_row="drop", max_dropped=20)


# Of any number of rows


def long_rows(count, changed=None):
    """Rows of ten thousand letters each, that are made as they are read."""
    for i in range(count):
        yield f"row {i}", {"text": f"question {changed if i == 5 and changed else i} " + "x" * 10_000}


def every_prompt(rows):
    tally = Tally(on_bad_row="drop", max_dropped=0.2)
    return read_prompts(
        rows, lambda row: Found(user(row["text"])), tally, source="file", max_words=None, max_prompts=None, **SHARES
    )[0]


def test_prompts_are_the_same_each_time_and_none_is_held():
    tracemalloc.start()
    prompts = every_prompt(lambda: long_rows(500))
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 500 * 100 and most < 500 * 1000  # bytes, of texts of 5 MB
    once, again = ([(prompt.id, prompt.split) for prompt in prompts] for _ in range(2))
    assert once == again and len(once) == len(prompts) == 500


@pytest.mark.parametrize("then", [lambda: long_rows(499), lambda: long_rows(500, changed=900)])
def test_rows_that_change_while_they_are_read_are_told_in_a_line(then):
    times = iter([lambda: long_rows(500), then])
    prompts = every_prompt(lambda: next(times)())
    with pytest.raises(UserError, match=r"^file: the rows have changed while they were read; start again$"):
        list(prompts)


ROW = st.tuples(st.sampled_from("abcdefg "), st.sampled_from([None, "", "x", "y"]), st.sampled_from([None, "x"]))


@settings(max_examples=150)
@given(st.lists(ROW, max_size=12), st.booleans(), st.none() | st.integers(2, 5))
def test_whole_prompts_in_a_list_give_the_same(rows, every_pair, most):
    """Against the plain way: a dictionary of prompts, sorted and moved afterwards."""
    tally = Tally(on_bad_row="drop", max_dropped=1.0)
    numbered = [("row", {"text": text, "pair": pair}) for text, *pair in rows]

    def parse(row):
        return Found(user(row["text"]), None, *row["pair"])

    sizes = {"max_words": None, "max_prompts": most, "every_pair": every_pair, **SHARES}
    plain: dict[str, tuple] = {}
    for text, one, other in rows:
        name = prompt_id(user(text))
        name = content_id(name, one or "", other or "") if every_pair else name
        if text != " " and (name not in plain or (None in plain[name][1:] and None not in (one, other))):
            plain[name] = (text, one, other)
    taken = sorted(plain, key=lambda name: position(name, "subset"))[:most]
    places = sorted({prompt_id(user(plain[name][0])) for name in taken}, key=lambda text: position(text, "split"))
    try:
        prompts, account = read_prompts(lambda: numbered, parse, tally, source="file", **sizes)
    except UserError:
        assert len(places) < 2
        return
    found = list(prompts)
    assert [(p.id, p.turns[0].content, p.chosen, p.rejected) for p in found] == [
        (name, *row) for name, row in plain.items() if name in taken
    ]
    splits = {text: split_of(text, **SHARES) for text in places}
    for split, moved in (("test", places[0]), ("train", places[-1])):
        splits[moved] = splits[moved] if split in splits.values() else split
    assert [p.split for p in found] == [splits[prompt_id(p.turns)] for p in found]
    assert (account.read, account.kept) == (len(rows), len(found))
    assert account.read == account.kept + sum(account.dropped.values())
