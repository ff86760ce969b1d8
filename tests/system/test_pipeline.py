"""The whole path, from prompts to the report, on small models: what is left behind, what is reused, what resumes."""

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from small_models import byte_level_tokenizer, save_small
from transformers import AutoModelForCausalLM, AutoTokenizer

from dlma.app import main
from dlma.logger.trackers import CsvTracker
from dlma.objective.dpo import DPO
from dlma.trainer.runtime import ShardWriter

TEXT = "how do i make a fix for the old lamp door cake boat with some care and no harm at all today"
WORDS = TEXT.split()
ROOT = Path(__file__).resolve().parents[2]
QUICK = [f"recipe.{value}" for value in ("max_new_tokens=8", "epochs=2", "batch_pairs=8", "lr=1e-3")]


def question(i):
    return " ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 8)) + f" {i}?"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    texts = [question(i) for i in range(60)] + ["USER: ASSISTANT(law-abiding, ethical, inoffensive response):\n"]
    return save_small(tmp_path_factory.mktemp("model"), tokenizer=byte_level_tokenizer(texts, 400), context=512)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """What runs of this file have computed; a test of what is computed has a store of its own, by `store.root`."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def prompts_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": question(i)}) + "\n" for i in range(60)))
    return path


@pytest.fixture
def run(tmp_path, monkeypatch, model_folder, prompts_file, store):
    """Run a command line in a folder of its own; the settings of a small real-text run come first."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides, code=0, name="here"):
        settings = command(model_folder, prompts_file)
        settings += [] if any(o.startswith("store.root=") for o in overrides) else [f"store.root={store}"]
        flags = [o for o in overrides if o.startswith("-")]
        rest = [o for o in overrides if not o.startswith("-")]
        naming = [] if "-m" in flags else [f"name={name}"]
        assert main([*flags, *settings, *naming, *rest]) == code
        return tmp_path / "outputs" / name

    return call


def status(folder):
    return json.loads((folder / "status.json").read_text())


def stage_bytes(root):
    """The content of every finished stage, manifests aside."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.glob("*/*/**/*"))
        if path.is_file() and path.name != "manifest.json" and ".partial" not in str(path)
    }


def test_a_run_leaves_its_records_policy_metrics_and_report_under_readable_names(run):
    folder = run()
    made = {p.name for p in folder.iterdir()}
    wanted = "config.yaml prompts.parquet pairs.parquet scored.parquet answers.parquet train.csv metrics.csv policy"
    assert {*wanted.split(), "tokens.parquet", "report.html", "status.json"} <= made
    policy = AutoModelForCausalLM.from_pretrained(folder / "policy")
    assert AutoTokenizer.from_pretrained(folder / "policy").eos_token == "<eos>"
    assert sum(p.numel() for p in policy.parameters()) > 0
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert list(rows[0]) == ["method", "base", "seed", "metric", "n", "mean", "low", "high"]
    kl = {r["metric"]: float(r["mean"]) for r in rows if r["metric"].endswith("/kl")}
    assert kl["base/kl"] == 0
    assert {r["metric"].split("/")[0] for r in rows} == {"base", "prompted", "aligned"}
    assert "self-reported" in (folder / "report.html").read_text()


def test_training_moves_the_policy_and_not_the_base(run, model_folder):
    before = (model_folder / "model.safetensors").read_bytes()
    folder = run("store.root=own")
    assert (model_folder / "model.safetensors").read_bytes() == before
    old = AutoModelForCausalLM.from_pretrained(model_folder).state_dict()
    new = AutoModelForCausalLM.from_pretrained(folder / "policy").state_dict()
    assert any(not torch.equal(old[name], new[name]) for name in old)


def test_the_second_run_does_no_work(run):
    first = status(run("store.root=own"))["result"]["counts"]
    second = status(run("store.root=own"))["result"]["counts"]
    assert first["reused"] == {} and second["run"] == {}
    assert second["reused"] == first["run"]


def test_the_same_config_and_seed_give_the_same_bytes_in_another_store(run, tmp_path):
    run("store.root=one")
    run("store.root=two")
    one, two = stage_bytes(tmp_path / "one"), stage_bytes(tmp_path / "two")
    assert one == two and len(one) > 10


def test_another_seed_gives_other_pairs_on_the_same_prompts(run):
    first = pq.read_table(run(name="a") / "pairs.parquet")
    second = pq.read_table(run("seed=1", name="b") / "pairs.parquet")
    assert first["prompt_id"] == second["prompt_id"]
    assert first["positive_ids"] != second["positive_ids"]


def test_cells_of_a_sweep_share_their_stages(run, tmp_path):
    run("-m", "method=dlma,rlcd,base", "store.root=own", name="")
    (sweep,) = (tmp_path / "outputs").iterdir()
    counts = {f.name: status(f)["result"]["counts"] for f in sweep.iterdir() if (f / "status.json").is_file()}
    assert len(counts) == 3
    total = {}
    for cell in counts.values():
        for name, n in cell["run"].items():
            total[name] = total.get(name, 0) + n
    # contexts: train and held-out. pairs: contrastive and none. answers: base, prompted, and two aligned.
    assert total == {
        "prompts": 1, "contexts": 2, "pairs": 2, "scored": 3, "token_rewards": 3, "preflight": 3, "policy": 3,
        "answers": 4, "evaluated": 3, "metrics": 3,
    }  # fmt: skip


def test_base_has_no_aligned_arm_and_no_policy(run):
    folder = run("method=base")
    assert not (folder / "policy").exists()
    assert {row["arm"] for row in pq.read_table(folder / "answers.parquet").to_pylist()} == {"base", "prompted"}


def test_a_run_leaves_nothing_of_another_run_of_the_same_name(run):
    alone = run("method=base", name="alone")
    folder = run("judges=[self]", "iterations=2")
    full = names(folder)
    assert {"policy", "verdicts.parquet", "rounds.csv"} <= full
    (folder / "notes.md").write_text("mine")
    assert names(run("judges=[self]", "iterations=2")) == full | {"notes.md"}
    assert names(run("intermediate=-1", code=2)) == full | {"notes.md"}
    assert names(run("method=base")) == names(alone) | {"notes.md"}


def names(folder):
    return {path.name for path in folder.iterdir()}


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "where", ["pairs", *(pytest.param(w, marks=pytest.mark.slow) for w in ("scores", "train", "aligned"))]
)
def test_a_run_killed_anywhere_and_started_again_ends_with_the_same_bytes(run, tmp_path, monkeypatch, where):
    run("store.root=straight", "trainer.shard_rows=4", "trainer.checkpoint_steps=2")
    with monkeypatch.context() as patch:
        kill_in(patch, where)
        with pytest.raises(Killed):
            run("store.root=killed", "trainer.shard_rows=4", "trainer.checkpoint_steps=2")
    run("store.root=killed", "trainer.shard_rows=4", "trainer.checkpoint_steps=2")
    assert stage_bytes(tmp_path / "killed") == stage_bytes(tmp_path / "straight")


def kill_in(patch, where):
    write, record = ShardWriter.write_on_batch_end, DPO.record

    def dying_write(self, trainer, module, prediction, indices, batch, *rest):
        if self.label == where and batch.index == 1:
            raise Killed
        write(self, trainer, module, prediction, indices, batch, *rest)

    def dying_record(self, *rest):
        if where == "train" and self.global_step == 5:
            raise Killed
        record(self, *rest)

    patch.setattr(ShardWriter, "write_on_batch_end", dying_write)
    patch.setattr(DPO, "record", dying_record)


def test_own_pairs_stand_in_for_sampling(run, tmp_path):
    rows = [{"prompt": question(100 + i), "chosen": " with care today", "rejected": f" no care {i}"} for i in range(20)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    folder = run(f"pairs.path={path}")
    table = pq.read_table(folder / "scored.parquet").to_pylist()
    assert len(table) == 20
    assert all(row["positive_finished"] and row["positive_text"] == " with care today" for row in table)
    assert all(row["positive_under_negative"] is not None for row in table)


def test_own_margins_are_trained_on_as_they_stand(run, tmp_path):
    rows = [
        {"prompt": question(100 + i), "chosen": " with care", "rejected": f" no care {i}", "margin": i / 8}
        for i in range(16)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    folder = run(f"scored.path={path}")
    table = pq.read_table(folder / "scored.parquet").to_pylist()
    assert sorted(row["margin"] for row in table) == [i / 8 for i in range(16)]


def test_a_run_starts_again_from_its_own_scored_pairs(run):
    first = run(name="first")
    second = run(f"scored.path={first / 'scored.parquet'}", name="second")
    columns = ["margin", "positive_reference", "positive_ids", "chosen"]
    one, two = (pq.read_table(f / "scored.parquet").select(columns) for f in (first, second))
    assert one["positive_ids"] == two["positive_ids"] and one["chosen"] == two["chosen"]
    assert one["margin"].to_pylist() == two["margin"].to_pylist()
    assert one["positive_reference"].to_pylist() == pytest.approx(two["positive_reference"].to_pylist(), abs=1e-4)


def test_a_fault_in_the_records_stops_the_run_by_name_before_training(run, tmp_path, capsys):
    rows = pq.read_table(run(name="first") / "scored.parquet")
    ended = [not rows["positive_finished"][0].as_py(), *rows["positive_finished"].to_pylist()[1:]]
    place = rows.schema.get_field_index("positive_finished")
    pq.write_table(rows.set_column(place, "positive_finished", [ended]), tmp_path / "mine.parquet")
    run(f"scored.path={tmp_path / 'mine.parquet'}", "store.root=own", code=2, name="second")
    assert "error: preflight, eos: 1 of " in capsys.readouterr().err
    assert (tmp_path / "own" / "scored").is_dir() and not (tmp_path / "own" / "policy").exists()


def test_checks_and_alerts_are_in_the_terminal_the_report_the_result_and_the_tracker(run, monkeypatch, capsys):
    told = {}
    monkeypatch.setattr(CsvTracker, "finish", lambda self, summary, exit_code=0: told.update(summary))
    folder = run("alerts.min_margin=1e9")
    text, page = capsys.readouterr().out, (folder / "report.html").read_text()
    line = "low_contrast: mean |R| of the pairs is "
    assert "preflight: " in text and line in text and "over_optimisation" in text.split("not checked: ")[1]
    assert line in page and "cannot be checked" in page and "identical pairs" in page
    assert "low_contrast" in status(folder)["result"]["alerts"]
    assert told["alerts/low_contrast"] == 1.0 and told["preflight/contamination"] == 0.0
    assert "alerts/over_optimisation" not in told


def test_lora_leaves_an_adapter_that_peft_loads_on_the_untouched_base(run, model_folder):
    from peft import PeftModel

    folder = run("recipe.lora={rank: 4, alpha: 8, targets: [q_proj, v_proj]}")
    assert (folder / "policy" / "adapter_model.safetensors").is_file()
    assert not (folder / "policy" / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    loaded = PeftModel.from_pretrained(base, folder / "policy")
    ids = torch.arange(3, 13).unsqueeze(0)
    with torch.no_grad(), loaded.disable_adapter():
        plain = loaded(ids).logits
    with torch.no_grad():
        assert not torch.equal(loaded(ids).logits, plain)


def hh_file(path, texts):
    rows = [
        {
            "chosen": f"\n\nHuman: {text}\n\nAssistant: Why?\n\nHuman: because {text}\n\nAssistant: take care",
            "rejected": f"\n\nHuman: {text}\n\nAssistant: Why?\n\nHuman: because {text}\n\nAssistant: no harm",
        }
        for text in texts
    ]
    with gzip.open(path, "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def real_hh():
    """The real test set where it is at hand; the project does not depend on it."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / "hh-rlhf" / "harmless-base-test.jsonl.gz"
    path = Path(os.environ["DLMA_HH_FILE"]) if "DLMA_HH_FILE" in os.environ else beside
    return path if path.is_file() else None


def test_hh_prompts_with_a_model_built_from_their_text(run, tmp_path):
    """Real text, a context too small for some of it: rows are trimmed or dropped, counted and shown."""
    path = real_hh() or hh_file(tmp_path / "hh.jsonl.gz", [question(i) for i in range(80)])
    with gzip.open(path, "rt") as lines:
        texts = [json.loads(line)["chosen"] for line in lines][:400]
    folder = save_small(tmp_path / "hh-model", tokenizer=byte_level_tokenizer(texts, 600), context=256)
    out = run(
        f"model.path={folder}", "data=hh", f"data.path={path}", "data.max_prompts=60", "recipe.max_prompt_tokens=160",
        "data.max_dropped=0.5",
    )  # fmt: skip
    rows = pq.read_table(out / "scored.parquet").to_pylist()
    assert len(rows) >= 20
    assert all(len(row["positive_context_ids"]) <= 160 for row in rows)
    assert "no oracle for this data" in (out / "report.html").read_text()


def test_a_tokenizer_without_bos_eos_or_pad_works_and_its_lack_of_an_end_is_said(run, tmp_path, capsys):
    tokenizer = byte_level_tokenizer([question(i) for i in range(60)], 400, special=())
    path = save_small(tmp_path / "bare", tokenizer=tokenizer, context=512, special=(None, None, None))
    rows = pq.read_table(run(f"model.path={path}") / "pairs.parquet").to_pylist()
    assert not any(row["positive_finished"] or row["negative_finished"] for row in rows)
    assert "has no EOS: every answer runs to recipe.max_new_tokens" in capsys.readouterr().err


def test_trackers_side_by_side_keep_the_figures_of_the_csv_files(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    folder = run("logger=[csv,wandb,tensorboard]", "store.root=own")
    (offline,) = (folder / "wandb").glob("offline-run-*")
    assert list(offline.glob("*.wandb"))
    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0})
    read.Reload()
    steps = list(csv.DictReader((folder / "train.csv").open()))
    for name in set(steps[0]) - {"step"}:
        found = [(event.step, make_ndarray(event.tensor_proto).item()) for event in read.Tensors(f"train/{name}")]
        assert found == [(int(row["step"]), pytest.approx(float(row[name]), rel=1e-5)) for row in steps]
    for row in csv.DictReader((folder / "metrics.csv").open()):
        (found,) = read.Tensors(f"eval/{row['metric']}")
        value = make_ndarray(found.tensor_proto).item()
        assert value == pytest.approx(float(row["mean"] or "nan"), rel=1e-5, nan_ok=True)
    assert {"samples", "scored_pairs", "config"} <= set(read.Tags()["tensors"])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.path=nowhere/at/all"], "model.path=nowhere/at/all: no such folder"),
        (["data.path=missing.jsonl"], "missing.jsonl"),
        (["recipe=lab"], "use recipe=small_full"),
        (["recipe.max_new_tokens=4000"], "max_new_tokens"),
        (["pairs.path=missing.parquet"], "missing.parquet"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(run, tmp_path, capsys, overrides, says):
    run(*overrides, "store.root=own", code=2)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and says in errors[0]
    assert not list(tmp_path.glob("own/**/policy"))


def test_a_folder_that_is_no_model_is_named(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    run(f"model.path={tmp_path / 'empty'}", code=2)
    assert "not a model folder: it has no config.json" in capsys.readouterr().err


def command(model_folder, prompts_file, *overrides):
    return ["model=hf", f"model.path={model_folder}", "data=jsonl", f"data.path={prompts_file}", *QUICK, *overrides]


def test_a_run_with_nothing_to_do_does_not_even_import_torch(run, model_folder, prompts_file, store):
    run()
    code = "import sys; from dlma.app import main; code = main(sys.argv[1:]); sys.exit(code or 'torch' in sys.modules)"
    line = [sys.executable, "-c", code, *command(model_folder, prompts_file, f"store.root={store}", "name=here")]
    assert subprocess.run(line, capture_output=True, timeout=120, check=False).returncode == 0


@pytest.mark.slow
def test_the_default_run_killed_at_many_points_ends_with_the_same_bytes(tmp_path):
    """SIGKILL after a growing number of seconds, again and again, until a start gets through."""
    line = [sys.executable, str(ROOT / "run.py"), "data.train=150", "data.test=60", "trainer.checkpoint_steps=2"]
    line += ["trainer.shard_rows=32"]
    subprocess.run([*line, "store.root=straight"], cwd=tmp_path, check=True, capture_output=True)
    kills, seconds = 0, 6.0
    while True:
        process = subprocess.Popen([*line, "store.root=killed"], cwd=tmp_path, stderr=subprocess.DEVNULL)
        try:
            assert process.wait(timeout=seconds) == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills, seconds = kills + 1, seconds + 0.7
    assert kills >= 3
    assert stage_bytes(tmp_path / "killed") == stage_bytes(tmp_path / "straight")


@pytest.mark.slow
def test_policies_on_the_way_give_a_curve_from_the_base_to_the_policy(run):
    plain = run(name="plain")
    folder = run("intermediate=2", name="here")
    assert (folder / "policy/model.safetensors").read_bytes() == (plain / "policy/model.safetensors").read_bytes()
    curve = list(csv.DictReader((folder / "trajectory.csv").open()))
    steps = len((folder / "train.csv").read_text().splitlines()) - 1
    assert [int(row["step"]) for row in curve] == [0, steps // 3, 2 * steps // 3, steps]
    metrics = {row["metric"]: row for row in csv.DictReader((folder / "metrics.csv").open())}
    for row, arm in ((curve[0], "base"), (curve[-1], "aligned")):
        for name in ("self_reward", "kl", "perplexity"):
            measured = metrics[f"{arm}/{name}"]
            assert [row[name], row[f"{name}_low"], row["n"]] == [measured["mean"], measured["low"], measured["n"]]
    kl = [float(row["kl"]) for row in curve]
    assert kl[0] == 0
    assert len(set(kl)) == 4
    assert "Along training" in (folder / "report.html").read_text()
    assert not (plain / "trajectory.csv").exists() and "Along training" not in (plain / "report.html").read_text()
    assert status(run("intermediate=2"))["result"]["counts"]["run"] == {}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["intermediate=-1"], "intermediate: must be an integer from 0 to 1,000, not -1"),
        (["intermediate=2", "iterations=2"], "intermediate: 2 follows one training, from the base on: iterations=1"),
    ],
)
def test_a_curve_that_cannot_be_made_is_refused(run, capsys, overrides, said):
    run(*overrides, code=2)
    assert said in capsys.readouterr().err
