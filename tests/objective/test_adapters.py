"""Runs that train adapters: by one override, on a whole or a four-bit base, killed and resumed to the same bytes."""

import json

import pyarrow.parquet as pq
import pytest
from small_models import byte_level_tokenizer, save_small

from dlma.app import main
from dlma.evaluation.answers import Answers
from dlma.objective.dpo import DPO

QUESTIONS = [f"how do i fix the {thing} number {i}?" for i, thing in enumerate(["lamp", "door", "cake", "boat"] * 10)]
QUICK = [f"recipe.{value}" for value in ("max_new_tokens=6", "batch_pairs=4", "lr=1e-2")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_small(folder / "model", tokenizer=byte_level_tokenizer(QUESTIONS, 300), context=512)
    (folder / "p.jsonl").write_text("".join(json.dumps({"prompt": q}) + "\n" for q in QUESTIONS))
    return folder


@pytest.fixture
def run(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*words, store):
        base = ["model=hf", f"model.path={place / 'model'}", "data=jsonl", f"data.path={place / 'p.jsonl'}", *QUICK]
        assert main([*base, *words, f"store.root={store}", "name=here"]) == 0
        return tmp_path / "outputs" / "here"

    return call


class Killed(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_adapters_resume_to_the_same_bytes(run, place, monkeypatch, adapter):
    before = {path.name: path.read_bytes() for path in (place / "model").iterdir()}
    record = DPO.record

    def dying(self, *rest):
        if self.global_step == 3:
            raise Killed
        record(self, *rest)

    words = (f"adapter={adapter}", "trainer.checkpoint_steps=2")
    straight = (run(*words, store="one") / "policy" / "adapter_model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(DPO, "record", dying)
        with pytest.raises(Killed):
            run(*words, store="two")
    folder = run(*words, store="two")
    assert (folder / "policy" / "adapter_model.safetensors").read_bytes() == straight
    assert not (folder / "policy" / "model.safetensors").exists()
    assert {path.name: path.read_bytes() for path in (place / "model").iterdir()} == before


@pytest.fixture
def pointers(monkeypatch):
    """Where the embeddings of the policy and of the base lie, of all answers that are sampled."""
    seen, predict = [], Answers.predict_step

    def noted(self, shard, index):
        models = (self.model, self.base.model)
        seen.append([model.causal.get_input_embeddings().weight.data_ptr() for model in models])
        return predict(self, shard, index)

    monkeypatch.setattr(Answers, "predict_step", noted)
    return seen


def test_a_four_bit_base_is_a_model_of_its_own(run, pointers):
    """It samples, scores and is the reference: no stage after the contexts is shared with the whole base.

    Under either, policy and base are the same weights in memory, with and without the adapter.
    """
    folders = [run(f"adapter={adapter}", store="both") for adapter in ("lora", "qlora")]
    counts = json.loads((folders[1] / "status.json").read_text())["result"]["counts"]
    assert counts["reused"] == {"prompts": 1, "contexts": 2}
    rows = pq.read_table(folders[1] / "scored.parquet").to_pylist()
    assert all(row["positive_reference"] < 0 for row in rows)
    assert len(pointers) == 6 and all(policy == base for policy, base in pointers)
