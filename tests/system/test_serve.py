"""The LLM judge against a real server: `transformers serve` with a small model, started by the test on loopback."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from chat_server import shipped
from small_models import byte_level_tokenizer, save_small
from transformers.utils.import_utils import is_serve_available

from dlma.endpoint import Endpoint
from dlma.evaluation.context import EvaluationContext
from dlma.judges.base import Match
from dlma.judges.llm import LLMJudge
from dlma.records import Turn

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture
def served(tmp_path):
    if not is_serve_available():
        pytest.skip("pip install 'transformers[serving]'")
    tokenizer = byte_level_tokenizer(["a small model that knows nothing"], 300)
    tokenizer.chat_template = CHAT
    folder = save_small(tmp_path / "model", tokenizer=tokenizer, context=4096)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--device", "cpu"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, tmp_path / "log")
        yield folder, f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def _wait(url, process, log):
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.mark.slow
def test_a_model_that_knows_nothing_answers_and_is_counted_as_unparsed(served, tmp_path):
    folder, url = served
    endpoint = Endpoint(
        model=str(folder), base_url=url, temperature=0.0, max_tokens=8, json_mode=False, weights=str(folder)
    )
    rows = [Match(f"p{i}", None, [Turn("user", f"q {i}")], "", "aligned", "base", "yes", "no") for i in range(3)]
    judge = LLMJudge(
        EvaluationContext({}, [], lambda f: f"print of {f.name}", tmp_path), endpoint=endpoint, rubric=shipped("both")
    )
    found = judge.judge(rows)
    assert [r.outcome for r in found] == ["unparsed"] * 3
    report = judge.report()
    assert report["requests"] == 12 and report["failed"] == 0 and report["asked_again"] == 6
    assert report["tokens_out"] > 0 and judge.identity()[1] == "print of model"
    assert judge.judge(rows) == found and judge.report()["requests"] == 12
