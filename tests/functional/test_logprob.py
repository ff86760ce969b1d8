"""Token log-probs and their sums, held against torch's own loss and by hand."""

import weakref
from itertools import combinations

import pytest
import torch
from torch.nn.functional import cross_entropy

from dlma.functional import logprob
from dlma.functional.logprob import chunked_token_logp, sum_by_owner, token_logp


def test_token_logp_is_minus_cross_entropy():
    logits = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    target = torch.arange(7)
    wanted = -cross_entropy(logits, target, reduction="none")
    assert torch.allclose(token_logp(logits, target), wanted, atol=1e-6)


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.zeros(1, 4096, dtype=torch.bfloat16)
    assert token_logp(logits, torch.tensor([0])).item() == -torch.log(torch.tensor(4096.0)).item()


def test_half_precision_states_give_float32_log_probs_and_sums():
    """The products are rounded; log-softmax and the sum over an answer's tokens are not."""
    head, hidden, target, _ = head_case(False, torch.bfloat16, tokens=3000)
    found = chunked_token_logp(hidden, target, head)
    wanted = -cross_entropy(head(hidden).float(), target, reduction="none")
    assert found.dtype == torch.float32 and torch.allclose(found, wanted, atol=1e-6)
    one = sum_by_owner(found, torch.zeros(3000, dtype=torch.long), torch.arange(3000), 1)
    assert one.item() == pytest.approx(wanted.double().sum().item(), rel=1e-6)
    assert one.bfloat16().item() != pytest.approx(one.item(), abs=1e-2)


def test_no_tokens_give_no_log_probs():
    assert chunked_token_logp(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.nn.Linear(4, 5)).shape == (0,)


def head_case(bias, dtype=torch.float64, tokens=7, width=5, vocabulary=11):
    torch.manual_seed(0)
    head = torch.nn.Linear(width, vocabulary, bias=bias).to(dtype)
    hidden = torch.randn(tokens, width, dtype=dtype, requires_grad=True)
    return head, hidden, torch.randint(vocabulary, (tokens,)), torch.randn(tokens)


def gradients(logp, weights, *wanted):
    return torch.autograd.grad((logp * weights).sum(), wanted)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("keep", [0, 4 * 11 * 3, 1 << 20])  # no, one, all pieces' logits are held
@pytest.mark.parametrize("chunk", [3, 100, None])
def test_a_linear_heads_gradient_is_autograds(bias, keep, chunk):
    head, hidden, target, weights = head_case(bias, torch.float32)
    ours = chunked_token_logp(hidden, target, head, chunk, keep)
    theirs = -cross_entropy(head(hidden), target, reduction="none")
    assert torch.allclose(ours, theirs, atol=1e-6)
    wanted = (hidden, *head.parameters())
    for one, other in zip(gradients(ours, weights, *wanted), gradients(theirs, weights, *wanted), strict=True):
        assert ((one - other).norm() / other.norm()).item() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bits_do_not_depend_on_whether_logits_are_held(dtype):
    """A reference that was scored is compared with a policy that is trained."""
    head, hidden, target, _ = head_case(True, dtype, vocabulary=1001)
    wanted = token_logp(head(hidden), target)
    held = chunked_token_logp(hidden, target, head)
    again = chunked_token_logp(hidden, target, head, keep=0)
    head.requires_grad_(False)
    frozen = chunked_token_logp(hidden, target, head)
    with torch.no_grad():
        scored = chunked_token_logp(hidden, target, head)
    for found in (held, again, frozen, scored):
        assert torch.equal(found, wanted)


def test_a_frozen_heads_states_get_the_same_gradient_and_the_head_none():
    head, hidden, target, weights = head_case(False, torch.float32)
    (wanted,) = gradients(chunked_token_logp(hidden, target, head, 3), weights, hidden)
    head.requires_grad_(False)
    (chunked_token_logp(hidden, target, head, 3) * weights).sum().backward()
    assert torch.allclose(hidden.grad, wanted, atol=1e-6)
    assert head.weight.grad is None


def test_another_kind_of_head_goes_through_autograd():
    head, hidden, target, weights = head_case(False, torch.float32)
    ours = chunked_token_logp(hidden, target, lambda states: 2 * head(states), 3)
    theirs = -cross_entropy(2 * head(hidden), target, reduction="none")
    for one, other in zip(
        gradients(ours, weights, hidden, head.weight), gradients(theirs, weights, hidden, head.weight)
    ):
        assert torch.allclose(one, other, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(chunked_token_logp(hidden, target, lambda states: 2 * head(states), 3), ours)


@pytest.mark.parametrize("trained", [p for n in (1, 2, 3) for p in combinations(("hidden", "weight", "bias"), n)])
def test_whatever_is_trained_gets_its_gradient_and_nothing_else_does(trained):
    head, hidden, target, weights = head_case(True, torch.float32)
    parts = {"hidden": hidden, "weight": head.weight, "bias": head.bias}
    for name, part in parts.items():
        part.requires_grad_(name in trained)
    wanted = gradients(-cross_entropy(head(hidden), target, reduction="none"), weights, *map(parts.get, trained))
    (chunked_token_logp(hidden, target, head, 3) * weights).sum().backward()
    for name, one in zip(trained, wanted, strict=True):
        assert torch.allclose(parts[name].grad, one, atol=1e-6)
    assert all(part.grad is None for name, part in parts.items() if name not in trained)


def test_a_bfloat16_heads_gradient_is_summed_in_float32():
    head, hidden, target, weights = head_case(True, torch.bfloat16, tokens=64)
    pieces = gradients(chunked_token_logp(hidden, target, head, 1), weights, head.weight)[0]
    whole = gradients(chunked_token_logp(hidden, target, head, 64), weights, head.weight)[0]
    assert pieces.dtype == torch.bfloat16
    assert ((pieces - whole).float().norm() / whole.float().norm()).item() < 1e-2


def test_a_second_backward_pass_gives_the_same_gradient():
    head, hidden, target, weights = head_case(False, torch.float32)
    logp = chunked_token_logp(hidden, target, head, 3)
    first = torch.autograd.grad((logp * weights).sum(), head.weight, retain_graph=True)[0]
    assert torch.allclose(torch.autograd.grad((logp * weights).sum(), head.weight)[0], first, atol=1e-6)


@pytest.mark.parametrize(("grad", "most"), [(False, 1), (True, 3)])
def test_logits_are_held_for_a_backward_pass_only(monkeypatch, grad, most):
    head, hidden, target, _ = head_case(False, torch.float32)
    made, alive, logits = [], [], logprob._logits

    def watched(*args):
        out = logits(*args)
        made.append(weakref.ref(out))
        alive.append(sum(ref() is not None for ref in made))
        return out

    monkeypatch.setattr(logprob, "_logits", watched)
    with torch.set_grad_enabled(grad):
        logp = chunked_token_logp(hidden, target, head, 3)
    assert logp.requires_grad == grad
    assert max(alive) <= most + 1  # the last one of the loop before is let go when the next is there
    assert sum(ref() is not None for ref in made) == (most if grad else 0)


def test_sums_go_to_their_owner_and_an_owner_without_tokens_has_zero():
    owner, slot = torch.tensor([0, 0, 2]), torch.tensor([0, 1, 0])
    assert sum_by_owner(torch.tensor([1.0, 2.0, 4.0]), owner, slot, 3).tolist() == [3.0, 0.0, 4.0]


@pytest.fixture
def every_head_is_large(monkeypatch):
    monkeypatch.setattr(logprob, "LARGE_BYTES", 0)


@pytest.mark.parametrize("keep", [0, 1 << 20])
@pytest.mark.parametrize("chunk", [3, 100])
def test_a_gradient_that_is_added_in_place_is_the_one_that_autograd_adds(every_head_is_large, chunk, keep):
    """Tied to the embedding, over two passes: what each gives lies in `.grad` with what autograd puts there."""
    head, _, target, weights = head_case(True, torch.float32)
    gradients_of = []
    for in_place in (False, True):
        head.zero_grad()
        for scale in (1.0, 0.5):
            states = scale * torch.nn.functional.embedding(target.flip(0), head.weight)
            (chunked_token_logp(states, target, head, chunk, keep, in_place) * weights).sum().backward()
        gradients_of.append([p.grad.clone() for p in head.parameters()])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*gradients_of, strict=True))


def test_autograd_is_not_given_what_is_added_in_place(every_head_is_large):
    head, hidden, target, _ = head_case(False, torch.float32)
    logp = chunked_token_logp(hidden, target, head, in_place=True)
    for_hidden, for_weight = torch.autograd.grad(logp.sum(), (hidden, head.weight), allow_unused=True)
    assert for_hidden is not None and for_weight is None and head.weight.grad.abs().sum() > 0


def test_small_frozen_and_short_heads_are_left_to_autograd(monkeypatch):
    head, hidden, target, _ = head_case(False, torch.float32)
    assert torch.autograd.grad(chunked_token_logp(hidden, target, head, in_place=True).sum(), head.weight)
    monkeypatch.setattr(logprob, "LARGE_BYTES", 0)
    short = head_case(False, torch.bfloat16)
    assert torch.autograd.grad(chunked_token_logp(short[1], short[2], short[0], in_place=True).sum(), short[0].weight)
    head.requires_grad_(False)
    chunked_token_logp(hidden, target, head, in_place=True).sum().backward()
    assert head.weight.grad is None
