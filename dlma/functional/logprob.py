"""Log-probabilities of tokens from hidden states, without ever holding a [batch, length, vocabulary] block.

Departs from the usual padded log-softmax: only positions that predict a response token reach the head, in
chunks. For a linear head the gradient is written out by hand: no product is made twice unless the logits
outgrow `keep` bytes, and none at all for a frozen head, so memory does not grow with the vocabulary times the
number of tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from dlma.functional.products import by_onednn, is_linear, linear, matmul

CHUNK_BYTES = 32 << 20  # logits of one chunk: small enough to stay near the cores, large enough for full speed
KEEP_BYTES = 128 << 20  # logits held from forward to backward; beyond that they are computed again
LARGE_BYTES = 32 << 20  # a head above that adds its gradient in place, if asked to; for smaller ones it saves nothing


def token_logp(logits: Tensor, target: Tensor) -> Tensor:
    """log softmax(logits)[target], in float32.

    logits: (tokens, vocabulary), any float type; target: (tokens,) int64
    returns: (tokens,) float32, nats
    """
    logits = logits.float()
    return logits.gather(-1, target.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def chunked_token_logp(
    hidden: Tensor,
    target: Tensor,
    head: Callable[[Tensor], Tensor],
    chunk: int | None = None,
    keep: int = KEEP_BYTES,
    in_place: bool = False,
) -> Tensor:
    """`token_logp` of head(hidden), `chunk` tokens at a time; equal in value and gradient to one piece.

    hidden: (tokens, width), the states at the positions that predict `target`
    target: (tokens,) int64
    head: a linear layer, for which the gradient is written out, or any other function of states
    chunk: tokens of one piece; None: as many as CHUNK_BYTES of float32 logits hold
    keep: bytes of logits that a linear head may hold from forward to backward
    in_place: `backward()` adds the gradient of a large float32 head's weight to its `.grad` itself, so that it lives
        once; torch.autograd.grad does not get it
    returns: (tokens,) float32, nats
    """
    if not len(target):
        return hidden.new_zeros(0, dtype=torch.float32)
    if is_linear(head):
        assert isinstance(head, nn.Linear)
        size = chunk or max(16, CHUNK_BYTES // (4 * head.out_features))
        weight, bias = _at_compute_dtype(hidden, head.weight, head.bias)
        keep = keep if torch.is_grad_enabled() else 0
        added = _added_to(head.weight, weight) if in_place and hidden.requires_grad else None
        weight = weight if added is None else weight.detach()
        return _LinearLogp.apply(hidden.to(weight.dtype), weight, bias, target, size, keep, added)

    def piece(states: Tensor, wanted: Tensor) -> Tensor:
        return token_logp(head(states), wanted)

    pieces = zip(hidden.split(chunk or 512), target.split(chunk or 512), strict=True)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(piece, h, t, use_reentrant=False, preserve_rng_state=False) for h, t in pieces])
    return torch.cat([piece(h, t) for h, t in pieces])


def sum_by_owner(values: Tensor, owner: Tensor, slot: Tensor, owners: int) -> Tensor:
    """Sum values per owner, in a fixed order (no atomics, so the same bits on every run).

    values: (tokens,) float32; owner, slot: (tokens,) int64, slot is the token's place in its owner
    returns: (owners,) float32; an owner without tokens sums to 0
    """
    width = int(slot.max()) + 1 if slot.numel() else 1
    table = values.new_zeros(owners, width)
    return table.index_put((owner, slot), values).sum(dim=1)


def _at_compute_dtype(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The head's parameters in the dtype that autocast would give its product."""
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def _added_to(owner: Tensor, used: Tensor) -> nn.Parameter | None:
    """The weight whose `.grad` the backward pass adds to: a large trained one that is used as it is."""
    if not isinstance(owner, nn.Parameter) or not owner.requires_grad or not torch.is_grad_enabled():
        return None
    as_it_is = owner.dtype == used.dtype == torch.float32
    return owner if as_it_is and owner.nbytes >= LARGE_BYTES else None


class _LinearLogp(torch.autograd.Function):
    """log softmax(hidden @ weight.T + bias)[target], with d/dlogits = onehot(target) - softmax.

    Where the head is frozen, d logp/d hidden is a vector per token that needs no knowledge of the loss: it is
    computed at once, while the probabilities are at hand. Where it is trained, the logits wait for the backward
    pass as long as `keep` bytes last; later pieces are computed again.

    added: the parameter that `weight` is, where the backward pass is to add to its `.grad`
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, target, chunk, keep, added):
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1] or added is not None, ctx.needs_input_grad[2])
        frozen = wanted[0] and not any(wanted[1:])
        logp = hidden.new_empty(len(target), dtype=torch.float32)
        sums, kept, slopes = torch.empty_like(logp), [], []
        with torch.autocast(hidden.device.type, enabled=False):
            for span in _spans(len(target), chunk):
                logits = _logits(hidden[span], weight, bias)
                keep -= 4 * logits.numel()
                held = keep >= 0 and any(wanted) and not frozen
                kept.append(logits if held else None)
                logp[span] = logits.gather(-1, target[span].unsqueeze(-1)).squeeze(-1)
                if held:
                    sums[span] = logits.logsumexp(-1)
                    continue
                sums[span], total = _summed(logits)
                if frozen:
                    slope = _less_target(logits.div_(-total.unsqueeze(-1)), target[span])
                    slopes.append(matmul(slope.to(weight.dtype), weight))
        logp -= sums
        ctx.chunk, ctx.kept, ctx.added = chunk, kept, added
        ctx.save_for_backward(hidden, weight, bias, target, sums, torch.cat(slopes) if frozen else None)
        return logp

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        hidden, weight, bias, target, sums, slopes = ctx.saved_tensors
        if slopes is not None:
            return gradient.unsqueeze(-1).to(slopes.dtype) * slopes, *[None] * 6
        for_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for_weight, begun = _gradient(ctx.added) if ctx.added is not None else (None, False)
        if ctx.needs_input_grad[1]:
            for_weight = torch.empty_like(weight, dtype=torch.float32)
        for_bias = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        with torch.autocast(hidden.device.type, enabled=False):
            for index, span in enumerate(_spans(len(target), ctx.chunk)):
                logits, ctx.kept[index] = ctx.kept[index], None
                logits = _logits(hidden[span], weight, bias) if logits is None else logits
                slope = _slope(logits, sums[span], target[span]).mul_(gradient[span].unsqueeze(-1)).to(weight.dtype)
                if for_hidden is not None:
                    for_hidden[span] = matmul(slope, weight)
                if for_weight is not None:
                    _add_product(for_weight, slope, hidden[span], first=index == 0 and not begun)
                if for_bias is not None:
                    for_bias += slope.sum(0)
                del logits, slope
        given = for_weight.to(weight.dtype) if for_weight is not None and ctx.added is None else None
        return for_hidden, given, None if for_bias is None else for_bias.to(bias.dtype), *[None] * 4


def _gradient(owner: nn.Parameter) -> tuple[Tensor, bool]:
    """A parameter's `.grad`, and whether anything has been added to it yet; made here if there is none."""
    if owner.grad is not None:
        return owner.grad, True
    owner.grad = torch.empty_like(owner)
    return owner.grad, False


def _spans(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits in float32, in memory of their own."""
    return linear(hidden, weight, bias).float()


def _summed(logits: Tensor) -> tuple[Tensor, Tensor]:
    """logsumexp of each row, bit for bit torch's, and the sum of exp(logits - largest), which is left in `logits`."""
    top = logits.amax(-1, keepdim=True)
    total = logits.sub_(top).exp_().sum(-1)
    return total.log() + top.squeeze(-1), total


def _slope(logits: Tensor, sums: Tensor, target: Tensor) -> Tensor:
    """onehot(target) - softmax, written over `logits`."""
    return _less_target(logits.sub_(sums.unsqueeze(-1)).exp_().neg_(), target)


def _less_target(slope: Tensor, target: Tensor) -> Tensor:
    """onehot(target) + slope, written over `slope`."""
    return slope.scatter_add_(-1, target.unsqueeze(-1), slope.new_ones(len(target), 1))


def _add_product(total: Tensor, slope: Tensor, hidden: Tensor, first: bool) -> None:
    """total (+)= slope.T @ hidden, the sum in float32; the first product overwrites what was there."""
    if hidden.dtype == total.dtype and not by_onednn():
        torch.addmm(total, slope.t(), hidden, beta=0 if first else 1, out=total)
        return
    for rows in _spans(len(total), max(1, CHUNK_BYTES // (4 * hidden.shape[1]))):
        part = matmul(slope[:, rows].t(), hidden)
        total[rows] = part if first else total[rows] + part
