"""A loaded language model: the one place that knows how its states, head and special tokens are reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.logging import disable_progress_bar

from dlma.errors import UserError
from dlma.model.load import ModelSpec
from dlma.model.weights import read_adapter, read_network

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LanguageModel:
    """A causal language model with its tokenizer.

    network: the Hugging Face (or PEFT) module that is trained and saved
    eos_ids: every id that ends an answer; empty when the model has none
    context: the most tokens a row may have
    window: the sliding window of its attention in tokens, or None
    plain_head: the logits are `head(states)` and nothing else (no soft-capping, no scaling); probed
    autocast: the dtype of matrix products where it is not that of the weights; policy and reference share it
    adapter_is_new: whether an adapter, if there is one, still changes nothing
    checked: what the engine's self-check found: the longest row it covers, the layout, why not the other one
    """

    def __init__(self, network: nn.Module, tokenizer, name: str) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.name = name
        self.causal = network.get_base_model() if hasattr(network, "peft_config") else network
        self.eos_ids = _eos_ids(self.causal, tokenizer)
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self.context = _context(self.causal.config, tokenizer)
        self.window = getattr(self.causal.config, "sliding_window", None)
        self.autocast: torch.dtype | None = None
        self.adapter_is_new = True
        self.checked: tuple[int, str, str] = (0, "", "")
        self.plain_head = self._probe_head()

    @classmethod
    def load(cls, spec: ModelSpec) -> LanguageModel:
        """Read weights from the spec's folder, and its adapter or fresh LoRA layers if it has them."""
        model = cls(_with_adapter(read_weights(spec), spec), spec.tokenizer, spec.name)
        model.adapter_is_new = spec.adapter is None
        return model

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights; of those that are not packed into a few bits."""
        return next(p.dtype for p in self.network.parameters() if p.is_floating_point())

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of matrix products, and of attention masks."""
        return self.autocast or self.dtype

    @property
    def attention(self) -> str:
        """The attention kernel, by its name in transformers."""
        return getattr(self.causal.config, "_attn_implementation", None) or "its own"

    @property
    def head_layer(self) -> nn.Module:
        """The module behind `head`."""
        return self.causal.get_output_embeddings()

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Matrix products of the block are made in `compute_dtype`."""
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            yield

    @contextmanager
    def checkpointed(self, on: bool = True) -> Iterator[None]:
        """In the block, each layer's activations are computed again in the backward pass instead of being kept.

        Only the layers themselves are put in training mode, not the modules inside them: dropout stays off.
        raises: UserError when the architecture has no such layers
        """
        if not on:
            yield
            return
        layers = [m for m in self.causal.modules() if isinstance(m, GradientCheckpointingLayer)]
        if not layers:
            raise UserError(f"checkpointing: {self.name} has no layers that can be computed again: switch it off")
        for layer in layers:
            layer._gradient_checkpointing_func = _again
            layer.gradient_checkpointing = layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.gradient_checkpointing = layer.training = False

    def states(self, ids: Tensor, mask: Tensor, position: Tensor, cache: Cache | None = None) -> Tensor:
        """Last hidden states, (rows, width, hidden); `mask` is (rows, keys) or additive (rows, 1, width, keys)."""
        out = self.causal.base_model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return out.last_hidden_state

    def head(self, states: Tensor) -> Tensor:
        """Logits of states; only meaningful where `plain_head` is true."""
        return self.head_layer(states)

    def full_logits(self, ids: Tensor, mask: Tensor, position: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits by the model's own forward, (rows, width, vocabulary): for heads that are not plain."""
        out = self.causal(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return out.logits

    def decode(self, ids: list[int]) -> str:
        """The text of response ids, special tokens left out; for people only, never encoded again."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    @torch.no_grad()
    def _probe_head(self) -> bool:
        head = self.causal.get_output_embeddings()
        if head is None or not hasattr(self.causal, "base_model"):
            return False
        ids = torch.arange(8, device=self.device).unsqueeze(0) % self.causal.config.vocab_size
        mask, position = torch.ones_like(ids), torch.arange(8, device=self.device).unsqueeze(0)
        ours = self.head(self.states(ids, mask, position))
        return torch.equal(ours, self.full_logits(ids, mask, position))


def _again(run, *args):
    return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False)


def read_weights(spec: ModelSpec) -> PreTrainedModel:
    """The network of the spec's folder, without adapters; raises UserError when it does not load."""
    disable_progress_bar()
    network = read_network(
        AutoModelForCausalLM,
        spec.folder,
        f"model.path={spec.folder}",
        dtype=_DTYPES[spec.dtype],
        quantization_config=_packing(spec),
        trust_remote_code=spec.trust_remote_code,
    )
    for module in network.modules() if spec.bits is not None else ():
        # bitsandbytes would repack weights for a CPU kernel that has no backward pass and rounds scales to bfloat16
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return network


def _packing(spec: ModelSpec) -> BitsAndBytesConfig | None:
    """QLoRA's packing of frozen weights (arXiv 2305.14314): 4-bit normal floats, their scales packed again."""
    if spec.bits is None:
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=_DTYPES[spec.dtype],
    )


def _with_adapter(network: nn.Module, spec: ModelSpec) -> nn.Module:
    """The network with the spec's trained adapter, or with fresh LoRA layers, or as it is."""
    if spec.adapter is not None:
        return read_adapter(network, spec.adapter, trainable=spec.trainable).eval()
    if spec.lora is None:
        return network
    from peft import LoraConfig, get_peft_model

    lora = spec.lora
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapted = get_peft_model(network, config).eval()
    if spec.source is not None:  # what is saved names the base by its place on the hub, not by a folder here
        config.base_model_name_or_path, config.revision = spec.source, spec.commit
    return adapted


def _eos_ids(causal: nn.Module, tokenizer) -> frozenset[int]:
    found: set[int] = set()
    for value in (
        getattr(causal.generation_config, "eos_token_id", None),
        getattr(causal.config, "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        if value is not None:
            found.update(value if isinstance(value, (list, tuple)) else [value])
    return frozenset(found)


def _context(config, tokenizer) -> int:
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    return min(int(tokenizer.model_max_length), 1 << 20)


def is_sharded(parameter: Tensor) -> bool:
    """Whether a weight is spread over the processes, each of which holds a part."""
    return isinstance(parameter, DTensor)
