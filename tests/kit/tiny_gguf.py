"""GGUF files of two layers with random weights, written by the package gguf as llama.cpp's converter writes them."""

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from tokenizers.pre_tokenizers import ByteLevel

HIDDEN, INNER, HEADS, KV_HEADS, LAYERS, CONTEXT = 64, 96, 4, 2, 2, 512
SPECIAL = ["<|start|>", "<|end|>"]
MERGES = ["Ġ t", "h e", "Ġt he"]
TOKENS = [*SPECIAL, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
TEMPLATE = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\\n' + m['content'] + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
)
MIXED = {"token_embd": Type.Q8_0, "attn": Type.Q4_1, "ffn": Type.F16}  # by the beginning of a leaf's name
BLOCKS = {  # a leaf of a layer: its name in transformers, and its shape
    "attn_q": ("self_attn.q_proj", (HIDDEN, HIDDEN)),
    "attn_k": ("self_attn.k_proj", (HIDDEN * KV_HEADS // HEADS, HIDDEN)),
    "attn_v": ("self_attn.v_proj", (HIDDEN * KV_HEADS // HEADS, HIDDEN)),
    "attn_output": ("self_attn.o_proj", (HIDDEN, HIDDEN)),
    "ffn_gate": ("mlp.gate_proj", (INNER, HIDDEN)),
    "ffn_up": ("mlp.up_proj", (INNER, HIDDEN)),
    "ffn_down": ("mlp.down_proj", (HIDDEN, INNER)),
    "attn_norm": ("input_layernorm", (HIDDEN,)),
    "ffn_norm": ("post_attention_layernorm", (HIDDEN,)),
}


def write_gguf(
    path: Path,
    *,
    kind: str = "llama",
    types: Mapping[str, Type] = MIXED,
    tied: bool = True,
    without: str = "",
    parts: int = 1,
) -> dict[str, np.ndarray]:
    """Write a model; returns what its tensors are in transformers, dequantised by the package gguf.

    types: how a matrix is stored, by the beginning of its leaf's name; F32 where nothing is said
    without: a tensor that is left out
    parts: of how many files it says that it is one
    """
    writer = gguf.GGUFWriter(path, kind)
    _describe(writer, kind, parts)
    found = {}
    for name, (ours, weights) in _tensors(kind, tied).items():
        leaf = name.rsplit(".", 2)[-2]
        stored = next((t for start, t in types.items() if leaf.startswith(start) and weights.ndim > 1), Type.F32)
        found[ours] = gguf.quants.dequantize(gguf.quants.quantize(weights, stored), stored)
        if name != without:
            in_file = _interleaved(weights, leaf) if kind == "llama" else weights
            writer.add_tensor(name, gguf.quants.quantize(in_file, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def _describe(writer: gguf.GGUFWriter, kind: str, parts: int) -> None:
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))  # 3: control
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(1)
    writer.add_chat_template(TEMPLATE)
    if parts > 1:
        writer.add_uint16("split.count", parts)


def _tensors(kind: str, tied: bool) -> dict[str, tuple[str, np.ndarray]]:
    """By name in the file: the name in transformers, and the weights before they are stored."""
    random = np.random.default_rng(0)
    shapes = {"token_embd.weight": ("model.embed_tokens.weight", (len(TOKENS), HIDDEN))}
    for layer in range(LAYERS):
        for leaf, (name, shape) in BLOCKS.items():
            shapes[f"blk.{layer}.{leaf}.weight"] = (f"model.layers.{layer}.{name}.weight", shape)
            if kind == "qwen2" and leaf in ("attn_q", "attn_k", "attn_v"):
                shapes[f"blk.{layer}.{leaf}.bias"] = (f"model.layers.{layer}.{name}.bias", shape[:1])
    shapes["output_norm.weight"] = ("model.norm.weight", (HIDDEN,))
    if not tied:
        shapes["output.weight"] = ("lm_head.weight", (len(TOKENS), HIDDEN))
    return {
        name: (ours, (0.1 * random.standard_normal(shape) + ("norm" in name)).astype(np.float32))
        for name, (ours, shape) in shapes.items()
    }


def _interleaved(weights: np.ndarray, leaf: str) -> np.ndarray:
    """Queries and keys of llama as llama.cpp wants them: the halves of a head's rotation lie in turn."""
    if leaf not in ("attn_q", "attn_k"):
        return weights
    heads = HEADS if leaf == "attn_q" else KV_HEADS
    return weights.reshape(heads, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)
