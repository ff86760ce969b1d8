"""Small models built from their configs, and an independent log-prob: one sequence, one plain loop."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from dlma.model.language import LanguageModel

VOCABULARY = 40

_WIDTH = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
_GROUPED = dict(**_WIDTH, intermediate_size=48, num_key_value_heads=2)
_WINDOW = 6  # shorter than the rows of the tests
_SIZES = {
    "llama": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": dict(**_GROUPED, head_dim=8),
    "gpt2": dict(n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "gpt_neox": dict(**_WIDTH, intermediate_size=64),
    "mistral": dict(**_GROUPED, sliding_window=_WINDOW),
    "bloom": dict(hidden_size=32, n_layer=2, n_head=4),
    "gemma2": dict(**_GROUPED, head_dim=8, sliding_window=_WINDOW),
    "gemma3_text": dict(**_GROUPED, head_dim=8, sliding_window=_WINDOW, sliding_window_pattern=2),
    "phi3": _GROUPED,
    "opt": dict(**_WIDTH, ffn_dim=48, word_embed_proj_dim=32),
}
ALL_SHAPES = list(_SIZES)
FOUR_SHAPES = ["llama", "gpt2", "qwen2", "gpt_neox"]


def small_tokenizer(vocabulary=VOCABULARY):
    """A byte-less toy tokenizer: one word per id, with BOS, EOS and PAD."""
    words = {"<bos>": 0, "<eos>": 1, "<pad>": 2, **{f"w{i}": i for i in range(3, vocabulary)}}
    raw = Tokenizer(models.WordLevel(words, unk_token="w3"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    _bos_in_front(raw, "<bos>")
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def _bos_in_front(raw, bos):
    """As most tokenizers that have a BOS: the tokenizer itself puts it before a text."""
    raw.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, raw.token_to_id(bos))]
    )


def byte_level_tokenizer(texts, vocabulary=600, special=("<bos>", "<eos>", "<pad>")):
    """A byte-level BPE trained on `texts`, with BOS, EOS and PAD, or without any special token."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    if special:
        _bos_in_front(raw, special[0])
    names = dict(zip(("bos_token", "eos_token", "pad_token"), special))
    return PreTrainedTokenizerFast(tokenizer_object=raw, **names)


def small_network(kind="llama", vocabulary=VOCABULARY, seed=0, spread=0.3, context=256, special=(0, 1, 2), tied=None):
    """A random model of that architecture, with weights large enough that logits differ.

    tied: whether embedding and head share their weights; None: as the architecture has it
    """
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        kind,
        vocab_size=vocabulary,
        bos_token_id=special[0],
        eos_token_id=special[1],
        pad_token_id=special[2],
        **({} if kind in ("gpt2", "bloom") else {"max_position_embeddings": context}),
        **({} if tied is None else {"tie_word_embeddings": tied}),
        **_SIZES[kind],
    )
    network = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, spread)
    return network


def small_model(kind="llama", **options):
    """A LanguageModel around a small network."""
    tokenizer = small_tokenizer(options.get("vocabulary", VOCABULARY))
    return LanguageModel(small_network(kind, **options), tokenizer, kind)


def plain_logp(network, context, response):
    """log pi(response | context), token by token, one forward pass per token: no shift to get wrong."""
    total = torch.zeros((), dtype=torch.float64)
    ids = list(context)
    for token in response:
        logits = network(torch.tensor([ids])).logits[0, -1].double()
        total = total + logits.log_softmax(-1)[token]
        ids.append(token)
    return total


def save_small(folder, kind="llama", tokenizer=None, vocabulary=VOCABULARY, **options):
    """Write a small model and tokenizer in Hugging Face format; returns the folder."""
    tokenizer = tokenizer or small_tokenizer(vocabulary)
    small_network(kind, vocabulary=len(tokenizer), **options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
