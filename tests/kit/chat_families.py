"""Today's chat models as tiny ones of the same class, with templates of the same rules, written anew.

Each family says what its template writes, letter by letter: of one question, and of one with a system text before it.
"""

from dataclasses import dataclass, field
from functools import cache

from tiny_layouts import LONG_ROPE, MIXED, tiny_network
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from toy_tokenizers import SENTENCES
from transformers import PreTrainedTokenizerFast

NO_THINKING = {"enable_thinking": False}
_EACH = "{% for m in messages %}"
_ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
)
_SPLIT = (
    "{% if messages[0].role == 'system' %}{% set told = messages[0].content %}{% set talk = messages[1:] %}"
    "{% else %}{% set told = none %}{% set talk = messages %}{% endif %}"
)
_HEADERS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
_METADATA = "<|im_start|>system\n## Metadata\n\nToday Date: 26 July 2024\nReasoning Mode: /no_think\n\n"
_UNTHOUGHT = "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n"
_IM = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"


@dataclass(frozen=True)
class ChatFamily:
    """A family of chat models.

    kind, changes: its class in transformers, and what of a tiny one's config stands otherwise than the rest
    special, names: special tokens, and which of them are BOS, EOS and PAD
    ends: what its generation config names as EOS
    end: what ends an assistant's turn
    alone, told: what is written of "What?", and of it after the system text "Be good.", on the pinned day
    """

    kind: str
    special: tuple[str, ...]
    names: dict[str, str]
    template: str
    ends: tuple[str, ...]
    end: str
    alone: str
    told: str
    changes: dict = field(default_factory=dict)


FAMILIES = {
    "qwen3": ChatFamily(
        "qwen3",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        _EACH + "{% if m.role == 'assistant' and loop.last %}<|im_start|>assistant\n<think>\n\n</think>\n\n"
        "{{ m.content }}<|im_end|>\n{% else %}" + _IM + "{% endif %}{% endfor %}{% if add_generation_prompt %}"
        "<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
        ("<|im_end|>", "<|endoftext|>"),
        "<|im_end|>",
        "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n",
    ),
    "llama3": ChatFamily(
        "llama",
        (*_HEADERS, "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        _SPLIT + "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: {{ strftime_now('%d %b %Y') }}\n\n{{ told or '' }}<|eot_id|>{% for m in talk %}"
        "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhat?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\nBe good.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhat?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "gemma3": ChatFamily(
        "gemma3_text",
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
        _SPLIT + "{{ bos_token }}{% for m in talk %}" + _ALTERNATE + "<start_of_turn>"
        "{{ 'model' if m.role == 'assistant' else 'user' }}\n"
        "{% if loop.first and told %}{{ told }}\n\n{% endif %}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ("<eos>", "<end_of_turn>"),
        "<end_of_turn>",
        "<bos><start_of_turn>user\nWhat?<end_of_turn>\n<start_of_turn>model\n",
        "<bos><start_of_turn>user\nBe good.\n\nWhat?<end_of_turn>\n<start_of_turn>model\n",
        {"layer_types": MIXED},
    ),
    "ministral": ChatFamily(
        "mistral",
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        _SPLIT + "{{ bos_token }}{% for m in talk %}" + _ALTERNATE + "{% if m.role == 'user' %}[INST]"
        "{% if loop.last and told %}{{ told }}\n\n{% endif %}{{ m.content }}[/INST]"
        "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        ("</s>",),
        "</s>",
        "<s>[INST]What?[/INST]",
        "<s>[INST]Be good.\n\nWhat?[/INST]",
    ),
    "olmo2": ChatFamily(
        "olmo2",
        ("<|endoftext|>", "<|pad|>"),  # the roles are ordinary text
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>"},
        "{{ bos_token }}" + _EACH + "<|{{ m.role }}|>\n{{ m.content }}"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
        "{{ '' if loop.last and m.role == 'assistant' else '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        ("<|endoftext|>",),
        "<|endoftext|>",
        "<|endoftext|><|user|>\nWhat?\n<|assistant|>\n",
        "<|endoftext|><|system|>\nBe good.\n<|user|>\nWhat?\n<|assistant|>\n",
    ),
    "smollm2": ChatFamily(
        "llama",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are of help.<|im_end|>\n{% endif %}"
        + _EACH + _IM + "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ("<|im_end|>",),
        "<|im_end|>",
        "<|im_start|>system\nYou are of help.<|im_end|>\n<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n",
        {"tie_word_embeddings": True},
    ),
    "smollm3": ChatFamily(
        "smollm3",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"),
        {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
        _SPLIT + "{% set mode = '/no_think' if enable_thinking is false else '/think' %}<|im_start|>system\n"
        "## Metadata\n\nToday Date: {{ strftime_now('%d %B %Y') }}\nReasoning Mode: {{ mode }}\n\n"
        "## Custom Instructions\n\n{{ told or 'You are of help.' }}\n\n<|im_end|>\n{% for m in talk %}"
        "{% if m.role == 'assistant' and enable_thinking is false %}<|im_start|>assistant\n<think>\n\n</think>\n"
        "{{ m.content }}<|im_end|>\n{% else %}" + _IM + "{% endif %}{% endfor %}{% if add_generation_prompt %}"
        "<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n{% endif %}{% endif %}",
        ("<|im_end|>",),
        "<|im_end|>",
        _METADATA + "## Custom Instructions\n\nYou are of help.\n\n<|im_end|>\n" + _UNTHOUGHT,
        _METADATA + "## Custom Instructions\n\nBe good.\n\n<|im_end|>\n" + _UNTHOUGHT,
        {"no_rope_layers": [1, 0]},
    ),
    "phi4_mini": ChatFamily(
        "phi3",
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        _EACH + "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}",
        ("<|end|>", "<|endoftext|>"),
        "<|end|>",
        "<|user|>What?<|end|><|assistant|>",
        "<|system|>Be good.<|end|><|user|>What?<|end|><|assistant|>",
        LONG_ROPE,
    ),
}  # fmt: skip
PRESETS = {  # of conf/model, by what their names begin with
    "qwen3": "qwen3", "llama3_1": "llama3", "llama3_2": "llama3", "gemma3": "gemma3", "ministral": "ministral",
    "olmo2": "olmo2", "smollm2": "smollm2", "smollm3": "smollm3", "phi4_mini": "phi4_mini",
}  # fmt: skip


def family_of(preset: str) -> ChatFamily:
    """The family of a preset of a chat model; raises StopIteration for one that has none here."""
    return FAMILIES[next(family for begin, family in PRESETS.items() if preset.startswith(begin))]


@cache
def chat_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer with a family's special tokens and template."""
    family = FAMILIES[name]
    raw = Tokenizer(models.BPE(unk_token=family.names.get("unk_token")))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(family.special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(SENTENCES, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, **family.names)
    made.chat_template = family.template
    return made


def chat_network(name: str):
    """A tiny random model of a family's class, whose generation config names its ends."""
    family, tokenizer = FAMILIES[name], chat_tokenizer(name)
    ids = tokenizer.convert_tokens_to_ids(list(family.ends))
    special = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=ids, pad_token_id=tokenizer.pad_token_id)
    network = tiny_network(
        family.kind, vocab_size=len(tokenizer), max_position_embeddings=1024, **special, **family.changes
    )
    network.generation_config.eos_token_id = ids
    return network
