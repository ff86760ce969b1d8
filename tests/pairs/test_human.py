"""Human pairs: the data set's own answers as ids that follow all three contexts, the preferred one positive."""

import pytest
from small_models import byte_level_tokenizer, small_network
from toy_tokenizers import OWN_TEMPLATES

from dlma.model.language import LanguageModel
from dlma.pairs.human import HumanPairs
from dlma.prompts.contexts import LEFT_OUT, render_contexts
from dlma.prompts.wording import Wording
from dlma.records import Prompt, Turn
from dlma.trainer.runtime import Shard

TEXTS = ["how do i fix a lamp", "with care and ease", "smash it", "USER: ASSISTANT (kind):"]
WORDING = Wording(
    source="t", system="{system}", user="USER: {text}\n", assistant="ASSISTANT: {text}\n", answer="ASSISTANT{affix}:\n",
    pairs=[{"positive": {"affix": " (kind)"}, "negative": {"affix": " (cruel)"}}], **OWN_TEMPLATES,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    tokenizer = byte_level_tokenizer(TEXTS, 300)
    return LanguageModel(small_network(vocabulary=len(tokenizer)), tokenizer, "small")


def prompt(name="p", chosen=TEXTS[1], rejected=TEXTS[2], split="train"):
    return Prompt(name, [Turn("user", TEXTS[0])], split, None, chosen, rejected)


def contexts(model, prompts, **asked):
    return render_contexts(prompts, model.tokenizer, WORDING, seed=0, max_prompt_tokens=200, **asked)


def pairs(model, prompts, limit=64):
    rows, _ = contexts(model, prompts)
    return HumanPairs(model, None, max_answer_tokens=limit).predict_step(Shard(0, rows), 0)


def test_the_preferred_answer_is_the_positive_one_and_ends_with_eos(model):
    (pair,) = pairs(model, [prompt()])
    ids = model.tokenizer(TEXTS[1], add_special_tokens=False)["input_ids"]
    assert pair.positive_ids == [*ids, model.tokenizer.eos_token_id]
    assert (pair.positive_text, pair.negative_text) == (TEXTS[1], TEXTS[2])
    assert pair.positive_finished and pair.negative_finished
    whole = model.tokenizer(f"USER: {TEXTS[0]}\nASSISTANT:\n{TEXTS[1]}", add_special_tokens=False)["input_ids"]
    assert pair.plain_context_ids[1:] + ids == whole


def test_a_long_answer_is_cut_and_gets_no_eos(model):
    (pair,) = pairs(model, [prompt(chosen=TEXTS[1] * 9)], limit=12)
    assert len(pair.positive_ids) == 12 and not pair.positive_finished
    assert model.tokenizer.eos_token_id not in pair.positive_ids
    assert pair.negative_finished


def test_prompts_without_a_pair_are_left_out(model):
    rows = [prompt(), prompt("q", chosen=None), prompt("r", rejected=None)]
    assert [pair.prompt_id for pair in pairs(model, rows)] == ["p"]


def test_the_prompts_of_one_split_alone_carry_answers(model):
    rows = [prompt(split, split=split) for split in ("train", "validation", "test")]
    for asked in ({}, {"human": "validation"}, {"human": "test"}):
        found, _ = contexts(model, rows, **asked)
        carrying = [row.prompt_id for row in found if row.chosen_ids or row.rejected_ids]
        assert carrying == [asked.get("human", "train")]


def test_an_answer_that_cannot_be_used_is_counted_and_its_prompt_stays(model):
    rows, account = contexts(model, [prompt(), prompt("q", rejected="")])
    assert [row.chosen_ids is None for row in rows] == [False, True]
    assert account.kept == 2 and [reason.startswith(LEFT_OUT) for reason in account.trimmed] == [True]
