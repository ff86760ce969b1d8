"""Tokenizers of every shape that contexts must survive, trained in a moment on a few sentences."""

import json
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = [
    "USER: what is a kind answer to a rude question?\nASSISTANT: A kind answer is calm and short.\n",
    "ASSISTANT(law-abiding, ethical, inoffensive response):\nI would rather not help with that.\n",
    "ASSISTANT(illegal, unethical, toxic response):\nSure, here is how to do it.\n\nFirst, open the door.\n",
    "Question:\nHow do I bake bread?\n\nAnswer:\nMix flour, water, salt and yeast; wait; bake.\n",
    "ask : {text} of {affix} and {system} in braces {} { }\nreply : the braces survive.\n",
]
OWN_TEMPLATES = {"format": "template", "chat_affix": "user", "chat_join": "{text}\n{affix}", "chat_options": {}}
KINDS = ["llama", "gpt2", "qwen", "bare", "metaspace", "no_pad", "added", "chat"]
_BYTE_LEVEL = {  # the special tokens of the byte-level kinds, by their names
    "llama": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    "gpt2": {"bos_token": "<end>", "eos_token": "<end>", "pad_token": "<end>"},
    "qwen": {"eos_token": "<end>", "pad_token": "<pad>"},
    "bare": {},
    "no_pad": {"bos_token": "<s>", "eos_token": "</s>"},
    "added": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    "chat": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
}
_ADDED = ["<|tool|>", "USER", "kind"]  # two of them are words of the texts, as some models add them
# In the manner of ChatML; a system turn is written where there is one, and the first turn must be the user's.
CHAT_TEMPLATE = """{% for message in messages %}\
{% if message['role'] not in ['system', 'user', 'assistant'] %}{{ raise_exception('unknown role') }}{% endif %}\
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


@cache
def tokenizer(kind):
    """A tokenizer in the manner of a model family.

    llama: BOS, EOS and PAD, BOS added by the post-processor. gpt2: one token is BOS, EOS and PAD. qwen: EOS and
    PAD but no BOS. bare: no special token at all. metaspace: SentencePiece-like, a space is put before the text.
    no_pad: BOS and EOS only. added: tokens added after training. chat: a chat template, whose turns begin with BOS.
    """
    if kind == "metaspace":
        return _metaspace()
    names = _BYTE_LEVEL[kind]
    special = list(dict.fromkeys(names.values()))
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    if kind == "llama":
        raw.post_processor = _bos_in_front(raw)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, **names)
    if kind == "added":
        made.add_tokens(_ADDED)
    if kind == "chat":
        made.chat_template = CHAT_TEMPLATE
    return made


def _metaspace():
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    # as in SentencePiece, where a line break is a byte of its own, no merge reaches over one
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Metaspace(prepend_scheme="first", split=True)]
    )
    raw.decoder = decoders.Metaspace(prepend_scheme="first", split=True)
    letters = [chr(c) for c in range(33, 127)] + ["\n"]
    special = ["<unk>", "<s>", "</s>"]
    raw.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=letters, show_progress=False),
    )
    raw.post_processor = _bos_in_front(raw)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def _bos_in_front(raw):
    return processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", raw.token_to_id("<s>"))]
    )


# Chat templates in the manner of model families: special tokens, names, template, and what ends an assistant's turn.
_EACH = "{% for m in messages %}"
_TALKERS = {
    "chatml": (
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        _EACH + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "<|im_end|>",
    ),
    "gemma": (
        ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
        "{{ bos_token }}" + _EACH + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "<end_of_turn>",
    ),
    "llama2": (
        ["<unk>", "<s>", "</s>"],
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        _EACH + "{% if m.role == 'assistant' %} {{ m.content }} {{ eos_token }}"
        "{% else %}{{ bos_token }}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}",
        "</s>",
    ),
    "llama3": (
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        "{{ bos_token }}" + _EACH + "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>"
        "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        "<|eot_id|>",
    ),
    "zephyr": (  # its roles are ordinary text
        ["<s>", "</s>"],
        {"bos_token": "<s>", "eos_token": "</s>"},
        _EACH + "<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        "</s>",
    ),
    "harmony": (  # the last turn ends otherwise than those before it
        ["<|start|>", "<|message|>", "<|end|>", "<|return|>", "<|endoftext|>"],
        {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        _EACH + "<|start|>{{ m.role }}<|message|>{{ m.content }}"
        "{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant<|message|>{% endif %}",
        "<|return|>",
    ),
    "speakers": (  # no token ends a turn
        ["<s>", "</s>"],
        {"bos_token": "<s>", "eos_token": "</s>"},
        _EACH + "{{ m.role }}: {{ m.content }}\n\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
        "</s>",
    ),
}
TALKERS = [*_TALKERS, "marked"]


@cache
def talker(family):
    """A tokenizer with a chat template, and the text that ends its assistant's turns.

    marked: chatml, whose tokens were added as ordinary ones
    """
    special, names, template, end = _TALKERS["chatml" if family == "marked" else family]
    raw = Tokenizer(models.BPE(unk_token=names.get("unk_token")))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    first = [] if family == "marked" else special
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=first, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator(SENTENCES, trainer)
    if family == "marked":
        made = PreTrainedTokenizerFast(tokenizer_object=raw)
        made.add_tokens(special)
    else:
        made = PreTrainedTokenizerFast(tokenizer_object=raw, **names)
    made.chat_template = template
    return made, end


@cache
def llama2():
    """As the fast Llama-2 tokenizer: every text begins with the mark of a space, which decoding takes away again."""
    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    special, letters = ["<unk>", "<s>", "</s>"], [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=520, special_tokens=[*special, *letters], show_progress=False)
    raw.train_from_iterator(SENTENCES, trainer)
    described = json.loads(raw.to_str())
    described["added_tokens"] = [one for one in described["added_tokens"] if one["content"] in special]
    raw = Tokenizer.from_str(json.dumps(described))
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    raw.post_processor = _bos_in_front(raw)
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
