"""A language model behind an endpoint as judge: asked in words, both orders, and read strictly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property

from dlma.config.schema import Component
from dlma.endpoint import Chat, ChatClient
from dlma.evaluation.context import EvaluationContext
from dlma.judges.base import UNPARSED, Judgement, Match, by_words, swapped


class LLMJudge:
    """Which answer a model prefers, in its own words.

    A reply that is not exactly what the rubric asks for is asked for once more; then it counts as unparsed.
    """

    def __init__(self, bench: EvaluationContext, /, *, endpoint: Component, rubric: Component) -> None:
        self.bench = bench
        self.rubric = rubric
        self.criterion = rubric.criterion
        self.endpoint = endpoint
        self.repeated = 0

    def identity(self) -> list[str]:
        """The model's name and address, and the fingerprint of its weights where they are known."""
        return self.endpoint.identity(self.bench.fingerprint)

    @cached_property
    def asker(self) -> ChatClient:
        """The client, whose replies are of the weights that are served now, where they are known."""
        return ChatClient(self.endpoint, self.bench.cache, self.identity()[1:])

    def judge(self, matches: Sequence[Match]) -> list[Judgement]:
        """A ruling per match, from the words of both orders."""
        orders = [order for m in matches for order in ((m.turns, m.answer, m.other), (m.turns, m.other, m.answer))]
        words = self._words([self.rubric.messages(*order) for order in orders])
        return [by_words(first, swapped(second)) for first, second in zip(words[0::2], words[1::2], strict=True)]

    def _words(self, chats: Sequence[Chat]) -> list[str]:
        """The verdict for the answer that stands first in each chat."""
        replies = self.asker.ask(chats)
        words = [self.rubric.read(reply or "") for reply in replies]
        unread = {i: reply for i, reply in enumerate(replies) if words[i] is None and reply is not None}
        self.repeated += len(unread)
        again = self.asker.ask([self.rubric.again(chats[i], reply) for i, reply in unread.items()])
        for i, reply in zip(unread, again, strict=True):
            words[i] = self.rubric.read(reply or "")
        return [word or UNPARSED for word in words]

    def report(self) -> dict:
        """What was asked of whom, when, and how much of it twice because it could not be parsed."""
        return {**asdict(self.asker.account), "asked_again": self.repeated}
