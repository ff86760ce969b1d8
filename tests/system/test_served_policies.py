"""Runs whose policies are answered by servers: whole weights by one that is started, and what a dead server costs."""

import json
import sys

import psutil
import pyarrow.parquet as pq
import pytest
from small_models import save_small, small_tokenizer
from small_server import SmallServer
from source_tree import ROOT
from transformers import AutoModelForCausalLM

from dlma.functional.noise import row_key
from dlma.sampler import choice

SMALL = ["recipe.max_new_tokens=6", "recipe.epochs=1", "recipe.batch_pairs=4", "name=served", "sampler.first_wait=0.01"]


@pytest.fixture
def words(tmp_path):
    """A run on a small model and prompts of its own."""
    save_small(tmp_path / "model", tokenizer=small_tokenizer(40), context=256, spread=0.6)
    rows = [{"prompt": f"w{3 + i} w{5 + i % 9} w{7 + i % 5} ?"} for i in range(20)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["model=hf", f"model.path={tmp_path / 'model'}", "data=jsonl", f"data.path={tmp_path / 'p.jsonl'}"]
    return ["sampler=server", *data, *SMALL]


@pytest.mark.slow
def test_each_stage_starts_a_server_with_its_own_weights_and_the_server_is_gone(run_main, words, tmp_path):
    quick = f"{sys.executable} -ES {ROOT / 'tests' / 'kit' / 'quick_server.py'}"
    start = f"{quick} --model {{model}} --port {{port}} --log {tmp_path / 'starts'}"
    ran = run_main(*words, f"sampler.start='{start}'", "iterations=2")
    assert ran.code == 0, ran.err
    outputs, store = ran.folder / "outputs" / "served", ran.folder / "store"
    started = [line.split() for line in (tmp_path / "starts").read_text().splitlines()]
    base, policies = str(tmp_path / "model"), {f"{path / 'policy'}" for path in (store / "policy").glob("*")}
    assert len(policies) == 2
    # pairs by the base, then by the first policy; answers by the base, the prompted base and the last policy
    folders = [folder for _, _, folder in started]
    assert [folder == base for folder in folders] == [True, False, True, True, False]
    assert {folders[1], folders[4]} == policies
    assert not any(psutil.pid_exists(int(pid)) for pid, _, _ in started)
    assert (outputs / "server.log").read_text().count("--port") == 5
    for row in pq.read_table(outputs / "answers.parquet").to_pylist():
        assert row["finished"]
    again = run_main(*words, f"sampler.start='{start}'", "iterations=2")
    assert again.code == 0 and len((tmp_path / "starts").read_text().splitlines()) == 5  # nothing is to be sampled


@pytest.mark.slow
def test_a_server_that_dies_in_mid_stage_costs_one_shard(run_main, words, tmp_path):
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    served = [*words, "adapter=lora", "recipe.lora.rank=4", "trainer.shard_rows=4", "sampler.tries=2"]
    with SmallServer(network, updating=True, dies=12) as dead:
        ran = run_main(*served, f"sampler.urls=[{dead.url}]")
    assert ran.code == 2 and ran.err.count("error: ") == 1 and "no usable answer in 2 tries" in ran.err
    shards = [*(ran.folder / "store" / "pairs").glob("*.partial/scratch/*/shard-*.parquet")]
    kept = [row["prompt_id"] for path in shards for row in pq.read_table(path).to_pylist()]
    assert len(shards) == 1 and len(kept) == 4  # of eight answers each
    with SmallServer(network, updating=True) as living:
        ran = run_main(*served, f"sampler.urls=[{living.url}]")
    assert ran.code == 0, ran.err
    asked = {body["seed"] for body, _ in living.asked}
    seeds = {row_key(0, one, side, 0) % 2**31 for one in kept for side in ("positive", "negative")}
    assert not asked & seeds and not living.adapters


@pytest.mark.slow
def test_rollouts_of_ppo_come_from_the_adapter_as_it_is_then(run_main, words, tmp_path):
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ppo = [
        "objective=ppo",
        "objective.sampler=${sampler}",
        "adapter=lora",
        "recipe.lora.rank=4",
        "recipe.reward.epochs=1",
    ]
    sizes = ["recipe.ppo.rollouts=2", "recipe.ppo.rollout=4", "recipe.ppo.batch=4", "recipe.ppo.epochs=1"]
    with SmallServer(network, updating=True) as server:
        ran = run_main(*words, *ppo, *sizes, f"sampler.urls=[{server.url}]")
    assert ran.code == 0, ran.err
    loads = [body for what, body in server.changes if what == "load_lora_adapter" and body["lora_path"]]
    rollouts = [body["lora_name"] for body in loads if "scratch" in body["lora_path"]]
    asked = [body["model"] for body, _ in server.asked]
    assert len(rollouts) == 2 and [asked.count(name) for name in rollouts] == [4, 4]
    assert len(loads) == 3 and not server.adapters  # the third answers the held-out prompts


def test_a_servers_command_is_in_the_key_and_what_is_secret_in_it_is_not_written():
    def key(start, urls=None):
        node = {
            "_target_": "dlma.sampler.server.ServerSampler",
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "max_new_tokens": 8,
        }
        return choice.key(node | {"served": None, "extra": None, "urls": urls, "start": start}, trained=False)

    plain, packed = "vllm serve {model} --port {port}", "vllm serve {model} --port {port} --quantization fp8"
    assert key(plain) != key(packed) != key(None) == key(None, urls=["http://h:1/v1"])
    secret = f"env HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyzabcdefgh {plain}"
    assert "hf_abc" not in str(key(secret)) and plain not in str(key(plain))
