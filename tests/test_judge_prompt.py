"""A/B prompting: the question's text, both orders, and log-odds that a plain loop gives too."""

from pathlib import Path

import pytest
import yaml
from small_models import FOUR_SHAPES, byte_level_tokenizer, plain_logp, small_network

from dlma.app import conf_dir
from dlma.errors import UserError
from dlma.judge_prompt import ABJudge, ABPrompt, AnswerPair
from dlma.lab import documents
from dlma.model.language import LanguageModel

TEXTS = ["how do i fix a lamp", "with care and ease", "smash it ( A ) ( B )", "judge : more harmless"]
ONE = AnswerPair("p", "ask : how do i fix a lamp", TEXTS[0], " with care", " smash it ")


def prompt(**changes):
    values = dict(
        source="test",
        template="judge : {question}\n( A ) {first}\n( B ) {second}\nmore {instruction} :",
        verdicts=[" A", " B"],
        instructions=["harmless"],
    )
    return ABPrompt(**{**values, **changes})


def shipped(name):
    folder = Path(conf_dir()) / "judge_prompt"
    values = yaml.safe_load((folder / f"{name}.yaml").read_text())
    for base in values.pop("defaults", []):
        values = {**yaml.safe_load((folder / f"{base}.yaml").read_text()), **values}
    assert values.pop("_target_") == "dlma.judge_prompt.ABPrompt"
    return ABPrompt(**values)


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer(TEXTS, 300)


def model(tokenizer, kind="llama", context=256):
    return LanguageModel(small_network(kind, vocabulary=len(tokenizer), context=context), tokenizer, kind)


def test_the_labs_question_is_that_of_its_judge_documents():
    text = shipped("lab").text(ONE, seed=0)
    assert text == documents.judge_context(TEXTS[0], " with care", " smash it", "harmless")
    assert tuple(shipped("lab").verdicts) == documents.JUDGE_VERDICTS
    assert set(shipped("lab").instructions) <= set(documents.JUDGE_CRITERIA)


def test_the_published_form_of_the_question():
    """RLCD's simulate_preference_data.py, word for word."""
    text = shipped("helpful").text(ONE, seed=0)
    gap = "\n\n\n\n"
    assert text == (
        f"Consider the following conversation between a human and an assistant:{gap}ask : how do i fix a lamp{gap}"
        f"Please choose the response that is more helpful.{gap}Options:{gap}(A) with care{gap}(B) smash it{gap}"
        "The answer is: ("
    )


def test_there_are_sixteen_harmless_instructions_and_each_is_drawn():
    harmless = shipped("harmless")
    assert len(set(harmless.instructions)) == 16
    drawn = {harmless._instruction(f"p{i}", 0) for i in range(400)}
    assert drawn == set(harmless.instructions)
    assert [harmless._instruction(f"p{i}", 1) for i in range(9)] != [
        harmless._instruction(f"p{i}", 0) for i in range(9)
    ]


def test_what_is_filled_in_is_not_read_as_a_template():
    strange = AnswerPair("p", "c", "{second} {first}", "{instruction} {x}", "{")
    assert (
        prompt().text(strange, seed=0) == "judge : {second} {first}\n( A ) {instruction} {x}\n( B ) {\nmore harmless :"
    )


@pytest.mark.parametrize("kind", FOUR_SHAPES)
def test_the_log_odds_are_those_of_a_plain_loop(kind, tokenizer):
    judged = model(tokenizer, kind)
    text = prompt().text(ONE, seed=0)
    ids = [[0, *tokenizer(text + verdict, add_special_tokens=False)["input_ids"]] for verdict in (" A", " B")]
    whole = [plain_logp(judged.network, [0], row[1:]).item() for row in ids]
    (odds,) = ABJudge(judged, prompt(), seed=0).log_odds([ONE])
    assert odds == pytest.approx(whole[0] - whole[1], abs=1e-3)
    assert abs(odds) > 0.01


def test_swapping_the_answers_swaps_the_two_orders(tokenizer):
    judge = ABJudge(model(tokenizer), prompt(), seed=0)
    ((first, second),) = judge.both_orders([ONE])
    ((first_again, second_again),) = judge.both_orders([ONE.swapped()])
    assert (first_again, second_again) == pytest.approx((-second, -first), abs=1e-5)
    assert first != pytest.approx(second)


def test_identical_answers_have_average_log_odds_of_exactly_zero(tokenizer):
    twin = AnswerPair("p", "c", "q", " with care", " with care")
    ((first, second),) = ABJudge(model(tokenizer), prompt(), seed=0).both_orders([twin])
    assert first + second == 0 and first != 0


def test_verdicts_that_begin_alike_are_compared_where_they_differ(tokenizer):
    """log p(x A) - log p(x B) is log p(A | x) - log p(B | x)."""
    judged = model(tokenizer)
    (whole,) = ABJudge(judged, prompt(verdicts=[" ( A", " ( B"]), seed=0).log_odds([ONE])
    longer = prompt(template=prompt().template + " (")
    (parts,) = ABJudge(judged, longer, seed=0).log_odds([ONE])
    assert whole == pytest.approx(parts, abs=1e-4)


LONG = dict(template="{conversation}\n{question}\n( A ) {first}\n( B ) {second} :", instructions=[])


def test_a_conversation_that_is_too_long_loses_its_beginning(tokenizer):
    judged = model(tokenizer, context=100)
    talk = AnswerPair("p", "old old old " + "how do i fix a lamp " * 40, "why", " with care", " smash it")
    judge = ABJudge(judged, prompt(**LONG), seed=0)
    (sequence, other) = judge._group(talk)
    assert max(len(s.context) + len(s.response) for s in (sequence, other)) <= 100
    text = tokenizer.decode(sequence.context)
    assert "old" not in text and "lamp" in text and "why\n( A ) with care\n( B ) smash it" in text
    assert judge.log_odds([talk])[0] == judge.log_odds([talk])[0]


def test_answers_that_do_not_fit_are_one_clear_line(tokenizer):
    talk = AnswerPair("p", "c", "why", " with care" * 60, " smash it" * 60)
    with pytest.raises(UserError, match=r"judge: .* lower recipe.max_new_tokens"):
        ABJudge(model(tokenizer, context=60), prompt(**LONG), seed=0).log_odds([talk])


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (dict(template="{first} against {secnd} {second} {instruction}"), "judge.template"),
        (dict(template="{first} {instruction}"), "judge.template"),
        (dict(template="{first} {second}"), "judge.instructions"),
        (dict(instructions=[]), "judge.instructions"),
        (dict(verdicts=["A", "A"]), "judge.verdicts"),
        (dict(verdicts=["A", "B", "C"]), "judge.verdicts"),
        (dict(verdicts=["A", ""]), "judge.verdicts"),
    ],
)
def test_a_question_that_cannot_be_put_is_refused(changes, key):
    with pytest.raises(UserError, match=key):
        prompt(**changes)
