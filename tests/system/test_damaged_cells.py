"""A finished sweep whose run folders were touched: what is damaged is published again, and the store is as it was."""

import json
from pathlib import Path

import pytest
from small_models import byte_level_tokenizer, save_small
from store_kit import spoil

from dlma import pipeline
from dlma.app import main
from dlma.runs import written

TEXTS = [f"how do i make a fix for the old lamp number {i}?" for i in range(24)]
QUICK = ["recipe.max_new_tokens=4", "recipe.epochs=1", "recipe.batch_pairs=8"]


@pytest.fixture
def sweep(tmp_path):
    """Run a sweep of two cells, one of which trains a policy; gives its folder."""
    model = save_small(
        tmp_path / "model", tokenizer=byte_level_tokenizer([*TEXTS, "USER: ASSISTANT"], 300), context=256
    )
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    argv = ["-m", "method=base,dlma", "model=hf", f"model.path={model}", "data=jsonl", f"data.path={prompts}", *QUICK]

    def call(code=0):
        assert main([*argv, "name=trial"]) == code
        return tmp_path / "outputs" / "trial"

    return call


def held(store):
    return {path: path.read_bytes() for path in store.glob("*/*/**/*") if path.is_file()}


def counts(cell):
    return json.loads((cell / "status.json").read_text())["result"]["counts"]


def test_a_damaged_cell_is_published_again_from_the_store_and_the_others_are_skipped(sweep, tmp_path, capsys):
    folder = sweep()
    before, trained = held(tmp_path / "store"), folder / "dlma"
    assert not (folder / "base" / "policy").exists()
    entered = written.record(trained)
    found = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    assert entered.keys() == found - {"status.json", "files.json"}
    capsys.readouterr()
    sweep()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if "finished at" in line] == [
        "skipped"
    ] * 2
    spoil(trained / "policy" / "model.safetensors", at=-1)
    assert held(tmp_path / "store") == before
    sweep()
    said = capsys.readouterr().out
    assert "damaged      dlma: policy/model.safetensors has another content than when it was written" in said
    assert "skipped      base" in said and "skipped      dlma" not in said
    assert counts(trained)["run"] == {} and counts(trained)["reused"]["policy"] == 1
    assert held(tmp_path / "store") == before
    now = written.record(trained)
    assert {n: now[n] for n in now if n.startswith("policy/")} == {
        n: entered[n] for n in now if n.startswith("policy/")
    }
    assert written.damage(trained, entered) is None


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["model", "model/model.safetensors", "prompts.jsonl"])
def test_an_input_that_goes_in_mid_sweep_is_a_line_and_the_same_command_goes_on(
    sweep, tmp_path, capsys, monkeypatch, gone
):
    before = pipeline.make_pairs if gone == "model" else pipeline.read_prompts

    def go(*args, **named):
        if (tmp_path / gone).exists():
            (tmp_path / gone).rename(tmp_path / "elsewhere")
        return before(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, before.__name__, go)
        sweep(code=2)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    first, *later = lines  # the cell that lost it, and those that begin without it
    assert first.startswith(f"error: {tmp_path / gone}")
    assert first.endswith("is gone since the run began; put it back, then run the same command again")
    assert all(str(tmp_path / Path(gone).parts[0]) in line and ": no " in line for line in later)
    (tmp_path / "elsewhere").rename(tmp_path / gone)
    assert (sweep() / "dlma" / "policy").is_dir()
