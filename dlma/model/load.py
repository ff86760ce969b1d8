"""Language models by folder or hub name: what they are (cheap, no weights) and the loaded thing.

A `ModelSpec` answers all that a stage's key needs without importing torch; `load()` reads the weights.
safetensors only; no remote code unless the user asks for it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dlma.errors import UserError

if TYPE_CHECKING:
    from dlma.model.language import LanguageModel


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on `targets` (module names, or "all-linear"); no dropout: preference training has none."""

    rank: int
    alpha: float
    targets: list[str] | str


@dataclass(frozen=True)
class ModelSpec:
    """Where a model lies and how it is to be loaded; `adapter` is a folder with LoRA weights on top.

    trainable: train that adapter further; otherwise it is frozen
    """

    name: str
    folder: Path
    dtype: str
    trust_remote_code: bool = False
    lora: Lora | None = None
    adapter: Path | None = None
    trainable: bool = False

    @property
    def folders(self) -> list[Path]:
        """The folders whose content decides what the model computes."""
        return [self.folder] if self.adapter is None else [self.folder, self.adapter]

    def trained(self, folder: Path) -> ModelSpec:
        """The same model after training: full weights in `folder`, or an adapter on the same base."""
        if (folder / "adapter_config.json").is_file():
            return dataclasses.replace(self, adapter=folder, lora=None)
        return dataclasses.replace(self, folder=folder, adapter=None, lora=None)

    def continued(self, folder: Path) -> ModelSpec:
        """The same model to be trained on from `folder`: full weights, or an adapter that stays trainable."""
        spec = self.trained(folder)
        return dataclasses.replace(spec, trainable=spec.adapter is not None)

    @cached_property
    def tokenizer(self):
        """The model's tokenizer; raises UserError when the folder holds none."""
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(
                self.folder, trust_remote_code=self.trust_remote_code, local_files_only=True
            )
        except (OSError, ValueError, KeyError) as reason:
            raise UserError(f"model.path={self.folder}: no usable tokenizer there: {_first(reason)}") from None

    def load(self) -> LanguageModel:
        """Read the weights; raises UserError when they are absent or not safetensors."""
        from dlma.model.language import LanguageModel

        return LanguageModel.load(self)


def _first(reason: BaseException) -> str:
    return str(reason).strip().split("\n")[0] or type(reason).__name__


def lab_base(*, base: str, dtype: str, lora: Lora | None) -> ModelSpec:
    """A base of the built-in lab, by name."""
    from dlma.lab.bases import base_folder

    return ModelSpec(name=f"lab-{base}", folder=base_folder(base), dtype=dtype, lora=_lora(lora))


def hf_model(*, path: str, revision: str, dtype: str, lora: Lora | None, trust_remote_code: bool = False) -> ModelSpec:
    """Any causal language model in Hugging Face format: a local folder, or a name on the hub."""
    folder = Path(path).expanduser()
    if not folder.exists():
        folder = _snapshot(path, revision)
    _require_causal_model(folder, path)
    return ModelSpec(Path(path).name, folder.resolve(), dtype, trust_remote_code, _lora(lora))


def _lora(node: Lora | dict | None) -> Lora | None:
    return node if node is None or isinstance(node, Lora) else Lora(**node)


def _snapshot(path: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise UserError(f"model.path={path}: no such folder")
    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as reason:
        raise UserError(
            f"model.path={path}: neither a folder here nor a model on the hub that could be fetched "
            f"({_first(reason)}); a gated model needs `hf auth login` and its licence accepted"
        ) from None


def _require_causal_model(folder: Path, path: str) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"model.path={path}: not a model folder: it has no config.json")
    try:
        json.loads(config.read_text())
    except ValueError:
        raise UserError(f"model.path={path}: its config.json is not valid JSON") from None
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"model.path={path}: no *.safetensors there; pickled weights are not loaded: "
            "convert them once with save_pretrained(..., safe_serialization=True)"
        )
