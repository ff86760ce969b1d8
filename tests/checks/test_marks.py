"""Marks tell of keys what a list of all of them would."""

from hypothesis import given
from hypothesis import strategies as st

from dlma.checks.marks import Marks

KEY = st.one_of(st.text(max_size=2), st.lists(st.integers(0, 3), max_size=3))
KEYS = st.lists(KEY, max_size=30)


def marked(keys) -> Marks:
    found = Marks()
    for key in keys:
        found.add(key)
    return found


@given(KEYS, KEYS)
def test_a_key_is_there_where_it_was_added(keys, others):
    marks = marked(keys)
    assert len(marks) == len(keys)
    assert [marks.has(key) for key in [*keys, *others]] == [key in keys for key in [*keys, *others]]


@given(KEYS)
def test_repeats_are_those_that_stand_in_the_list_before(keys):
    again = [place for place, key in enumerate(keys) if key in keys[:place]]
    assert marked(keys).repeats() == (len(again), again[0] if again else 0)


@given(KEYS, KEYS)
def test_shared_ones_are_those_of_both_lists(keys, others):
    both = [place for place, key in enumerate(keys) if key in others]
    assert marked(keys).shared(marked(others)) == (len(both), both[0] if both else 0)


def test_parts_are_told_apart():
    marks = Marks()
    marks.add("a", [1, 2])
    same = ("a", [1, 2])
    assert marks.has(*same)
    assert not any(
        marks.has(*key) for key in [("a",), ("a", [1], [2]), ("a", [12]), ("a", "[1, 2]"), (same,), ("b", [1, 2])]
    )


def test_a_mark_takes_eight_bytes():
    marks = marked(map(str, range(1000)))
    assert marks._added.itemsize * len(marks._added) == marks._sorted.nbytes == 8000
