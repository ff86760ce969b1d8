"""Noise and draws: uniform, independent over steps, and exactly the model's distribution."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from dlma.functional.noise import _inverse, draw, drawn_logp, kept_logits, row_key, uniform

WAYS = [(1.0, 0, 1.0), (0.5, 0, 1.0), (1.7, 0, 1.0), (1.0, 3, 1.0), (1.0, 0, 0.8), (0.7, 4, 0.9), (0.0, 0, 1.0)]


def test_noise_is_uniform_and_independent_over_steps():
    keys = np.array([row_key(0, str(i), "plain", 0) for i in range(4000)], dtype=np.uint64)
    first, second = uniform(keys, 0), uniform(keys, 1)
    assert stats.kstest(first, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


def test_rows_at_different_steps_get_the_noise_of_their_own_step():
    keys = np.array([7, 8, 9], dtype=np.uint64)
    mixed = uniform(keys, np.array([0, 5, 2]))
    assert mixed.tolist() == [uniform(keys, 0)[0], uniform(keys, 5)[1], uniform(keys, 2)[2]]


def test_each_prompt_side_and_sample_has_its_own_noise():
    keys = {row_key(s, p, side, n) for s in (0, 1) for p in "ab" for side in ("positive", "negative") for n in (0, 1)}
    assert len(keys) == 16


def test_draw_follows_the_distribution():
    logits = torch.log(torch.tensor([0.5, 0.2, 0.0, 0.3])).repeat(20000, 1)
    noise = uniform(np.arange(20000, dtype=np.uint64), 3)
    counts = torch.bincount(draw(logits, noise, temperature=1.0, top_k=0, top_p=1.0), minlength=4)
    assert counts[2] == 0
    assert stats.chisquare(counts[[0, 1, 3]], [10000, 4000, 6000]).pvalue > 1e-3


@pytest.mark.parametrize("vocabulary", [300, 1008, 5000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_large_vocabulary_is_drawn_from_by_the_same_inverse(vocabulary, temperature):
    logits = torch.randn(64, vocabulary, generator=torch.Generator().manual_seed(0)) * 3
    logits[:, 17] = -torch.inf
    exact = (logits.double() / temperature).softmax(-1).cumsum(-1)
    for step in range(20):
        noise = uniform(np.arange(64, dtype=np.uint64), step)
        got = draw(logits, noise, temperature=temperature, top_k=0, top_p=1.0)
        above = exact.gather(1, got[:, None])[:, 0]
        below = torch.where(got > 0, exact.gather(1, (got - 1).clamp_min(0)[:, None])[:, 0], 0.0)
        wanted = torch.from_numpy(noise)
        assert (below - 1e-6 <= wanted).all()
        assert (wanted <= above + 1e-6).all()
        assert (got != 17).all()


@pytest.mark.parametrize("vocabulary", [4, 512, 1000])
def test_the_ends_of_the_noise_draw_tokens_that_have_a_probability(vocabulary):
    logits = torch.full((2, vocabulary), -torch.inf)
    logits[:, 1:3] = 0.0
    noise = np.array([0.0, np.nextafter(1.0, 0.0)])
    assert draw(logits, noise, temperature=1.0, top_k=0, top_p=1.0).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        (dict(temperature=0), {0}),
        (dict(temperature=1.0, top_k=2, top_p=1.0), {0, 3}),
        (dict(temperature=1.0, top_k=0, top_p=0.5), {0}),
        (dict(temperature=1.0, top_k=0, top_p=0.51), {0, 3}),
    ],
)
def test_top_k_top_p_and_greedy_keep_just_their_tokens(options, allowed):
    logits = torch.log(torch.tensor([0.5, 0.15, 0.05, 0.3])).repeat(2000, 1)
    noise = uniform(np.arange(2000, dtype=np.uint64), 0)
    assert set(draw(logits, noise, **{"top_k": 0, "top_p": 1.0, **options}).tolist()) == allowed


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), WAYS)
def test_what_draw_can_draw_is_what_has_a_finite_log_prob(temperature, top_k, top_p):
    logits = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    settings = dict(temperature=temperature, top_k=top_k, top_p=top_p)
    noise = np.linspace(0, 1, 200, endpoint=False)
    seen = [set(draw(row.expand(200, -1), noise, **settings).tolist()) for row in logits]
    for row, tokens in zip(logits, seen, strict=True):
        logp = drawn_logp(row.expand(12, -1), torch.arange(12), **settings)
        assert tokens <= {i for i in range(12) if logp[i] > -math.inf}
        assert logp.exp().sum().item() == pytest.approx(1.0)


def test_a_token_that_was_drawn_is_not_ruled_out_by_rounding_at_the_cut():
    logits = torch.tensor([[2.0, 1.0, 1.0 - 1e-9, 0.0]], dtype=torch.float64)
    target = torch.tensor([2])
    assert drawn_logp(logits, target, temperature=1.0, top_k=2, top_p=1.0).item() == -math.inf
    kept = drawn_logp(logits, target, temperature=1.0, top_k=2, top_p=1.0, keep_target=True)
    assert kept.exp().item() == pytest.approx(math.exp(1) / (math.exp(2) + 2 * math.exp(1)))
    assert torch.isinf(kept_logits(logits, top_k=2, top_p=1.0)[0, 2])


def test_a_greedy_token_that_was_drawn_is_certain_though_rounding_finds_another_larger():
    logits = torch.tensor([[1.0, 1.0 + 1e-9]], dtype=torch.float64)
    greedy = dict(temperature=0.0, top_k=0, top_p=1.0)
    assert drawn_logp(logits, torch.tensor([0]), **greedy).item() == -math.inf
    assert drawn_logp(logits, torch.tensor([0]), **greedy, keep_target=True).item() == 0.0


def test_the_noise_is_splitmix64s_own_sequence():
    # Published with the generator: the first outputs from the state 1234567, each of which gives its upper 53 bits.
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    found = uniform(np.full(5, 1234567, dtype=np.uint64), np.arange(5))
    assert found.tolist() == [(value >> 11) / 2**53 for value in first]


def test_temperature_flattens_what_is_drawn_and_its_log_probs_and_large_logits_do_no_harm():
    # probabilities 16/25 and 9/25; at temperature 2 their roots, 4/7 and 3/7
    logits = torch.log(torch.tensor([[16.0, 9.0]]))
    noise, settings = np.array([0.6]), dict(top_k=0, top_p=1.0)
    assert draw(logits, noise, temperature=1.0, **settings).tolist() == [0]
    assert draw(logits, noise, temperature=2.0, **settings).tolist() == [1]
    two = drawn_logp(logits.repeat(2, 1), torch.tensor([0, 1]), temperature=2.0, **settings)
    assert two.exp().tolist() == pytest.approx([4 / 7, 3 / 7])
    large = torch.tensor([[500.0, 500.0 - math.log(3)]])
    assert draw(large.repeat(2, 1), np.array([0.7, 0.8]), temperature=1.0, **settings).tolist() == [0, 1]


def test_a_cut_counts_from_one_token_up_to_all_but_one_whatever_the_rows():
    logits = torch.log(torch.tensor([[0.5, 0.15, 0.05, 0.3]]))
    settings = dict(temperature=1.0, top_p=1.0)
    assert draw(logits, np.array([0.6]), top_k=0, **settings).tolist() == [1]
    assert draw(logits, np.array([0.6]), top_k=2, **settings).tolist() == [0]  # of 0.5 and 0.3
    assert draw(logits, np.array([0.999]), top_k=1, **settings).tolist() == [0]
    assert draw(logits, np.array([0.72]), top_k=3, **settings).tolist() == [3]  # of 0.5, 0.15 and 0.3


def test_of_equal_tokens_the_first_ones_are_kept_until_their_mass_is_reached():
    kept = kept_logits(torch.zeros(1, 4, dtype=torch.float64), top_k=0, top_p=0.5)
    assert kept.isfinite().tolist() == [[True, True, False, False]]


def test_at_the_upper_end_of_the_noise_the_last_token_that_has_a_weight_is_taken():
    weights = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    assert _inverse(weights, torch.ones(2, dtype=torch.float64)).tolist() == [1, 3]


@pytest.mark.parametrize("cut", [{"top_k": 0, "top_p": 1.0}, {"top_k": 2, "top_p": 0.9}])
@pytest.mark.parametrize("temperature", [1e-4, 1e-38, 5e-324])
def test_however_cold_the_likeliest_token_is_drawn_and_certain(temperature, cut):
    logits, noise = torch.tensor([[-40.0, 55.0, 54.0, 3.0]]).repeat(3, 100), np.array([0.0, 0.5, 1 - 2**-53])
    logits[:, 201] = 60.0
    assert draw(logits, noise, temperature=temperature, **cut).tolist() == [201] * 3
    said = drawn_logp(logits[:2], torch.tensor([201, 202]), temperature=temperature, **cut)
    behind = -torch.inf if cut["top_k"] else (54.0 - 60.0) / max(temperature, 1e-30)  # the cut leaves it out
    assert said.tolist() == [0.0, pytest.approx(behind)]
