"""ArmoRM's head (Wang et al., arXiv 2406.12845), which its checkpoint brings code for: none of that is run.

The last token's state gives one reward for each objective (`regression_layer`), which `reward_transform_matrix` rids of
their liking for length. What each counts follows from the question alone: from the state at its last token, by a small
network (`gating.layers.*`), whose softmax over a temperature, times `gating.logit_scale`, weighs the objectives.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel

from dlma import files
from dlma.errors import UserError
from dlma.model.weights import read_network, read_tensors_of

_REWARDS, _TRANSFORM, _SCALE = "regression_layer.weight", "reward_transform_matrix", "gating.logit_scale"
_LAYER = "gating.layers.{}.{}"
# <|eot_id|><|start_header_id|>assistant<|end_header_id|> and an empty line: Llama 3's ids, which its code names too
BEFORE_ANSWER = (128009, 128006, 78191, 128007, 271)


def with_gated_head(folder: Path, dtype: torch.dtype) -> GatedScorer:
    """The trunk and head of a folder; raises UserError where the weights are not of this shape."""
    held = read_tensors_of(folder, ("regression_layer.", "gating.", _TRANSFORM))
    depth = sum(name.startswith("gating.layers.") and name.endswith(".weight") for name in held)
    wanted = {_REWARDS, _TRANSFORM, _SCALE} | {
        _LAYER.format(n, one) for n in range(depth) for one in ("weight", "bias")
    }
    if not depth or set(held) != wanted:
        raise UserError(f"{folder}: no gated head in its weights (regression_layer, gating, {_TRANSFORM})")
    trunk = read_network(
        AutoModel, folder, str(folder), apart=("regression_layer.", "gating.", _TRANSFORM), dtype=dtype
    )
    temperature = files.read_json(folder / "config.json").get("gating_temperature", 10)  # ten in ArmoRM's code
    return GatedScorer(trunk, {name: value.to(dtype) for name, value in held.items()}, depth, temperature).eval()


class GatedScorer(nn.Module):
    """Scores rows of ids of one length."""

    def __init__(self, trunk: nn.Module, head: dict[str, Tensor], depth: int, temperature: float) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.ParameterDict({name.replace(".", "_"): nn.Parameter(value) for name, value in head.items()})
        self.depth = depth
        self.temperature = temperature

    def forward(self, ids: Tensor) -> Tensor:
        """(rows, width) to (rows,)."""
        states = self.trunk(input_ids=ids, use_cache=False).last_hidden_state
        asked = torch.tensor([_question_end(row) for row in ids.tolist()], device=ids.device)
        rewards = states[:, -1] @ self._of(_REWARDS).T @ self._of(_TRANSFORM)
        return (self._gate(states[torch.arange(len(ids)), asked]) * rewards).sum(-1).float()

    def _gate(self, state: Tensor) -> Tensor:
        """The weight of each objective, (rows, objectives)."""
        for n in range(self.depth):
            state = nn.functional.linear(state, *(self._of(_LAYER.format(n, one)) for one in ("weight", "bias")))
            state = state.relu() if n < self.depth - 1 else state
        return (state / self.temperature).softmax(-1) * self._of(_SCALE)[0]

    def _of(self, name: str) -> Tensor:
        return self.head[name.replace(".", "_")]


def _question_end(row: list[int]) -> int:
    """Where the last question ends: the place of the token that ends the turn before the answer."""
    width = len(BEFORE_ANSWER)
    found = next((i for i in range(len(row) - width, -1, -1) if tuple(row[i : i + width]) == BEFORE_ANSWER), None)
    if found is None:
        raise UserError(
            "a gated reward model: a text has no question before its answer, as Llama 3's template writes it"
        )
    return found
