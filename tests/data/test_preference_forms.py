"""One pair in every form that others write it in is read as the same; what is more than text drops the row by name."""

import json

import pytest

from dlma.data.jsonl import answered
from dlma.data.preference_forms import in_our_columns
from dlma.data.text import BadRow
from dlma.errors import UserError
from dlma.modes.preferences import _for_factory, _for_openai
from dlma.records import Turn

NAMES = ("chosen", "rejected")
TALK = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "bye"},
]
GOOD, BAD = {"role": "assistant", "content": "take care"}, {"role": "assistant", "content": "go"}
FACTORY_TALK = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}, {"from": "human", "value": "bye"}]
FORMS = {
    "trl, chats": {"prompt": TALK, "chosen": [GOOD], "rejected": [BAD]},
    "trl, whole chats": {"chosen": [*TALK, GOOD], "rejected": [*TALK, BAD]},
    "factory, sharegpt": {
        "conversations": FACTORY_TALK,
        "chosen": {"from": "gpt", "value": "take care"},
        "rejected": {"from": "gpt", "value": "go"},
        "system": "",
        "tools": "",
    },
    "factory, our export": _for_factory({"prompt": TALK, "chosen": [GOOD], "rejected": [BAD], "margin": 1.0}),
    "factory, alpaca": {
        "instruction": "bye", "input": "", "history": [["hi", "hello"]], "chosen": "take care", "rejected": "go",
    },
    "openai, our export": _for_openai({"prompt": TALK, "chosen": [GOOD], "rejected": [BAD]}),
    "openai": {
        "input": {"messages": TALK, "tools": [], "parallel_tool_calls": True},
        "preferred_output": [GOOD],
        "non_preferred_output": [BAD],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_the_same_pair(name):
    turns, chosen, rejected = answered(json.loads(json.dumps(FORMS[name])), NAMES, prompt_column="prompt")
    assert turns == [Turn("user", "hi"), Turn("assistant", "hello"), Turn("user", "bye")]
    assert (chosen, rejected) == ("take care", "go")


def test_an_instruction_and_its_input_are_one_turn():
    row = {"instruction": "Translate:", "input": "oui", "chosen": "yes", "rejected": "no"}
    assert answered(row, NAMES, prompt_column="prompt")[0] == [Turn("user", "Translate:\noui")]


def test_the_prompts_column_may_have_another_name():
    for name in ("factory, sharegpt", "factory, alpaca", "openai"):
        assert len(answered(FORMS[name], NAMES, prompt_column="question")[0]) == 3


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": 3},
        {"conversations": [3], "chosen": "a", "rejected": "b"},
        {"instruction": 3, "chosen": "a", "rejected": "b"},
        {"instruction": "a", "history": [3], "chosen": "a", "rejected": "b"},
        {"instruction": "a", "history": [["b", 3]], "chosen": "a", "rejected": "b"},
        {"instruction": "a", "history": 3, "chosen": "a", "rejected": "b"},
        {"input": 3, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        {"preferred_output": 3, "non_preferred_output": [BAD], "input": {"messages": TALK}},
    ],
)
def test_values_of_other_types_are_one_line(row):
    with pytest.raises(UserError) as raised:
        answered(row, NAMES, prompt_column="prompt")
    assert "\n" not in str(raised.value)


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
LOST = {
    "tools beside OpenAI's messages": (
        {**FORMS["openai"], "input": {"messages": TALK, "tools": [TOOL]}},
        "a row with tools",
    ),
    "a call in OpenAI's messages": (
        {**FORMS["openai"], "input": {"messages": [*TALK[:1], {**TALK[1], "tool_calls": [TOOL]}, TALK[2]]}},
        "a turn with tool_calls",
    ),
    "a tool's turn in OpenAI's messages": (
        {**FORMS["openai"], "input": {"messages": [{"role": "tool", "content": "rain"}, *TALK[2:]]}},
        "a role other than user and assistant",
    ),
    "a system text of LLaMA-Factory": ({**FORMS["factory, sharegpt"], "system": "Be good."}, "a row with system"),
    "tools of LLaMA-Factory": ({**FORMS["factory, sharegpt"], "tools": json.dumps([TOOL])}, "a row with tools"),
    "a call of LLaMA-Factory": (
        {**FORMS["factory, sharegpt"], "conversations": [{"from": "function_call", "value": "{}"}, *FACTORY_TALK[2:]]},
        "a role other than user and assistant",
    ),
    "a system text beside an instruction": ({**FORMS["factory, alpaca"], "system": "Be good."}, "a row with system"),
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_more_than_text_is_refused_by_name(name):
    row, reason = LOST[name]
    with pytest.raises(BadRow, match=reason):
        answered(row, NAMES, prompt_column="prompt")


def test_rows_of_our_own_forms_are_left_as_they_are():
    for row in (FORMS["trl, chats"], FORMS["trl, whole chats"], {"prompt": "a", "conversations": 3}, {"positive": "a"}):
        assert in_our_columns(row) is row
