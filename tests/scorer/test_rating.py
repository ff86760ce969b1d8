"""Ratings: the mean points under the model's own verdicts, by a plain loop; the labels that follow."""

import math

import pytest
from small_models import byte_level_tokenizer, plain_logp, small_network

from dlma.errors import UserError
from dlma.judge_prompt import RatedAnswer, RatingPrompt, rating_lengths
from dlma.model.language import LanguageModel
from dlma.records import Pair
from dlma.scorer.construction import Construction
from dlma.scorer.rating import Rating
from dlma.trainer.runtime import Shard

PROMPT = RatingPrompt(source="t", template="{question} > {answer} : points", points=[" 0", " 1", " 2"])
TEXTS = ["go home", "take care of the cat", "go home now and then"]


@pytest.fixture(scope="module")
def model():
    tokenizer = byte_level_tokenizer([*TEXTS, "what now ? > : points 0 1 2"], 300)
    return LanguageModel(small_network(vocabulary=len(tokenizer)), tokenizer, "small")


def pair(model, first, second, name="p"):
    def ids(text):
        return model.tokenizer(text, add_special_tokens=False)["input_ids"]

    context = [0, *ids("what now ?")]
    return Pair(
        id=name, prompt_id=name, question="what now ?", wording="w", plain_context_ids=context,
        positive_context_ids=context, negative_context_ids=context, positive_ids=[*ids(first), 1],
        negative_ids=[*ids(second), 1], positive_finished=True, negative_finished=True,
        positive_text=first, negative_text=second,
    )  # fmt: skip


def points_of(model, answer):
    """sum k p(k) / sum p(k), each p(k) by a plain loop over the question that ends in it."""
    text = f"what now ? > {answer} : points"
    rows = [[0, *model.tokenizer(text + said, add_special_tokens=False)["input_ids"]] for said in PROMPT.points]
    chances = [math.exp(plain_logp(model.network, row[:1], row[1:]).item()) for row in rows]
    return sum(k * chance for k, chance in enumerate(chances)) / sum(chances)


def test_the_points_are_the_mean_under_the_models_verdicts(model):
    (row,) = Rating(model, rating=PROMPT, seed=0).predict_step(Shard(0, [pair(model, TEXTS[0], TEXTS[1])]), 0)
    assert row.positive_score == pytest.approx(points_of(model, TEXTS[0]), abs=1e-3)
    assert row.negative_score == pytest.approx(points_of(model, TEXTS[1]), abs=1e-3)
    assert row.margin == row.positive_score - row.negative_score
    assert row.chosen == ("positive" if row.margin > 0 else "negative")
    assert 0 < row.positive_score < 2


def test_an_answer_has_its_points_whatever_stands_beside_it(model):
    pairs = [pair(model, TEXTS[0], TEXTS[1]), pair(model, TEXTS[2], TEXTS[0], "q")]
    one, other = Rating(model, rating=PROMPT, seed=0).score(pairs)
    assert one.positive_score == pytest.approx(other.negative_score, abs=1e-6)


def test_ties_are_decided_by_a_coin_and_the_reference_stands_beside(model):
    twins = [pair(model, TEXTS[0], TEXTS[0], f"p{i}") for i in range(40)]
    rows = Rating(model, rating=PROMPT, seed=0).score(twins)
    assert {row.margin for row in rows} == {0.0}
    assert 8 < [row.chosen for row in rows].count("positive") < 32
    assert rows[0].positive_reference == pytest.approx(Construction(model).score(twins[:1])[0].positive_reference)


def test_the_tokens_of_a_rating_are_counted(model):
    shared, said = rating_lengths(PROMPT, model.tokenizer, [RatedAnswer("c", "what now ?", text) for text in TEXTS])
    for i, text in enumerate(TEXTS):
        whole = model.tokenizer(f"what now ? > {text} : points 1", add_special_tokens=False)["input_ids"]
        assert shared[i] + said[1][i] == 1 + len(whole)  # a BOS before it
    assert len(said) == 3


def test_a_question_that_is_too_long_is_refused(model):
    long = pair(model, "go home " * model.context, TEXTS[1])
    with pytest.raises(UserError, match=r"rating: .* tokens too long"):
        Rating(model, rating=PROMPT, seed=0).score([long])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"template": "no place"}, r"rating\.template"),
        ({"template": "{answer} {first}"}, r"rating\.template"),
        ({"points": [" 1"]}, r"rating\.points"),
        ({"points": [" 1", " 1"]}, r"rating\.points"),
    ],
)
def test_a_rating_prompt_without_sense_is_refused(changes, line):
    with pytest.raises(UserError, match=line):
        RatingPrompt(**{**dict(source="t", template="{answer}", points=[" 0", " 1"]), **changes})
