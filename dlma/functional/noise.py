"""Counter-based randomness: a row's noise is a function of its key and the step, never of its neighbours."""

import hashlib

import numpy as np
import torch
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 128
_COLDEST = 1e-30  # logits divided by less are infinite; the likeliest token has all the weight long before
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def row_key(seed: int, prompt_id: str, side: str, sample: int) -> int:
    """The 64-bit key of one answer's randomness: equal arguments, equal noise, on every machine."""
    text = f"{seed}\x1f{prompt_id}\x1f{side}\x1f{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def uniform(keys: np.ndarray, step: int | np.ndarray) -> np.ndarray:
    """splitmix64 of (key, step) as numbers in [0, 1): (rows,) uint64 in, (rows,) float64 out.

    step: one for all rows, or (rows,)

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    with np.errstate(over="ignore"):
        z = keys + (np.asarray(step).astype(np.uint64) + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX[0]
        z = (z ^ (z >> np.uint64(27))) * _MIX[1]
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def kept_logits(logits: Tensor, *, top_k: int, top_p: float) -> Tensor:
    """Logits with all but the kept tokens at -inf; top_k 0 and top_p 1 keep everything.

    logits: (rows, vocabulary) float64. top_k keeps ties with the k-th; top_p keeps the fewest tokens
    whose probability reaches p, always at least one.
    """
    if 0 < top_k < logits.shape[-1]:
        kth = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p < 1.0:
        ordered, index = logits.sort(dim=-1, descending=True, stable=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, index, before >= top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    return logits


def drawn_logp(
    logits: Tensor, target: Tensor, *, temperature: float, top_k: int, top_p: float, keep_target: bool = False
) -> Tensor:
    """Log-probs of tokens under the distribution that `draw` draws from: cut and renormalised.

    logits: (tokens, vocabulary); target: (tokens,) int64
    keep_target: the target was drawn, so it was kept: rounding at the cut is not to rule it out
    returns: (tokens,) float64, nats; -inf where the cut rules a target out
    """
    logits, place = logits.double(), target.unsqueeze(-1)
    if temperature == 0:
        certain = torch.ones_like(target, dtype=torch.bool) if keep_target else logits.argmax(-1) == target
        return torch.where(certain, 0.0, -torch.inf).double()
    scaled = logits / max(temperature, _COLDEST)
    kept = kept_logits(scaled, top_k=top_k, top_p=top_p)
    if keep_target:
        kept = kept.scatter(-1, place, scaled.gather(-1, place))
    return kept.gather(-1, place).squeeze(-1) - kept.logsumexp(-1)


def draw(logits: Tensor, noise: np.ndarray, *, temperature: float, top_k: int, top_p: float) -> Tensor:
    """One token per row by the inverse of the cumulative distribution.

    logits: (rows, vocabulary), on a device that has float64; noise: (rows,) float64 in [0, 1)
    temperature 0 takes the likeliest token
    returns: (rows,) int64
    """
    if temperature == 0:
        return logits.argmax(-1)
    temperature = max(temperature, _COLDEST)
    uniform_ = torch.from_numpy(noise).to(logits.device)
    if 0 < top_k < logits.shape[-1] or top_p < 1.0:
        kept = kept_logits(logits.double() / temperature, top_k=top_k, top_p=top_p)
        return _inverse(kept.softmax(-1), uniform_)
    scaled = logits.float() if temperature == 1.0 else logits.float() / temperature
    weights = (scaled - scaled.amax(-1, keepdim=True)).exp_()
    return _inverse(weights.double(), uniform_) if logits.shape[-1] <= 2 * _BLOCK else _by_blocks(weights, uniform_)


def _inverse(weights: Tensor, noise: Tensor) -> Tensor:
    """The first column at which the running sum of float64 weights passes noise times their total; never one of 0."""
    total = weights.cumsum(-1)
    wanted = noise * total[:, -1]
    found = torch.searchsorted(total, wanted.unsqueeze(-1), right=True).squeeze(-1)
    likely = weights.shape[-1] - 1 - (weights.flip(-1) > 0).int().argmax(-1)
    return torch.minimum(found, likely)


def _by_blocks(weights: Tensor, noise: Tensor) -> Tensor:
    """`_inverse` in two steps, block and column within it, so that one block per row is summed in float64.

    The block sums are float32 and so is what they are compared with; their error, 1e-7 of a probability, is the
    weights' own.
    """
    rows, columns = weights.shape
    if columns % _BLOCK:
        weights = torch.nn.functional.pad(weights, (0, -columns % _BLOCK))
    weights = weights.view(rows, -1, _BLOCK)
    sums = weights.sum(-1).double()
    block = _inverse(sums, noise)
    row = torch.arange(rows, device=weights.device)
    before = sums.cumsum(-1)[row, block] - sums[row, block]
    rest = (noise * sums.sum(-1) - before) / sums[row, block]
    return block * _BLOCK + _inverse(weights[row, block].double(), rest.clamp(0.0, 1.0))
