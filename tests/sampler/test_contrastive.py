"""Contrastive decoding on small models: every drawn token, its log-prob, and what it must not depend on."""

import itertools
import math

import numpy as np
import pytest
import torch
from small_models import small_model

from dlma.errors import UserError
from dlma.functional.contrast import contrasted_logits
from dlma.functional.noise import draw, row_key, uniform
from dlma.model import original
from dlma.model.contrast import Contrast, contrasted
from dlma.model.drawn import Drawing
from dlma.model.trees import Completion
from dlma.sampler import contrastive
from dlma.sampler.contrastive import ContrastiveSampler
from dlma.sampler.local import LocalSampler, Request

PLAIN = Drawing(1.0, 0, 1.0)
STRONG = Contrast(alpha=1.5, cutoff=0.02)


@pytest.fixture(scope="module")
def model():
    return small_model()


def local(**changes):
    return LocalSampler(**{**dict(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=10), **changes})


def asked(n=20):
    """Requests of unequal length, and the other side's context of each."""
    draws = torch.Generator().manual_seed(5)
    rows = [torch.randint(3, 40, (2 + i % 7,), generator=draws).tolist() for i in range(n)]
    return [Request(row_key(0, f"p{i}", "held-out", 0), [0, *row, 7]) for i, row in enumerate(rows)], [
        [0, *row, 9, 11] for row in rows
    ]


def last(model, ids):
    """The logits after a row, by the network's own pass."""
    return original.last_logits(model, ids, 1)


def test_without_contrast_the_answers_are_those_of_the_positive_prompt(model):
    requests, negatives = asked(70)  # more than a tile
    ours = ContrastiveSampler(local(), Contrast(alpha=0.0, cutoff=0.0)).sample(model, requests, negatives)
    assert ours == local().sample(model, requests)


def test_every_token_is_drawn_from_the_two_sides_of_its_own_prompt(model):
    requests, negatives = asked()
    answers = ContrastiveSampler(local(), STRONG).sample(model, requests, negatives)
    for request, negative, answer in zip(requests[:6], negatives[:6], answers[:6], strict=True):
        for step, token in enumerate(answer.ids):
            so_far = answer.ids[:step]
            sides = last(model, [*request.context_ids, *so_far]), last(model, [*negative, *so_far])
            mixed = contrasted_logits(*sides, alpha=1.5, cutoff=0.02)
            noise = uniform(np.array([request.key], dtype=np.uint64), step)
            assert draw(mixed, noise, temperature=1.0, top_k=0, top_p=1.0).item() == token
    assert {answer.finished for answer in answers} == {ids.ids[-1] in model.eos_ids for ids in answers}


def test_an_answer_does_not_depend_on_its_company(model):
    requests, negatives = asked()
    sampler = ContrastiveSampler(local(), STRONG)
    together = sampler.sample(model, requests, negatives)
    assert [sampler.sample(model, [r], [n])[0] for r, n in zip(requests, negatives, strict=True)] == together


def test_rows_that_no_tile_takes_are_drawn_alone_alike(model, monkeypatch):
    requests, negatives = asked(4)
    together = ContrastiveSampler(local(), STRONG).sample(model, requests, negatives)
    for way in ("own cache", "whole rows"):
        monkeypatch.setattr(contrastive, "way_of_decoding", lambda *_, way=way: way)
        assert ContrastiveSampler(local(), STRONG).sample(model, requests, negatives) == together


def test_the_probabilities_of_all_answers_sum_to_one(model):
    """Every answer of two tokens, or of one EOS, over a vocabulary cut down to what the contrast leaves possible."""
    positive, negative = [0, 5, 7], [0, 5, 9, 11]
    ends = sorted(model.eos_ids)
    firsts = [[token] for token in range(model.vocabulary)]
    longer = [[a, b] for a, b in itertools.product(range(model.vocabulary), repeat=2) if a not in ends]
    rows = [row for row in firsts if row[0] in ends] + longer
    both = [(Completion(positive, row), Completion(negative, row)) for row in rows]
    logp = contrasted(model, Contrast(alpha=1.5, cutoff=0.0), both, [PLAIN], token_budget=1 << 14)
    assert sum(math.exp(value) for (value,) in logp) == pytest.approx(1.0, abs=1e-4)


def test_a_log_prob_is_the_sum_over_its_tokens_in_every_way_of_drawing(model):
    positive, negative, answer = [0, 5, 7], [0, 5, 9, 11], [12, 3, 8]
    ways = [PLAIN, Drawing(0.5, 0, 1.0)]
    found = contrasted(
        model, STRONG, [(Completion(positive, answer), Completion(negative, answer))], ways, token_budget=64
    )
    by_hand = [0.0, 0.0]
    for step, token in enumerate(answer):
        sides = (last(model, [*context, *answer[:step]]) for context in (positive, negative))
        mixed = contrasted_logits(*sides, alpha=1.5, cutoff=0.02, keep=torch.tensor([token]))
        by_hand = [
            by_hand[0] + mixed.log_softmax(-1)[0, token].item(),
            by_hand[1] + (mixed * 2).log_softmax(-1)[0, token].item(),
        ]
    assert found[0] == pytest.approx(by_hand, abs=1e-4)


def test_a_row_beyond_the_context_is_refused(model):
    requests, negatives = asked(2)
    with pytest.raises(UserError, match=r"recipe\.max_prompt_tokens"):
        ContrastiveSampler(local(max_new_tokens=model.context), STRONG).sample(model, requests, negatives)
    assert ContrastiveSampler(local(), STRONG).sample(model, [], []) == []
