"""The untrained networks that a base of the lab can be: one size in several architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlma.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from dlma.lab.build import BasePlan


def new_network(plan: BasePlan, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """An untrained causal language model of the plan's architecture and size, in fp32; raises UserError for others."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"llama": _rotary, "qwen3": _qwen3, "gpt_neox": _gpt_neox, "gpt2": _gpt2}
    if plan.architecture not in sizes:
        raise UserError(f"mode.architecture={plan.architecture}: choose one of {', '.join(sizes)}")
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    common = {"vocab_size": len(tokenizer), "tie_word_embeddings": True, **special}
    config = AutoConfig.for_model(plan.architecture, **common, **sizes[plan.architecture](plan))
    torch.manual_seed(plan.seed)
    return AutoModelForCausalLM.from_config(config).float()


def _body(plan: BasePlan) -> dict:
    return {
        "hidden_size": plan.hidden,
        "intermediate_size": plan.feed_forward,
        "num_hidden_layers": plan.layers,
        "num_attention_heads": plan.heads,
        "max_position_embeddings": plan.context,
    }


def _rotary(plan: BasePlan) -> dict:
    return {**_body(plan), "num_key_value_heads": plan.heads}


def _qwen3(plan: BasePlan) -> dict:
    return {**_rotary(plan), "head_dim": plan.hidden // plan.heads}


def _gpt_neox(plan: BasePlan) -> dict:
    """Its feed-forward part has two matrices where Llama's has three: half as wide again."""
    return {**_body(plan), "intermediate_size": plan.feed_forward * 3 // 2}


def _gpt2(plan: BasePlan) -> dict:
    return {
        "n_embd": plan.hidden,
        "n_inner": plan.feed_forward * 3 // 2,
        "n_layer": plan.layers,
        "n_head": plan.heads,
        "n_positions": plan.context,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    }
