"""A reward model: a language model's trunk with one output, read at the last token of an answer.

The head is linear and begins at zero, so that an untrained reward model gives every answer 0. The state is the one
after the answer's last token: its EOS, or where the answer was cut its last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dlma import files
from dlma.model import trees
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.load import REWARD_HEAD, ModelSpec
from dlma.model.weights import read_tensors


class RewardModel(nn.Module):
    """r(answer | context), one number; rewards of one prompt's answers are comparable, their zero is arbitrary."""

    def __init__(self, model: LanguageModel, *, token_budget: int = 8192) -> None:
        super().__init__()
        self.model = model
        self.network = model.network
        self.head = value_head(model)
        self.engine = Engine(model, token_budget=token_budget)

    @classmethod
    def load(cls, spec: ModelSpec, folder: Path) -> RewardModel:
        """A saved reward model, frozen. spec: how its trunk is loaded; folder: where its head lies."""
        found = cls(spec.load())
        head = read_tensors(folder / REWARD_HEAD, found.head.state_dict(), f"{folder}: the reward head")
        found.head.load_state_dict(head)
        return found.requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Trunk, tokenizer and head, for `load`."""
        with files.atomic_folder(folder) as draft:
            self.network.save_pretrained(draft)
            self.model.tokenizer.save_pretrained(draft)
            save_file({name: value.contiguous() for name, value in self.head.state_dict().items()}, draft / REWARD_HEAD)

    def rewards(self, planned: Sequence[trees.Tree], rows: trees.Rows) -> Tensor:
        """The reward of every response of the trees that `rows` was made of, (sequences,) float32."""
        states = self.engine.states(rows).index_select(0, _ends(planned, rows))
        return self.head(states.float()).squeeze(-1)

    @torch.no_grad()
    def score(self, groups: Sequence[Sequence[trees.Completion]]) -> list[list[float]]:
        """The reward of every sequence, in the caller's order."""
        if not groups:
            return []
        planned = self.engine.plan(groups)
        found: dict[int, list[float]] = {}
        with self.engine.meter.timed():
            for batch in self.engine.batches([len(tree) for tree in planned]):
                members = [planned[i] for i in batch]
                values = iter(self.rewards(members, self.engine.collate(members)).tolist())
                found |= {i: [next(values) for _ in planned[i].responses] for i in batch}
        flat = iter([value for i in range(len(planned)) for value in found[i]])
        return [[next(flat) for _ in group] for group in groups]


def value_head(model: LanguageModel) -> nn.Linear:
    """A linear head from the model's states to one float32 number, at zero."""
    head = nn.Linear(model.causal.config.hidden_size, 1, device=model.device, dtype=torch.float32)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _ends(planned: Sequence[trees.Tree], rows: trees.Rows) -> Tensor:
    """The flat places of the last token of every response."""
    width = rows.ids.shape[1]
    places = [row * width + nodes[-1] for row, tree in enumerate(planned) for nodes in tree.responses]
    return torch.tensor(places, device=rows.ids.device)
