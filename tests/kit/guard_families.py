"""Guards as tiny models of the same class, with templates of the same rules, written anew, and texts of our own."""

from dataclasses import dataclass, field

import torch
from small_models import byte_level_tokenizer, small_network
from transformers import Llama4Config, Llama4ForConditionalGeneration

_ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
)
_LLAMA = (
    "{% set who = 'User' if messages|length % 2 else 'Agent' %}{{ bos_token }}HEAD(user)\n\nTask: look for harm in "
    "what {{ who }} says.\n\n{% for m in messages %}"
    + _ALTERNATE
    + "{{ 'User' if m.role == 'user' else 'Agent' }}: SAID\n\n"
    "{% endfor %}Say 'safe' or 'unsafe' of the last {{ who }} message.END"
)


def _llama(said, head, end):
    return _LLAMA.replace("SAID", said).replace("HEAD(user)", head.format("user")).replace("END", end)


@dataclass(frozen=True)
class GuardFamily:
    """A family of guards.

    kind: its class in transformers; special: special tokens, BOS, EOS and PAD first; parts: it reads lists of parts
    """

    kind: str
    template: str
    special: tuple[str, ...] = ("<bos>", "<eos>", "<pad>")
    parts: bool = False
    options: dict = field(default_factory=dict)


_HEADERS = ("<|begin_of_text|>", "<|eot_id|>", "<|pad|>", "<|start_header_id|>", "<|end_header_id|>")
_HEAD = "<|start_header_id|>{}<|end_header_id|>"
_HEADERS_4 = ("<|begin_of_text|>", "<|eot|>", "<|pad|>", "<|header_start|>", "<|header_end|>")
_HEAD_4 = "<|header_start|>{}<|header_end|>"
_TEXTS = "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
GUARDS = {
    "llama_guard_3": GuardFamily(
        "llama", _llama("{{ m.content }}", _HEAD, "<|eot_id|>" + _HEAD.format("assistant")), _HEADERS
    ),
    "llama_guard_4": GuardFamily(
        "llama4", _llama(_TEXTS, _HEAD_4, "<|eot|>" + _HEAD_4.format("assistant")), _HEADERS_4, parts=True
    ),
    "shieldgemma": GuardFamily(
        "gemma2",
        "{{ bos_token }}Judge by a policy.\n\n<start_of_turn>\nHuman: {{ messages[0].content }}\n<end_of_turn>\n\n"
        "{% if messages|length > 1 %}<start_of_turn>\nChatbot: {{ messages[1].content }}\n<end_of_turn>\n\n{% endif %}"
        "{% if not guideline %}{{ raise_exception('no guideline') }}{% endif %}Policy: {{ guideline }}\n\n"
        "Is it violated? Begin with 'Yes' or 'No'.\n\n",
        ("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"),
    ),
    "qwen3_guard": GuardFamily(
        "qwen3",
        "<|im_start|>user\n{% set who = 'ASSISTANT' if messages[-1].role == 'assistant' else 'USER' %}Task: is what "
        "{{ who }} says safe?\n\n{% for m in messages %}{{ m.role|upper }}: {{ m.content }}\n\n{% endfor %}The first "
        "line is one of 'Safety: Safe', 'Safety: Unsafe', 'Safety: Controversial'.<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n",
        ("<|endoftext|>", "<|im_end|>", "<|pad|>", "<|im_start|>"),
    ),
}
_KNOWN = "safe unsafe Yes No Safety: Safe Safety: Unsafe Safety: Controversial how do i mend a lamp with care"


def guard_tokenizer(name):
    family = GUARDS[name]
    found = byte_level_tokenizer([_KNOWN] * 3, 340, special=family.special)
    found.chat_template = family.template
    return found


def save_guard(folder, name, context=512):
    """A guard of that family with random weights; returns the folder."""
    tokenizer = guard_tokenizer(name)
    kind = GUARDS[name].kind
    if kind == "llama4":
        network = _seeing(len(tokenizer), context)
    else:
        network = small_network(kind, vocabulary=len(tokenizer), context=context)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _seeing(vocabulary, context):
    """Llama 4's class for texts and images, dense as Llama Guard 4 is."""
    torch.manual_seed(0)
    heads = dict(
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, bos_token_id=0, eos_token_id=1, pad_token_id=2
    )
    sizes = dict(hidden_size=32, intermediate_size=48, intermediate_size_mlp=48, num_hidden_layers=2)
    text = dict(vocab_size=vocabulary, max_position_embeddings=context, moe_layers=[], **heads, **sizes)
    image = dict(image_size=28, patch_size=14, projector_input_dim=16, projector_output_dim=16, vision_output_dim=16)
    seeing = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, **image)
    network = Llama4ForConditionalGeneration(Llama4Config(text_config=text, vision_config=seeing)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    return network
