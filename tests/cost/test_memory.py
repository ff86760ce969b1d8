"""What a model holds, counted on weights without content."""

import pytest
from small_models import save_small
from toy_tokenizers import tokenizer
from transformers import GPT2Config, LlamaConfig, Qwen3Config

from dlma.cost import memory as memory_model
from dlma.cost import meta_model
from dlma.model.load import hf_model
from dlma.model.meter import attention_width


@pytest.mark.parametrize(("family", "key_width"), [("llama", 16), ("qwen3", 16), ("bloom", 32), ("gpt2", 32)])
def test_a_tokens_keys_and_values_are_two_float32_vectors_a_layer_in_every_architecture(tmp_path, family, key_width):
    """Two layers of 32 hidden units; llama and qwen3 with two key heads of eight. Bloom takes no mask per row."""
    tok = tokenizer("bare")
    special = (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id)
    save_small(tmp_path / "m", family, tokenizer=tok, special=special, context=64)
    spec = hf_model(
        path=str(tmp_path / "m"), revision="main", dtype="float32", bits=None, lora=None, trust_remote_code=False
    )
    with meta_model.drawn(spec, meta_model.read_config(str(tmp_path / "m"), "main", False)) as model:
        assert memory_model.position_bytes(model) == 2 * 2 * key_width * 4


def test_attention_is_as_wide_as_its_heads_whatever_the_hidden_size():
    assert attention_width(LlamaConfig(hidden_size=64, num_attention_heads=4, num_hidden_layers=3)) == 3 * 64
    qwen = Qwen3Config(hidden_size=64, num_attention_heads=4, head_dim=32, num_hidden_layers=3)
    assert attention_width(qwen) == 3 * 4 * 32
    assert attention_width(GPT2Config(n_embd=48, n_head=4, n_layer=2)) == 2 * 48
