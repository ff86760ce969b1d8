"""Rewards of every arm's answers by a reward model of people's pairs that mode=reward trained on the run's own base.

An answer is read after the plain prompt as the reward model met prompts in training (its own templates or the chat
template), at its last token: the end of an answer, or where it was cut its last one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_origin, get_type_hints

from dlma import files
from dlma.config.build import build
from dlma.config.recorded import Recorded
from dlma.errors import BadRow, UserError, few
from dlma.evaluation.context import EvaluationContext
from dlma.metrics.base import MetricColumn, MetricInput
from dlma.records import Answer, MetricValue, Turn
from dlma.statistics.format import bounded
from dlma.statistics.intervals import Estimate

if TYPE_CHECKING:
    from dlma.model.reward_model import RewardModel
    from dlma.model.trees import Completion

ABOUT, SETTINGS = "reward.json", "settings.yaml"  # beside adapter and head


@dataclass(frozen=True)
class About:
    """What is known of a trained reward model.

    base, weights: the model that it was trained on, and the hashes of its weights
    data: where the pairs came from; learned: the ids of the prompts whose pairs it learned from
    accuracy, low, high: the share of `pairs` held-out pairs whose preferred answer has the larger reward, and its 95 %
        interval; longer: the share on which the longer answer is the preferred one
    """

    base: str
    weights: list[str]
    data: str
    pairs: int
    accuracy: float
    low: float
    high: float
    longer: float
    learned: list[str]

    @property
    def held_out(self) -> str:
        """The accuracy for people: "58.3 % [53.8, 62.8] of 483"."""
        return f"{bounded(Estimate(self.accuracy, self.low, self.high, self.pairs), 'share')} of {self.pairs:,}"

    @classmethod
    def read(cls, folder: Path) -> About:
        """Of the folder that mode=reward wrote; raises UserError for any other."""
        held, kinds = files.read_json(folder / ABOUT), get_type_hints(cls)
        wrong = [name for name, kind in kinds.items() if not isinstance(held.get(name), get_origin(kind) or kind)]
        if wrong:
            raise UserError(f"{folder}: not a reward model of mode=reward: {ABOUT} is missing or lacks {few(wrong)}")
        return cls(**{name: held[name] for name in kinds})


class TrainedReward:
    """The mean reward of each arm's answers; rewards of one prompt's answers are comparable, their zero is arbitrary.

    path: the folder `reward/` of a run of mode=reward
    """

    def __init__(self, bench: EvaluationContext, /, *, path: str) -> None:
        self.bench = bench
        self.folder = Path(path).expanduser()
        self.about = About.read(self.folder)
        self.wording = build(Recorded(self.folder / SETTINGS).component("prompts", "prompts"))

    @property
    def columns(self) -> list[MetricColumn]:
        said = f"right on {self.about.held_out} held-out pairs of people"
        return [MetricColumn("trained_reward", f"trained reward ({said})", "mean", better="higher")]

    def identity(self) -> list[str]:
        """The fingerprint of adapter and head, and the hash of the settings that decide how prompts are written."""
        return [self.bench.fingerprint(self.folder), files.sha256_file(self.folder / SETTINGS)]

    def report(self) -> dict:
        """What is known of the reward model, without the prompts that it learned from."""
        return {**dataclasses.asdict(self.about), "learned": len(self.about.learned)}

    def require(self, splits: Mapping[str, str]) -> None:
        """Raises UserError where the run has another base, or prompts that the reward model learned from."""
        if self.bench.base_hashes() != self.about.weights:
            raise UserError(f"{self.folder}: this reward model was trained on other weights ({self.about.base})")
        known = Counter(splits[name] for name in self.about.learned if name in splits)
        if known:
            said = " and ".join(f"{count:,} {split}" for split, count in sorted(known.items()))
            raise UserError(
                f"{self.folder}: this reward model learned from {said} prompts of this run: give the data options "
                "of its training, above all data.validation_share, or other data"
            )

    def scores(self, scene: MetricInput) -> list[MetricValue]:
        """The reward of every answer."""
        model = self.bench.reward(self.folder)
        self.bench.place(model)
        answers = [row for rows in scene.answers.values() for row in rows]
        found = model.score([[one] for one in self._completions(model, answers, scene.turns)])
        return [
            MetricValue(row.prompt_id, row.category, row.arm, "trained_reward", value)
            for row, (value,) in zip(answers, found, strict=True)
        ]

    def _completions(
        self, model: RewardModel, answers: Sequence[Answer], turns: Mapping[str, Sequence[Turn]]
    ) -> list[Completion]:
        """The answers after their plain prompts, in the format of the reward model's training."""
        from dlma.model.trees import Completion
        from dlma.prompts.contexts import fit
        from dlma.prompts.rendering import answer_end

        tokenizer = model.model.tokenizer
        end = answer_end(tokenizer, self.wording)
        room = model.model.context - max(len(row.ids) for row in answers)
        asked = sorted({row.prompt_id for row in answers})
        fits = fit([(name, turns[name]) for name in asked], tokenizer, self.wording, seed=0, max_prompt_tokens=room)
        contexts = {}
        for name, fitted in zip(asked, fits, strict=True):
            if isinstance(fitted, BadRow):
                raise UserError(f"{self.folder}: prompt {name} cannot be read by this reward model: {fitted}")
            contexts[name] = fitted.ids["plain"]
        return [Completion(contexts[row.prompt_id], _ended(row, end)) for row in answers]


def _ended(answer: Answer, end: int | None) -> list[int]:
    """An answer's ids; a finished one ends as answers ended in training."""
    return [*answer.ids[:-1], end] if answer.finished and end is not None else list(answer.ids)
