"""Relevance: embeddings equal a plain loop whatever stands beside a text, and answers off the topic or empty show."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from source_tree import ROOT
from tiny_wheels import write_wheel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from dlma import wheels
from dlma.config.build import build
from dlma.evaluation.context import EvaluationContext
from dlma.metrics.base import MetricInput
from dlma.metrics.relevance import Relevance, SentenceEmbedder
from dlma.records import Answer

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *["a", "b", "c", "d", "e", "f", "[", "]", "SEP"]]
NAMES = ("config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small BERT with random weights, as the files of a model."""
    place = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    shape = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32)
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **shape)).save_pretrained(place)
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    raw.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    raw.save(str(place / "tokenizer.json"))
    return place


def embedder(folder, batch=2):
    return SentenceEmbedder({name: folder / name for name in NAMES}, max_tokens=8, batch=batch)


def alone(folder, ids):
    """One text's embedding, with nothing beside it."""
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(input_ids=torch.tensor([ids])).last_hidden_state[0]
    mean = sum(states) / len(ids)
    return mean / mean.dot(mean).sqrt()


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_an_embedding_is_the_mean_of_a_texts_own_states_whatever_stands_beside_it(folder, batch):
    texts = ["a b c d e", "", "f", "a b c d e f a b", "b"]
    ids = [[1, 4, 5, 6, 7, 8, 2], [1, 2], [1, 9, 2], [1, 4, 5, 6, 7, 8, 9, 2], [1, 5, 2]]  # the longest is cut to 8
    used = embedder(folder, batch)
    found = used.embed(texts)
    assert torch.allclose(found, torch.stack([alone(folder, row) for row in ids]), atol=1e-6)
    assert used.cut == 1


def test_a_special_token_that_a_text_spells_out_is_text(folder):
    used = embedder(folder)
    assert used.tokenizer.encode("a [SEP] b").ids[1:-1] == [4, 10, 12, 11, 5]


def metric(folder, tmp_path, monkeypatch):
    """The metric over a wheel that holds these files, at hand in a cache of its own."""
    monkeypatch.setenv("DLMA_CACHE", str(tmp_path / "cache"))
    content = {name: (folder / name).read_bytes() for name in NAMES}
    wheel = write_wheel(tmp_path, {f"m/{name}": some for name, some in content.items()})
    wheel.place.parent.mkdir(parents=True)
    (found,) = tmp_path.glob("*.whl")
    shutil.move(found, wheel.place)
    digests = {name: hashlib.sha256(some).hexdigest() for name, some in content.items()}
    bench = EvaluationContext({}, [], str, None)
    return Relevance(bench, wheel=wheel, folder="m", sha256=digests, max_tokens=8)


def scene(rows):
    answers = [Answer(f"p{i}", "base", q, None, text, [], True, 0, 0, 0) for i, (q, text) in enumerate(rows)]
    return MetricInput({"base": answers}, {}, ["base"])


def test_the_value_is_the_cosine_with_the_prompt_and_0_for_no_answer(folder, tmp_path, monkeypatch):
    made = metric(folder, tmp_path, monkeypatch)
    found = [s.value for s in made.scores(scene([("a b", "a b"), ("a b", "c"), ("a b", " \n"), ("d", "")]))]
    assert found[0] == pytest.approx(1, abs=1e-6) and found[2:] == [0.0, 0.0]
    assert found[1] == pytest.approx(float(alone(folder, [1, 4, 5, 2]) @ alone(folder, [1, 6, 2])), abs=1e-6)
    assert made.report() == {"cut": 0}


# The embedder itself


@pytest.fixture(scope="module")
def real():
    """The metric of conf/metrics/relevance.yaml, where its wheel is at hand."""
    node = yaml.safe_load((ROOT / "conf" / "metrics" / "relevance.yaml").read_text())["relevance"]
    (wheel,) = wheels.in_values(node)
    if not wheel.at_hand:
        pytest.skip(f"{wheel} is not at hand: python run.py mode=fetch metrics=relevance")
    return build(node, EvaluationContext({}, [], str, Path(os.devnull)))


def files_of(real, folder):
    for name, digest in real.sha256.items():
        shutil.copy(real.wheel.file(f"{real.folder}/{name}", digest), folder / name)
    return folder


@pytest.mark.slow
def test_the_similarities_are_those_that_its_authors_publish(real, tmp_path):
    """sentence-transformers' quickstart prints them for this model."""
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    used = SentenceEmbedder({name: files_of(real, tmp_path) / name for name in NAMES}, max_tokens=256, batch=32)
    found = used.embed(texts)
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    assert torch.allclose(found @ found.T, torch.tensor(published), atol=1e-4)


@pytest.mark.slow
def test_the_embeddings_are_those_of_the_cards_own_loop(real, tmp_path):
    folder = files_of(real, tmp_path)
    texts = ["Write a note.", "", "naïve café 7 🙂 " * 200, "x"]
    used = SentenceEmbedder({name: folder / name for name in NAMES}, max_tokens=256, batch=2)
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for text, mine in zip(texts, used.embed(texts), strict=True):
        ids = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = network(**ids).last_hidden_state[0].mean(dim=0)
        assert torch.allclose(mine, mean / mean.norm(), atol=1e-5)


OWN = {
    "Write a short note that thanks a neighbour for watering the plants.": "Dear Anna, thank you so much for looking "
    "after my plants while I was away. They have never looked greener!",
    "Describe the first day of snow in a small town.": "By morning the roofs had gone white, children pulled sledges "
    "down the main street, and the baker swept flakes from his door.",
    "Explain how to keep bread fresh.": "Wrap the loaf in a linen cloth, store it in a bread box, and freeze slices "
    "that you will not eat within two days.",
    "Make a packing list for a weekend by the sea.": "Swimsuit, towel, sun cream, a light jacket for the evening, "
    "sandals, and a book for the beach.",
    "Write a birthday greeting for a colleague.": "Happy birthday, Sam! All of us in the office wish you a year full "
    "of good projects and even better cake.",
    "Give three tips for learning to ride a bicycle.": "Lower the saddle so both feet reach the ground, practise "
    "gliding on a gentle slope, and look ahead, not at the wheel.",
    "Write the opening of a story about a lighthouse keeper.": "Every evening old Tomas climbed the hundred and "
    "twelve steps, lit the lamp, and listened to the sea below the tower.",
    "Suggest a simple soup for a cold evening.": "Fry an onion, add carrots, potatoes and stock, simmer until soft, "
    "then blend it with a spoon of cream and some pepper.",
}


@pytest.mark.slow
def test_an_answer_to_another_prompt_scores_lower_than_ones_own_and_a_refusal_shows(real):
    questions, answers = list(OWN), list(OWN.values())
    values = {}
    for shift in range(len(questions)):
        rows = [(question, answers[(i + shift) % len(answers)]) for i, question in enumerate(questions)]
        values[shift] = [s.value for s in real.scores(scene(rows))]
    for i, own in enumerate(values[0]):
        assert all(values[shift][i] < own for shift in range(1, len(questions)))
    refused = [s.value for s in real.scores(scene([(q, "I cannot help with that.") for q in questions]))]
    assert all(low < own for low, own in zip(refused, values[0], strict=True))
