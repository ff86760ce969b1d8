"""The model shapes that are measured or counted: Llama architectures by size, the lab's own base, and a real model.

All but the lab and the real model have random weights: speed and memory do not depend on what a model has learnt.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Shape:
    """A Llama-like model. tied: input embedding and head are one matrix; context: the most tokens a row may have."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    context: int = 4096

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def layer_weights(self) -> int:
        """Weights of one layer's matrices."""
        attention = self.hidden * (2 * self.query_width + 2 * self.kv_width)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """All weights, norms included."""
        embedding = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * (self.layer_weights + 2 * self.hidden) + self.hidden + embedding


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 32, 64, 2, 4, 2, 8, 8192, True, 1024),
        Shape("lab", 128, 352, 4, 4, 4, 32, 1007, True, 512),  # the standard base
        Shape("40M", 512, 1376, 8, 8, 8, 64, 32000, True),
        Shape("135M", 576, 1536, 30, 9, 3, 64, 49152, True),
        Shape("1B", 2048, 8192, 16, 32, 8, 64, 128256, True),  # Llama-3.2-1B
        Shape("7B", 4096, 11008, 32, 32, 32, 128, 32000, False),  # Llama-2-7B
        Shape("8B", 4096, 14336, 32, 32, 8, 128, 128256, False),  # Llama-3-8B
    )
}


REAL = "real"


def real_folder() -> Path | None:
    """The real model, a Llama in Hugging Face format: where DLMA_BENCH_MODEL says; None if there is none."""
    folder = Path(os.environ.get("DLMA_BENCH_MODEL", "")).expanduser()
    return folder.resolve() if (folder / "config.json").is_file() else None


def _real() -> Shape:
    folder = real_folder()
    if folder is None:
        raise KeyError(f"{REAL}: set DLMA_BENCH_MODEL to the folder of a model")
    held = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    sizes = [held[name] for name in names]
    head = held.get("head_dim") or held["hidden_size"] // held["num_attention_heads"]
    context = held["max_position_embeddings"]
    return Shape(REAL, *sizes, head, held["vocab_size"], held["tie_word_embeddings"], context)


def shape_of(name: str, vocabulary: int | None = None) -> Shape:
    """A shape by name, with another vocabulary if one is given; raises KeyError for a name that is none."""
    shape = _real() if name == REAL else SHAPES[name]
    return replace(shape, vocabulary=vocabulary) if vocabulary else shape


def config_of(shape: Shape):
    """The transformers config of a shape."""
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=shape.context,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )


def work_folder() -> Path:
    """Where models, stores and unfinished results lie; git ignores it."""
    return Path(os.environ.get("DLMA_BENCH_FOLDER", ROOT / "build" / "bench"))


def model_folder(shape: Shape) -> Path:
    """A folder with the shape's weights and tokenizer; made once."""
    if shape.name == "lab":
        from dlma.lab.bases import base_folder

        return base_folder("standard")
    if shape.name == REAL:
        found = real_folder()
        assert found is not None  # its shape was read there
        return found
    folder = work_folder() / "models" / f"{shape.name}-{shape.vocabulary}"
    if not (folder / "tokenizer_config.json").is_file():
        _save(shape, folder)
    return folder


def _save(shape: Shape, folder: Path) -> None:
    import torch
    from transformers import LlamaForCausalLM

    from benchmarks.text import tokenizer

    torch.manual_seed(0)
    LlamaForCausalLM(config_of(shape)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
