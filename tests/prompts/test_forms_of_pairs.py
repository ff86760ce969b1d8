"""One conversation in every form that files of pairs have, and the end that an answer of a file gets."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pairs_of_files import imported_margins, imported_pairs
from toy_tokenizers import OWN_TEMPLATES, TALKERS, talker, tokenizer

from dlma.data.jsonl import CUT_ANSWER, UNEQUAL, Columns
from dlma.data.text import prompt_id
from dlma.prompts.contexts import render_contexts
from dlma.prompts.wording import Wording
from dlma.records import Prompt, Turn

LIMITS = {"seed": 0, "max_prompt_tokens": 1000, "max_response_tokens": 1000, "max_dropped": 0.5}
GOOD = {"prompt": "Another?", "positive": "Yes.", "negative": "No."}


def write(folder, *rows, name="pairs.jsonl"):
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def chat(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def in_chat(format="chat"):
    return Wording(
        source="test", system="", user="USER: {text}\n", assistant="ASSISTANT: {text}\n", answer="ASSISTANT{affix}:\n",
        pairs=[{"positive": {"affix": "(good)"}, "negative": {"affix": "(bad)"}}],
        **{**OWN_TEMPLATES, "format": format},
    )  # fmt: skip


def pairs(path):
    return imported_pairs(path, tokenizer("llama"), in_chat("template"), **LIMITS)


def margins(path):
    return imported_margins(path, tokenizer("llama"), in_chat("template"), **LIMITS)


HEAD = chat("How?", "Sure.", "And then?")
SEVERAL = {
    "whole": {"chosen": [*HEAD, *chat("", "yes")[1:]], "rejected": [*HEAD, *chat("", "no")[1:]]},
    "repeated": {"prompt": "How?", "chosen": [*HEAD, *chat("", "yes")[1:]], "rejected": [*HEAD, *chat("", "no")[1:]]},
    "following": {
        "prompt": HEAD[:1],
        "chosen": [*HEAD[1:], *chat("", "yes")[1:]],
        "rejected": [*HEAD[1:], *chat("", "no")[1:]],
    },
}


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
@pytest.mark.parametrize("form", SEVERAL)
def test_every_turn_counts_in_every_form_and_for_every_reader(tmp_path, form, name):
    path = write(tmp_path, {**SEVERAL[form], "margin": 1.0}, name=name)
    (pair,), account = pairs(path)
    text = "USER: How?\nASSISTANT: Sure.\nUSER: And then?\nASSISTANT:\n"
    assert pair.plain_context_ids == tokenizer("llama")(text)["input_ids"]
    assert (pair.positive_text, pair.negative_text) == ("yes", "no") and not account.trimmed and not account.dropped
    assert [(one, m) for one, m, _ in margins(path)[0]] == [(pair, 1.0)]
    columns = Columns(prompt_column="prompt", category_column="category", category=None)
    assert prompt_id(columns.found(SEVERAL[form]).turns) == pair.prompt_id


def test_sides_that_differ_before_their_last_turn_are_dropped_and_counted(tmp_path):
    row = {"prompt": "q", "chosen": chat("", "Hi.", "And?", "yes")[1:], "rejected": chat("", "Go.", "And?", "no")[1:]}
    kept, account = pairs(write(tmp_path, row, GOOD))
    assert [p.question for p in kept] == ["Another?"] and account.dropped == {UNEQUAL: 1}


def test_an_earlier_answer_at_the_end_of_the_prompt_is_taken_off_and_counted(tmp_path):
    row = {"messages": chat("q", "an earlier answer"), "positive": "yes", "negative": "no"}
    assert pairs(write(tmp_path, row))[1].trimmed == {CUT_ANSWER: 1}


def test_a_table_of_text_is_read_like_any_other_file(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("prompt,positive,negative,finished,margin\nq,yes,no,False,1.5\nr,ja,nein,True,-2\n")
    rows = [
        {"prompt": "q", "positive": "yes", "negative": "no", "finished": False, "margin": 1.5},
        {"prompt": "r", "positive": "ja", "negative": "nein", "finished": True, "margin": -2.0},
    ]
    assert margins(str(path)) == margins(write(tmp_path, *rows))


@pytest.mark.parametrize("family", TALKERS)
def test_answers_end_with_what_the_chat_template_writes_after_them(tmp_path, family):
    tok, end = talker(family)
    path = write(
        tmp_path,
        {"prompt": "q", "chosen": "yes", "rejected": "no"},
        {"prompt": "r", "chosen": "a", "rejected": "b", "finished": False},
    )
    (whole, open_ended), _ = imported_pairs(path, tok, in_chat(), **LIMITS)
    index = tok.convert_tokens_to_ids(end)
    assert whole.positive_ids[-1] == whole.negative_ids[-1] == index and whole.positive_ids.count(index) == 1
    assert whole.positive_finished and not open_ended.positive_finished and index not in open_ended.positive_ids
    talk = chat("q", "yes")
    if family in ("chatml", "gemma", "llama3", "harmony", "marked"):  # the others write a space or a line break first
        text = tok.apply_chat_template(talk, tokenize=False)
        ids = tok(text[: text.rindex(end) + len(end)], add_special_tokens=False)["input_ids"]
        assert ids == whole.plain_context_ids + whole.positive_ids
    plain, _ = imported_pairs(path, tok, in_chat("template"), **LIMITS)
    assert plain[0].positive_finished is (tok.eos_token_id is not None)
    assert tok.eos_token_id in (None, plain[0].positive_ids[-1])


@pytest.mark.parametrize("family", TALKERS)
def test_peoples_pairs_end_as_those_of_a_file(tmp_path, family):
    tok, _ = talker(family)
    (pair,), _ = imported_pairs(
        write(tmp_path, {"prompt": "q", "chosen": "yes", "rejected": "no"}), tok, in_chat(), **LIMITS
    )
    prompt = Prompt(pair.prompt_id, [Turn("user", "q")], "train", None, "yes", "no")
    (context,), _ = render_contexts([prompt], tok, in_chat(), seed=0, max_prompt_tokens=500)
    assert (context.chosen_ids, context.rejected_ids) == (pair.positive_ids, pair.negative_ids)
