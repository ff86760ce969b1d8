"""A model as it is handed out: weights, in one file or shards, tokenizer, and every id at which an answer ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers.utils import GENERATION_CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from dlma import files
from dlma.model.language import LanguageModel
from dlma.model.weights import ForeignModule


def save(
    model: LanguageModel, folder: Path, *, network: ForeignModule, state: Mapping[str, Tensor] | None = None
) -> None:
    """Write a network of the model's kind, or its adapter, so that `generate()` ends where dlma ends an answer.

    state: its weights, where they were put together from several processes
    """
    with files.atomic_folder(folder) as draft:
        network.save_pretrained(draft, state_dict=state)
        model.tokenizer.save_pretrained(draft)
        if model.added_end is not None:
            _end_at_added(model, draft / GENERATION_CONFIG_NAME)


def _end_at_added(model: LanguageModel, path: Path) -> None:
    """As text: a config that is valid only as long as nobody changes it (sampling flags without do_sample) stays so."""
    held = files.read_json(path) or model.causal.generation_config.to_diff_dict()
    held.pop("_from_model_config", None)  # older versions of transformers then go by config.json instead
    held["eos_token_id"] = [*sorted(model.eos_ids - {model.added_end}), model.added_end]
    files.write_bytes(path, (json.dumps(held, indent=2, sort_keys=True) + "\n").encode())


def shard(folder: Path, max_bytes: int) -> None:
    """Cut a saved model's weights into files of at most so many bytes, or one tensor, and write their index."""
    from huggingface_hub import save_torch_state_dict
    from safetensors.torch import load_file

    held: dict[str, Tensor] = {}
    whole = sorted(folder.glob(f"*{Path(SAFE_WEIGHTS_NAME).suffix}"))
    for path in whole:
        held |= load_file(path)
    for path in [*whole, folder / SAFE_WEIGHTS_INDEX_NAME]:
        path.unlink(missing_ok=True)
    save_torch_state_dict(held, folder, max_shard_size=max_bytes)
