"""Instruction tuning, before the method: answers of an instruction data set, in a template of their own.

The loss is the mean negative log-prob per token of the answers, EOS included, the prompt's tokens left out: a step's
sum is divided by its answers and by the mean length of an answer over all of training (as in objective/sft.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from dlma.config.schema import Component
from dlma.data.text import Tally
from dlma.errors import BadRow, UserError
from dlma.model import merge, trees
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.tokens import Characters, answer_ids, encode, require_rows, with_eos
from dlma.ranges import Count, Few, Seed
from dlma.records import Account, Prompt
from dlma.trainer.runtime import Runtime
from dlma.training.rule import Recorded, TrainingRule

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
    """

    rate = "sft.optim.lr"

    def __init__(
        self,
        model: LanguageModel,
        /,
        *,
        data: Component,
        template: Component,
        max_tokens: Count,
        optim: Component,
        epochs: Few,
        batch: Count,
        seed: Seed,
        token_budget: Count = 4096,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(model, optim=optim, epochs=epochs, batch=batch, seed=seed)
        self.data = data
        self.template = template
        self.max_tokens = max_tokens
        self.engine = Engine(model, token_budget=token_budget, checkpointing=checkpointing)

    def fit(self, runtime: Runtime, folder: Path, listen: Callable[[dict], None]) -> Account:
        """Leave the tuned model, whole, in `policy/` of `folder`, and train.csv; the account of the rows."""
        merge.check(self.model)  # before any work: an adapter is merged at the end
        prompts, account = self.data.read()
        examples, used = self.examples([prompt for prompt in prompts if prompt.split == "train"])
        _add(account.dropped, {"held out": account.kept - used.read, **used.dropped})
        _add(account.trimmed, used.trimmed)
        account.kept = used.kept
        self.train_on(self.items(examples), runtime, folder, listen)
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
        tokenizer, characters = self.model.tokenizer, Characters(self.model.tokenizer)
        usable: list[tuple[Prompt, str, str]] = []
        for prompt in prompts:
            with _counted(tally, prompt):
                usable.append((prompt, *self._texts(prompt, characters)))
        begun = encode(tokenizer, [context for _, context, _ in usable])
        ended = encode(tokenizer, [context + answer for _, context, answer in usable])
        found = []
        for (prompt, _, _), context, whole in zip(usable, begun, ended, strict=True):
            with _counted(tally, prompt):
                found.append(self._example(prompt, context, whole, tally))
        tally.account.kept = len(found)
        tally.stop_if_too_many("sft.data", "raise sft.max_tokens or sft.data.max_dropped")
        return found, tally.account

    def _texts(self, prompt: Prompt, characters: Characters) -> tuple[str, str]:
        """What precedes the answer, and the answer; raises BadRow where there is none, or it cannot be encoded."""
        if prompt.chosen is None:
            raise BadRow(NO_ANSWER)
        tokenizer, asked = self.model.tokenizer, dataclasses.replace(prompt, turns=characters.turns(prompt.turns))
        answer = characters.answer(prompt.chosen, tokenizer.eos_token_id)
        return self.template.render(asked, tokenizer.eos_token or ""), answer

    def _example(self, prompt: Prompt, context: list[int], whole: list[int], tally: Tally) -> Example:
        eos = self.model.tokenizer.eos_token_id
        require_rows([whole], self.model.vocabulary)
        answer, _ = with_eos(answer_ids([context], [whole], eos), True, eos)
        room = self.max_tokens - len(context)
        if room < 1:
            raise BadRow(TOO_LONG)
        if len(answer) > room:
            tally.trim(_place(prompt), CUT)
        return Example(context, answer[:room], prompt.id)

    def items(self, examples: Sequence[Example]) -> list[_Item]:
        """The examples, planned by the engine."""
        scale = len(examples) / sum(len(example.response) for example in examples)
        planned = self.engine.plan([[example] for example in examples])
        return [_Item(tree, scale, example.id) for tree, example in zip(planned, examples, strict=True)]

    def micros(self, rows: list[_Item]) -> list[_Micro]:
        batches = self.engine.batches([len(item.tree) for item in rows])
        return [_Micro(self.engine.collate([rows[i].tree for i in batch]), rows[batch[0]].scale) for batch in batches]

    def loss(self, micro: _Micro) -> tuple[torch.Tensor, Recorded]:
        return -micro.scale * self.engine.response_logp(micro.rows).sum(), {}


def _place(prompt: Prompt) -> str:
    return f"sft.data, prompt {prompt.id}"


@contextmanager
def _counted(tally: Tally, prompt: Prompt) -> Iterator[None]:
    """A row that cannot be used is counted, and left out."""
    try:
        yield
    except BadRow as reason:
        tally.drop(_place(prompt), str(reason))


def _add(counts: dict[str, int], further: Mapping[str, int]) -> None:
    for reason, count in further.items():
        counts[reason] = counts.get(reason, 0) + count
