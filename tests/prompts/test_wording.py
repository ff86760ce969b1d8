"""Wordings: what each side reads, that a person's braces survive, and that mistakes are named."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_tokenizers import OWN_TEMPLATES
from wordings import NAMES, shipped

from dlma.errors import UserError
from dlma.prompts.wording import Wording
from dlma.records import Turn

TEMPLATES = {
    "source": "this test",
    "system": "{system}\n\n",
    "user": "USER: {text}\n",
    "assistant": "ASSISTANT: {text}\n",
    "answer": "ASSISTANT{affix}:\n",
    **OWN_TEMPLATES,
}
PAIR = {"positive": {"affix": "(good)"}, "negative": {"system": "Be bad.", "affix": "(bad)"}}
TALK = [Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "Bye")]


def test_the_sides_differ_only_in_system_text_and_affix():
    wording = Wording(**TEMPLATES, pairs=[PAIR])
    body = "USER: Hi\nASSISTANT: Hello\nUSER: Bye\n"
    assert wording.render(TALK, "plain", 0) == body + "ASSISTANT:\n"
    assert wording.render(TALK, "positive", 0) == body + "ASSISTANT(good):\n"
    assert wording.render(TALK, "negative", 0) == "Be bad.\n\n" + body + "ASSISTANT(bad):\n"


@given(st.text())
def test_a_persons_text_is_never_interpreted(content):
    for text in (content, "{text}{affix}{system}{0}{}" + content, "{" + content, "%s $x \\1" + content):
        rendered = Wording(**TEMPLATES, pairs=[PAIR]).render([Turn("user", text)], "positive", 0)
        assert rendered == "USER: " + text + "\nASSISTANT(good):\n"


def test_braces_of_a_template_that_are_no_placeholder_are_plain_text():
    wording = Wording(**{**TEMPLATES, "user": '{"say": "{text}"} {} { }\n'}, pairs=[PAIR])
    assert wording.render([Turn("user", "hi")], "plain", 0) == '{"say": "hi"} {} { }\nASSISTANT:\n'


def test_the_drawn_pair_is_fixed_by_prompt_and_seed_and_uniform():
    wording = shipped("affixes16")
    drawn = [wording.choose(f"prompt {i}", 0) for i in range(8000)]
    assert drawn == [wording.choose(f"prompt {i}", 0) for i in range(8000)]
    assert set(drawn) == set(range(16))
    # 500 expected each; a count beyond 5 standard deviations (21.7) has probability below 1e-5 over 16 cells
    assert all(abs(n - 500) < 109 for n in Counter(drawn).values())
    moved = sum(a != wording.choose(f"prompt {i}", 1) for i, a in enumerate(drawn))
    assert moved > 7000  # 15/16 of 8000 are 7500


def test_the_official_pair_is_spelt_as_in_the_official_code():
    question = [Turn("user", "Q?")]
    harmless, helpful = shipped("harmless_affix"), shipped("helpful_affix")
    assert harmless.render(question, "positive", 0) == (
        "USER: Q?\nASSISTANT(law-abiding, ethical, inoffensive response):\n"
    )
    assert harmless.render(question, "negative", 0) == ("USER: Q?\nASSISTANT(illegal, unethical, toxic response):\n")
    assert helpful.render(question, "positive", 0) == "USER: Q?\nASSISTANT(giving a helpful response):\n"
    assert helpful.render(question, "negative", 0) == "USER: Q?\nASSISTANT(giving an unhelpful response):\n"
    assert harmless.render(question, "plain", 0) == helpful.render(question, "plain", 0) == "USER: Q?\nASSISTANT:\n"


def test_the_system_pair_stands_before_a_bare_question():
    wording = shipped("system")
    plain = wording.render([Turn("user", "Q?")], "plain", 0)
    assert plain == "Question:\nQ?\n\nAnswer:\n"
    for side in ("positive", "negative"):
        rendered = wording.render([Turn("user", "Q?")], side, 0)
        assert rendered.endswith("\n\n" + plain) and len(rendered) > len(plain) + 200


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_set_says_its_source_and_contrasts(name):
    wording = shipped(name)
    assert wording.source
    for index in range(len(wording.pairs)):
        sides = {side: wording.render(TALK, side, index) for side in ("plain", "positive", "negative")}
        alike = {"lab_identical"} & {name}  # the control whose sides are meant to be the same
        assert len(set(sides.values())) == 3 - len(alike)
        assert wording.label(index).startswith(f"{index}: ") and len(wording.label(index)) < 140


def test_there_are_sixteen_distinct_index_matched_pairs():
    pairs = shipped("affixes16").pairs
    assert len(pairs) == 16
    assert len({(p["positive"]["affix"], p["negative"]["affix"]) for p in pairs}) == 16


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"user": "USER: {txt}\n"}, "prompts.user"),
        ({"user": "USER:\n"}, "prompts.user"),
        ({"user": "USER{affix}: {text}\n"}, "prompts.user"),
        ({"assistant": "A: {question}"}, "prompts.assistant"),
        ({"answer": "A{afix}:"}, "prompts.answer"),
        ({"answer": "A:"}, "prompts.answer"),
        ({"system": "{sytem}"}, "prompts.system"),
        ({"system": ""}, "prompts.system"),
        ({"system": None}, "prompts.system"),
        ({"pairs": []}, "prompts.pairs"),
        ({"pairs": "none"}, "prompts.pairs"),
        ({"pairs": [PAIR, {"positive": {}}]}, r"prompts.pairs\[1\]"),
        ({"pairs": [{**PAIR, "neutral": {}}]}, r"prompts.pairs\[0\]"),
        ({"pairs": [{"positive": "(good)", "negative": {}}]}, r"prompts.pairs\[0\].positive"),
        ({"pairs": [{"positive": {"afix": "x"}, "negative": {}}]}, r"prompts.pairs\[0\].positive.afix"),
        ({"pairs": [{"positive": {}, "negative": {"affix": 3}}]}, r"prompts.pairs\[0\].negative.affix"),
    ],
)
def test_a_mistake_in_a_wording_names_its_key(change, key):
    with pytest.raises(UserError, match=f"^{key}:"):
        Wording(**{**TEMPLATES, "pairs": [PAIR], **change})


def test_an_unknown_side_is_refused():
    with pytest.raises(ValueError, match="side"):
        Wording(**TEMPLATES, pairs=[PAIR]).render(TALK, "chosen", 0)
