"""Contexts under every shape of tokenizer: one BOS, the last turn whole, the same turns on all sides."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_tokenizers import KINDS, OWN_TEMPLATES, tokenizer
from wordings import shipped

from dlma.data.text import BadRow, prompt_id
from dlma.errors import UserError
from dlma.model.tokens import MOVED, answer_ids, encode
from dlma.prompts import contexts as rendering
from dlma.prompts.contexts import TOO_LONG, TRIMMED, each_context, render_contexts
from dlma.prompts.wording import Wording
from dlma.records import Prompt, Turn

SIDES = ("plain", "positive", "negative")
ADD_BOS = ("llama", "metaspace")  # the others leave it to whoever writes the text


def prompt(*contents):
    turns = [Turn(("user", "assistant")[i % 2], text) for i, text in enumerate(contents)]
    return Prompt(prompt_id(turns), turns, "train", category="kind")


def render(prompts, kind="llama", wording=None, *, limit=10_000, **options):
    return render_contexts(prompts, tokenizer(kind), wording or shipped(), seed=0, max_prompt_tokens=limit, **options)


def side_ids(context):
    return {side: getattr(context, f"{side}_ids") for side in SIDES}


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_are_what_the_tokenizer_gives_for_the_rendered_text(kind):
    tok, wording = tokenizer(kind), shipped()
    one = prompt("What {is} this?", "Bread.", "And {text}?")
    (context,), account = render([one], kind)
    assert account.read == account.kept == 1 and not account.dropped and not account.trimmed
    assert context.question == "And {text}?" and context.category == "kind" and context.dropped_turns == 0
    assert context.wording == wording.label(0) and context.prompt_id == one.id
    for side, ids in side_ids(context).items():
        text = wording.render(one.turns, side, 0)
        assert ids == tok(text)["input_ids"]
        assert ids.count(tok.bos_token_id) == (1 if kind in ADD_BOS else 0)
        assert tok.decode(ids, skip_special_tokens=True).strip() == text.strip()


@pytest.mark.parametrize("kind", KINDS)
def test_a_bos_in_the_wording_is_the_only_one(kind):
    tok = tokenizer(kind)
    bos = tok.bos_token or ""
    fields = {
        "user": bos + "USER: {text}\n",
        "assistant": "A: {text}\n",
        "answer": "A{affix}:\n",
        "system": "",
        **OWN_TEMPLATES,
    }
    pairs = [{"positive": {"affix": "(good)"}, "negative": {"affix": "(bad)"}}]
    (context,), _ = render([prompt("Hi")], kind, Wording(source="test", pairs=pairs, **fields))
    for ids in side_ids(context).values():
        assert ids.count(tok.bos_token_id) == (1 if bos else 0)


def test_a_tokenizer_that_adds_its_bos_twice_still_gives_one():
    tok = tokenizer("llama")

    class Eager:
        bos_token_id = tok.bos_token_id

        def __call__(self, texts, **_):
            twice = [tok.bos_token_id, tok.bos_token_id, 7, 8]
            return {"input_ids": twice if isinstance(texts, str) else [twice for _ in texts]}

    assert encode(Eager(), ["a", "b"]) == [[tok.bos_token_id, 7, 8]] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_encoded_for_nothing(kind):
    assert encode(tokenizer(kind), []) == []


TALK = prompt("first question", "first answer", "second question", "second answer", "third question")


@pytest.mark.parametrize("kind", KINDS)
def test_over_long_prompts_lose_their_oldest_turns_and_all_sides_the_same(kind):
    wording = shipped()
    lengths = []
    for start in (0, 2, 4):
        ending = Prompt(TALK.id, TALK.turns[start:], "train")
        lengths.append(max(len(ids) for ids in side_ids(render([ending], kind)[0][0]).values()))
    assert lengths[0] > lengths[1] > lengths[2]
    for limit in range(lengths[2], lengths[0] + 1):
        start = next(s for s, n in zip((0, 2, 4), lengths) if n <= limit)
        (context,), account = render([TALK], kind, limit=limit)
        assert context.dropped_turns == start
        assert account.trimmed == ({TRIMMED: 1} if start else {})
        for side, ids in side_ids(context).items():
            text = wording.render(TALK.turns[start:], side, 0)
            assert len(ids) <= limit and ids == encode(tokenizer(kind), [text])[0]
        assert context.question == "third question"


def test_the_longest_side_decides():
    limit = max(len(ids) for ids in side_ids(render([TALK])[0][0]).values())
    uneven = _with_pairs(LONG_NEGATIVE)
    (context,), _ = render([TALK], wording=uneven, limit=limit)
    assert context.dropped_turns > 0
    assert len(context.plain_ids) < len(context.negative_ids) <= limit


LONG_NEGATIVE = [{"positive": {"affix": ""}, "negative": {"affix": "(illegal, " * 5 + ")"}}]


def _with_pairs(pairs):
    base = shipped()
    return Wording(
        source="test",
        system=base.system,
        user=base.user,
        assistant=base.assistant,
        answer=base.answer,
        pairs=pairs,
        **OWN_TEMPLATES,
    )


def test_a_last_turn_that_is_too_long_is_dropped_and_counted_and_many_stop():
    short = [prompt(f"q {i}") for i in range(8)]
    long = [prompt("q", "a", "a very long question " * 30 + str(i)) for i in range(3)]
    contexts, account = render([*short, *long[:2]], limit=60)
    assert [c.prompt_id for c in contexts] == [p.id for p in short]
    assert account.dropped == {TOO_LONG: 2} and account.read == 10 and account.kept == 8
    with pytest.raises(UserError, match=r"3 of 11 rows.*recipe.max_prompt_tokens.*model.context"):
        render([*short, *long], limit=60)
    assert len(render([*short, *long], limit=60, max_dropped=0.5)[0]) == 8


def test_strict_mode_refuses_trimming_and_dropping():
    limit = len(render([TALK])[0][0].negative_ids)
    with pytest.raises(UserError, match=f"prompt {TALK.id}: oldest turns dropped"):
        render([TALK], limit=limit - 8, on_bad_row="error")
    with pytest.raises(UserError, match="last turn longer than"):
        render([TALK], limit=3, on_bad_row="error")


def test_consecutive_turns_of_one_speaker_are_dropped_in_order():
    roles = ["user", "assistant", "assistant", "user", "user"]
    turns = [Turn(role, f"number {i} of the talk") for i, role in enumerate(roles)]
    odd = Prompt("odd", turns, "train")
    whole = max(map(len, side_ids(render([odd])[0][0]).values()))
    dropped = {render([odd], limit=n, max_dropped=1)[0][0].dropped_turns for n in range(60, whole + 1)}
    assert dropped <= {0, 3, 4} and 0 in dropped and 3 in dropped


def test_each_prompt_draws_its_own_pair_and_the_sides_match():
    wording = shipped("affixes16")
    prompts = [prompt(f"question {i}") for i in range(40)]
    contexts, _ = render(prompts, wording=wording)
    assert len({c.wording for c in contexts}) > 8
    for one, context in zip(prompts, contexts):
        index = wording.choose(one.id, 0)
        assert context.wording == wording.label(index)
        for side, ids in side_ids(context).items():
            assert ids == encode(tokenizer("llama"), [wording.render(one.turns, side, index)])[0]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(KINDS), st.lists(st.text(max_size=30), min_size=1, max_size=7), st.integers(5, 120))
def test_whatever_the_text_the_rows_fit_and_end_with_the_last_turn(kind, contents, limit):
    if len(contents) % 2 == 0:
        contents = contents[:-1]
    one, wording = prompt(*contents), shipped()
    contexts, account = render([one, prompt("x")], kind, limit=max(limit, 80), max_dropped=1)
    assert account.read == account.kept + sum(account.dropped.values())
    for context in contexts:
        assert all(len(ids) <= max(limit, 80) for ids in side_ids(context).values())
        turns = {one.id: one.turns}.get(context.prompt_id, [Turn("user", "x")])
        text = wording.render(turns[context.dropped_turns :], "negative", 0)
        assert context.negative_ids == encode(tokenizer(kind), [text])[0]
        assert turns[context.dropped_turns].role == "user"


def test_an_answers_ids_must_follow_every_context_and_be_the_same_after_each():
    contexts = [[0, 1], [0, 2], [0, 2, 3]]
    assert answer_ids(contexts, [[*c, 7, 8, 9] for c in contexts], 9) == [7, 8, 9]
    joined = {
        MOVED: [
            [[0, 1, 7], [0, 4], [0, 2, 3, 7]],  # the second context's last id changed
            [[0, 1, 7], [0, 2, 7], [0, 2, 3, 8]],  # whole contexts, another answer after the third
        ],
        "EOS inside the answer": [[[*c, 9, 7] for c in contexts]],
        "empty answer": [contexts, [[*c, 9] for c in contexts]],
    }
    for reason, cases in joined.items():
        for case in cases:
            with pytest.raises(BadRow, match=reason):
                answer_ids(contexts, case, 9)


def mixed(count: int) -> list[Prompt]:
    """Prompts some of which are too long, are trimmed, or come with a human pair that can or cannot be used."""
    kinds = [
        prompt("short"),
        prompt("long " * 200),
        prompt("long " * 200, "answer", "short"),
        dataclasses.replace(prompt("paired"), chosen="yes", rejected="no"),
        dataclasses.replace(prompt("paired"), chosen="", rejected="no"),
    ]
    return [dataclasses.replace(kinds[place % len(kinds)], id=f"p{place}") for place in range(count)]


@pytest.mark.parametrize("together", [1, 2, 7, 22, 23])
def test_contexts_are_the_same_however_many_are_made_at_once(monkeypatch, together):
    limits = {"limit": 100, "max_dropped": 1.0}
    whole, account = render(mixed(23), **limits)
    monkeypatch.setattr(rendering, "_TOGETHER", together)
    assert render(mixed(23), **limits) == (whole, account)
    assert account.read == 23 and account.kept == len(whole) == 18 and len(account.trimmed) == 2


def test_contexts_are_made_as_they_are_asked_for_and_too_many_bad_ones_are_told_at_the_end(monkeypatch):
    monkeypatch.setattr(rendering, "_TOGETHER", 4)
    asked: list[Prompt] = []
    rows = (asked.append(row) or row for row in mixed(23))
    limits = {"seed": 0, "max_prompt_tokens": 100, "vocabulary": None, "human": "train"}
    found, account = each_context(rows, tokenizer("llama"), shipped(), on_bad_row="drop", max_dropped=0.2, **limits)
    assert (asked, account.read) == ([], 0)
    assert next(found).prompt_id == "p0" and len(asked) == 4
    with pytest.raises(UserError, match="prompts: 5 of 23 rows cannot be used"):
        list(found)
