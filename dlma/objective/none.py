"""No training: the base itself, or the base with p+, best of n or contrastive decoding at inference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from dlma.config.schema import Component
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
    contrast: with it (model/contrast.py) each token of an answer is drawn under both sides of the prompt at once
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
        contrast: Component | None,
        target_kl: Positive | None = None,
    ) -> None:
        self.side = side
        self.samples = samples
        self.contrast = None if contrast is None else dict(vars(contrast))

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
