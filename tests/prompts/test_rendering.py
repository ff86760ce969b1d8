"""Chat templates: the affix where the YAML says, one BOS, the template's own text, and a line where there is none."""

import copy

import pytest
from toy_tokenizers import OWN_TEMPLATES, tokenizer

from dlma.errors import UserError
from dlma.model.chat_template import own_system
from dlma.model.tokens import encode
from dlma.prompts.contexts import UNASKED, render_contexts
from dlma.prompts.rendering import begins_with_bos, rendered, written_ids
from dlma.prompts.wording import Wording
from dlma.records import Prompt, Turn

TALK = [Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "Bye")]
PAIR = {"positive": {"affix": "(good)"}, "negative": {"system": "Be bad.", "affix": "(bad)"}}
TEMPLATES = {"system": "{system}\n", "user": "U: {text}\n", "assistant": "A: {text}\n", "answer": "A{affix}:\n"}


def wording(**changes):
    return Wording(source="test", pairs=[PAIR], **{**TEMPLATES, **OWN_TEMPLATES, "format": "chat", **changes})


def chatml(*messages):
    """ChatML by hand."""
    return "".join(f"<|im_start|>{r}\n{c}<|im_end|>\n" for r, c in messages) + "<|im_start|>assistant\n"


def with_template(text):
    tok = copy.deepcopy(tokenizer("chat"))
    tok.chat_template = text
    return tok


BEFORE = [("user", "Hi"), ("assistant", "Hello")]


@pytest.mark.parametrize(
    ("affix", "side", "messages"),
    [
        ("user", "plain", [*BEFORE, ("user", "Bye")]),
        ("user", "positive", [*BEFORE, ("user", "Bye\n(good)")]),
        ("user", "negative", [("system", "Be bad."), *BEFORE, ("user", "Bye\n(bad)")]),
        ("system", "plain", [*BEFORE, ("user", "Bye")]),
        ("system", "positive", [("system", "(good)"), *BEFORE, ("user", "Bye")]),
        ("system", "negative", [("system", "Be bad.\n(bad)"), *BEFORE, ("user", "Bye")]),
    ],
)
def test_the_affix_stands_in_the_turn_that_the_yaml_names(affix, side, messages):
    assert rendered(tokenizer("chat"), wording(chat_affix=affix), TALK, side, 0) == chatml(*messages)


OWN = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Tiny.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)


@pytest.mark.parametrize(
    ("affix", "side", "messages"),
    [
        ("user", "plain", [("system", "You are Tiny."), *BEFORE, ("user", "Bye")]),
        ("user", "positive", [("system", "You are Tiny."), *BEFORE, ("user", "Bye\n(good)")]),
        ("system", "plain", [("system", "You are Tiny."), *BEFORE, ("user", "Bye")]),
        ("system", "positive", [("system", "You are Tiny.\n(good)"), *BEFORE, ("user", "Bye")]),
        ("system", "negative", [("system", "Be bad.\n(bad)"), *BEFORE, ("user", "Bye")]),
    ],
)
def test_the_system_turn_that_a_template_writes_itself_is_kept(affix, side, messages):
    """An affix joins it; only a system text of the prompt pair's own takes its place."""
    assert rendered(with_template(OWN), wording(chat_affix=affix), TALK, side, 0) == chatml(*messages)


def test_no_system_turn_is_made_up_where_a_template_writes_none_or_takes_none():
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ messages[-1].content }}"
    fixed = "Today is Monday. {% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    for template in (refusing, fixed, tokenizer("chat").chat_template):
        assert own_system(with_template(template), {}) == ""
    assert own_system(with_template(OWN), {}) == "You are Tiny."


def test_the_affix_is_joined_as_the_yaml_says_and_braces_in_texts_survive():
    one = wording(chat_join="{affix} {text}")
    text = rendered(tokenizer("chat"), one, [Turn("user", "{affix} {x}")], "positive", 0)
    assert text == chatml(("user", "(good) {affix} {x}"))


def test_with_its_own_templates_a_wording_renders_itself():
    one = wording(format="template")
    assert rendered(tokenizer("bare"), one, TALK, "positive", 0) == one.render(TALK, "positive", 0)


@pytest.mark.parametrize("affix", ["user", "system"])
def test_contexts_begin_with_one_bos_and_are_the_templates_own_tokens(affix):
    tok, one = tokenizer("chat"), wording(chat_affix=affix)
    (context,), _ = render_contexts([Prompt("p", TALK, "train")], tok, one, seed=0, max_prompt_tokens=500)
    for side in ("plain", "positive", "negative"):
        ids = getattr(context, f"{side}_ids")
        own = tok.apply_chat_template(one.messages(TALK, side, 0), add_generation_prompt=True, return_dict=False)
        assert ids == own and ids[0] == tok.bos_token_id != ids[1]


@pytest.mark.parametrize("kind", ["llama", "chat", "gpt2"])
@pytest.mark.parametrize("front", ["", "{{ bos_token }}"])
def test_a_chat_has_the_bos_that_its_template_writes_and_no_other(kind, front):
    tok = copy.deepcopy(tokenizer(kind))
    tok.chat_template = front + "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    (context,), _ = render_contexts([Prompt("p", TALK, "train")], tok, wording(), seed=0, max_prompt_tokens=500)
    own = tok.apply_chat_template([{"role": t.role, "content": t.content} for t in TALK], return_dict=False)
    assert context.plain_ids == own
    assert context.plain_ids.count(tok.bos_token_id) == (1 if front else 0)
    assert begins_with_bos(tok, wording()) is bool(front)


def test_variables_reach_the_template():
    tok = with_template("{{ mood }}: {{ messages[-1]['content'] }}")
    assert rendered(tok, wording(chat_options={"mood": "calm"}), TALK, "plain", 0) == "calm: Bye"


def test_turns_of_one_speaker_in_a_row_are_one_message_and_a_chat_begins_with_the_user():
    odd = [Turn("assistant", "?"), Turn("user", "a"), Turn("user", "b"), Turn("assistant", "c"), Turn("user", "d")]
    (context,), account = render_contexts(
        [Prompt("p", odd, "train")], tokenizer("chat"), wording(), seed=0, max_prompt_tokens=500
    )
    text = chatml(("user", "a\n\nb"), ("assistant", "c"), ("user", "d"))
    assert context.plain_ids == encode(tokenizer("chat"), [text], chat=True)[0]
    assert context.dropped_turns == 1 and account.trimmed == {UNASKED: 1}


def test_a_tokenizer_without_a_chat_template_is_one_line():
    with pytest.raises(UserError, match=r"^prompts.format=chat: .* has no chat template: use prompts.format=template$"):
        rendered(tokenizer("llama"), wording(), TALK, "plain", 0)


def test_a_template_that_refuses_a_system_turn_is_one_line_with_a_way_out():
    tok = with_template(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ messages[-1]['content'] }}"
    )
    assert rendered(tok, wording(chat_affix="system"), TALK, "plain", 0) == TALK[-1].content
    with pytest.raises(UserError, match=r"refuses a conversation: no system; prompts\.chat_affix=user"):
        rendered(tok, wording(chat_affix="system"), TALK, "positive", 0)


def test_what_the_template_writes_inside_is_no_stray_special_token():
    tok = tokenizer("chat")
    assert {tok.bos_token_id, tok.eos_token_id} <= written_ids(tok, wording())
    assert written_ids(tok, wording(format="template")) == frozenset()


@pytest.mark.parametrize("join", ["{text}", "{affix}", "{text}{text}{affix}", "{txt}{affix}"])
def test_a_join_needs_both_texts_once(join):
    with pytest.raises(UserError, match=r"prompts\.chat_join"):
        wording(chat_join=join)


def test_a_format_that_is_not_settled_renders_nothing_and_a_settled_copy_leaves_the_first_alone():
    auto = wording(format="auto")
    with pytest.raises(UserError, match=r"^prompts\.format=auto: "):
        auto.start([Turn("user", "a")])
    assert auto.spoken("chat").is_chat and not auto.spoken("template").is_chat and auto.format == "auto"
