"""Contrastive decoding: one distribution of the next token from those under two prompts."""

import math

import torch
from torch import Tensor


def contrasted_logits(
    positive: Tensor, negative: Tensor, *, alpha: float, cutoff: float, keep: Tensor | None = None
) -> Tensor:
    """(1 + alpha) log p(.|p+) - alpha log p(.|p-), where p(.|p+) is at least `cutoff` of its largest; -inf elsewhere.

    O'Brien and Lewis 2023 (arXiv 2309.09117), with a second prompt in place of a second model. ROSE's l+ - a*l- (Zhong
    et al. 2024, arXiv 2402.11889) is this for alpha = a/(1 - a) at temperature 1/(1 - a): the same order of tokens.
    The cut is the plausibility constraint of Li et al. 2022 (arXiv 2210.15097).
    positive, negative: (rows, vocabulary), logits under p+ and p-; alpha 0 and cutoff 0 give log p(.|p+)
    keep: (rows,) int64, tokens that were drawn, so that rounding at the cut is not to rule them out
    returns: (rows, vocabulary) float32
    """
    first, second = positive.float().log_softmax(-1), negative.float().log_softmax(-1)
    mixed = first + alpha * (first - second) if alpha else first
    if not cutoff:
        return mixed
    cut = mixed.masked_fill(first < first.amax(-1, keepdim=True) + math.log(cutoff), -torch.inf)
    return cut if keep is None else cut.scatter(-1, keep.unsqueeze(-1), mixed.gather(-1, keep.unsqueeze(-1)))
