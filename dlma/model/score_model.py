"""Published reward and cost models: one number for a conversation with its answer.

Three shapes. "classifier": any AutoModelForSequenceClassification. "score_head": a trunk with a linear `score_head`
read at the last token, as PKU-Alignment/safe-rlhf saves its Beaver models (`model.*`, `score_head.weight`, and a bias
or a `normalizer` where the config says so). "gated": ArmoRM's (gated_head.py). Texts of one length are one batch, so
nothing is padded: where a classifier looks for the last token, the padding token cannot be taken for one, nor a real
EOS for padding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dlma.errors import UserError
from dlma.model import chat_template
from dlma.model.load import REWARD_HEAD, local_folder
from dlma.model.shared_tokenizer import shared_tokenizer
from dlma.model.tokens import Characters, tokenized
from dlma.ranges import Count, DtypeOrAuto, Whole
from dlma.records import Turn

if TYPE_CHECKING:
    from torch import Tensor, dtype, nn

NO_TOKEN = -1  # a padding id that no text has
_WEIGHT, _BIAS, _MEAN, _VAR = _NAMES = ("score_head.weight", "score_head.bias", "normalizer.mean", "normalizer.var")


@dataclass(frozen=True)
class ScoreTemplate:
    """How a conversation is written; {text} is a turn and {eos} the tokenizer's EOS. A null template is the chat's."""

    begin: str
    user: str
    assistant: str

    def render(self, turns: Sequence[Turn], eos: str) -> str:
        """The conversation as one text; the last turn is the answer that is scored."""
        parts = [self.begin]
        for turn in turns:
            form = self.user if turn.role == "user" else self.assistant
            parts.append(form.replace("{eos}", eos).replace("{text}", turn.content, 1))
        return "".join(parts)


class ScoreModelSpec:
    """Where a reward or cost model lies and how it is read.

    shape: see the module
    output: which of a classifier's outputs is the score
    template: how a conversation is written; None is the tokenizer's own chat template
    max_tokens: a longer text loses its oldest turns, then its beginning
    """

    def __init__(
        self,
        *,
        path: str,
        revision: str,
        shape: Literal["classifier", "score_head", "gated"],
        output: Whole,
        dtype: DtypeOrAuto,
        template: ScoreTemplate | None,
        max_tokens: Count,
        batch_tokens: Count = 8192,
    ) -> None:
        if (Path(path).expanduser() / REWARD_HEAD).is_file():
            raise UserError(f"{path}: a reward model of mode=reward: metrics=[trained_reward], which reads it")
        if output and shape != "classifier":
            raise UserError(f"{path}: output={output}: a model of shape {shape} has one score alone: output=0")
        self.name = Path(path).name
        self.folder = local_folder(path, revision)
        self.shape = shape
        self.output = output
        self.dtype = dtype
        self.template = ScoreTemplate(**template) if isinstance(template, dict) else template
        self.max_tokens = max_tokens
        self.batch_tokens = batch_tokens

    def load(self) -> ScoreModel:
        return ScoreModel(self)


class ScoreModel:
    """A loaded reward or cost model; `cut` counts the texts that were too long."""

    def __init__(self, spec: ScoreModelSpec) -> None:
        self.spec = spec
        self.network = _SHAPES[spec.shape](spec)
        self.cut = 0

    @cached_property
    def tokenizer(self):
        return shared_tokenizer(self.spec.folder)

    @cached_property
    def characters(self) -> Characters:
        """What makes special tokens that a text spells out characters."""
        return Characters(self.tokenizer)

    def score(self, conversations: Sequence[Sequence[Turn]]) -> list[float]:
        """The score of each conversation's last turn, float32, in order."""
        import torch

        rows = [self.ids(turns) for turns in conversations]
        found: dict[int, float] = {}
        device = next(self.network.parameters()).device
        for batch in _batches([len(row) for row in rows], self.spec.batch_tokens):
            ids = torch.tensor([rows[i] for i in batch], device=device)
            with torch.no_grad():
                found |= dict(zip(batch, self.network(ids).float().tolist(), strict=True))
        return [found[i] for i in range(len(rows))]

    def ids(self, turns: Sequence[Turn]) -> list[int]:
        """The token ids of a conversation, special tokens as its tokenizer has them, within `max_tokens`."""
        whole = self._encoded(turns)
        if len(whole) <= self.spec.max_tokens:
            return whole
        self.cut += 1
        starts = [i for i, turn in enumerate(turns[:-1]) if turn.role == "user"][1:]
        for start in starts:
            shorter = self._encoded(turns[start:])
            if len(shorter) <= self.spec.max_tokens:
                return shorter
        return self._encoded(turns[starts[-1] :] if starts else turns)[-self.spec.max_tokens :]

    def _encoded(self, turns: Sequence[Turn]) -> list[int]:
        turns = [dataclasses.replace(turn, content=self.characters(turn.content)) for turn in turns]
        if self.spec.template is not None:
            text = self.spec.template.render(turns, self.tokenizer.eos_token or "")
            return tokenized(self.tokenizer, [text], special=True)[0]
        if self.tokenizer.chat_template is None:
            raise UserError(f"{self.spec.name}: its tokenizer has no chat template; give a template of your own")
        chat = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            text = chat_template.written(self.tokenizer, chat, {})
        except chat_template.Refused as reason:
            raise UserError(f"{self.spec.name}: its chat template refuses a conversation: {reason}") from None
        return tokenized(self.tokenizer, [text])[0]


def _batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of equal lengths together, at most `budget` tokens in a batch."""
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    sizes = {length: max(1, budget // max(1, length)) for length in groups}
    return [
        group[start : start + sizes[length]]
        for length, group in sorted(groups.items())
        for start in range(0, len(group), sizes[length])
    ]


def _dtype(spec: ScoreModelSpec) -> dtype:
    import torch

    return getattr(torch, spec.dtype)


def _classifier(spec: ScoreModelSpec) -> nn.Module:
    from torch import nn
    from transformers import AutoModelForSequenceClassification

    from dlma.model.weights import read_network

    where = f"{spec.folder}: no sequence classifier"
    network = read_network(AutoModelForSequenceClassification, spec.folder, where, dtype=_dtype(spec))
    outputs = network.config.num_labels
    assert outputs is not None  # it counts the config's labels
    if not 0 <= spec.output < outputs:
        raise UserError(f"{spec.folder}: it has {outputs} outputs; output={spec.output} is none of them")
    network.config.get_text_config().pad_token_id = NO_TOKEN

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, ids: Tensor) -> Tensor:
            """(rows, width) to (rows,)."""
            return self.inner(input_ids=ids).logits[:, spec.output]

    return Classifier().eval()


def _with_score_head(spec: ScoreModelSpec) -> nn.Module:
    from torch import nn
    from transformers import AutoModel

    from dlma.model.weights import read_network

    held = _head_tensors(spec)
    apart = ("score_head.", "normalizer.")
    trunk = read_network(AutoModel, spec.folder, str(spec.folder), apart=apart, dtype=_dtype(spec))
    head, mean, spread = _head(spec, held, trunk.config)

    class Scorer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk
            self.score_head = head

        def forward(self, ids: Tensor) -> Tensor:
            """(rows, width) to (rows,): the head at the last token, then the normaliser."""
            last = self.trunk(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
            return (self.score_head(last)[:, 0].float() - mean) / spread

    return Scorer().eval()


def _head_tensors(spec: ScoreModelSpec) -> dict[str, Tensor]:
    from dlma.model.weights import read_tensors_of

    found = read_tensors_of(spec.folder, _NAMES)
    if _WEIGHT not in found or found[_WEIGHT].shape[0] != 1:
        raise UserError(f"{spec.folder}: no score_head with one output in its weights; it may be a classifier")
    return found


def _head(spec: ScoreModelSpec, found: dict[str, Tensor], config) -> tuple[nn.Linear, float, float]:
    """The score head, and the mean and standard deviation by which the config wants scores normalised (else 0, 1)."""
    import torch
    from torch import nn

    head = nn.Linear(config.hidden_size, 1, bias=_BIAS in found, dtype=_dtype(spec))
    if found[_WEIGHT].shape != head.weight.shape:
        shape = tuple(found[_WEIGHT].shape)
        raise UserError(f"{spec.folder}: its {_WEIGHT} is {shape}, and the model wants {tuple(head.weight.shape)}")
    with torch.no_grad():
        head.weight.copy_(found[_WEIGHT])
        if _BIAS in found:
            head.bias.copy_(found[_BIAS])
    if not getattr(config, "do_normalize", False):
        return head, 0.0, 1.0
    if _MEAN not in found or _VAR not in found:
        raise UserError(f"{spec.folder}: its config asks for normalised scores, and its weights have no normalizer")
    # safe-rlhf's costs are divided alone: 0 is the border of safety, and stays where it is
    cost = getattr(config, "score_type", "reward") == "cost"
    mean = 0.0 if cost else float(found[_MEAN].flatten()[0])
    return head, mean, float(found[_VAR].flatten()[0]) ** 0.5


def _gated(spec: ScoreModelSpec) -> nn.Module:
    from dlma.model.gated_head import with_gated_head

    return with_gated_head(spec.folder, _dtype(spec))


_SHAPES = {"classifier": _classifier, "score_head": _with_score_head, "gated": _gated}
