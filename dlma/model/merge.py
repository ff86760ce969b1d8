"""Merging an adapter into the weights of its base."""

from __future__ import annotations

from pathlib import Path

from dlma.errors import UserError
from dlma.model.language import LanguageModel


def check(model: LanguageModel) -> None:
    """Raises UserError where the base's weights are quantised, in which the sum cannot be held."""
    if getattr(model.causal, "quantization_method", None) is not None:
        raise UserError(f"{model.name}: an adapter cannot be merged into quantised weights; load the base in full")


def save_merged(model: LanguageModel, folder: Path) -> None:
    """Write base plus adapter as one whole model; the model's own weights are changed."""
    check(model)
    model.network.merge_and_unload().save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
