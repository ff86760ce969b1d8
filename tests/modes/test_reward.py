"""mode=reward and what is measured by it: one command, its accuracy recounted, its rewards worked out without dlma."""

import csv
import json
import math

import pyarrow.parquet as pq
import pytest
import torch
from hh_file import QUESTIONS, write_model, write_pairs
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dlma.app import main
from dlma.data.split import split_of
from dlma.data.text import prompt_id
from dlma.records import Turn

SHARES = ["data.validation_share=0.5"]
SMALL = ["recipe=small_lora", "recipe.dtype=float32", "recipe.max_new_tokens=16", "store.root=store"]
TRAINING = [
    "recipe.lora.rank=2",
    "recipe.reward.lr=0.02",
    "recipe.reward.batch_pairs=4",
    "recipe.reward.optim.warmup=1",
]
MEASURED = ["method=base", "judges=[]", "metrics=[trained_reward]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two small models and pairs of people."""
    folder = tmp_path_factory.mktemp("reward")
    write_model(folder / "model")
    write_model(folder / "other", seed=1)
    write_pairs(folder / "hh.jsonl.gz")
    return folder


@pytest.fixture
def command(place, monkeypatch):
    """Runs dlma there on the pairs of people; returns the exit code."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*options, model="model", shares=SHARES):
        return main([f"model.path={model}", "model=hf", "data=hh", "data.path=hh.jsonl.gz", *SMALL, *shares, *options])

    return run


@pytest.fixture
def trained(place, command):
    """The folder of the run that trained it; trained at the first use."""
    if not (place / "outputs" / "rm").is_dir():
        assert command("mode=reward", "name=rm", *TRAINING) == 0
    return place / "outputs" / "rm"


def rows_of(folder):
    return {row["metric"]: row for row in csv.DictReader((folder / "metrics.csv").open())}


def splits():
    """The split of each question, by its id, as the data options give it."""
    ids = [prompt_id([Turn("user", question)]) for question in QUESTIONS]
    return {name: split_of(name, validation_share=0.5, test_share=0.2) for name in ids}


def test_the_accuracy_is_a_recount_of_the_written_rewards(trained):
    about, rewards = json.loads((trained / "reward" / "reward.json").read_text()), rows_of(trained)
    found = pq.read_table(trained / "rewards.parquet").to_pylist()
    points = [0.5 if row["positive"] == row["negative"] else float(row["positive"] > row["negative"]) for row in found]
    assert about["pairs"] == len(points) >= 5
    assert about["accuracy"] == pytest.approx(sum(points) / len(points))
    line = rewards["base/agreement/reward"]
    assert [float(line[name]) for name in ("mean", "low", "high")] == [about[n] for n in ("accuracy", "low", "high")]
    assert about["longer"] == float(rewards["base/agreement/longer"]["mean"])
    assert f"{100 * about['accuracy']:.1f} % [" in (trained / "reward" / "README.md").read_text()


def test_it_learned_from_the_validation_prompts_and_was_tested_on_the_test_prompts(trained, place):
    about, of = json.loads((trained / "reward" / "reward.json").read_text()), splits()
    assert about["learned"] and {of[name] for name in about["learned"]} == {"validation"}
    tables = [pq.read_table(path).to_pylist() for path in place.glob("store/pairs/*/rows.parquet")]
    asked = [{row["prompt_id"] for row in table} for table in tables]
    assert set(about["learned"]) in asked
    held_out = next(rows for rows in asked if rows != set(about["learned"]))
    assert {of[name] for name in held_out} == {"test"} and len(held_out) == about["pairs"]


def test_what_is_handed_out_is_an_adapter_and_a_head(trained):
    folder = trained / "reward"
    held = {path.name for path in folder.iterdir()}
    assert held == {
        *("adapter_config.json", "adapter_model.safetensors", "reward_head.safetensors"),
        *("reward.json", "settings.yaml", "README.md"),
    }
    shapes = {name: value.shape for name, value in load_file(folder / "adapter_model.safetensors").items()}
    assert all(2 in shape for shape in shapes.values()) and len(shapes) == 2 * 2 * 7  # layers, A and B, linear maps
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert 4 * (sum(map(math.prod, shapes.values())) + 33) < size < 20_000


def test_the_same_command_again_computes_nothing(trained, place, command):
    before = {path: path.read_bytes() for path in (trained / "reward").iterdir()}
    times = {path: path.stat().st_mtime_ns for path in place.glob("store/*/*/manifest.json")}
    assert command("mode=reward", "name=rm", *TRAINING) == 0
    assert {path: path.read_bytes() for path in (trained / "reward").iterdir()} == before
    assert {path: path.stat().st_mtime_ns for path in place.glob("store/*/*/manifest.json")} == times


def rewards_without_dlma(place, folder, rows):
    """The reward of each answer: transformers' model, PEFT's adapter, one row at a time, and the head's dot product."""
    network = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(place / "model"), str(folder)).eval()
    tokenizer, head = AutoTokenizer.from_pretrained(place / "model"), load_file(folder / "reward_head.safetensors")
    found = []
    for question, ids in rows:
        context = tokenizer(f"USER: {question}\nASSISTANT:\n")["input_ids"]
        with torch.no_grad():
            out = network(input_ids=torch.tensor([context + ids]), output_hidden_states=True)
        found.append((out.hidden_states[-1][0, -1] @ head["weight"][0] + head["bias"][0]).item())
    return found


def test_the_rewards_of_peoples_answers_are_those_at_their_eos(trained, place):
    rewards = pq.read_table(trained / "rewards.parquet").to_pylist()
    known = {r["id"]: r for path in place.glob("store/pairs/*/rows.parquet") for r in pq.read_table(path).to_pylist()}
    pairs = [known[row["id"]] for row in rewards]
    eos = AutoTokenizer.from_pretrained(place / "model").eos_token_id
    for side in ("positive", "negative"):
        assert {pair[f"{side}_ids"][-1] for pair in pairs} == {eos}
        rows = [(pair["question"], pair[f"{side}_ids"]) for pair in pairs]
        wanted = rewards_without_dlma(place, trained / "reward", rows)
        assert [row[side] for row in rewards] == pytest.approx(wanted, abs=1e-4)


def test_a_run_is_measured_by_it_as_without_dlma(trained, place, command, capsys):
    folder = trained / "reward"
    assert command(*MEASURED, f"metrics.trained_reward.path={folder}", "name=measured") == 0
    values = pq.read_table(place / "outputs" / "measured" / "metric_values.parquet").to_pylist()
    ours = {(row["arm"], row["item"]): row["value"] for row in values if row["metric"] == "trained_reward"}
    answers = [r for path in place.glob("store/answers/*/rows.parquet") for r in pq.read_table(path).to_pylist()]
    assert {row["arm"] for row in answers} == {"base", "prompted"}
    wanted = rewards_without_dlma(place, folder, [(row["question"], row["ids"]) for row in answers])
    assert len(set(wanted)) > 2 and len(ours) == len(answers)
    assert [ours[row["arm"], row["prompt_id"]] for row in answers] == pytest.approx(wanted, abs=1e-4)
    mean = [value for row, value in zip(answers, wanted, strict=True) if row["arm"] == "base"]
    line = rows_of(place / "outputs" / "measured")["base/trained_reward"]
    assert float(line["mean"]) == pytest.approx(sum(mean) / len(mean), abs=1e-4)
    about = json.loads((folder / "reward.json").read_text())
    assert f"right on {100 * about['accuracy']:.1f} % [" in capsys.readouterr().out


def test_prompts_that_it_learned_from_are_refused_before_anything_is_computed(trained, place, command, capsys):
    about, of = json.loads((trained / "reward" / "reward.json").read_text()), splits()
    path = f"metrics.trained_reward.path={trained / 'reward'}"
    others = ["data.validation_share=0.1", "data.test_share=0.4", "store.root=fresh"]
    assert command(*MEASURED, path, "name=seen", shares=others) == 2
    now = [split_of(name, validation_share=0.1, test_share=0.4) for name in about["learned"]]
    assert min(now.count("test"), now.count("train")) > 0 and len(of) == len(QUESTIONS)
    said = f"learned from {now.count('test')} test and {now.count('train')} train prompts of this run"
    assert said in capsys.readouterr().err
    assert {path.parent.parent.name for path in place.glob("fresh/*/*/manifest.json")} == {"prompts"}


def test_another_base_is_refused(trained, command, capsys):
    path = f"metrics.trained_reward.path={trained / 'reward'}"
    assert command(*MEASURED, path, "name=other", model="other") == 2
    assert "trained on other weights (model)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["recipe=small_full"], "adapter=lora"),
        (["data.validation_share=0"], "no validation prompt with a usable human pair"),
        (["scored.path=x.parquet"], "the pairs that come with the prompts"),
        (["mode.split=test"], "must be one of validation, train"),
        (["mode.nodes.pairs.path=x.jsonl"], "the pairs that come with the prompts"),
    ],
)
def test_what_cannot_be_trained_is_one_line(options, said, command, capsys):
    assert command("mode=reward", *options) == 2
    assert said in capsys.readouterr().err
