"""The official code's faults (paper, section 6) that arise in text and ids: each would be caught here.

The numbers are those of the list of faults: 1, 2, 3, 4, 8, 9 and 10.
"""

import json

import pytest
from pairs_of_files import imported_pairs
from toy_tokenizers import KINDS, OWN_TEMPLATES, tokenizer
from wordings import shipped

from dlma.data.corpus import Corpus
from dlma.data.hh import HH
from dlma.data.jsonl import Columns
from dlma.model.tokens import MOVED
from dlma.prompts.contexts import render_contexts
from dlma.prompts.wording import Wording
from dlma.records import Prompt, Turn

SETS = ["harmless_affix", "helpful_affix", "system", "affixes16"]
READ = {
    "revision": "main",
    "subset": None,
    "hub_split": "train",
    "max_words": None,
    "max_prompts": None,
    "only": None,
    "every_pair": False,
    "validation_share": 0.1,
    "test_share": 0.3,
    "on_bad_row": "drop",
    "max_dropped": 0.5,
}
COLUMNS = Columns(prompt_column="prompt", category_column="category", category=None)
LIMITS = {"seed": 0, "max_prompt_tokens": 5000, "max_response_tokens": 200, "max_dropped": 0.5}
TALK = [Turn("user", "Hello there"), Turn("assistant", "Hi"), Turn("user", "How do I bake bread?")]


def contexts(wording, kind="llama", prompts=None, limit=5000):
    prompts = prompts or [Prompt("p", TALK, "train")]
    return render_contexts(prompts, tokenizer(kind), wording, seed=0, max_prompt_tokens=limit, max_dropped=1.0)[0]


def write(folder, *rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def decoded(kind, ids):
    return tokenizer(kind).decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", SETS)
def test_fault_1_the_contexts_kept_for_scoring_are_those_of_the_chosen_set_and_of_no_other(name):
    wording = shipped(name)
    (context,) = contexts(wording)
    index = wording.choose("p", 0)
    for side, ids in (("positive", context.positive_ids), ("negative", context.negative_ids)):
        text = decoded("llama", ids)
        own = wording.pairs[index][side]
        assert own["system"] in text and own["affix"] in text
        others = [shipped(other) for other in SETS if other != name]
        foreign = [part for w in others for pair in w.pairs for part in pair[side].values() if part]
        assert not any(part in text for part in foreign if part != own["affix"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETS)
def test_fault_2_sampling_scoring_and_training_share_one_format(name, kind, tmp_path):
    tok, wording = tokenizer(kind), shipped(name)
    row = {
        "prompt": [vars(turn) for turn in TALK],
        "positive": "Mix flour.",
        "negative": "Do not.",
    }
    (pair,), _ = imported_pairs(write(tmp_path, row), tok, wording, **LIMITS)
    (context,) = contexts(wording, kind, [Prompt(pair.prompt_id, TALK, "train")])
    assert pair.plain_context_ids == context.plain_ids
    assert pair.positive_context_ids == context.positive_ids
    assert pair.negative_context_ids == context.negative_ids
    # the trained context is the sampled one without its affix: same BOS, template and separator
    own = wording.pairs[wording.choose(pair.prompt_id, 0)]["positive"]
    bare = decoded(kind, context.positive_ids).replace(own["affix"], "", 1)
    if own["system"]:
        bare = bare.replace(own["system"] + "\n\n", "", 1)
    assert bare.split() == decoded(kind, context.plain_ids).split()
    first = {ids[0] for ids in (context.plain_ids, context.positive_ids, context.negative_ids)}
    assert first == {tok("USER")["input_ids"][0]} or kind not in ("llama", "metaspace")
    assert decoded(kind, context.plain_ids).endswith(("ASSISTANT:\n", "Answer:\n"))


def test_fault_3_no_eos_after_a_cut_answer(tmp_path):
    tok = tokenizer("llama")
    row = {"prompt": "q", "positive": "a long answer " * 9, "negative": "no"}
    limits = {**LIMITS, "max_response_tokens": 12}
    (pair,), _ = imported_pairs(write(tmp_path, row), tok, shipped("harmless_affix"), **limits)
    assert len(pair.positive_ids) == 12 and tok.eos_token_id not in pair.positive_ids
    assert not pair.positive_finished and pair.negative_finished
    assert pair.negative_ids[-1] == tok.eos_token_id


@pytest.mark.parametrize("kind", KINDS)
def test_fault_4_an_answer_that_repeats_its_prompt_is_kept_whole_and_the_context_is_not_in_it(kind, tmp_path):
    wording = shipped("harmless_affix")
    question = "How do I bake bread?"
    echo = wording.render([Turn("user", question)], "positive", 0) + "Like this."
    path = write(tmp_path, {"prompt": question, "positive": echo, "negative": "ASSISTANT(illegal, x"})
    (pair,), _ = imported_pairs(path, tokenizer(kind), wording, **LIMITS)
    assert decoded(kind, pair.positive_ids).strip() == echo
    assert decoded(kind, pair.negative_ids).strip() == "ASSISTANT(illegal, x"
    whole = decoded(kind, pair.plain_context_ids + pair.positive_ids)
    assert whole.strip() == f"USER: {question}\nASSISTANT:\n{echo}"


def test_fault_4_empty_answers_never_become_pairs(tmp_path):
    start = "\n\nHuman: q{}\n\nAssistant:"
    hh = [{"chosen": start.format(i) + (" a" if i else ""), "rejected": start.format(i) + " b"} for i in range(4)]
    prompts, account = Corpus(path=write(tmp_path, *hh), format=HH(), **READ).read()
    assert len(prompts) == 3 and account.dropped == {"empty answer": 1}
    own = [{"prompt": f"q{i}", "chosen": "a" if i else "\n", "rejected": "b"} for i in range(4)]
    prompts, account = Corpus(path=write(tmp_path, *own), format=COLUMNS, **READ).read()
    assert len(prompts) == 3 and account.dropped == {"empty answer": 1}
    pairs, account = imported_pairs(write(tmp_path, *own), tokenizer("llama"), shipped("harmless_affix"), **LIMITS)
    assert len(pairs) == 3 and account.dropped == {"empty answer": 1}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETS)
def test_fault_8_whatever_the_limit_the_last_user_turn_is_whole(name, kind):
    wording = shipped(name)
    long = [Turn(("user", "assistant")[i % 2], f"turn {i} " + "of a long talk " * 6) for i in range(8)]
    talk = Prompt("p", [*long, Turn("user", "the last question, whole?")], "train")
    (full,) = contexts(wording, kind, [talk])
    longest = max(len(full.positive_ids), len(full.negative_ids))
    seen = set()
    alone = contexts(wording, kind, [Prompt("p", talk.turns[-1:], "train")])[0]
    shortest = max(len(alone.positive_ids), len(alone.negative_ids))
    for limit in range(longest, shortest - 1, -25):
        for context in contexts(wording, kind, [talk], limit):
            seen.add(context.dropped_turns)
            for ids in (context.plain_ids, context.positive_ids, context.negative_ids):
                assert "the last question, whole?" in decoded(kind, ids) and len(ids) <= limit
                assert decoded(kind, ids).count("of a long talk") == 6 * (8 - context.dropped_turns)
    assert len(seen) >= 4


def test_fault_9_a_prompt_that_recurs_per_annotation_is_in_one_split_once(tmp_path):
    rows = [
        {"prompt": form(f"Question {i} about bread?"), "chosen": f"{k}", "rejected": "no"}
        for k, form in enumerate((str, str.upper, "  {}\n".format, str.lower))
        for i in range(200)
    ]
    prompts, account = Corpus(path=write(tmp_path, *rows), format=COLUMNS, **READ).read()
    assert account.dropped == {"duplicate prompt": 600} and len(prompts) == 200
    texts = {s: {p.turns[0].content.lower() for p in prompts if p.split == s} for s in ("train", "test")}
    assert texts["train"] and texts["test"] and not texts["train"] & texts["test"]


def test_fault_9_a_persons_pairs_cannot_bring_test_prompts_into_training(tmp_path):
    rows = [{"prompt": f"Question {i}?"} for i in range(50)]
    prompts, _ = Corpus(path=write(tmp_path, *rows), format=COLUMNS, **READ).read()
    test = {p.id for p in prompts if p.split == "test"}
    pairs = [{"prompt": f"  question {i}? ", "positive": "yes", "negative": "no"} for i in range(50)]
    kept, _ = imported_pairs(write(tmp_path, *pairs), tokenizer("llama"), shipped("affixes16"), held_out=test, **LIMITS)
    assert len(kept) == 50 - len(test) and test and not test & {pair.prompt_id for pair in kept}


def test_fault_10_the_eos_is_part_of_the_answer_where_pad_equals_eos(tmp_path):
    tok = tokenizer("gpt2")
    assert tok.pad_token_id == tok.eos_token_id == tok.bos_token_id
    row = {"prompt": "q", "positive": "yes", "negative": "no"}
    (pair,), _ = imported_pairs(write(tmp_path, row), tok, shipped("harmless_affix"), **LIMITS)
    for context in (pair.plain_context_ids, pair.positive_context_ids, pair.negative_context_ids):
        assert context.count(tok.eos_token_id) == 0  # such a tokenizer puts no BOS in front
    for ids in (pair.positive_ids, pair.negative_ids):
        assert ids.count(tok.eos_token_id) == 1 and ids[-1] == tok.eos_token_id


def test_fault_10_the_boundary_between_prompt_and_answer_is_checked_not_assumed(tmp_path):
    tok = tokenizer("qwen")
    base = shipped("harmless_affix")
    glued = Wording(
        source="test",
        system="",
        user=base.user,
        assistant=base.assistant,
        answer="ASSISTANT{affix}: n",
        pairs=base.pairs,
        **OWN_TEMPLATES,
    )
    apart = [tok(text, add_special_tokens=False)["input_ids"] for text in ("USER: q\nASSISTANT: n", "swer is")]
    whole = tok("USER: q\nASSISTANT: nswer is", add_special_tokens=False)["input_ids"]
    assert apart[0] + apart[1] != whole  # a row for which the assumption is wrong
    rows = [
        {"prompt": "q", "positive": "swer is", "negative": " no"},
        {"prompt": "r", "positive": " a", "negative": " b"},
    ]
    kept, account = imported_pairs(write(tmp_path, *rows), tok, glued, **LIMITS)
    assert [pair.question for pair in kept] == ["r"] and account.dropped == {MOVED: 1}
