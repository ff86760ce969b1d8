"""What every side computes on: a small LLaMA with random weights, questions with two answers, and the settings.

The texts are strings of plain words, drawn from a seed: parity is a matter of tokens and arithmetic, not of content.
An answer begins with a letter after a line break, where a byte-level tokenizer cuts whatever follows, so the official
code's assumption that a prompt is a prefix of prompt + answer holds for every row.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

WORDS = (  # noqa: SIM905 (prose is read more easily)
    "please tell me how to ask answer open close mend paint carry water bread window garden letter friend "
    "neighbour winter never always gladly kindly safe rude plain long short number seven question reason"
).split()
LLAMA = dict(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
)


@dataclass(frozen=True)
class Example:
    """A question and its two answers."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Settings:
    """The training run that every side makes.

    warmup: optimizer steps in which the official schedule, min(1, (step + 1) / (warmup + 1)), rises
    weight: the official margin_loss_weight, which stands inside beta
    """

    pairs: int = 96
    batch: int = 8
    micro_batches: int = 2
    beta: float = 0.1
    weight: float = 0.2
    clamp: float = 40.0
    lr: float = 1.0e-4
    warmup: int = 4
    clip_norm: float = 10.0
    spread: float = 0.3
    seed: int = 0


def examples(count: int, seed: int) -> list[Example]:
    """Different questions, each with two different answers of 3 to 40 words."""
    draw = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(low, high)))

    return [Example(f"{words(3, 12)} {i}?", f"{words(3, 40)}.", f"{words(3, 40)}.") for i in range(count)]


def write_model(folder: Path, texts: list[str], settings: Settings) -> Path:
    """A LLaMA with random weights and a byte-level tokenizer that puts BOS in front, as LLaMA's does."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<s>", "</s>", "<pad>"]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(texts, trainer)
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    names = dict(zip(("bos_token", "eos_token", "pad_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=raw, **names).save_pretrained(folder)

    torch.manual_seed(settings.seed)
    config = LlamaConfig(vocab_size=raw.get_vocab_size(), bos_token_id=0, eos_token_id=1, pad_token_id=2, **LLAMA)
    network = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, settings.spread)
    network.save_pretrained(folder)
    return folder
