"""Tiny random models of the causal architectures of transformers, with what sets their layouts apart.

Each layout is a row of `LAYOUTS`: the model type, what of its config differs from `_COMMON`, and the ways in which its
rows are expected to be scored and sampled. Windows are shorter than the rows of the tests.
"""

import torch
from small_models import VOCABULARY, small_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from dlma.model.language import LanguageModel

WINDOW = 6
_COMMON = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    n_embd=32,
    d_model=32,
    emb_dim=32,
    embedding_size=32,
    word_embed_proj_dim=32,
    num_hidden_layers=2,
    num_layers=2,
    n_layer=2,
    n_layers=2,
    decoder_layers=2,
    num_attention_heads=4,
    num_heads=4,
    n_head=4,
    n_heads=4,
    decoder_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=48,
    intermediate_size_mlp=48,
    decoder_ffn_dim=48,
    ffn_dim=48,
    moe_intermediate_size=16,
    shared_expert_intermediate_size=16,
    num_local_experts=4,
    num_experts=4,
    n_routed_experts=4,
    num_experts_per_tok=2,
    first_k_dense_replace=1,
    n_group=1,
    topk_group=1,
    q_lora_rank=16,
    kv_lora_rank=16,
    qk_rope_head_dim=8,
    qk_nope_head_dim=8,
    v_head_dim=8,
    sliding_window=WINDOW,
    sliding_window_size=WINDOW,
    max_position_embeddings=256,
    n_positions=256,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=2,
    use_cache=True,
)
LLAMA4 = dict(attention_chunk_size=WINDOW, no_rope_layers=[1, 0], layer_types=["chunked_attention", "full_attention"])
MLA = dict(num_key_value_heads=4)
RW = dict(alibi=True, multi_query=False, parallel_attn=False, new_decoder_architecture=False, bias=True)
MIXED = ["sliding_attention", "full_attention"]
LONG_ROPE = dict(  # other rotary factors as soon as a row is longer than 32 tokens
    sliding_window=None,
    original_max_position_embeddings=32,
    rope_parameters=dict(
        rope_type="longrope",
        rope_theta=10000.0,
        short_factor=[1.0] * 4,
        long_factor=[4.0] * 4,
        original_max_position_embeddings=32,
    ),
)
LINEAR = ["linear_attention", "full_attention"]
GPT_NEO = dict(window_size=WINDOW, attention_types=[[["global", "local"], 1]])

# name: model type, changes, how rows are scored, how they are sampled
LAYOUTS = {
    "llama": ("llama", {}, "tree", "full"),
    "llama, tied head": ("llama", dict(tie_word_embeddings=True), "tree", "full"),
    "llama, one key head": ("llama", dict(num_key_value_heads=1), "tree", "full"),
    "mistral, window": ("mistral", {}, "tree", "full"),
    "mistral, no window": ("mistral", dict(sliding_window=None), "tree", "full"),
    "ministral": ("ministral", {}, "tree", "full"),
    "mixtral": ("mixtral", {}, "tree", "full"),
    "mixtral, router logits": ("mixtral", dict(output_router_logits=True), "tree", "full"),
    "gemma": ("gemma", {}, "tree", "full"),
    "gemma2, soft caps": ("gemma2", dict(layer_types=MIXED), "tree", "full"),
    "gemma3": ("gemma3_text", dict(layer_types=MIXED), "tree", "full"),
    "vaultgemma": ("vaultgemma", dict(layer_types=MIXED), "tree", "full"),
    "qwen2": ("qwen2", {}, "tree", "full"),
    "qwen2, window in one layer": ("qwen2", dict(use_sliding_window=True, max_window_layers=1), "tree", "full"),
    "qwen2_moe": ("qwen2_moe", {}, "tree", "full"),
    "qwen3": ("qwen3", {}, "tree", "full"),
    "qwen3_moe": ("qwen3_moe", {}, "tree", "full"),
    "qwen3_next": ("qwen3_next", dict(layer_types=LINEAR), "dense", "own cache"),
    "phi, partial rotary": ("phi", {}, "tree", "full"),
    "phi3, window": ("phi3", {}, "tree", "full"),
    "phimoe": ("phimoe", {}, "tree", "full"),
    "stablelm, partial rotary": ("stablelm", {}, "tree", "full"),
    "persimmon": ("persimmon", {}, "tree", "full"),
    "nemotron": ("nemotron", {}, "tree", "full"),
    "glm": ("glm", {}, "tree", "full"),
    "glm4": ("glm4", {}, "tree", "full"),
    "glm4_moe": ("glm4_moe", {}, "tree", "full"),
    "glm4_moe_lite": ("glm4_moe_lite", MLA, "tree", "full"),
    "deepseek_v2": ("deepseek_v2", MLA, "tree", "full"),
    "deepseek_v3": ("deepseek_v3", MLA, "tree", "full"),
    "minicpm3": ("minicpm3", MLA, "tree", "full"),
    "deepseek_v4": ("deepseek_v4", {}, "dense", "own cache"),
    "gpt2": ("gpt2", {}, "tree", "full"),
    "gpt_bigcode, one key head": ("gpt_bigcode", {}, "tree", "full"),
    "gpt_neo, local layers": ("gpt_neo", GPT_NEO, "dense", "own cache"),
    "gpt_neo, wide windows": ("gpt_neo", GPT_NEO | dict(window_size=256), "tree", "full"),
    "gptj": ("gptj", dict(rotary_dim=4), "tree", "full"),
    "codegen": ("codegen", dict(rotary_dim=4), "tree", "full"),
    "gpt_neox, partial rotary": ("gpt_neox", {}, "tree", "full"),
    "gpt_neox_japanese": ("gpt_neox_japanese", {}, "tree", "full"),
    "gpt_oss, sinks": ("gpt_oss", dict(layer_types=MIXED), "tree", "full"),
    "opt": ("opt", {}, "tree", "full"),
    "opt-350m": ("opt", dict(word_embed_proj_dim=16, do_layer_norm_before=False), "tree", "full"),
    "biogpt": ("biogpt", {}, "tree", "full"),
    "xglm": ("xglm", {}, "tree", "slots"),
    "bloom, ALiBi": ("bloom", {}, "dense", "slots"),
    "mpt, ALiBi": ("mpt", {}, "dense", "full"),
    "falcon-rw, ALiBi": ("falcon", RW, "dense", "own cache"),
    "falcon-7b": ("falcon", {}, "tree", "full"),
    "falcon-40b": ("falcon", dict(new_decoder_architecture=True, num_kv_heads=2), "tree", "full"),
    "cohere": ("cohere", {}, "tree", "full"),
    "cohere2": ("cohere2", dict(layer_types=MIXED), "tree", "full"),
    "granite": ("granite", dict(logits_scaling=4.0, attention_multiplier=0.2), "tree", "full"),
    "granitemoe": ("granitemoe", {}, "tree", "full"),
    "granitemoe, router logits": (
        "granitemoe",
        dict(output_router_logits=True, logits_scaling=4.0),
        "tree",
        "full",
    ),
    "olmo": ("olmo", {}, "tree", "full"),
    "olmo2": ("olmo2", {}, "tree", "full"),
    "olmo3": ("olmo3", dict(layer_types=MIXED), "tree", "full"),
    "olmoe": ("olmoe", {}, "tree", "full"),
    "starcoder2, window": ("starcoder2", {}, "tree", "full"),
    "smollm3, layers without rotary": ("smollm3", dict(no_rope_layers=[1, 0]), "tree", "full"),
    "exaone4": ("exaone4", dict(layer_types=MIXED), "tree", "full"),
    "ernie4_5": ("ernie4_5", {}, "tree", "full"),
    "hunyuan": ("hunyuan_v1_dense", {}, "tree", "full"),
    "arcee": ("arcee", {}, "tree", "full"),
    "apertus": ("apertus", {}, "tree", "full"),
    "diffllama": ("diffllama", {}, "tree", "full"),
    "doge": ("doge", {}, "tree", "full"),
    "bitnet": ("bitnet", {}, "tree", "full"),
    "nanochat, soft cap": ("nanochat", {}, "tree", "full"),
    "jetmoe": ("jetmoe", {}, "tree", "full"),
    "modernbert-decoder": ("modernbert-decoder", dict(layer_types=MIXED), "tree", "full"),
    "llama4, chunks": ("llama4_text", LLAMA4, "dense", "own cache"),
    "lfm2, convolutions": ("lfm2", dict(layer_types=["conv", "full_attention"]), "dense", "own cache"),
    "minimax": ("minimax", dict(layer_types=LINEAR), "dense", "whole rows"),
    "mamba": ("mamba", {}, "dense", "own cache"),
    "rwkv": ("rwkv", {}, "dense", "own cache"),
    "ctrl": ("ctrl", {}, "tree", "full"),
    "openai-gpt": ("openai-gpt", {}, "dense", "whole rows"),
    "bert, decoder": ("bert", dict(is_decoder=True), "tree", "full"),
    "roberta, decoder": ("roberta", dict(is_decoder=True), "dense", "whole rows"),
    "bart": ("bart", {}, "dense", "own cache"),
    "mvp": ("mvp", {}, "dense", "own cache"),
}
REFUSED = {
    "bert": ("bert", "no causal language model"),
    "roberta": ("roberta", "no causal language model"),
    "electra": ("electra", "no causal language model"),
    "xlnet": ("xlnet", "no causal language model"),
    "cpmant": ("cpmant", "no causal language model"),
}
_KEPT = ("A_log", "conv", "dt_", "decay", "time_", "norm")  # matrices whose scale is part of the architecture


def tiny_config(kind, **changes):
    """The config of a layout; of `_COMMON` what this architecture knows."""
    known = AutoConfig.for_model(kind)
    names = {*known.to_dict(), *known.attribute_map}
    return AutoConfig.for_model(kind, **{**{k: v for k, v in _COMMON.items() if k in names}, **changes})


def tiny_network(kind, spread=0.2, **changes):
    """A random model of a layout, with weights large enough that logits differ."""
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(tiny_config(kind, **changes)).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1 and not any(part in name for part in _KEPT):
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * spread)
    return network


def tiny_model(kind, **changes):
    """A LanguageModel around a tiny network."""
    return LanguageModel(tiny_network(kind, **changes), small_tokenizer(), kind)
