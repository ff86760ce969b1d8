"""R token by token: the share of each token of an answer in the self-reward, and whether it echoes the affix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytorch_lightning as pl

from dlma.model import tokens, trees
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.records import Pair, TokenRewards
from dlma.trainer.runtime import Shard


class TokenScorer(pl.LightningModule):
    """The self-reward of every token of both answers, under the very prompts that the pair's R is made with."""

    def __init__(self, model: LanguageModel, /, *, token_budget: int = 8192) -> None:
        super().__init__()
        self.model = model
        self.network = model.network
        self.engine = Engine(model, token_budget=token_budget)

    def predict_step(self, shard: Shard, index: int) -> list[TokenRewards]:
        """The token rewards of a shard of pairs."""
        return self.score(shard.rows)

    def score(self, pairs: Sequence[Pair]) -> list[TokenRewards]:
        """One record per pair, in order."""
        logp = self.engine.score_tokens([_sequences(pair) for pair in pairs])
        return [self._record(pair, *columns) for pair, columns in zip(pairs, logp, strict=True)]

    def _record(self, pair: Pair, first_pos: list, second_pos: list, first_neg: list, second_neg: list) -> TokenRewards:
        first, second = (tokens.pieces(self.model.tokenizer, ids) for ids in (pair.positive_ids, pair.negative_ids))
        affix = affix_words(self.model.tokenizer, pair)
        return TokenRewards(
            id=pair.id,
            positive_rewards=[a - b for a, b in zip(first_pos, first_neg, strict=True)],
            negative_rewards=[a - b for a, b in zip(second_pos, second_neg, strict=True)],
            positive_pieces=first,
            negative_pieces=second,
            positive_echo=[word(piece) in affix for piece in first],
            negative_echo=[word(piece) in affix for piece in second],
        )


def _sequences(pair: Pair) -> list[trees.Completion]:
    contexts = (pair.positive_context_ids, pair.negative_context_ids)
    return [trees.Completion(c, answer) for c in contexts for answer in (pair.positive_ids, pair.negative_ids)]


def affix_words(tokenizer, pair: Pair) -> set[str]:
    """The pieces with a letter in them that the positive or the negative prompt has beyond the plain one."""
    plain = Counter(pair.plain_context_ids)
    added = Counter(pair.positive_context_ids) - plain | Counter(pair.negative_context_ids) - plain
    found = {word(tokenizer.decode([token], skip_special_tokens=True)) for token in added}
    return {piece for piece in found if any(letter.isalpha() for letter in piece)}


def word(piece: str) -> str:
    """A piece as it is compared: without outer white space, case folded."""
    return piece.strip().casefold()
