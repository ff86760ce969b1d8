"""No training: the base itself, or the base with p+ or best of n at inference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from dlma.model.language import LanguageModel
from dlma.ranges import Few, Positive
from dlma.store.owned import TRAIN
from dlma.trainer import collectives
from dlma.trainer.runtime import Runtime
from dlma.training.rule import Supplies, write_log


class NoTraining:
    """Trains nothing and leaves no policy: what a method does, it does at inference.

    side: the side of the prompt under which the method answers
    samples: answers drawn per prompt, of which the one with the largest self-reward is given
    target_kl: null, as there are no steps; the config's check refuses anything else (config/relations.py)
    With the plain side and one sample there is no method, so the evaluation has no aligned arm.
    """

    shares_steps = True

    def __init__(
        self,
        model: LanguageModel,
        /,
        *,
        side: Literal["plain", "positive"],
        samples: Few,
        target_kl: Positive | None = None,
    ) -> None:
        self.side = side
        self.samples = samples

    def supply(self, supplies: Supplies) -> None:
        """Nothing is needed."""

    def fit(self, rows: Sequence, runtime: Runtime, folder: Path, listen: Callable[[dict], None]) -> list[None]:
        """Leave an empty train.csv; there is no clamp."""
        if not collectives.rank():
            write_log(folder / TRAIN, [])
        return [None, None]

    def report(self) -> dict:
        """No engine ran."""
        return {}
