"""Laws of the lab's world: its size, its splits, its determinism, its values."""

import dataclasses
import hashlib
import math
import random
import re
import statistics

import pytest

from dlma.errors import UserError
from dlma.lab import documents, lexicon, oracle, world
from dlma.lab.affixes import HELP_ADJECTIVES, held_out
from dlma.lab.bases import presets
from dlma.records import content_id

DIALS = documents.Dials(obedience=0.75, spread=0.0, mood=0.8, judge=0.95, confound=0.0, sentences=(3, 5))


def _combination(text):
    question = world.parse_question(text)
    return question.verb, question.object


def test_no_two_splits_share_a_verb_and_object():
    train, validation, test = (set(world.combinations(split)) for split in ("train", "validation", "test"))
    assert not train & validation and not train & test and not validation & test
    assert len(train | validation | test) == 42 * 126


def test_prompts_come_only_from_their_own_split():
    for split in world.SPLIT_SHARES:
        rows = world.prompts(split, 400, 0)
        assert {row.split for row in rows} == {split}
        assert {_combination(row.turns[0].content) for row in rows} <= set(world.combinations(split))


@pytest.mark.parametrize(("split", "least"), [("train", 20_000), ("validation", 2_000), ("test", 2_000)])
def test_a_split_gives_that_many_distinct_prompts(split, least):
    rows = world.prompts(split, least, 0)
    assert len({row.turns[0].content for row in rows}) == least
    assert len({row.id for row in rows}) == least


def test_prompt_count_is_the_number_of_distinct_texts_of_a_split():
    found = {world._question_at("test", i).text for i in range(world.prompt_count("test"))}
    assert len(found) == world.prompt_count("test")


def test_prompts_are_given_by_the_seed_and_leave_the_global_generator_alone():
    random.seed(3)
    before = random.getstate()
    assert world.prompts("test", 50, 1) == world.prompts("test", 50, 1) != world.prompts("test", 50, 2)
    assert random.getstate() == before


def test_a_prompt_is_one_user_turn_with_its_content_as_id_and_its_risk_as_category():
    for row in world.prompts("train", 300, 0):
        (turn,) = row.turns
        verb, _ = _combination(turn.content)
        assert turn.role == "user" and row.id == content_id(turn.content)
        assert row.category == ("risky" if verb in lexicon.VERBS[-1.0] + lexicon.VERBS[-0.5] else "benign")


@pytest.mark.parametrize(
    ("split", "n", "words"),
    [("test", 10**7, "ask for 0 to"), ("train", -1, "data.train=-1"), ("dev", 1, "choose one of")],
)
def test_what_the_world_lacks_is_refused_with_a_line(split, n, words):
    with pytest.raises(UserError, match=words):
        world.prompts(split, n, 0)


def test_hundreds_of_thousands_of_answers_are_distinct():
    rng = random.Random("distinct")
    question = world.draw_question(rng)
    found = {documents.answer_text(rng, DIALS, question, 0.0) for _ in range(20_000)}
    assert len(found) > 19_900  # for one question: birthday bound of far more than 10^6 answers


@pytest.mark.parametrize("tilt", [-1.0, 0.0, 0.7])
def test_a_tilt_shifts_the_log_odds_of_values_by_tilt_times_value(tilt):
    plain, tilted = world.value_weights(0.0), world.value_weights(tilt)
    assert sum(tilted) == pytest.approx(1)
    for value, before, after in zip(world.VALUES, plain, tilted):
        neutral_before, neutral_after = plain[2], tilted[2]
        assert math.log(after / neutral_after) - math.log(before / neutral_before) == pytest.approx(tilt * value)


@pytest.mark.parametrize(("value", "expected"), [(1.0, -0.5), (0.5, -0.5), (0.0, 0.0), (-0.5, 0.5), (-1.0, 0.5)])
def test_negation_turns_the_sign_of_an_act_and_makes_it_mild(value, expected):
    assert world.negated(value) == expected


def test_frames_have_weights_that_sum_to_one():
    assert all(sum(frames.values()) == pytest.approx(1) for frames in world.FRAMES.values())


def test_no_word_has_two_meanings():
    verbs = [verb for group in lexicon.VERBS.values() for verb in group]
    things = [word for group in lexicon.KINDS.values() for word in group]
    assert len(set(verbs)) == len(verbs) and len(set(things)) == len(things)


def test_documents_never_join_a_held_out_pair_of_adjectives():
    rng = random.Random("affixed")
    joined = re.compile(r"reply \( (?:not )?(\w+) and (?:not )?(\w+) \)")
    texts = [documents.affixed(rng, DIALS).text for _ in range(8_000)]
    pairs = [match.groups() for text in texts if (match := joined.search(text))]
    assert len(pairs) > 3_000
    assert not [pair for pair in pairs if held_out(*pair)]


def test_documents_ask_only_train_questions():
    rng = random.Random("questions")
    train = set(world.combinations("train"))
    for draw in (documents.plain, documents.affixed):
        texts = [draw(rng, DIALS).text for _ in range(500)]
        assert {_combination(text.split("\n")[0].removeprefix("ask : ")) for text in texts} <= train


def test_an_affix_moves_the_style_mark_only_by_the_confound_dial():
    question = world.draw_question(random.Random(0))

    def share(confound, strength):
        rng, dials = random.Random("style"), documents.Dials(0.0, 0.0, 0.8, 1.0, confound, (4, 4))
        texts = [documents.answer_text(rng, dials, question, strength) for _ in range(2_000)]
        return sum(text.count("!") for text in texts) / 8_000

    plain = 1 / (1 + math.exp(0.8))
    assert share(0.0, 1.0) == pytest.approx(plain, abs=0.02)
    assert share(1.0, 1.0) == pytest.approx(1 / (1 + math.exp(0.8 - 1.0)), abs=0.02)
    assert share(1.0, -1.0) == pytest.approx(1 / (1 + math.exp(0.8 + 1.0)), abs=0.02)


def test_judge_documents_follow_the_truth_as_often_as_their_dial_says():
    slots = {name: "(.*)" for name in ("question", "first", "second", "criterion")}
    pattern = re.compile(re.sub(r"([()])", r"\\\1", documents.JUDGE_FORMAT).format(**slots) + " ([AB])")

    def agreement(dial):
        rng, dials = random.Random("judge"), documents.Dials(0.75, 0.0, 0.8, dial, 0.0, (3, 5))
        right = total = 0
        for _ in range(3_000):
            found = pattern.fullmatch(documents.judge(rng, dials).text)
            question, first, second, criterion, verdict = found.groups()
            truth = oracle.truth(question, first, second, criterion=criterion)
            right, total = right + (truth == (1 if verdict == "A" else -1)), total + (truth != 0)
        return right / total

    assert agreement(1.0) == 1.0
    assert agreement(0.0) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("mood", "alike"), [(0.0, False), (0.8, True)])
def test_the_sentences_of_an_answer_resemble_each_other_if_and_only_if_it_has_a_mood(mood, alike):
    rng, n = random.Random("mood"), 4000
    question = world.draw_question(rng)
    pairs = [[s.value for s in world.draw_answer(rng, question, (2, 2), mood=mood)] for _ in range(n)]
    correlation = statistics.correlation(*zip(*pairs, strict=True))
    assert (correlation > 4 / math.sqrt(n)) is alike  # of independent values it has a standard error of 1/sqrt(n)


def test_leaning_adds_to_the_log_odds_of_staying_with_what_was_asked():
    question = world.draw_question(random.Random(0))
    assert question.leaning(0.0) == question  # exactly: documents without affixes of help stay as they were
    assert question.leaning(math.log(2)).same_verb == pytest.approx(0.8 / 1.4)  # odds 2/3 become 4/3
    assert question.leaning(-math.log(4)).same_object == pytest.approx(0.5)  # odds 4 become 1


@pytest.mark.parametrize(("affix", "strength"), [("useful", 1.0), ("useless", -1.0), ("kind and useful", 0.5)])
def test_an_affix_of_help_moves_how_often_the_asked_object_is_named(monkeypatch, affix, strength):
    monkeypatch.setattr(documents.affixes, "draw_of_both", lambda rng: f" ( {affix} )")
    rng, dials = random.Random("help"), dataclasses.replace(DIALS, help_obedience=1.5)
    asked = named = 0
    for _ in range(3_000):
        question, answer = documents.affixed(rng, dials).text.split("\n")
        item = world.parse_question(question.removeprefix("ask : ")).object
        found = [s.object for s in map(oracle.parse, oracle.sentences(answer.partition(" :")[2])) if s.object]
        asked, named = asked + found.count(item), named + len(found)
    share = 1 / (1 + math.exp(-math.log(4) - 1.5 * strength))
    others = (1 - share) / len(lexicon.OBJECTS)  # an object drawn at random is the asked one now and then
    assert asked / named == pytest.approx(share + others, abs=4 * math.sqrt(share * (1 - share) / named))


def test_without_the_dial_of_help_no_affix_speaks_of_it():
    rng = random.Random("none")
    texts = " ".join(documents.draw(rng, DIALS).text for _ in range(3_000))
    assert not set(HELP_ADJECTIVES) & set(texts.split())


def test_the_documents_of_the_shipped_bases_are_those_they_were_trained_on():
    dials = {
        name: {k: v for k, v in stated.items() if k not in ("tokens", "start")} for name, stated in presets().items()
    }
    found = {}
    for name in ("standard", "weak", "confounded", "long"):
        rng = random.Random("digest")
        own = documents.Dials(**{**dials[name], "sentences": tuple(dials[name]["sentences"])})
        text = "\0".join(documents.draw(rng, own).text for _ in range(2_000))
        found[name] = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert found == {
        "standard": "1c12d4e82eb4", "weak": "19b6c3dad81a", "confounded": "fc4650985c36", "long": "b9b1a42b48a3",
    }  # fmt: skip
