"""The distribution that two prompts make together, by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlma.functional.contrast import contrasted_logits

LOGITS = st.lists(st.floats(-8, 8, allow_nan=False), min_size=3, max_size=3).map(lambda row: torch.tensor([row]))


@given(LOGITS, LOGITS)
def test_without_weight_and_cut_the_positive_prompt_is_left_as_it_is(positive, negative):
    assert torch.equal(contrasted_logits(positive, negative, alpha=0.0, cutoff=0.0), positive.log_softmax(-1))


@given(LOGITS, st.floats(0, 5))
def test_where_both_prompts_agree_nothing_changes(logits, alpha):
    mixed = contrasted_logits(logits, logits + 3.0, alpha=alpha, cutoff=0.0)
    assert torch.allclose(mixed.softmax(-1), logits.softmax(-1), atol=1e-5)


def test_the_probabilities_by_hand():
    """p+ = (1/2, 1/4, 1/4), p- = (1/4, 1/2, 1/4), alpha 1: p+^2 / p- is (1, 1/8, 1/4), whose sum is 11/8."""
    positive, negative = (torch.tensor([p]).log() for p in ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25]))
    mixed = contrasted_logits(positive, negative, alpha=1.0, cutoff=0.0).softmax(-1)
    assert torch.allclose(mixed, torch.tensor([[8 / 11, 1 / 11, 2 / 11]]))


@given(LOGITS, LOGITS, st.floats(0.05, 0.9))
def test_roses_form_is_the_same_at_another_temperature(positive, negative, share):
    """softmax(l+ - a l-) = softmax of this with alpha = a/(1-a) at temperature 1/(1-a)."""
    mixed = contrasted_logits(positive, negative, alpha=share / (1 - share), cutoff=0.0)
    assert torch.allclose((mixed * (1 - share)).softmax(-1), (positive - share * negative).softmax(-1), atol=1e-4)


def test_tokens_that_the_positive_prompt_finds_unlikely_are_ruled_out_unless_they_were_drawn():
    rows = [[0.80, 0.15, 0.05], [0.02, 0.18, 0.80]], [[0.4, 0.3, 0.3], [0.3, 0.3, 0.4]]
    positive, negative = (torch.tensor(some).log() for some in rows)
    cut = contrasted_logits(positive, negative, alpha=1.0, cutoff=0.1)  # 0.05 and 0.02 are below a tenth of 0.80
    assert (cut == -math.inf).tolist() == [[False, False, True], [True, False, False]]
    kept = contrasted_logits(positive, negative, alpha=1.0, cutoff=0.1, keep=torch.tensor([2, 2]))
    assert kept[0, 2].item() == pytest.approx(2 * math.log(0.05) - math.log(0.3), rel=1e-6)
    assert torch.equal(kept[1], cut[1])  # what was drawn there is not ruled out anyway
    alone = contrasted_logits(positive, negative, alpha=1.0, cutoff=1.0)  # the likeliest is never ruled out
    assert alone.isfinite().tolist() == [[True, False, False], [False, False, True]]
