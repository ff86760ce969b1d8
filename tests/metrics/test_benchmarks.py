"""Benchmarks: a small local task gives the answers of a plain log-prob loop, before and after, question by question."""

import json

import pytest
from small_models import byte_level_tokenizer, plain_logp, save_small

from dlma.errors import UserError
from dlma.evaluation.context import EvaluationContext
from dlma.metrics.base import MetricInput
from dlma.metrics.benchmarks import Benchmarks
from dlma.metrics.scores import score_rows
from dlma.model.load import hf_model
from dlma.model.tokens import encode

WORDS = ["red", "blue", "cat", "dog", "sun", "moon", "tree", "lake"]
DOCS = [{"question": f"which is {w}?", "choices": [w, WORDS[i - 1]], "answer": i % 2} for i, w in enumerate(WORDS)]
TASK = """
task: toy
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
OPTIONS = dict(shots=None, limit=None, chat=False, seed=0, batch_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "toy.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    (folder / "toy.yaml").write_text(TASK.format(file=folder / "toy.jsonl"))
    return folder


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    tokenizer = byte_level_tokenizer([doc["question"] for doc in DOCS], 300)
    folders = [save_small(tmp_path_factory.mktemp("m"), tokenizer=tokenizer, seed=seed) for seed in (0, 1)]
    made = [hf_model(path=str(f), revision="main", dtype="float32", bits=None, lora=None) for f in folders]
    return dict(zip(("base", "aligned"), made))


def by_hand(spec, doc):
    """1 where the right choice has the largest log-prob after the question."""
    model = spec.load()
    start = model.tokenizer(doc["question"])["input_ids"]
    whole = [model.tokenizer(f"{doc['question']} {c}")["input_ids"] for c in doc["choices"]]
    found = [plain_logp(model.network, start, ids[len(start) :]).item() for ids in whole]
    return float(found.index(max(found)) == doc["answer"])


def test_every_question_is_answered_as_the_log_probs_have_it_before_and_after(folder, specs):
    bench = EvaluationContext({arm: spec.load for arm, spec in specs.items()}, ["w"], str, None)
    metric = Benchmarks(bench, tasks=["toy"], folder=str(folder), **OPTIONS)
    scores = metric.scores(MetricInput({}, {}, ["base", "aligned"]))
    found = {(s.arm, s.item): s.value for s in scores}
    expected = {(arm, f"toy:{i}"): by_hand(spec, doc) for arm, spec in specs.items() for i, doc in enumerate(DOCS)}
    assert found == expected and len(set(found.values())) == 2

    rows = {(row.metric, row.arm): row for row in score_rows(scores, [vars(column) for column in metric.columns])}
    means = {arm: sum(v for (a, _), v in expected.items() if a == arm) / len(DOCS) for arm in specs}
    assert rows["toy acc", "base"].estimate.value == means["base"]
    assert rows["change/toy acc", "aligned"].estimate.value == pytest.approx(means["aligned"] - means["base"])
    assert rows["toy acc", "base"].unit == "share" and metric.report() == {"left_out": []}


@pytest.mark.parametrize("front", ["", "{{ bos_token }}"])
def test_texts_and_chats_have_the_ids_that_the_tokenizer_gives_them(folder, specs, front):
    bench = EvaluationContext({"base": specs["base"].load}, ["w"], str, None)
    model = specs["base"].load()
    tok = model.tokenizer
    tok.chat_template = front + "{% for m in messages %}{{ m.role }}: {{ m.content }}<eos>{% endfor %}"
    (texts,), (chats,) = (
        [Benchmarks(bench, tasks=["toy"], folder=str(folder), **{**OPTIONS, "chat": chat}).wrapped(model)]
        for chat in (False, True)
    )
    talk = [{"role": "user", "content": "which is red?"}]
    said = chats.apply_chat_template(talk, add_generation_prompt=True)
    ids = tok.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
    assert chats.tok_encode(said) == ids and ids.count(tok.bos_token_id) == (1 if front else 0)
    assert chats.tok_batch_encode([said, said])[0].tolist() == [ids, ids]
    assert texts.tok_encode("which is red?") == tok("which is red?")["input_ids"] == encode(tok, ["which is red?"])[0]


def test_no_task_and_a_folder_that_is_not_there(folder, specs, tmp_path):
    bench = EvaluationContext({"base": specs["base"].load}, ["w"], str, None)
    with pytest.raises(UserError, match="no such folder"):
        Benchmarks(bench, tasks=["toy"], folder=str(tmp_path / "none"), **OPTIONS)
    with pytest.raises(UserError, match="name at least one task"):
        Benchmarks(bench, tasks=[], folder=None, **OPTIONS)


@pytest.mark.slow  # lm-eval's own thousands of task files are read
def test_a_task_that_nobody_knows_is_named(folder, specs):
    bench = EvaluationContext({"base": specs["base"].load}, ["w"], str, None)
    with pytest.raises(UserError, match="knows no toi"):
        Benchmarks(bench, tasks=["toi"], folder=str(folder), **OPTIONS).scores(MetricInput({}, {}, ["base"]))


def test_other_task_files_are_another_measurement(folder, specs):
    bench = EvaluationContext({"base": specs["base"].load}, ["w"], str, None)
    before = Benchmarks(bench, tasks=["toy"], folder=str(folder), **OPTIONS).identity()
    (folder / "note.txt").write_text("x")
    assert Benchmarks(bench, tasks=["toy"], folder=str(folder), **OPTIONS).identity() != before


def test_which_way_is_better_is_what_the_task_says(folder, specs):
    metric = Benchmarks(EvaluationContext({}, ["w"], str, None), tasks=["toy"], folder=str(folder), **OPTIONS)
    higher = {"acc": True, "wer": False, "word_perplexity": False}
    sample = {"filter": "strict", "doc_id": 0, "metrics": ["acc", "wer", "word_perplexity"], "acc": 1.0, "wer": 0.2}
    scores = metric._sample("base", "toy", {**sample, "word_perplexity": 9.0}, higher)
    better = {score.metric: metric._column(score.metric, [score.value]).better for score in scores}
    assert better == {
        "toy acc (strict)": "higher",
        "toy wer (strict)": "lower",
        "toy word_perplexity (strict)": "lower",
    }
