"""Judges at real servers of the real model: llama-cpp-python's with the GGUF file, and `transformers serve`.

Slow, and skipped where something is not at hand: the wheel (python run.py mode=fetch model=smollm2_135m_instruct_q4),
the libraries of `transformers serve`, and for llama-cpp-python DLMA_LLAMA_PYTHON, the Python of an environment with
`llama-cpp-python[server]`. A model of this size judges badly: what is held is that it is asked and read as it answers.
"""

import json
import os
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from transformers.utils.import_utils import is_serve_available

from dlma.app import main
from dlma.config.build import build
from dlma.config.help import conf_dir
from dlma.http_client import Client
from dlma.model import gguf
from dlma.sampler.started import StartedServer

PRESET = "smollm2_135m_instruct_q4"
NODE = OmegaConf.to_container(OmegaConf.load(conf_dir() / "model" / f"{PRESET}.yaml"), resolve=False)
WHEEL = build(NODE["wheel"])
LLAMA = os.environ.get("DLMA_LLAMA_PYTHON")
LOCAL = "--host 127.0.0.1 --port {port}"
LAB = ["data.train=16", "data.validation=4", "data.test=2", "recipe.max_new_tokens=32", "recipe.batch_pairs=8"]
ASKED = [
    "metrics=[]",
    "judges=[llm]",
    "endpoint.max_tokens=40",
    "endpoint.timeout_seconds=500",
    "endpoint.concurrency=1",
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WHEEL.at_hand, reason=f"the wheel is not at hand: python run.py mode=fetch model={PRESET}"),
]


def judged(command: str, model: Path, *words: str) -> tuple[list[dict], dict]:
    """The verdicts of a run that asks this server, and the judge's report."""
    client = Client(key_variable=None, needs_key=False, option="o", timeout=5.0)
    with StartedServer(command, model, Path("log"), lambda url: None, client=client, patience=300.0) as server:
        where = [f"endpoint.base_url={server.url}", f"endpoint.model='{model}'"]
        assert main([*LAB, "recipe.epochs=1", *ASKED, *where, *words, "name=judged"]) == 0
    (manifest,) = Path("store/verdicts").glob("*/manifest.json")
    return pq.read_table("outputs/judged/verdicts.parquet").to_pylist(), json.loads(manifest.read_text())["notes"]


def require_sound(verdicts: list[dict], notes: dict) -> None:
    """Two prompts, against two other arms, in both orders: all answered, none failed, tokens counted."""
    assert len(verdicts) == 4
    report = notes["report"]
    assert report["requests"] > 0 and report["failed"] == 0
    assert sum(report["models"].values()) == 8 + report["asked_again"]  # equal questions are asked once
    assert report["tokens_in"] > 100 * report["requests"] and 0 < report["tokens_out"] <= 40 * report["requests"]


@pytest.mark.skipif(not LLAMA, reason="DLMA_LLAMA_PYTHON names no Python with llama-cpp-python[server]")
def test_llama_cpp_pythons_server_judges_with_the_real_file():
    """Asked for JSON it writes only JSON, by a grammar, so that a verdict may be read."""
    file = WHEEL.file(NODE["member"], NODE["sha256"])
    command = f"{LLAMA} -m llama_cpp.server --model {{model}} --n_threads 1 --n_ctx 2048 {LOCAL}"
    require_sound(*judged(command, file, "endpoint.json_mode=true"))


@pytest.mark.skipif(not is_serve_available(), reason="transformers serve: pip install 'transformers[serving]'")
def test_transformers_serve_judges_with_the_real_model():
    folder = gguf.dequantised(WHEEL.file(NODE["member"], NODE["sha256"]), "model")
    serve = Path(sys.executable).parent / "transformers"
    require_sound(*judged(f"{serve} serve {{model}} --device cpu --dtype float32 {LOCAL}", folder))
