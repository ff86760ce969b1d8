"""The work that is handed out: the same in every process, with the lengths that are stated."""

import random

import pytest

from benchmarks import flops, text, workload
from benchmarks.shapes import shape_of

FORTY = shape_of("40M")
TINY = shape_of("tiny")


def test_equal_arguments_give_equal_pairs_and_another_seed_others():
    assert workload.pairs_of(TINY, "imposed", 3) == workload.pairs_of(TINY, "imposed", 3)
    assert workload.pairs_of(TINY, "imposed", 3) != workload.pairs_of(TINY, "imposed", 3, seed=1)


def test_imposed_lengths_fill_their_stated_ranges():
    pairs = workload.pairs_of(FORTY, "imposed", 200)
    prompts = [len(p.plain_context_ids) for p in pairs]
    answers = [len(ids) for p in pairs for ids in (p.positive_ids, p.negative_ids)]
    assert 64 <= min(prompts) < 80 and 430 < max(prompts) <= 448
    assert 32 <= min(answers) < 36 and 188 < max(answers) <= 192
    assert all(0 <= i < FORTY.vocabulary for p in pairs for i in p.plain_context_ids + p.positive_ids)


def test_long_prompts_stand_behind_the_same_system_text_of_500_tokens():
    one, other = workload.contexts_of(FORTY, "long", 2, random.Random(0))
    assert one["positive"][:500] == other["positive"][:500]
    assert one["positive"][:500] != one["negative"][:500]
    assert one["positive"][500:] == one["plain"][1:] and one["plain"][0] == 0


def test_short_affixes_share_the_question():
    (sides,) = workload.contexts_of(TINY, "one_line", 1, random.Random(0))
    assert sides["positive"] != sides["negative"]
    assert flops._common(sides["positive"], sides["negative"]) > 5


def test_training_on_long_prompts_keeps_the_system_text():
    pairs = workload.pairs_of(TINY, "long", 2)
    assert [p.plain_context_ids for p in workload.trained(pairs, "long")] == [p.positive_context_ids for p in pairs]
    assert [p.plain_context_ids for p in workload.trained(pairs, "hh")] == [p.plain_context_ids for p in pairs]


def test_dense_tokens_count_the_prompt_for_either_answer():
    (pair,) = workload.pairs_of(TINY, "imposed", 1)
    expected = 2 * len(pair.plain_context_ids) + len(pair.positive_ids) + len(pair.negative_ids)
    assert workload.dense_tokens([pair]) == expected


@pytest.mark.parametrize("size", [100, 8000])
def test_spread_ids_lie_in_the_vocabulary_clear_of_special_tokens(size):
    ids = [text.spread(i, size, 512) for i in range(3, size)]
    assert min(ids) >= 3 and max(ids) < 512
    assert len(set(ids)) == min(size - 3, len(set(ids))) and (size > 512 or len(set(ids)) == size - 3)


def test_without_the_file_hh_prompts_say_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setenv("DLMA_HH_FILE", str(tmp_path / "none"))
    text.hh_conversations.cache_clear()
    with pytest.raises(FileNotFoundError, match="DLMA_HH_FILE"):
        text.hh_conversations(3)


@pytest.mark.skipif(text.hh_file() is None, reason="HH's pairs are not at hand: DLMA_HH_FILE")
def test_answered_pairs_are_short_and_hhs_own():
    pairs = workload.pairs_of(TINY, "answered", 4)
    assert all(len(p.plain_context_ids) <= 64 for p in pairs)
    assert all(1 <= len(ids) <= 48 for p in pairs for ids in (p.positive_ids, p.negative_ids))
    assert all(p.positive_ids != p.negative_ids for p in pairs)
