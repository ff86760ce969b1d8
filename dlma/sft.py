"""Instruction tuning, before the method: answers of an instruction data set, in a template of their own.

The loss is the mean negative log-prob per token of the answers, EOS included, the prompt's tokens left out: a step's
sum is divided by its answers and by the mean length of an answer over all of training (as in objective/sft.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dlma.config.schema import Component
from dlma.data.text import Tally
from dlma.errors import BadRow, UserError
from dlma.model import merge, trees
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.tokens import answer_ids, encode, with_eos
from dlma.records import Account, Prompt
from dlma.trainer.runtime import Runtime
from dlma.training.rule import TrainingRule

CUT = "answer cut at sft.max_tokens"
TOO_LONG = "prompt longer than sft.max_tokens"
NO_ANSWER = "no answer to learn from"


class Template:
    """How a conversation is written down: `begin`, then each turn; the answer follows `assistant`.

    `user` holds {text}; an earlier answer is followed by the model's EOS
    """

    def __init__(self, *, begin: str, user: str, assistant: str) -> None:
        if "{text}" not in user:
            raise UserError("sft.template.user: must hold {text}, where the text goes")
        self.begin = begin
        self.user = user
        self.assistant = assistant

    def render(self, prompt: Prompt, eos: str) -> str:
        """The text that precedes the answer."""
        turns = [
            self.user.replace("{text}", turn.content) if turn.role == "user" else f"{self.assistant}{turn.content}{eos}"
            for turn in prompt.turns
        ]
        return self.begin + "".join(turns) + self.assistant


@dataclass(frozen=True)
class Example(trees.Completion):
    """A context and its answer; id: of the prompt."""

    id: str


@dataclass(frozen=True)
class _Item:
    """An answer ready to train on; scale is one over the mean tokens of an answer, over all of training."""

    tree: trees.Tree
    scale: float
    id: str


class _Micro:
    """A micro-batch of answers."""

    def __init__(self, rows: trees.Rows, scale: float) -> None:
        self.rows = rows
        self.scale = scale


class InstructionTuning(TrainingRule):
    """Tunes a model on the training prompts of `data` that have an answer.

    max_tokens: of prompt and answer together; a longer answer is cut, a longer prompt dropped
    warmup_share: of all steps
    """

    rate = "sft.lr"

    def __init__(
        self,
        model: LanguageModel,
        /,
        *,
        data: Component,
        template: Component,
        max_tokens: int,
        optimizer: str,
        lr: float,
        schedule: str,
        warmup_share: float,
        weight_decay: float,
        clip_norm: float,
        epochs: int,
        batch_size: int,
        seed: int,
        token_budget: int = 4096,
    ) -> None:
        super().__init__(
            model,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            warmup_steps=0,
            clip_norm=clip_norm,
            epochs=epochs,
            batch=batch_size,
            seed=seed,
            schedule=schedule,
        )
        self.data = data
        self.template = template
        self.max_tokens = max_tokens
        self.warmup_share = warmup_share
        self.engine = Engine(model, token_budget=token_budget)

    def fit(self, runtime: Runtime, folder: Path, listen: Callable[[dict], None]) -> Account:
        """Leave the tuned model, whole, in `policy/` of `folder`, and train.csv; the account of the rows."""
        merge.check(self.model)  # before any work: an adapter is merged at the end
        prompts, account = self.data.read()
        examples, used = self.examples([prompt for prompt in prompts if prompt.split == "train"])
        account.kept = used.kept
        account.dropped |= {"held out": len(prompts) - used.read, **used.dropped}
        account.trimmed |= used.trimmed
        items = self.items(examples)
        self.warmup_steps = int(self.warmup_share * self.epochs * max(1, len(items) // self.batch))
        self.train_on(items, runtime, folder, listen)
        return account

    def save(self, folder: Path) -> None:
        """Leave the tuned model whole: an adapter is taken into its base."""
        if hasattr(self.network, "peft_config"):
            merge.save_merged(self.model, folder / "policy")
        else:
            super().save(folder)

    def examples(self, prompts: Sequence[Prompt]) -> tuple[list[Example], Account]:
        """Context and answer of each prompt as token ids, and the account of those that cannot be used."""
        tally = Tally(on_bad_row=self.data.on_bad_row, max_dropped=self.data.max_dropped)
        tally.account.read = len(prompts)
        tokenizer = self.model.tokenizer
        contexts = [self.template.render(prompt, tokenizer.eos_token or "") for prompt in prompts]
        texts = [context + (prompt.chosen or "") for context, prompt in zip(contexts, prompts, strict=True)]
        found = []
        for prompt, context, whole in zip(prompts, encode(tokenizer, contexts), encode(tokenizer, texts), strict=True):
            where = f"sft.data, prompt {prompt.id}"
            try:
                found.append(self._example(prompt, context, whole, tally, where))
            except BadRow as reason:
                tally.drop(where, str(reason))
        tally.account.kept = len(found)
        tally.stop_if_too_many("sft.data", "raise sft.max_tokens or sft.data.max_dropped")
        return found, tally.account

    def _example(self, prompt: Prompt, context: list[int], whole: list[int], tally: Tally, where: str) -> Example:
        if prompt.chosen is None:
            raise BadRow(NO_ANSWER)
        eos = self.model.tokenizer.eos_token_id
        answer, _ = with_eos(answer_ids([context], [whole], eos), True, eos)
        room = self.max_tokens - len(context)
        if room < 1:
            raise BadRow(TOO_LONG)
        if len(answer) > room:
            tally.trim(where, CUT)
        return Example(context, answer[:room], prompt.id)

    def items(self, examples: Sequence[Example]) -> list[_Item]:
        """The examples, planned by the engine."""
        scale = len(examples) / sum(len(example.response) for example in examples)
        planned = self.engine.plan([[example] for example in examples])
        return [_Item(tree, scale, example.id) for tree, example in zip(planned, examples, strict=True)]

    def micros(self, rows: list[_Item]) -> list[_Micro]:
        batches = self.engine.batches([len(item.tree) for item in rows])
        return [_Micro(self.engine.collate([rows[i].tree for i in batch]), rows[batch[0]].scale) for batch in batches]

    def loss(self, micro: _Micro) -> tuple[torch.Tensor, dict[str, float]]:
        return -micro.scale * self.engine.response_logp(micro.rows).sum(), {}
