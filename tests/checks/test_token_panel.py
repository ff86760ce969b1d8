"""R token by token: echoes and correlations by hand and by an independent formula, and the coloured text is safe."""

import dataclasses
import re

import numpy as np
import pytest
from omegaconf import OmegaConf
from planted import scored_pair
from scipy import stats

from dlma.app import conf_dir
from dlma.checks.token_panel import echo, figures_of, partial_correlations
from dlma.config.build import build
from dlma.lab import lexicon
from dlma.records import TokenRewards
from dlma.report.sections import examples
from dlma.report.sections import tokens as section


def panel(name, **changes):
    return build({**OmegaConf.load(conf_dir() / "panel" / f"{name}.yaml"), **changes})


def row(name, positive, negative, echoes=((), ())):
    sides = [[f"w{i}" for i in range(len(rewards))] for rewards in (positive, negative)]
    marks = [[i in found for i in range(len(rewards))] for rewards, found in zip((positive, negative), echoes)]
    return TokenRewards(name, list(positive), list(negative), *sides, *marks)


ROWS = [
    row("a", (2.0, -1.0, 0.5), (0.5, -1.0), ((0,), (1,))),  # R = 1.5 + 0.5 = 2; without echoes -0.5 - 0.5 = -1
    row("b", (1.0, 1.0), (0.0,), ((), ())),  # R = 2 either way
    row("c", (0.0, -2.0), (1.0,), ((1,), (0,))),  # R = -3; without echoes 0
]
TRUTH = {"a": 1.0, "b": 1.0, "c": -1.0}


def test_the_echo_is_counted_by_hand():
    found = echo(ROWS, TRUTH)
    assert found.share.value == pytest.approx((3 + 0 + 3) / (5 + 2 + 3))
    assert found.tokens.value == pytest.approx((2 + 0 + 2) / (5 + 3 + 3))
    assert found.mean.value == pytest.approx((2 + 2 - 3) / 3)
    assert found.mean_without.value == pytest.approx((-1 + 2 + 0) / 3)
    assert found.flipped.value == pytest.approx(2 / 3)
    assert found.sign.value == 1.0
    assert found.sign_without.value == pytest.approx((0 + 1 + 0.5) / 3)
    assert dict(found.words) == {"w0": 3.0, "w1": 3.0}


def test_an_affix_that_is_not_echoed_carries_nothing():
    found = echo([row("a", (1.0, 2.0), (0.5,)), row("b", (1.0,), (0.5,))], {"a": None, "b": None})
    assert found.share.value == found.tokens.value == found.flipped.value == 0
    assert found.mean == found.mean_without
    assert found.sign is None and found.words == []


def test_rewards_that_are_all_zero_have_no_share():
    assert echo([row("a", (0.0,), (0.0,))], {"a": None}) is None


def by_regression(target, columns, which):
    """Partial correlation as the correlation of residuals of ranks."""
    ranks = [stats.rankdata(values) for values in (target, *columns)]
    others = [column for i, column in enumerate(ranks[1:]) if i != which]
    design = np.column_stack([np.ones(len(target)), *others])
    left, right = (
        values - design @ np.linalg.lstsq(design, values, rcond=None)[0] for values in (ranks[0], ranks[1 + which])
    )
    return float(np.corrcoef(left, right)[0, 1])


def test_partial_correlations_are_those_of_residuals():
    draw = np.random.default_rng(0)
    first = draw.normal(size=80)
    second = 0.7 * first + draw.normal(size=80)
    third = draw.integers(0, 3, size=80)
    target = first + 0.3 * third + draw.normal(size=80)
    columns = [first, second, third]
    found = partial_correlations(target, columns)
    for which, estimate in enumerate(found):
        assert estimate.value == pytest.approx(by_regression(target, columns, which), abs=1e-9)
        assert estimate.low < estimate.value < estimate.high
    assert found[0].low > 0 and found[1].low < 0 < found[1].high  # the second only goes along with the first


def test_one_column_is_a_plain_rank_correlation():
    draw = np.random.default_rng(1)
    target, column = draw.normal(size=40), draw.normal(size=40)
    (found,) = partial_correlations(target, [column])
    assert found.value == pytest.approx(stats.spearmanr(target, column).statistic)


def test_what_does_not_vary_or_repeats_another_is_left_open():
    draw = np.random.default_rng(2)
    target, column = draw.normal(size=40), draw.normal(size=40)
    assert partial_correlations(target, [column, np.zeros(40)])[1] is None
    assert partial_correlations(target, [column, 2 * column]) == [None, None]
    assert partial_correlations(np.ones(40), [column]) == [None]
    assert partial_correlations(target[:4], [column[:4]]) == [None]


def test_the_interval_of_a_partial_correlation_covers():
    draw = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        held = draw.normal(size=60)
        target, column = held + draw.normal(size=60), held + draw.normal(size=60)  # independent once held is fixed
        estimate = partial_correlations(target, [column, held])[0]
        hits += estimate.low <= 0 <= estimate.high
    assert 0.92 < hits / 400 < 0.98


def planted(number, first, second, r, positive=(1, 2), negative=(3, 4)):
    return dataclasses.replace(
        scored_pair(number, r), positive_text=first, negative_text=second, positive_ids=list(positive),
        negative_ids=list(negative), positive_under_positive=float(r), positive_under_negative=0.0,
        negative_under_positive=0.0, negative_under_negative=0.0,
    )  # fmt: skip


def test_a_planted_confound_is_seen_where_it_was_planted():
    """R follows the style mark and nothing else; sentiment goes with the mark only through chance."""
    draw = np.random.default_rng(4)
    pairs = []
    for i in range(300):
        mark, kind = draw.integers(0, 2, size=2)
        text = f"we {'help' if kind else 'hit'} the dog {'!' if mark else '.'}"
        pairs.append(
            planted(i, text, "we see the dog .", 2.0 * mark + 0.2 * draw.normal(), [1] * int(draw.integers(3, 6)))
        )
    links = {link.name: link for link in panel("lab").links(pairs, lambda text: False)}
    style, sentiment = links["style marks !"], links["sentiment"]
    assert style.partial.low > 0.5
    assert sentiment.partial.low < 0 < sentiment.partial.high
    assert links["refusal"].partial is None  # nobody refuses here
    assert {*figures_of(None, list(links.values()))} == {
        "score/partial_length",
        "score/partial_sentiment",
        "score/partial_style",
    }


def test_the_lists_of_the_lab_are_the_worlds_own_words():
    lab = panel("lab")
    good = {word for value, words in lexicon.VERBS.items() if value > 0 for word in words}
    bad = {word for value, words in lexicon.VERBS.items() if value < 0 for word in words}
    assert ({w for line in lab.positive for w in line}, {w for line in lab.negative for w in line}) == (good, bad)
    assert lab.marks == [lexicon.STYLE_END]


@pytest.mark.parametrize("name", ["lab", "text"])
def test_no_word_is_on_both_lists_or_twice_on_one(name):
    one = panel(name)
    words = [word for lines in (one.positive, one.negative) for line in lines for word in line]
    assert len(words) == len(set(words)) and all(word == word.casefold() for word in words)


def test_sentiment_is_good_words_less_bad_ones_per_word():
    text = panel("text")
    assert text.sentiment("A good, GOOD day") == pytest.approx(2 / 4)
    assert text.sentiment("goodness is terrible .") == pytest.approx(-1 / 3)
    assert text.sentiment("") == 0
    assert text.style("stop it ! now !") == pytest.approx(2 / 3)


def test_the_sample_is_even_and_no_larger_than_asked():
    pairs = [dataclasses.replace(scored_pair(i, 0.0), positive_under_positive=-1.0) for i in range(10)]
    assert [p.id for p in panel("lab", sample=4).chosen(pairs)] == ["x0", "x3", "x6", "x9"]
    assert panel("lab").chosen(pairs) == pairs and panel("lab").chosen([]) == []
    given = [scored_pair(i, 0.0) for i in range(10, 20)]  # whose margins are not R: they have no log-probs of it
    assert panel("lab", sample=4).chosen([*given, *pairs, *given]) == panel("lab", sample=4).chosen(pairs)
    assert panel("lab").chosen(given) == []


def test_coloured_text_is_escaped_blurred_and_says_its_nats():
    bad = dataclasses.replace(
        row("a", (2.0, -1.0), (0.25,), ((0,), ())), positive_pieces=["<script>", "& b"], negative_pieces=['"x"']
    )
    page = examples([bad], {"a": "<img src=x>"})
    assert "<script>" not in page and "<img" not in page
    assert "&lt;script&gt;" in page and "&amp; b" in page
    assert page.count("data-veil") == 3
    assert 'data-tip="+2.000 nats"' in page and 'data-tip="-1.000 nats"' in page
    spans = re.findall(r'<span style="([^"]*)"', page)
    assert "--better" in spans[0] and "underline" in spans[0]
    assert "--worse" in spans[1] and "underline" not in spans[1]


def test_examples_go_from_the_largest_r_to_the_smallest():
    rows = [row(str(i), (float(i),), (0.0,)) for i in range(50)]
    page = examples(rows, {str(i): "q" for i in range(50)})
    shown = [float(value) for value in re.findall(r">R = ([+-][\d.]+)<", page)]
    assert shown == sorted(shown, reverse=True) and (shown[0], shown[-1], len(shown)) == (49, 0, 6)


def test_the_section_shows_all_three_parts():
    found = echo(ROWS, TRUTH)
    links = panel("lab").links([planted(i, "we help .", "we hit", i - 2.0) for i in range(9)], lambda text: False)
    page = section(ROWS, {"a": "q", "b": "q", "c": "q"}, found, links, "a <list>")
    assert "60.0 %" in page  # the echoes' share of |r|
    assert "a &lt;list&gt;" in page and "without echoes" in page and page.count('<article class="case">') == 3
