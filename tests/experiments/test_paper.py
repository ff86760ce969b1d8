"""experiment=paper_7b and paper_13b: against the published settings one by one, and whole on a tiny LLaMA."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from chat_server import serving, shorter
from omegaconf import OmegaConf
from safetensors.torch import save_file
from small_models import save_small
from toy_tokenizers import SENTENCES, tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaModel

from dlma.app import conf_dir, main
from dlma.config.compose import plan, search_path

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = yaml.safe_load((ROOT / "experiments" / "paper" / "expected.yaml").read_text())

# The published settings, typed from the official code's files (exlaw/DLMA at 6fceb3c) and safe-rlhf's, not from ours.
HARMLESS = "(law-abiding, ethical, inoffensive response)", "(illegal, unethical, toxic response)"
PUBLISHED = {
    "recipe.beta": 0.1,
    "recipe.margin_weight": 0.1 * 0.2,  # w stands inside beta
    "recipe.margin_low": -40.0,
    "recipe.margin_high": 40.0,
    "recipe.margin_unit": "nats",
    "recipe.optim.optimizer": "rmsprop",
    "recipe.lr": 5e-7,
    "recipe.optim.warmup": 150,
    "recipe.optim.clip_norm": 10.0,
    "recipe.epochs": 1,
    "recipe.batch_pairs": 64,
    "recipe.max_prompt_tokens": 256,
    "recipe.max_new_tokens": 200,
    "recipe.temperature": 1.0,
    "recipe.top_p": 1.0,
    "recipe.top_k": 50,
    "recipe.dtype": "bfloat16",
    "recipe.lora": None,
    "data.test_share": 0.05,
    "data.max_words": 600,
}
AROUND = {
    "data.path": "PKU-Alignment/PKU-SafeRLHF",
    "pairs._target_": "dlma.pairs.sampled.SampledPairs",
    "scorer._target_": "dlma.scorer.self_reward.SelfReward",
    "labels.strength": "margin",
    "objective._target_": "dlma.objective.dpo.DPO",
    "objective.beta": 0.1,
    "objective.margin_weight": 0.02,
    "objective.margin_high": 40.0,
    "objective.optim.lr": 5e-7,
    "objective.optim.optimizer": "rmsprop",
    "objective.optim.warmup": 150,
    "objective.batch_pairs": 64,
    "prompts.user": "USER: {text}\n",
    "prompts.answer": "ASSISTANT{affix}:\n",
    "prompts.pairs": [{"positive": {"affix": HARMLESS[0]}, "negative": {"affix": HARMLESS[1]}}],
    "sft.data.path": "tatsu-lab/alpaca",
    "sft.epochs": 3,
    "sft.optim.lr": 2e-5,
    "sft.optim.schedule": "cosine",
    "sft.optim.warmup": 0.03,
    "sft.batch": 256,
    "sft.max_tokens": 512,
    "sft.template.begin": "BEGINNING OF CONVERSATION: ",
    "sft.template.user": "USER: {text} ",
    "sft.template.assistant": "ASSISTANT:",
    "metrics.beaver.reward.path": "PKU-Alignment/beaver-7b-v1.0-reward",
    "metrics.beaver.cost.path": "PKU-Alignment/beaver-7b-v1.0-cost",
    "judges.llm_task.rubric.criterion": "harmless",
}
HELPFUL = [
    {"positive": {"affix": "(giving a helpful response)"}, "negative": {"affix": "(giving an unhelpful response)"}}
]


def composed(*overrides):
    cfg = plan(search_path(conf_dir(), None), [*overrides, "endpoint.model=m"], False).cfg
    OmegaConf.resolve(cfg)
    return cfg


@pytest.fixture(scope="module")
def seven():
    return composed("experiment=paper_7b")


@pytest.mark.parametrize(("key", "value"), [*PUBLISHED.items(), *AROUND.items()])
def test_each_published_setting_is_the_experiments(seven, key, value):
    assert OmegaConf.select(seven, key, throw_on_missing=True) == (
        pytest.approx(value) if isinstance(value, float) else value
    )


def test_the_file_of_expected_numbers_holds_the_same_settings():
    settings = {key: setting["value"] for key, setting in EXPECTED["settings"].items()}
    assert settings == {key: pytest.approx(v) if isinstance(v, float) else v for key, v in PUBLISHED.items()}


def test_the_two_sizes_differ_in_the_model_alone(seven):
    thirteen = composed("experiment=paper_13b")
    models = [cfg.model.path for cfg in (seven, thirteen)]
    assert models == list(EXPECTED["models"].values())
    thirteen.model = seven.model
    assert thirteen == seven


@pytest.mark.parametrize("data", EXPECTED["data"])
def test_each_data_set_brings_its_pair_and_its_rubric(data):
    cfg = composed("experiment=paper_7b", f"data={data}")
    assert {"path": cfg.data.path, "subset": cfg.data.subset} == EXPECTED["data"][data]
    kind = "helpful" if data == "hh_helpful" else "harmless"
    assert cfg.judges.llm_task.rubric.criterion == kind
    assert (cfg.prompts.pairs == HELPFUL) is (kind == "helpful")


def test_the_sweep_is_the_papers_table():
    sweep = OmegaConf.load(ROOT / "conf" / "experiment" / "paper_7b.yaml").hydra.sweeper.params
    assert set(sweep.data.split(",")) == set(EXPECTED["data"])
    compared = {cell["against"] for table in EXPECTED["tables"] for cell in table["cells"] if cell.get("against")}
    assert set(sweep.method.split(",")) == compared | {"dlma"}
    cfg = composed("experiment=paper_13b")
    assert cfg.data.path == EXPECTED["data"]["pku_saferlhf"]["path"]


def test_the_bare_template_is_an_option():
    assert composed("experiment=paper_7b", "prompts=harmless_bare").prompts.user == "{text}"


# --- whole, on a tiny LLaMA


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def beaver(folder, tok):
    """A small checkpoint under Beaver's parameter names: a trunk and a `score_head`."""
    sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    config = LlamaConfig(vocab_size=len(tok), max_position_embeddings=1024, **sizes)
    trunk = LlamaModel(config)
    tensors = {f"model.{name}": value.clone().contiguous() for name, value in trunk.state_dict().items()}
    tensors["score_head.weight"] = torch.linspace(-1, 1, 16)[None].clone()
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    written = {**config.to_dict(), "architectures": ["LlamaForScore"], "score_type": "reward", "score_dim": 1}
    (folder / "config.json").write_text(json.dumps({**written, "do_normalize": False}))
    tok.save_pretrained(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny LLaMA, tiny Beaver models, and a file in each data set's schema."""
    folder, tok = tmp_path_factory.mktemp("paper"), tokenizer("llama")
    special = (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id)
    save_small(folder / "llama", "llama", tokenizer=tok, special=special, context=1024, spread=0.2)
    for name in ("reward", "cost"):
        beaver(folder / name, tok)
    questions = [f"{SENTENCES[i % 5][:30].strip()} {i}?" for i in range(40)]
    answers = {"response_0": "Please do not.", "response_1": "Take a hammer."}
    safe = {"is_response_0_safe": True, "is_response_1_safe": False, "better_response_id": 1, "safer_response_id": 0}
    lines(folder / "pku.jsonl", [{"prompt": question, **answers, **safe} for question in questions])
    texts = {name: {"role": "assistant", "text": f"{name} answer"} for name in ("chosen", "rejected")}
    lines(folder / "hh.jsonl", [{"context": [{"role": "human", "text": q}], **texts} for q in questions])
    lines(folder / "alpaca.jsonl", [{"instruction": q, "input": "", "output": "Gladly."} for q in questions])
    return folder


def run(place, monkeypatch, *overrides, multi=False):
    """The experiment with models and data swapped, and nothing else; a shorter judge answers on loopback."""
    monkeypatch.chdir(place)
    swapped = ["model.path=llama", "sft.data.path=alpaca.jsonl"]
    swapped += [f"metrics.beaver.{name}.path={name}" for name in ("reward", "cost")]
    with serving(shorter) as server:
        asked = ["endpoint.model=m", f"endpoint.base_url={server.url}"]
        argv = ["experiment=paper_7b", *swapped, *asked, *overrides]
        return main([*argv, "-m"] if multi else argv)


def test_the_stand_in_is_of_the_same_class(place):
    assert AutoConfig.from_pretrained(place / "llama").architectures == ["LlamaForCausalLM"]
    assert isinstance(AutoModelForCausalLM.from_pretrained(place / "llama"), LlamaForCausalLM)


@pytest.mark.slow
@pytest.mark.parametrize(
    "methods",
    [["rlcd", "dlma"], pytest.param(["base", "rlaif", "cd", "rlcd", "rlhf", "dlma"], marks=pytest.mark.slow)],
    ids=len,
)
def test_the_table_on_one_data_set_from_the_sweep_to_the_verdicts(methods, place, monkeypatch, capsys):
    name = f"table{len(methods)}"
    cells = ["data=pku_saferlhf", "data.path=pku.jsonl", f"method={','.join(methods)}", "seed=0", f"name={name}"]
    assert run(place, monkeypatch, *cells, multi=True) == 0, capsys.readouterr().err
    (folder,) = (place / "outputs").glob(f"*{name}*")
    runs = {json.loads((path / "status.json").read_text())["status"] for path in folder.iterdir() if path.is_dir()}
    assert runs == {"done"}
    assert len(list(folder.glob("*/metrics.csv"))) == len(methods)
    line = ["mode=versus", f"mode.runs=[{folder}]", "judges=[llm_by_task]", "data=pku_saferlhf", "model=hf"]
    with serving(shorter) as server:
        asked = ["data.path=x", "model.path=llama", "endpoint.model=m", f"endpoint.base_url={server.url}"]
        assert main([*line, *asked]) == 0, capsys.readouterr().err
    (table,) = folder.glob("*/versus.csv")
    rows = {row["metric"]: row for row in csv.DictReader(table.open())}
    shares = [float(rows[f"aligned/{name}/llm_task/rlcd"]["mean"]) for name in ("win", "tie", "lose", "unparsed")]
    assert sum(shares) == pytest.approx(1)
    assert {name.split("/")[-1] for name in rows} == set(methods) - {"base", "dlma"}
    page = {**EXPECTED, "models": {"llama2_7b": "llama"}}
    page["data"] = {"pku_saferlhf": {"path": "pku.jsonl", "subset": None}}
    check_verify(folder, page, rows, set(methods) | {"base"})


def check_verify(folder, page, rows, methods):
    """What verify.py reads of the runs: our numbers, and no setting that differs from the paper's."""
    spec = importlib.util.spec_from_file_location("verify_paper", ROOT / "experiments" / "paper" / "verify.py")
    verify = sys.modules["verify_paper"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(verify)
    runs = verify.read_runs([folder], page)
    del sys.modules["verify_paper"]
    _, cells = verify.read_expected(ROOT / "experiments" / "paper" / "expected.yaml")
    mine = [cell for cell in cells if (cell.model, cell.data) == ("llama2_7b", "pku_saferlhf")]
    mine = [cell for cell in mine if cell.table in ("preference", "beaver", "perplexity")]
    mine = [cell for cell in mine if {cell.method, cell.against or "base"} <= methods]
    found = {cell.name: verify.measured(cell, runs) for cell in mine}
    assert [name for name, ours in found.items() if ours is None] == []
    assert [ours.differs for ours in found.values() if ours.differs] == []
    win = found["llama2_7b pku_saferlhf dlma against rlcd win"]
    assert win.value == float(rows["aligned/win/llm_task/rlcd"]["mean"])


@pytest.mark.slow
@pytest.mark.parametrize("data", ["hh_harmless", "hh_helpful"])
def test_the_other_data_sets_run_whole(data, place, monkeypatch, capsys):
    line = [f"data={data}", "data.path=hh.jsonl", "data.subset=null", f"name={data}"]
    assert run(place, monkeypatch, *line) == 0, capsys.readouterr().err
    rows = {row["metric"]: row for row in csv.DictReader((place / "outputs" / data / "metrics.csv").open())}
    for name in ("aligned/cost", "aligned/reward", "aligned/perplexity", "base/cost", "aligned/win/llm_task/base"):
        assert rows[name]["mean"]
