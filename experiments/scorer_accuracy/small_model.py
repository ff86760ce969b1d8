"""A small untrained model with a byte-level tokenizer of its own, for running `experiment=scorer_accuracy_hh` anywhere.

It knows nothing, so its self-reward must agree with people no better than chance:
    python experiments/scorer_accuracy/small_model.py FILE.jsonl.gz FOLDER
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path


def build(corpus: Path, folder: Path) -> None:
    """A tokenizer trained on the corpus, and a two-layer Llama with random weights."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    with gzip.open(corpus, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["chosen"] for line in lines]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special, alphabet = ["<bos>", "<eos>", "<pad>"], pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=2000, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=2048, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
