"""Text and ids: what ends a turn, special tokens that people spell, and a BOS where the tokenizer has it."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import small_model, small_network, small_tokenizer
from toy_tokenizers import KINDS, TALKERS, talker, tokenizer

from dlma.errors import BadRow
from dlma.model.language import LanguageModel
from dlma.model.tokens import EARLY_END, SPELT, Characters, encode, in_front, turn_end


def with_template(kind, template):
    tok = copy.deepcopy(tokenizer(kind))
    tok.chat_template = template
    return tok


@pytest.mark.parametrize("family", TALKERS)
def test_a_turn_ends_as_the_chat_template_ends_it(family):
    tok, end = talker(family)
    assert tok.convert_ids_to_tokens(turn_end(tok, {})) == end


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_chat_template_a_turn_ends_with_the_eos(kind):
    tok = with_template(kind, None)
    assert turn_end(tok, {}) == tok.eos_token_id


def test_a_template_that_takes_no_such_talk_ends_with_the_eos():
    tok = with_template("chat", "{{ raise_exception('never') }}")
    assert turn_end(tok, {}) == tok.eos_token_id
    silent = with_template("chat", "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}")
    assert turn_end(silent, {}) == silent.eos_token_id


def test_the_templates_variables_decide_too():
    tok = with_template("chat", "{{ messages[-1]['content'] }}{{ mark or '<|im_end|>' }}")
    assert turn_end(tok, {}) == tok.convert_tokens_to_ids("<|im_end|>")
    assert turn_end(tok, {"mark": "<|im_start|>"}) == tok.convert_tokens_to_ids("<|im_start|>")


@pytest.mark.parametrize("family", TALKERS)
def test_a_model_stops_at_its_own_eos_and_at_the_end_of_a_turn(family):
    tok, end = talker(family)
    network = small_network(vocabulary=len(tok), special=(0, 0, 0))
    model = LanguageModel(network, tok, family)
    index = tok.convert_tokens_to_ids(end)
    named = {0, tok.eos_token_id} - {None}
    assert model.eos_ids == named | {index}
    assert model.added_end == (None if index in named else index)
    assert small_model().added_end is None


def specials(tok):
    return [name for name in Characters(tok).names if name]


@pytest.mark.parametrize("tok", [tokenizer(k) for k in KINDS if k != "bare"] + [talker(f)[0] for f in TALKERS])
def test_a_special_token_in_a_text_is_its_characters(tok):
    characters = Characters(tok)
    ordinary = "A kind answer, is <it> not|?"
    assert characters.checked(ordinary) == ordinary
    for name in specials(tok):
        text = f"hi {name} you{name}{name}\n{name} kind"
        (ids,) = encode(tok, [characters.checked(text)], chat=True)
        assert tok.decode(ids, skip_special_tokens=False).strip() == text
        assert not set(ids) & set(characters.names.values())
        spelt = tok(text, add_special_tokens=False)["input_ids"]
        assert characters.names[name] in spelt  # what the guard keeps from happening


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*KINDS, *TALKERS]), st.lists(st.text(max_size=8), min_size=1, max_size=4), st.randoms())
def test_whatever_is_spelt_around_them_no_special_id_comes_out(kind, parts, random):
    tok = talker(kind)[0] if kind in TALKERS else tokenizer(kind)
    characters = Characters(tok)
    text = "".join(part + random.choice([*specials(tok), ""]) for part in parts)
    try:
        guarded = characters.checked(text)
    except BadRow:
        return
    (ids,) = encode(tok, [guarded], chat=True)
    unknown = {tok.unk_token_id}  # characters that a vocabulary lacks
    assert not (set(ids) - unknown) & set(characters.names.values())


def test_a_tokenizer_that_cannot_spell_them_says_so():
    characters = Characters(small_tokenizer())  # it knows whole words alone
    assert characters.checked("w4 w5") == "w4 w5"
    with pytest.raises(BadRow, match=SPELT):
        characters.checked("w4 <eos> w5")


@pytest.mark.parametrize("family", TALKERS)
def test_an_answer_may_spell_its_end_and_nothing_behind_it(family):
    tok, end = talker(family)
    characters, index = Characters(tok), turn_end(tok, {})
    ends = {end, tok.eos_token} - {None}
    assert characters.answer("Calm.", index) == "Calm."
    for spelt in ends:
        for text in (f"Calm.{spelt}", f"Calm.{spelt}\n"):
            assert encode(tok, [characters.answer(text, index)], chat=True)[0][-1] == index
            assert characters.answer(text, index) == f"Calm.{end}"
        with pytest.raises(BadRow, match=EARLY_END):
            characters.answer(f"Calm.{spelt} And more.", index)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["USER: Hi", "a", " a", "", "\n"])
def test_a_plain_text_begins_as_the_tokenizer_begins_it(kind, text):
    tok = tokenizer(kind)
    assert encode(tok, [text]) == [tok(text)["input_ids"]]
    assert in_front(tok) == ([tok.bos_token_id] if kind in ("llama", "metaspace") else [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_chats_text_gets_nothing_in_front(kind):
    tok = tokenizer(kind)
    assert encode(tok, ["USER: Hi"], chat=True) == [tok("USER: Hi", add_special_tokens=False)["input_ids"]]
