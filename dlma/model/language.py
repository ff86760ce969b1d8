"""A loaded language model: the one place that knows how its states, head and special tokens are reached."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.logging import disable_progress_bar

from dlma.errors import UserError
from dlma.functional.products import quicken
from dlma.model import headers, original
from dlma.model.load import Lora, ModelSpec
from dlma.model.tokens import turn_end
from dlma.model.weights import ForeignModule, read_adapter, read_network

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LanguageModel:
    """A causal language model with its tokenizer.

    network: the Hugging Face (or PEFT) module that is trained and saved
    vocabulary: token ids that its embedding has a row for; its tokenizer may have more entries, or fewer
    eos_ids: every id that ends an answer; empty when the model has none
    added_end: the one of them that only the chat template names, by what it writes after an assistant's turn
    pad_id: what rows are filled up with and nothing looks at: the tokenizer's padding id, or 0 where it has no row
    context: the most tokens a row may have
    plain_head: the logits are `head(states)` and nothing else (no soft-capping, no scaling); probed
    autocast: the dtype of matrix products where it is not that of the weights; policy and reference share it
    why: why its dtype is what it is, where the config left it open
    adapter_is_new: whether an adapter, if there is one, still changes nothing
    checked: by tokens of the checked row, why rows must not share prefixes, or nothing (layout_check.py)
    padded: by tokens of the checked row, why rows must not be padded, or nothing (dense.py)
    adds_gradients: whether the head adds its gradient to its `.grad` itself (functional/logprob.py, in_place)

    raises: UserError for a network that is no causal language model, or whose logits are no numbers
    """

    adds_gradients = False

    def __init__(self, network: nn.Module, tokenizer, name: str) -> None:
        self.network = cast(ForeignModule, network)
        self.tokenizer = tokenizer
        self.name = name
        self.causal = causal_of(self.network)
        self.vocabulary = self.causal.get_input_embeddings().weight.shape[0]
        self._require_rows()
        own, end = _eos_ids(self.causal, tokenizer), turn_end(tokenizer, {})
        self.added_end = None if end in own or end is None or end >= self.vocabulary else end
        ends = own if self.added_end is None else own | {self.added_end}
        self.eos_ids = frozenset(i for i in ends if i < self.vocabulary)
        pad = tokenizer.pad_token_id
        self.pad_id = pad if pad is not None and 0 <= pad < self.vocabulary else 0
        self.context = _context(self.causal.config, tokenizer)
        self.autocast: torch.dtype | None = None
        self.why = ""
        self.adapter_is_new = True
        self.checked: dict[int, str] = {}
        self.padded: dict[int, str] = {}
        self.plain_head = self._probe_head()

    @classmethod
    def load(cls, spec: ModelSpec, base: LanguageModel | None = None) -> LanguageModel:
        """Read weights from the spec's folder, and its adapter or fresh LoRA layers if it has them.

        base: the same model without an adapter, where it is loaded: its weights are shared, and frozen in both
        """
        network = read_weights(spec) if base is None else twin(base.network, sharing=base.network.parameters())
        _require_rows(cast(ForeignModule, network), spec)
        model = cls(_with_adapter(network, spec), spec.tokenizer, spec.name)
        model.adapter_is_new = spec.adapter is None
        model.why = spec.why
        return model

    @property
    def config(self):
        """The configuration of the language model itself, where the network is more than that."""
        return self.causal.config.get_text_config()

    @cached_property
    def body(self) -> nn.Module | None:
        """The network without its head; None where the architecture has no such module."""
        body = self.causal.base_model
        return body if body is not self.causal else getattr(self.causal, "model", None)

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
            cast(ForeignModule, layer)._gradient_checkpointing_func = _again
            layer.gradient_checkpointing = layer.training = True
        try:
            yield
        finally:
            for layer in layers:
                layer.gradient_checkpointing = layer.training = False

    @contextmanager
    def adding_gradients(self, on: bool = True) -> Iterator[None]:
        """In the block `backward()` holds a large head's gradient once; what wants it from autograd gets none."""
        self.adds_gradients = on
        try:
            yield
        finally:
            self.adds_gradients = False

    @contextmanager
    def told_by_layer(self, tokens: int, tell: Callable[[int], None]) -> Iterator[None]:
        """The block passes so many tokens through the layers once: each layer tells its share, the end the rest."""
        layers = [m for m in self.causal.modules() if isinstance(m, GradientCheckpointingLayer)]
        share = tokens // (len(layers) + 1)
        told = [module.register_forward_hook(lambda *_: tell(share)) for module in layers]
        try:
            yield
            tell(tokens - share * len(layers))
        finally:
            for hook in told:
                hook.remove()

    def states(
        self, ids: Tensor, mask: Tensor | None, position: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Last hidden states, (rows, width, hidden); `mask` is (rows, keys) or additive (rows, 1, width, keys).

        What is None is the model's own: a causal mask over whole rows, positions as it counts them, no cache.
        raises: UserError for an architecture that has no module for them
        """
        if self.body is None:
            raise UserError(f"model.path: {self.name}: {type(self.causal).__name__} has no body apart from its head")
        return self._run(self.body, ids, mask, position, cache).last_hidden_state

    def head(self, states: Tensor) -> Tensor:
        """Logits of states; only meaningful where `plain_head` is true."""
        return self.head_layer(states)

    def full_logits(
        self, ids: Tensor, mask: Tensor | None, position: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Logits by the model's own forward, (rows, width, vocabulary): for heads that are not plain."""
        return self._run(self.causal, ids, mask, position, cache).logits

    def fill(self, ids: Tensor, mask: Tensor, position: Tensor, cache: Cache) -> None:
        """A pass of which only the keys and values in `cache` are wanted."""
        self._run(self.causal if self.body is None else self.body, ids, mask, position, cache)

    def _run(self, module: nn.Module, ids: Tensor, mask, position: Tensor | None, cache: Cache | None):
        given = {"attention_mask": mask, "position_ids": position, "past_key_values": cache}
        given = {name: value for name, value in given.items() if value is not None}
        return module(input_ids=ids, **given, **self._asked(module, cache is not None))

    def _asked(self, module: nn.Module, cached: bool) -> dict[str, bool]:
        """Whether to cache; and, declined, what a config asks for beside logits: losses of routers want own masks."""
        asked = {} if getattr(self.config, "return_dict", True) else {"return_dict": True}
        if cached or _names(type(module).forward) & {"use_cache", "kwargs"}:
            asked["use_cache"] = cached
        if getattr(self.config, "output_router_logits", False):
            asked["output_router_logits"] = False
        return asked

    @torch.no_grad()
    def own_pass(self, ids: Sequence[int], last: int, kept: Mapping[str, object] | None = None):
        """The network's own forward pass over one row as it comes: own attention, own mask, own positions.

        last: of how many tokens logits are wanted, at least; where the network can, it computes no others
        kept: the cache that the network handed out after what stands before `ids`, by the name it takes it under;
            None: without a cache
        returns: what the network returns; its `logits` are (1, tokens, vocabulary)
        """
        given = {"logits_to_keep": last} if "logits_to_keep" in _names(type(self.causal).forward) else {}
        row = torch.tensor([list(ids)], device=self.device)
        return self.causal(input_ids=row, **given, **(kept or {}), **self._asked(self.causal, kept is not None))

    def decode(self, ids: list[int]) -> str:
        """The text of response ids, special tokens left out; for people only, never encoded again."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _require_rows(self) -> None:
        """Raises UserError where BOS or EOS, which are put around texts, have no row in the embedding."""
        for kind in ("bos", "eos"):
            found = getattr(self.tokenizer, f"{kind}_token_id")
            if found is not None and found >= self.vocabulary:
                raise UserError(
                    f"model.path: the {kind.upper()} of {self.name}'s tokenizer is id {found}, and the embedding has "
                    f"{self.vocabulary} rows: resize it (resize_token_embeddings) or mend the tokenizer, and save"
                )

    @torch.no_grad()
    def _probe_head(self) -> bool:
        original.require_causal(self)
        if self.body is None or self.causal.get_output_embeddings() is None:
            return False
        ids = torch.arange(8, device=self.device).unsqueeze(0) % self.vocabulary
        mask, position = torch.ones_like(ids), torch.arange(8, device=self.device).unsqueeze(0)
        try:
            ours = self.head(self.states(ids, mask, position))
            return torch.equal(ours, self.full_logits(ids, mask, position))
        except original.FAULTS as fault:
            original.reason_of(fault)
            return False


@cache
def _names(forward: Callable) -> frozenset[str]:
    """What the forward pass of a class takes by name."""
    return frozenset(inspect.signature(forward).parameters)


def causal_of(network: ForeignModule) -> ForeignModule:
    """The language model itself, without what PEFT puts around it."""
    return network.get_base_model() if hasattr(network, "peft_config") else network


def _again(run, *args):
    return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False)


def twin(network: nn.Module, *, sharing: Iterable[Tensor]) -> nn.Module:
    """A copy of a network whose modules are its own and some of whose tensors are not."""
    return copy.deepcopy(network, {id(tensor): tensor for tensor in sharing})


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
    quicken(network)
    for module in network.modules() if spec.bits is not None else ():
        # bitsandbytes would repack weights for a CPU kernel that has no backward pass and rounds scales to bfloat16
        if hasattr(module, "support_avx512bf16_for_cpu"):
            cast(ForeignModule, module).support_avx512bf16_for_cpu = False
    return network


def _require_rows(network: ForeignModule, spec: ModelSpec) -> None:
    """Raise UserError where a text can have an id for which there is no embedding.

    Tokens that were added to a tokenizer are left out: models in use have such beyond their rows.
    """
    tokens, rows = spec.tokenizer.vocab_size, network.get_input_embeddings().weight.shape[0]
    if tokens > rows:
        raise UserError(
            f"model.path={spec.folder}: the tokenizer has {tokens:,} tokens and the model embeddings for "
            f"{rows:,}: they do not belong together; fetch or save the folder again, whole"
        )


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
        from dlma.model.lora import write_out

        return write_out(read_adapter(network, spec.adapter, trainable=spec.trainable).eval())
    if spec.lora is None:
        return network
    adapted = with_lora(network, spec.lora)
    if spec.source is not None:  # what is saved names the base by its place on the hub, not by a folder here
        config = adapted.peft_config["default"]
        config.base_model_name_or_path, config.revision = spec.source, spec.commit
    return adapted


def with_lora(network: nn.Module, lora: Lora) -> ForeignModule:
    """The network with fresh LoRA layers, which change nothing yet; the same ones each time."""
    from peft import LoraConfig, get_peft_model

    from dlma.model.lora import write_out

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=cast(int, lora.alpha),  # any number will do
        lora_dropout=0.0,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapted = cast(ForeignModule, get_peft_model(network, config).eval())
    if not isinstance(lora.targets, str):
        headers.require_all(lora.targets, adapted.base_model.targeted_module_names)
    return cast(ForeignModule, write_out(adapted))


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


def context_of(config) -> int | None:
    """The most tokens that a row may have, by the config; None where it does not say."""
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
    return next((int(found) for name in names if (found := getattr(config, name, None))), None)


def _context(config, tokenizer) -> int:
    return context_of(config) or min(int(tokenizer.model_max_length), 1 << 20)


def is_sharded(parameter: Tensor) -> bool:
    """Whether a weight is spread over the processes, each of which holds a part."""
    return isinstance(parameter, DTensor)
