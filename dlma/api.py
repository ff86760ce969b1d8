"""The self-reward of any loaded model on rows of text, without a run (README, "From Python")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from dlma.functional.reward import self_reward_margin
from dlma.model.chat_model import ids_of, told_by
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.tokens import Characters, answer_ids, with_eos
from dlma.model.trees import Completion
from dlma.prompts.rendering import answer_end, rendered, rendered_ids
from dlma.prompts.wording import SIDES, Wording
from dlma.records import Turn, content_id


def self_reward(network, tokenizer, rows: Iterable[Mapping[str, str]], wording: Wording, /) -> list[float]:
    """R of each row, nats: how much more the model ties `first` than `second` to the positive prompt.

    network: a causal language model of transformers (or PEFT); tokenizer: its tokenizer
    rows: mappings with the texts `prompt`, `first` and `second`; answers count as finished (EOS included)
    wording: the contrastive prompts; of several pairs, each prompt draws its own
    raises: BadRow when an answer is empty, holds an EOS inside, or its tokens change with the text before it
    """
    model = LanguageModel(network, tokenizer, type(network).__name__)
    if wording.format == "auto":
        ends = getattr(model.causal.generation_config, "eos_token_id", None)
        wording = wording.spoken(told_by(tokenizer, ids_of(ends))[0])
    engine = Engine(model)
    logp = engine.score([_group(tokenizer, row, wording) for row in rows])
    columns = torch.tensor(logp).view(-1, 2, 2)  # side, answer
    (first_pos, second_pos), (first_neg, second_neg) = columns.permute(1, 2, 0)
    return self_reward_margin(first_pos, first_neg, second_pos, second_neg).tolist()


def _group(tokenizer, row: Mapping[str, str], wording: Wording) -> list[Completion]:
    """The four sequences of a row: both answers under the positive, then under the negative prompt."""
    characters, end = Characters(tokenizer), answer_end(tokenizer, wording)
    turns = characters.turns([Turn("user", row["prompt"])])
    index = wording.choose(content_id(row["prompt"]), 0)
    texts = [rendered(tokenizer, wording, turns, side, index) for side in SIDES[1:]]
    contexts = rendered_ids(tokenizer, wording, texts)
    answers = []
    for name in ("first", "second"):
        answer = characters.answer(row[name], end)
        joined = rendered_ids(tokenizer, wording, [text + answer for text in texts])
        answers.append(with_eos(answer_ids(contexts, joined, end), True, end)[0])
    return [Completion(context, answer) for context in contexts for answer in answers]
