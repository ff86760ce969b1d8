"""A small set of instructions with answers, a model that reads them, and instruction tuning on it, for tests."""

from small_models import byte_level_tokenizer, small_network

from dlma.data.alpaca import Alpaca
from dlma.data.corpus import Corpus
from dlma.model.language import LanguageModel
from dlma.records import Prompt, Turn
from dlma.sft import InstructionTuning, Template

BEGIN = "BEGINNING OF CONVERSATION: "
TEMPLATE = Template(begin=BEGIN, user="USER: {text} ", assistant="ASSISTANT:")
VERBS = ["bake", "mend", "draw", "find", "wash", "fold"]
THINGS = ["a cake", "the lamp", "my boat", "an old door", "one shoe"]
ROWS = [
    {"instruction": f"How do I {verb}?", "input": thing, "output": f"To {verb} {thing}, go slowly."}
    for verb in VERBS
    for thing in THINGS
]
OPTIONS = {
    "optimizer": "adamw",
    "lr": 1e-3,
    "schedule": "cosine",
    "warmup_share": 0.1,
    "weight_decay": 0.0,
    "clip_norm": 1.0,
    "epochs": 1,
    "batch_size": 8,
    "seed": 0,
}


def texts():
    return [f"{BEGIN}USER: {row['instruction']} {row['input']} ASSISTANT:{row['output']}" for row in ROWS]


def tiny_model():
    tokenizer = byte_level_tokenizer(texts(), 330)
    return LanguageModel(small_network(vocabulary=len(tokenizer)), tokenizer, "tiny")


def corpus(path, max_dropped=0.5):
    shares = {
        "only": None,
        "every_pair": False,
        "validation_share": 0.0,
        "test_share": 0.1,
        "on_bad_row": "drop",
        "max_dropped": max_dropped,
    }
    where = {"path": str(path), "revision": "main", "subset": None, "hub_split": "train"}
    return Corpus(**where, format=Alpaca(), max_words=None, max_prompts=None, **shares)


def rule(model, max_tokens=200, data=None, **changes):
    data = data or corpus("unused.jsonl")
    return InstructionTuning(model, data=data, template=TEMPLATE, max_tokens=max_tokens, **{**OPTIONS, **changes})


def prompt(text="How?", chosen="So.", turns=None):
    return Prompt("id", turns or [Turn("user", text)], "train", chosen=chosen)
