"""The writing requests: distinct, without a mood, and about other things in each split."""

import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from dlma.data import requests
from dlma.data.requests import DETAILS, FORMS, TOPICS, Requests
from dlma.errors import UserError
from dlma.records import Account, Prompt, from_table, to_table

SIZES = {"train": 480, "validation": 80, "test": 160}
MOST = {"train": 750, "validation": 170, "test": 280}


def _read(**changes):
    return Requests(**{**SIZES, "validation_share": 0.15, "test_share": 0.25, "seed": 0, **changes}).read()


@pytest.fixture(scope="module")
def rows():
    return _read()[0]


def _every_request():
    """Each text that the grammar can make, with its topic and form."""
    forms = ((form, topic) for kind, topics in TOPICS.items() for topic in topics for form in FORMS[kind])
    return {form.format(topic=topic) + detail: (topic, form) for form, topic in forms for detail in DETAILS}


def test_the_splits_have_the_asked_sizes_and_no_request_twice(rows):
    assert {split: sum(row.split == split for row in rows) for split in SIZES} == SIZES
    assert len({row.id for row in rows}) == len(rows) >= 600
    assert _read()[1] == Account(read=720, kept=720)


def test_no_two_requests_share_topic_and_form_and_no_two_splits_a_topic(rows):
    known = _every_request()
    assert len(known) == 120 * 10 * 8  # topics, forms of each, details: no text can be made in two ways
    parts = [(row.split, *known[row.turns[0].content]) for row in rows]
    assert len({(topic, form) for _, topic, form in parts}) == len(rows)
    topics = [{topic for of, topic, _ in parts if of == split} for split in SIZES]
    assert sum(map(len, topics)) == len(set.union(*topics)) > 110


def test_no_request_has_a_mood_in_the_eyes_of_a_lexicon_of_sentiment(rows):
    score = SentimentIntensityAnalyzer().polarity_scores
    assert [row.turns[0].content for row in rows if score(row.turns[0].content)["compound"] != 0] == []
    assert score("Write a diary entry about a gloomy harbour.")["compound"] < 0


def test_requests_are_short_and_plain_text(rows):
    assert all(row.turns[0].content.isascii() and len(row.turns[0].content.split()) <= 20 for row in rows)
    assert all("{" not in row.turns[0].content and row.turns[0].content[-1] == "." for row in rows)


def test_the_seed_alone_decides_and_fewer_requests_are_the_first_of_more(rows):
    assert _read()[0] == rows != _read(seed=1)[0]
    fewer = _read(train=20, validation=0, test=5)[0]
    assert fewer == [*rows[:20], *rows[560:565]]


def test_every_form_topic_and_detail_is_in_the_fingerprint(monkeypatch):
    before = Requests(**SIZES, validation_share=0.15, test_share=0.25, seed=0).fingerprint()
    monkeypatch.setattr(requests, "DETAILS", DETAILS[:-1])
    assert Requests(**SIZES, validation_share=0.15, test_share=0.25, seed=0).fingerprint() != before


def test_more_than_the_grammar_makes_is_one_line():
    assert len(_read(**MOST)[0]) == sum(MOST.values()) == 120 * 10
    with pytest.raises(UserError, match=r"data\.test=281: the grammar has 280 test requests: ask for 0 to 280"):
        _read(test=281)


def test_the_rows_survive_a_table(rows):
    assert from_table(Prompt, to_table(Prompt, rows)) == rows
