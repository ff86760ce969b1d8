"""A steering vector (CAA): how p+ moves a layer's activations away from those under p-, added to them for good.

    v = mean over answers a and their tokens t of [h(t | p+,q,a_<t) - h(t | p-,q,a_<t)];    h becomes h + scale * v

(Rimsky et al. 2024, arXiv 2312.06681). The vector is written into the weights as a bias of the layer's last product, so
that the policy is a model like any other: it samples, scores, exports and loads as one. It is therefore added at every
place of a row, where the published form leaves the prompt's alone. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from dlma.errors import UserError
from dlma.functional.noise import row_key
from dlma.model.language import LanguageModel
from dlma.model.saved import save
from dlma.ranges import Count, Positive, PositiveShare
from dlma.records import ScoredPair
from dlma.store.owned import TRAIN
from dlma.trainer import collectives
from dlma.trainer.runtime import Runtime
from dlma.training.rule import Supplies, write_log

_CLOSE = 1e-3  # of the vector's size: how far a layer's output may be from what it should have moved by


class Steering:
    """Moves one layer's activations from the negative prompt to the positive one.

    layer: how deep it lies, as a share of the layers
    scale: of the vector
    prompts: the vector is the mean over the answers of at most so many pairs, fixed by their ids
    """

    shares_steps = True
    side, samples, contrast = "plain", 1, None

    def __init__(self, model: LanguageModel, /, *, layer: PositiveShare, scale: Positive, prompts: Count) -> None:
        self.model = model
        self.scale = scale
        self.prompts = prompts
        layers = [m for m in model.causal.modules() if isinstance(m, GradientCheckpointingLayer)]
        if hasattr(model.network, "peft_config") or not layers:
            raise UserError(f"objective=steering: {model.name} has no layers of its own to write to: recipe.lora=null")
        self.layer = layers[max(0, round(layer * len(layers)) - 1)]

    def supply(self, supplies: Supplies) -> None:
        """Nothing is needed."""

    def report(self) -> dict:
        """No engine ran."""
        return {}

    def fit(
        self, rows: Sequence[ScoredPair], runtime: Runtime, folder: Path, listen: Callable[[dict], None]
    ) -> list[None]:
        """Leave the steered model, and an empty train.csv; there is no clamp."""
        if not rows:
            raise UserError("objective: there is no pair to steer by: choose pairs=, or take more prompts")
        self.model.network.to(runtime.device)
        self.write(self.scale * self.vector(rows))
        if not collectives.rank():
            save(self.model, folder / "policy", network=self.model.network, state=None)
            write_log(folder / TRAIN, [])
        return [None, None]

    def vector(self, rows: Sequence[ScoredPair]) -> Tensor:
        """The mean difference of the layer's activations, (hidden,) float32."""
        chosen = sorted(rows, key=lambda pair: row_key(0, pair.id, "steering", 0))[: self.prompts]
        differences = [
            self._mean(pair.positive_context_ids, ids) - self._mean(pair.negative_context_ids, ids)
            for pair in chosen
            for ids in (pair.positive_ids, pair.negative_ids)
        ]
        return torch.stack(differences).mean(0).float()

    def _mean(self, context: Sequence[int], answer: Sequence[int]) -> Tensor:
        """The layer's output where it predicts an answer's tokens, averaged over them, (hidden,) float64."""
        return self.output([*context, *answer[:-1]])[len(context) - 1 :].double().mean(0)

    def output(self, ids: Sequence[int]) -> Tensor:
        """The layer's output at every token of a row, (tokens, hidden)."""
        with _outputs(self.layer) as seen:
            self.model.own_pass(ids, 1)
        return seen[0][0]

    @torch.no_grad()
    def write(self, vector: Tensor) -> None:
        """Add the vector to what the layer hands on; raises UserError where the architecture has no place for it."""
        probe = list(range(min(8, self.model.vocabulary)))
        before = self.output(probe)
        _bias(self.model, self.layer).add_(vector.to(self.model.dtype))
        moved = (self.output(probe) - before).float()
        rounding = 2 * torch.finfo(before.dtype).eps * before.float().norm(dim=-1)  # of the outputs themselves
        if ((moved - vector).norm(dim=-1) > _CLOSE * vector.norm() + rounding + 1e-6).any():
            raise UserError(f"objective=steering: {self.model.name}: no bias moves the output of its layers")


def _bias(model: LanguageModel, layer: nn.Module) -> Tensor:
    """The bias of a layer's last product; made of zeros for all such products where the config has a switch for it."""
    last = [module for module in layer.modules() if _multiplies(module)][-1]
    if last.bias is None:
        if not hasattr(model.causal.config, "mlp_bias"):
            raise UserError(f"objective=steering: {model.name}: no bias moves the output of its layers")
        model.causal.config.mlp_bias = True
        for name, module in model.causal.named_modules():
            if isinstance(module, nn.Linear) and ".mlp." in name:
                module.bias = nn.Parameter(module.weight.new_zeros(module.out_features))
    return cast(Tensor, last.bias)


def _multiplies(module: nn.Module) -> bool:
    """Whether it is a matrix product: a linear layer, or GPT-2's form of one."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.ndim == 2


@contextmanager
def _outputs(layer: nn.Module):
    """What a layer hands on in the block, a tensor (rows, tokens, hidden) for each pass."""
    seen: list[Tensor] = []

    def keep(module, given, out) -> None:
        seen.append((out[0] if isinstance(out, tuple) else out).detach())

    hook = layer.register_forward_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()
