"""Guard models: how unsafe one finds an answer, by the probability of the first token of its verdict.

A guard (Llama Guard, ShieldGemma, Qwen3Guard) is a language model whose chat template writes the policy, the
conversation and the question; it answers in words, such as "safe" or "unsafe". Nothing is sampled: what is read is the
probability of the token in which those words part. The score is a cost as safe-rlhf has it, above 0 where unsafe is
likelier: the log-odds, nats, of the words for unsafe against those for safe. So p(unsafe) = 1 / (1 + exp(-score)), the
softmax over these tokens alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlma.errors import UserError
from dlma.model import chat_template, trees
from dlma.model.load import local_folder
from dlma.model.shared_tokenizer import shared_tokenizer
from dlma.model.tokens import Characters, encode
from dlma.ranges import Count, DtypeOrAuto, Names
from dlma.records import Turn

if TYPE_CHECKING:
    from torch import nn

    from dlma.model.language import LanguageModel

_SEEING = ("vision_model.", "multi_modal_projector.")  # parts that no text reaches, of a guard that also sees images


class GuardSpec:
    """Where a guard lies, and how its verdicts begin.

    safe, unsafe: the beginnings of verdicts of either kind; an answer is as unsafe as all of the latter together
    options: variables of its chat template, such as the policy
    """

    def __init__(
        self,
        *,
        path: str,
        revision: str,
        dtype: DtypeOrAuto,
        safe: Names,
        unsafe: Names,
        options: dict[str, Any],
        token_budget: Count = 8192,
    ) -> None:
        if set(safe) & set(unsafe) or not all([*safe, *unsafe]):
            raise UserError("a guard's safe and unsafe: different texts, the beginnings of its verdicts")
        self.name = Path(path).name
        self.folder = local_folder(path, revision)
        self.dtype = dtype
        self.safe = list(safe)
        self.unsafe = list(unsafe)
        self.options = options
        self.token_budget = token_budget

    def load(self) -> Guard:
        """Read the weights; those of a part that sees images are left out."""
        import torch
        from transformers import AutoModelForCausalLM

        from dlma.model.language import LanguageModel
        from dlma.model.weights import read_network

        dtype = getattr(torch, self.dtype)
        network = read_network(AutoModelForCausalLM, self.folder, str(self.folder), apart=_SEEING, dtype=dtype)
        return Guard(self, LanguageModel(network, shared_tokenizer(self.folder), self.name))


class Guard:
    """A loaded guard; `cut` counts the conversations that lost their oldest turns."""

    def __init__(self, spec: GuardSpec, model: LanguageModel) -> None:
        from dlma.model.engine import Engine

        if model.tokenizer.chat_template is None:
            raise UserError(f"{spec.name}: its tokenizer has no chat template, in which a guard is asked")
        self.spec = spec
        self.model = model
        self.engine = Engine(model, token_budget=spec.token_budget)
        self.characters = Characters(model.tokenizer)
        self.cut = 0

    @property
    def network(self) -> nn.Module:
        return self.model.network

    def score(self, conversations: Sequence[Sequence[Turn]]) -> list[float]:
        """The cost of each conversation's last turn, nats, in order."""
        import torch

        asked = [self._asked(turns) for turns in conversations]
        logp = self.engine.score(
            [[trees.Completion(context, [token]) for token in (*safe, *unsafe)] for context, safe, unsafe in asked]
        )
        rows = [(torch.tensor(row, dtype=torch.float64), len(safe)) for row, (_, safe, _) in zip(logp, asked)]
        return [(row[n:].logsumexp(0) - row[:n].logsumexp(0)).item() for row, n in rows]

    def _asked(self, turns: Sequence[Turn]) -> tuple[list[int], list[int], list[int]]:
        """The ids up to where the verdicts part, and the next ids of those for safe and for unsafe."""
        rows = self._fitting(turns)
        shared = min(trees.common_prefix(rows[0], other) for other in rows[1:])
        first = [row[shared : shared + 1] for row in rows]
        safe, unsafe = (
            sorted(set(map(tuple, ids))) for ids in (first[: len(self.spec.safe)], first[len(self.spec.safe) :])
        )
        if () in (*safe, *unsafe) or set(safe) & set(unsafe):
            raise UserError(
                f"{self.spec.name}: its tokenizer does not tell the verdicts {self.spec.safe} and {self.spec.unsafe} "
                "apart by one token: give their beginnings as the guard writes them"
            )
        return rows[0][:shared], [ids[0] for ids in safe], [ids[0] for ids in unsafe]

    def _fitting(self, turns: Sequence[Turn]) -> list[list[int]]:
        """The ids of the question with each verdict, without the oldest turns that the model has no room for."""
        starts = [0, *(i for i, turn in enumerate(turns[:-1]) if turn.role == "user" and i > 0)]
        for start in starts:
            rows = self._ids(turns[start:])
            excess = max(map(len, rows)) - self.model.context
            if excess <= 0:
                self.cut += start > 0
                return rows
        raise UserError(
            f"{self.spec.name}: a question with its answer is {excess} tokens too long for its {self.model.context}: "
            "lower recipe.max_prompt_tokens or recipe.max_new_tokens"
        )

    def _ids(self, turns: Sequence[Turn]) -> list[list[int]]:
        talk: list[Mapping[str, str]] = [{"role": t.role, "content": self.characters(t.content)} for t in turns]
        try:
            text = chat_template.written(self.model.tokenizer, talk, self.spec.options)
        except chat_template.Refused as reason:
            raise UserError(f"{self.spec.name}: its chat template refuses a conversation: {reason}") from None
        return encode(
            self.model.tokenizer, [text + verdict for verdict in (*self.spec.safe, *self.spec.unsafe)], chat=True
        )
