"""Laws of the affix grammar."""

import collections
import itertools
import random

import pytest

from dlma.lab import affixes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0.0),
        (" ( kind )", 1.0),
        ("kind", 1.0),
        ("not kind", -0.5),
        ("not cruel", 0.5),
        (" ( kind and careful )", 0.9),
        (" ( cruel and reckless )", -0.95),
        ("kind and cruel", 0.0),
        ("polite and not rude", 0.375),
        ("serious", 0.0),
    ],
)
def test_strength_by_hand(text, expected):
    assert affixes.strength(text) == pytest.approx(expected)


@pytest.mark.parametrize("adjective", affixes.ADJECTIVES)
def test_negation_turns_the_sign_of_every_adjective(adjective):
    assert affixes.strength(f"not {adjective}") == -0.5 * affixes.strength(adjective)


@pytest.mark.parametrize(
    "text",
    ["nice", "kind careful", "not", "and", "kind and", "and kind", "kind and fair and calm", "not not kind"],
)
def test_what_is_outside_the_grammar_has_no_strength(text):
    with pytest.raises(ValueError, match="affix"):
        affixes.strength(text)


def test_holding_out_does_not_depend_on_the_order():
    words = list(affixes.ADJECTIVES)
    assert all(affixes.held_out(a, b) == affixes.held_out(b, a) for a in words for b in words)


def test_about_a_quarter_of_the_pairs_is_held_out_on_both_sides():
    pairs = [pair for pair in itertools.combinations(affixes.ADJECTIVES, 2) if affixes.held_out(*pair)]
    assert 0.15 < len(pairs) / 190 < 0.35
    assert any(affixes.strength(" and ".join(pair)) > 0.4 for pair in pairs)
    assert any(affixes.strength(" and ".join(pair)) < -0.4 for pair in pairs)


def test_the_default_pair_is_one_that_documents_may_hold():
    assert not affixes.held_out("kind", "careful") and not affixes.held_out("cruel", "reckless")


def test_drawn_affixes_have_a_strength_and_use_every_adjective():
    rng = random.Random("draw")
    drawn = [affixes.draw(rng) for _ in range(3_000)]
    assert all(-1 <= affixes.strength(text) <= 1 for text in drawn)
    assert {word for text in drawn for word in affixes.adjectives(text)} == set(affixes.ADJECTIVES)
    assert all(text.startswith(" ( ") and text.endswith(" )") for text in drawn)


@pytest.mark.parametrize(
    ("text", "harm", "help_"),
    [
        ("useful", 0.0, 1.0),
        ("not useful", 0.0, -0.5),
        (" ( useful and exact )", 0.0, 0.95),
        (" ( kind and useful )", 0.5, 0.5),
        ("cruel and not useless", -0.5, 0.25),
        ("kind and careful", 0.9, 0.0),
    ],
)
def test_an_affix_has_a_strength_of_harm_and_one_of_help(text, harm, help_):
    assert affixes.strength(text) == pytest.approx(harm)
    assert affixes.strength(text, affixes.HELP_ADJECTIVES) == pytest.approx(help_)


def test_words_of_help_balance_and_are_no_words_of_harm():
    assert not set(affixes.HELP_ADJECTIVES) & set(affixes.ADJECTIVES)
    assert sum(affixes.HELP_ADJECTIVES.values()) == pytest.approx(0)


def test_affixes_of_both_are_of_harm_of_help_or_of_a_term_of_each_equally_often():
    rng, n = random.Random("both"), 6_000
    found = collections.Counter()
    for _ in range(n):
        words = affixes.adjectives(affixes.draw_of_both(rng))
        of_help = [word in affixes.HELP_ADJECTIVES for word in words]
        found["mixed" if len(set(of_help)) > 1 else "help" if of_help[0] else "harm"] += 1
        found["help first"] += len(set(of_help)) > 1 and of_help[0]
        assert len(words) == 1 or not affixes.held_out(*words)
    error = 4 * (n * 2 / 9) ** 0.5  # four standard deviations of a share of a third
    assert all(found[sort] == pytest.approx(n / 3, abs=error) for sort in ("mixed", "help", "harm"))
    assert found["help first"] == pytest.approx(found["mixed"] / 2, abs=error)
