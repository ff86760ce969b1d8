"""What judges and metrics may use of a run: the models of its arms, their fingerprints, a folder for caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dlma.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from dlma.model.language import LanguageModel
    from dlma.model.reward_model import RewardModel


def _no_run(folder: Path) -> NoReturn:
    raise UserError(f"{folder}: a reward model of mode=reward is read on the base of a run, and here is none")


def arms(notes: dict) -> list[tuple[str, str]]:
    """What is compared, as (arm, side of the prompt), by the notes of the policy's stage.

    Where the method changes nothing there is no aligned arm.
    """
    fixed = [("base", "plain"), ("prompted", "positive")]
    side, samples = notes["side"], notes["samples"]
    changed = notes["trained"] or (side, samples) != ("plain", 1)
    return [*fixed, ("aligned", side)] if changed else fixed


def answering(notes: dict) -> dict:
    """How the aligned arm answers, as evaluation.answers takes it; a stage of before it says nothing of a contrast."""
    return {"samples": notes["samples"], "contrast": notes.get("contrast")}


def on_the_way(notes: dict) -> list[str]:
    """The names of the policies that were kept; none in a stage that was made before there were any."""
    return notes.get("intermediate", [])


@dataclass(frozen=True)
class EvaluationContext:
    """What judges and metrics may use of a run: its models by arm, their fingerprints, and a folder for caches.

    accelerator: the trainer's, for models that no Trainer moves to their device
    base_hashes: of the base's weights alone, wherever they lie
    reward: reads the reward model of a folder, trained on the run's base
    """

    load: Mapping[str, Callable[[], LanguageModel]]
    weights: Sequence[str]
    fingerprint: Callable[[Path], str]
    cache: Path
    accelerator: str = "cpu"
    base_hashes: Callable[[], list[str]] = list
    reward: Callable[[Path], RewardModel] = _no_run

    def base(self) -> LanguageModel:
        return self.load["base"]()

    def place(self, network: nn.Module) -> None:
        """Moves a model to the GPU where the trainer uses one."""
        import torch

        if self.accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
            network.to("cuda")
