"""What judges and metrics may use of a run: the models of its arms, their fingerprints, a folder for caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from dlma.model.language import LanguageModel


@dataclass(frozen=True)
class EvaluationContext:
    """What judges and metrics may use of a run: its models by arm, their fingerprints, and a folder for caches.

    accelerator: the trainer's, for models that no Trainer moves to their device
    """

    load: Mapping[str, Callable[[], LanguageModel]]
    weights: Sequence[str]
    fingerprint: Callable[[Path], str]
    cache: Path
    accelerator: str = "cpu"

    def base(self) -> LanguageModel:
        return self.load["base"]()

    def place(self, network: nn.Module) -> None:
        """Moves a model to the GPU where the trainer uses one."""
        import torch

        if self.accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
            network.to("cuda")
