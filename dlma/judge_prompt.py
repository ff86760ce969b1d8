"""Asking a language model about answers: its verdict is read from its next-token log-probs.

A/B prompting holds two answers against each other; a rating asks for the points of one.

An A/B verdict is log p(A | prompt) - log p(B | prompt). An additive liking for a position cancels when the two orders
are averaged. The prompt is data (conf/judge): scorers and evaluation put the same question.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dlma.config.schema import Component
from dlma.errors import UserError
from dlma.functional.noise import row_key
from dlma.model import trees
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.tokens import Characters, encode
from dlma.ranges import Count, Seed

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
_NAMES = ("conversation", "question", "first", "second", "instruction")


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to one conversation; `question` is its last user turn alone."""

    prompt_id: str
    conversation: str
    question: str
    first: str
    second: str

    def swapped(self) -> AnswerPair:
        return dataclasses.replace(self, first=self.second, second=self.first)


class ABPrompt:
    """The text of the question, as data.

    template: with {first}, {second}, {instruction}, and {conversation} or {question}; every text that is filled in
        is stripped of outer white space, and what is filled in is not looked at for braces again
    verdicts: the two texts whose probabilities are compared, for the first and for the second answer
    instructions: one is drawn for each prompt, by its id and the seed
    """

    def __init__(self, *, source: str, template: str, verdicts: list[str], instructions: list[str]) -> None:
        names = set(_PLACEHOLDER.findall(template))
        if names - set(_NAMES) or not {"first", "second"} <= names:
            raise UserError(f"judge.template: must hold {{first}} and {{second}}, and may hold {', '.join(_NAMES[:2])}")
        if ("instruction" in names) != bool(instructions):
            raise UserError("judge.instructions: the template needs {instruction} where there are any, and only there")
        if len(verdicts) != 2 or verdicts[0] == verdicts[1] or not all(verdicts):
            raise UserError("judge.verdicts: must be two different texts")
        self.source = source
        self.template = template
        self.verdicts = verdicts
        self.instructions = instructions

    def text(self, comparison: AnswerPair, characters: Callable[[str], str] = str, *, seed: int) -> str:
        """The question about two answers, up to where the verdict stands.

        characters: what is done to a text that is filled in (model.tokens.Characters: it spells no special token)
        """
        values = {name: characters(getattr(comparison, name).strip()) for name in _NAMES[:4]}
        values["instruction"] = self._instruction(comparison.prompt_id, seed)
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.template)

    def _instruction(self, prompt_id: str, seed: int) -> str:
        if not self.instructions:
            return ""
        return self.instructions[row_key(seed, prompt_id, "instruction", 0) % len(self.instructions)]


def question_lengths(
    prompt: ABPrompt, tokenizer, comparisons: Sequence[AnswerPair], *, seed: int
) -> tuple[list[int], tuple[list[int], list[int]]]:
    """Tokens of each question up to where its two verdicts part, and of each verdict from there on."""
    characters = Characters(tokenizer)
    texts = [prompt.text(one, characters, seed=seed) for one in comparisons]
    first, second = (encode(tokenizer, [text + verdict for text in texts]) for verdict in prompt.verdicts)
    shared = [trees.common_prefix(*both) for both in zip(first, second, strict=True)]
    one, other = ([len(ids) - begun for ids, begun in zip(side, shared, strict=True)] for side in (first, second))
    return shared, (one, other)


class ABJudge:
    """A model that is asked an A/B question."""

    def __init__(
        self, model: LanguageModel, prompt: Component | ABPrompt, *, seed: Seed, token_budget: Count = 8192
    ) -> None:
        self.model = model
        self.prompt = prompt
        self.seed = seed
        self.engine = Engine(model, token_budget=token_budget)
        self.characters = Characters(model.tokenizer)

    def log_odds(self, comparisons: Sequence[AnswerPair]) -> list[float]:
        """log p(A) - log p(B) of each comparison as it stands, nats: above 0 the first answer is preferred."""
        logp = self.engine.score([self._group(one) for one in comparisons])
        return [first - second for first, second in logp]

    def both_orders(self, comparisons: Sequence[AnswerPair]) -> list[tuple[float, float]]:
        """For each comparison the log-odds that its first answer is better, shown first, and shown second."""
        odds = self.log_odds([order for one in comparisons for order in (one, one.swapped())])
        return list(zip(odds[0::2], [-value for value in odds[1::2]], strict=True))

    def _group(self, comparison: AnswerPair) -> list[trees.Completion]:
        """Both verdicts after their common beginning, so that no assumption is made where tokens end."""
        first, second = self._ids(comparison)
        while (excess := max(len(first), len(second)) - self.model.context) > 0:
            comparison = self._shortened(comparison, excess)
            first, second = self._ids(comparison)
        shared = trees.common_prefix(first, second)
        return [trees.Completion(first[:shared], rest[shared:]) for rest in (first, second)]

    def _ids(self, comparison: AnswerPair) -> list[list[int]]:
        text = self.prompt.text(comparison, self.characters, seed=self.seed)
        return encode(self.model.tokenizer, [text + verdict for verdict in self.prompt.verdicts])

    def _shortened(self, comparison: AnswerPair, excess: int) -> AnswerPair:
        """The comparison without the oldest tokens of its conversation."""
        tokenizer = self.model.tokenizer
        ids = tokenizer(comparison.conversation, add_special_tokens=False, verbose=False)["input_ids"]
        if "conversation" not in self.prompt.template or not ids:
            raise UserError(
                f"judge: a question with both answers is {excess} tokens too long for the {self.model.context} of "
                f"{self.model.name}: lower recipe.max_new_tokens"
            )
        return dataclasses.replace(comparison, conversation=tokenizer.decode(ids[excess:]))


@dataclass(frozen=True)
class RatedAnswer:
    """An answer to a conversation; `question` is its last user turn alone."""

    conversation: str
    question: str
    answer: str


class RatingPrompt:
    """The text of the question how many points an answer gets, as data.

    template: with {answer}, and {conversation} or {question}, filled in as in an ABPrompt
    points: the texts of 0, 1, ... points
    """

    def __init__(self, *, source: str, template: str, points: list[str]) -> None:
        names = set(_PLACEHOLDER.findall(template))
        if names - {"conversation", "question", "answer"} or "answer" not in names:
            raise UserError("rating.template: must hold {answer}, and may hold conversation, question")
        if len(points) < 2 or len(set(points)) < len(points) or not all(points):
            raise UserError("rating.points: must be two or more different texts")
        self.source = source
        self.template = template
        self.points = points

    def text(self, rated: RatedAnswer, characters: Callable[[str], str] = str) -> str:
        """The question about an answer, up to where its points stand."""
        values = {name: characters(value.strip()) for name, value in vars(rated).items()}
        return _PLACEHOLDER.sub(lambda match: values[match[1]], self.template)


def rating_lengths(prompt: RatingPrompt, tokenizer, rated: Sequence[RatedAnswer]) -> tuple[list[int], list[list[int]]]:
    """Tokens of each question up to where its points part, and of each of the points from there on."""
    groups = [_rating_ids(prompt, tokenizer, one) for one in rated]
    shared = [_shared(group) for group in groups]
    said = [[len(ids) - begun for ids, begun in zip(of_points, shared, strict=True)] for of_points in zip(*groups)]
    return shared, said


class RatingJudge:
    """A model that is asked how many points an answer gets."""

    def __init__(self, model: LanguageModel, prompt: Component | RatingPrompt, *, token_budget: Count = 8192) -> None:
        self.model = model
        self.prompt = prompt
        self.engine = Engine(model, token_budget=token_budget)

    def logp(self, rated: Sequence[RatedAnswer]) -> list[list[float]]:
        """Of each answer the log-prob of every number of points, nats."""
        return self.engine.score([self._group(one) for one in rated])

    def _group(self, rated: RatedAnswer) -> list[trees.Completion]:
        ids = _rating_ids(self.prompt, self.model.tokenizer, rated)
        if (excess := max(map(len, ids)) - self.model.context) > 0:
            raise UserError(
                f"rating: a question with its answer is {excess} tokens too long for the {self.model.context} of "
                f"{self.model.name}: lower recipe.max_prompt_tokens or recipe.max_new_tokens"
            )
        begun = _shared(ids)
        return [trees.Completion(one[:begun], one[begun:]) for one in ids]


def _rating_ids(prompt: Component | RatingPrompt, tokenizer, rated: RatedAnswer) -> list[list[int]]:
    text = prompt.text(rated, Characters(tokenizer))
    return encode(tokenizer, [text + points for points in prompt.points])


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """Tokens that all rows begin with."""
    return min(trees.common_prefix(rows[0], other) for other in rows[1:])
