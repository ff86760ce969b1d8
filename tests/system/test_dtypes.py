"""A whole run whose types are left to the machine, R in another type than the training."""

import gzip
import json

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from small_models import save_small
from toy_tokenizers import SENTENCES, tokenizer

from dlma import records
from dlma.app import main
from dlma.model import compute_dtype
from dlma.model.engine import Engine
from dlma.model.load import hf_model
from dlma.model.trees import Completion
from dlma.records import ScoredPair

pytestmark = pytest.mark.slow
RATES = {"float32": 1e9, "bfloat16": 2e9}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The run's folder and what it said; products in bfloat16 are told to be twice as fast."""
    place = tmp_path_factory.mktemp("dtypes")
    tok = tokenizer("gpt2")
    special = (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id)
    save_small(place / "model", "llama", tokenizer=tok, special=special, context=512)
    with gzip.open(place / "hh.jsonl.gz", "wt") as out:
        for i in range(24):
            turns = f"\n\nHuman: {SENTENCES[i % 5][:40].strip()} {i}?\n\nAssistant: "
            out.write(json.dumps({"chosen": turns + "a kind answer", "rejected": turns + "a rude answer"}) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLMA_CACHE", str(place / "cache"))
        patch.setattr(compute_dtype, "timed", lambda shapes, dtype, threads: RATES[dtype])
        assert main(words(place)) == 0
    return place


def words(place):
    quick = ["recipe.max_new_tokens=6", "recipe.batch_pairs=8", "recipe.score_dtype=float32"]
    paths = [f"model.path={place / 'model'}", f"data.path={place / 'hh.jsonl.gz'}", f"store.root={place / 'store'}"]
    return ["model=hf", "data=hh", "recipe=small_lora", f"hydra.run.dir={place / 'run'}", *paths, *quick]


def test_the_type_itself_stands_in_the_config_and_in_the_keys(ran):
    config = yaml.safe_load((ran / "run" / "config.yaml").read_text())
    assert config["recipe"]["dtype"] == config["model"]["dtype"] == "bfloat16"
    manifests = [json.loads(path.read_text()) for path in (ran / "store").glob("*/*/manifest.json")]
    types = {(one["name"], one["values"]["dtype"]) for one in manifests if "dtype" in one["values"]}
    assert {("pairs", "bfloat16"), ("answers", "bfloat16"), ("policy", "bfloat16")} <= types
    assert {dtype for name, dtype in types if name == "token_rewards"} == {"float32"}
    assert {dtype for name, dtype in types if name == "scored"} == {"float32", "bfloat16"}  # R, then the reference
    assert "auto" not in {dtype for _, dtype in types}


def test_the_engines_lines_say_why(ran):
    notes = [json.loads(path.read_text())["notes"] for path in (ran / "store").glob("*/*/manifest.json")]
    lines = {engine["chosen"] for one in notes for engine in _engines(one.get("engine", {}))}
    assert any("bfloat16 (auto: float32 1, bfloat16 2 GFLOP/s)" in line for line in lines)
    assert any("float32 (recipe.score_dtype)" in line for line in lines)


def _engines(node):
    if "chosen" in node:
        return [node]
    return [found for value in node.values() if isinstance(value, dict) for found in _engines(value)]


def test_r_is_of_its_own_type_and_the_reference_of_the_trainings(ran):
    pairs = records.from_table(ScoredPair, pq.read_table(ran / "run" / "scored.parquet"))
    options = dict(path=str(ran / "model"), revision="main", bits=None, lora=None)
    exact, rounded = (Engine(hf_model(dtype=d, **options).load()) for d in ("float32", "bfloat16"))
    answers = [(pair.positive_ids, pair.negative_ids) for pair in pairs]
    contexts = [(pair.positive_context_ids, pair.negative_context_ids) for pair in pairs]
    groups = [[Completion(c, a) for c in both for a in two] for both, two in zip(contexts, answers, strict=True)]
    wanted = [pp - pn - (np - nn) for pp, np, pn, nn in exact.score(groups)]
    torch.testing.assert_close(torch.tensor([p.margin for p in pairs]), torch.tensor(wanted), rtol=0, atol=1e-4)
    plain = [[Completion(pair.plain_context_ids, a) for a in two] for pair, two in zip(pairs, answers, strict=True)]
    reference = torch.tensor([[pair.positive_reference, pair.negative_reference] for pair in pairs])
    torch.testing.assert_close(reference, torch.tensor(rounded.score(plain)), rtol=0, atol=2e-2)
    far = (reference - torch.tensor(exact.score(plain))).abs().max()
    assert far > 10 * (reference - torch.tensor(rounded.score(plain))).abs().max()


def test_a_later_start_measures_nothing_and_computes_nothing(ran, monkeypatch, capsys):
    def never(shapes, dtype, threads):
        raise AssertionError("nothing is to be measured")

    monkeypatch.setenv("DLMA_CACHE", str(ran / "another"))
    monkeypatch.setattr(compute_dtype, "timed", never)
    assert main(words(ran)) == 0
    assert json.loads((ran / "run" / "status.json").read_text())["result"]["counts"]["run"] == {}
