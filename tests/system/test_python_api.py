"""The page on Python is run as it stands, top to bottom; and `align` is a run without a run folder."""

import json
import math
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_models import byte_level_tokenizer, save_small

from dlma import api

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "python_api.md").read_text(encoding="utf-8")
WORDS = ["recipe=small_full", "recipe.batch_pairs=4", "recipe.max_new_tokens=12", "recipe.lr=1e-3"]


@pytest.fixture
def model_folder(tmp_path):
    """A small model and a tokenizer that reads any text."""
    tokenizer = byte_level_tokenizer(["how do i clean a lamp with a soft cloth"], 300)
    return save_small(tmp_path / "MODEL", tokenizer=tokenizer, context=512)


@pytest.fixture
def page(model_folder):
    """What the page's Python leaves, run block after block in one place."""
    pytest.importorskip("trl")
    space: dict = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        exec(compile(block, "docs/python_api.md", "exec"), space)
    return space


def test_the_page_runs_and_trl_trains_by_the_margins_loss(page):
    (reward,) = page["rewards"]
    assert math.isfinite(reward) and reward != 0
    margins = [row["columns"][4] for row in page["rows"]]
    weight = page["options"].recipe.margin_weight
    first_losses = {
        math.log1p(math.exp(weight * one)) / 2 + math.log1p(math.exp(weight * other)) / 2
        for one in margins
        for other in margins
    }
    logged = page["trainer"].state.log_history[0]["loss"]  # of two pairs, before any update
    assert any(logged == pytest.approx(value, abs=1e-4) for value in first_losses)
    adapters = [p for n, p in page["trainer"].model.named_parameters() if "lora_B" in n]
    assert adapters and all(p.abs().sum() > 0 for p in adapters)
    assert (Path("aligned") / "policy" / "model.safetensors").is_file()
    assert page["aligned"].steps[0]["loss"] == pytest.approx(
        sum(math.log1p(math.exp(weight * value)) for value in margins) / len(margins), rel=1e-4
    )


@pytest.mark.parametrize("lora", [pytest.param("recipe.lora=null", marks=pytest.mark.slow), "adapter=lora"])
def test_align_gives_the_policy_of_a_run(model_folder, run_main, lora):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = [f"how do i clean {number} lamps" for number in range(12)]
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts))
    data = ["data=jsonl", "data.path=prompts.jsonl", "model=hf", "model.path=MODEL"]
    quick = ["judges=[]", "metrics=[]", "recipe.dtype=float32", "name=run", lora]
    ran = run_main(*data, *WORDS, *quick)
    assert ran.code == 0, ran.err
    trained = [row["id"] for row in pq.read_table("outputs/run/pairs.parquet").to_pylist()]
    texts = {row["id"]: row["turns"][0]["content"] for row in pq.read_table("outputs/run/prompts.parquet").to_pylist()}
    network = AutoModelForCausalLM.from_pretrained("MODEL", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained("MODEL")
    chosen = api.options(*WORDS, "recipe.dtype=float32", lora)
    aligned = api.align(network, tokenizer, [texts[name] for name in trained], chosen, out="mine")
    (file,) = [path.name for path in Path("mine/policy").glob("*.safetensors")]
    assert Path("mine/policy", file).read_bytes() == Path("outputs/run/policy", file).read_bytes()
    assert Path("mine/train.csv").read_bytes() == Path("outputs/run/train.csv").read_bytes()
    scored = pq.read_table("outputs/run/scored.parquet").to_pylist()
    assert [pair.margin for pair in aligned.pairs] == [row["margin"] for row in scored]
    assert hasattr(aligned.network, "peft_config") is (lora == "adapter=lora")
