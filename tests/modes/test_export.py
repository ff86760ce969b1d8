"""mode=export: what comes out loads where it should, says what it is, and leaves only when asked to."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import datasets
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from omegaconf import OmegaConf
from peft import AutoPeftModelForCausalLM, PeftModel
from small_models import byte_level_tokenizer, save_small
from transformers import AutoModelForCausalLM, AutoTokenizer

from dlma.app import main
from dlma.modes.cards import model_card
from dlma.runs.finished import FinishedRun

TEXT = "how do i make a fix for the old lamp door cake boat with some care and no harm at all today"
WORDS = TEXT.split()
PAIRS = ["mode.what=pairs", "mode.negative=true"]
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
GENERATION = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "do_sample": True, "temperature": 0.7}
QUICK = [f"recipe.{value}" for value in ("dtype=float32", "max_new_tokens=8", "epochs=1", "batch_pairs=8", "lr=1e-3")]
LORA = "recipe.lora={rank: 4, alpha: 8, targets: all-linear}"


def question(i):
    return " ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 8)) + f" {i}?"


def chat(i):
    talk = [("user", question(i)), ("assistant", "with care"), ("user", f"and then {i}?")]
    return [{"role": role, "content": text} for role, text in talk]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs in one folder: whole weights on chats, and an adapter on human pairs of text."""
    place = tmp_path_factory.mktemp("runs")
    known = [question(i) for i in range(40)] + ["USER: ASSISTANT(law-abiding, ethical, inoffensive response):\n"]
    tokenizer = byte_level_tokenizer(known, 400)
    tokenizer.chat_template = TEMPLATE
    model = save_small(place / "model", tokenizer=tokenizer, context=512)
    (model / "generation_config.json").write_text(json.dumps(GENERATION))
    (place / "chats.jsonl").write_text("".join(json.dumps({"prompt": chat(i)}) + "\n" for i in range(30)))
    pairs = [{"prompt": question(i), "chosen": "with care", "rejected": f"no {i}"} for i in range(30)]
    (place / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        start = ["model=hf", f"model.path={model}", "data=jsonl", "prompts.format=template", *QUICK]
        assert main([*start, f"data.path={place}/chats.jsonl", "name=whole"]) == 0
        assert main([*start, f"data.path={place}/pairs.jsonl", "method=rlhf", LORA, "name=adapter"]) == 0
        assert main([*start, f"data.path={place}/chats.jsonl", "method=base", "name=base"]) == 0
    return place / "outputs"


@pytest.fixture
def export(runs, tmp_path):
    def call(name, *overrides, code=0, out="out"):
        where = [f"mode.run={runs / name}", f"mode.out={tmp_path / out}"]
        assert main(["mode=export", *where, *overrides]) == code
        return tmp_path / out

    return call


def scored(run):
    return pq.read_table(run / "scored.parquet").to_pylist()


def as_written(tokenizer, pair, side):
    """An answer's ids as text: a sampled <pad> is seen, its EOS and a character that the limit cut in half are not."""
    ids, finished = pair[f"{side}_ids"], pair[f"{side}_finished"]
    text = tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=False)
    return text if finished else text.rstrip("\ufffd")


def card(folder):
    text = (folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 13).unsqueeze(0)).logits


def test_a_whole_policy_loads_in_transformers_and_is_the_runs(export, runs):
    folder = export("whole")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(runs / "whole" / "policy")))
    assert tokenizer.eos_token == "<eos>"


def test_an_adapter_loads_in_peft_and_merged_it_is_the_same_model(export, runs):
    folder, merged = export("adapter"), export("adapter", "mode.merge=true", out="merged")
    adapter = AutoPeftModelForCausalLM.from_pretrained(folder)
    whole = AutoModelForCausalLM.from_pretrained(merged)
    assert isinstance(adapter, PeftModel) and not (merged / "adapter_config.json").exists()
    assert torch.allclose(logits(adapter), logits(whole), atol=1e-4)
    with torch.no_grad(), adapter.disable_adapter():
        assert not torch.allclose(logits(adapter), logits(whole), atol=1e-4)
    assert card(folder)[0]["library_name"] == "peft" and card(merged)[0]["library_name"] == "transformers"


@pytest.mark.parametrize(("name", "overrides"), [("whole", []), ("adapter", []), ("adapter", ["mode.merge=true"])])
def test_every_form_of_a_policy_keeps_chat_template_and_generation_config(export, name, overrides):
    folder = export(name, *overrides)
    assert AutoTokenizer.from_pretrained(folder).chat_template == TEMPLATE
    if name == "whole" or overrides:  # an adapter's base has its own
        config = AutoModelForCausalLM.from_pretrained(folder).generation_config.to_dict()
        assert {key: config[key] for key in GENERATION} == GENERATION
    assert list(folder.glob("*.safetensors")) and not [*folder.glob("*.bin"), *folder.glob("*.pt")]


@pytest.mark.parametrize(("name", "overrides"), [("whole", []), ("adapter", ["mode.merge=true"])])
def test_a_policy_in_shards_is_the_same_model(export, name, overrides):
    one, several = export(name, *overrides), export(name, *overrides, "mode.shard_gb=5e-5", out="sharded")
    (file,) = one.glob("*.safetensors")
    files = sorted(several.glob("*.safetensors"))
    index = json.loads((several / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(files) > 2 and {path.name for path in files} == set(index.values())
    assert all(path.stat().st_size < 5e4 + 5e3 or list(index.values()).count(path.name) == 1 for path in files)
    assert {path.name for path in one.iterdir()} - {file.name} <= {path.name for path in several.iterdir()}
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (one, several)]
    assert torch.equal(*map(logits, models))


def test_the_card_says_data_method_prompts_settings_results_and_origin(export, runs):
    front, body = card(export("whole"))
    assert front["tags"] == ["dlma"] and "base_model" not in front  # a local base has no name on the hub
    for title in ("Use", "Data", "Method", "Prompts", "Settings", "Results", "Where it came from"):
        assert f"\n## {title}\n" in body
    assert "chats.jsonl" in body and "30 of 30 prompts were kept." in body
    assert "illegal, unethical, toxic response" in body and "beta: 0.1" in body
    rows = (runs / "whole" / "metrics.csv").read_text().splitlines()[1:]
    ((index,),) = (one["results"] for one in front["model-index"])
    assert index["dataset"]["type"].endswith("chats.jsonl") and index["task"] == {"type": "text-generation"}
    told = {one["type"]: one for one in index["metrics"]}
    assert told, "the metrics of the aligned answers"
    for row in rows:
        metric, n, *numbers = row.split(",")[-5:]
        arm, _, name = metric.partition("/")
        if arm == "aligned" and numbers[0]:
            args = {"n": int(n)} | {end: float(v) for end, v in zip(("low", "high"), numbers[1:], strict=True) if v}
            one = told.pop(name)
            assert (one["value"], one["args"]) == (float(numbers[0]), args)
        mean, low, high = (f"{float(number):.4g}" if number else "–" for number in numbers)
        assert f"| {metric} | {mean} | [{low}, {high}] | {n} |" in body
    assert told == {}
    manifest = json.loads((runs / "whole" / "manifest.json").read_text())
    assert {"prompts", "pairs", "scored", "policy", "evaluated"} <= set(manifest)
    assert all(f"`{stage['key']}`" in body for stage in manifest.values())


def test_a_hostile_wording_or_name_stays_text_in_the_card(runs, tmp_path):
    folder = tmp_path / "x_`a`_**b** <script>"
    shutil.copytree(runs / "whole", folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["prompts"]["source"] = "```\n# Free\n<script>alert(1)</script>\n````"
    config["data"]["path"] = "`](javascript:alert(1))"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "files.json").unlink()
    present = OmegaConf.create(yaml.safe_load((runs / "whole" / "config.yaml").read_text()))
    read = [FinishedRun(f, present, trust=False) for f in (runs / "whole", folder)]
    plain, card = (model_card(run, adapter=False, merged=False) for run in read)
    reader = MarkdownIt("commonmark").enable("table")
    kinds = [[token.type for token in reader.parse(text.partition("\n---\n")[2])] for text in (plain, card)]
    assert kinds[0] == kinds[1] and "html_block" not in kinds[1]
    page = reader.render(card.partition("\n---\n")[2])
    assert "<script>" not in page and "<strong>" not in page.split("<h2>")[0] and "href" not in page


@pytest.mark.parametrize("format", ["chat", "text"])
def test_pairs_load_as_a_data_set_with_their_margins(export, runs, format):
    folder = export("whole", *PAIRS, f"mode.format={format}")
    table = datasets.load_dataset(str(folder), split="train", streaming=True)
    rows, pairs = list(table), scored(runs / "whole")
    assert len(rows) == len(pairs)
    tokenizer = AutoTokenizer.from_pretrained(runs / "whole" / "policy")
    for row, pair in zip(rows, pairs, strict=True):
        other = {"positive": "negative", "negative": "positive"}[pair["chosen"]]
        sign = 1 if pair["chosen"] == "positive" else -1
        assert row["margin"] == sign * pair["margin"] and row["rejected_side"] == other
        assert row["chosen_finished"] == pair[f"{pair['chosen']}_finished"]
        assert row["rejected_reference_logp"] == pair[f"{other}_reference"]
        texts = {n: row[n] if format == "text" else row[n][0]["content"] for n in ("chosen", "rejected")}
        sides = {"chosen": pair["chosen"], "rejected": other}
        assert texts == {name: as_written(tokenizer, pair, side) for name, side in sides.items()}
        if format == "text":  # with the BOS that its reader adds, the prompt is the one of training, id by id
            ids = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
            assert [tokenizer.bos_token_id, *ids] == pair["plain_context_ids"]
        else:
            assert row["prompt"][-1] == {"role": "user", "content": pair["question"]} and len(row["prompt"]) == 3


def test_the_card_says_how_many_pairs_come_back_as_the_ids_of_the_run(export, runs):
    folder, tokenizer = (
        export("whole", *PAIRS, "mode.format=text"),
        AutoTokenizer.from_pretrained(runs / "whole/policy"),
    )
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    same = 0
    for row, pair in zip(rows, scored(runs / "whole"), strict=True):
        context = pair["plain_context_ids"]
        texts = {row["prompt"]: context}
        for name in ("chosen", "rejected"):
            ids = [token for token in pair[f"{row[f'{name}_side']}_ids"] if token != tokenizer.eos_token_id]
            texts[row["prompt"] + row[name]] = [*context, *ids]
        same += all(tokenizer(text)["input_ids"] == ids for text, ids in texts.items())
    assert same < len(rows)  # random bytes are seldom the tokenizer's own way to write a text
    assert f"{same} of {len(rows)} pairs have the token ids that were scored and trained on" in card(folder)[1]


@pytest.mark.parametrize("format", ["chat", "text"])
def test_llama_factory_finds_what_its_description_names(export, format):
    folder = export("whole", *PAIRS, f"mode.format={format}")
    ((_, about),) = json.loads((folder / "dataset_info.json").read_text()).items()
    rows = [json.loads(line) for line in (folder / about["file_name"]).read_text().splitlines()]
    assert about["ranking"] is True and rows
    columns = about["columns"]
    for row in rows:
        chosen, rejected = row[columns["chosen"]], row[columns["rejected"]]
        if format == "text":
            assert all(isinstance(value, str) for value in (row[columns["prompt"]], chosen, rejected))
            continue
        # its sharegpt converter: an odd number of turns, user and assistant in turn, and one message for each answer
        tags, talk = about["tags"], row[columns["messages"]]
        assert about["formatting"] == "sharegpt" and len(talk) % 2 == 1
        roles = [turn[tags["role_tag"]] for turn in talk]
        assert roles == [(tags["user_tag"], tags["assistant_tag"])[i % 2] for i in range(len(roles))]
        assert chosen[tags["role_tag"]] == rejected[tags["role_tag"]] == tags["assistant_tag"]
        assert isinstance(chosen[tags["content_tag"]], str)


def test_chats_stand_in_openais_form_and_are_read_back_as_the_same_pairs(export):
    folder = export("whole", *PAIRS)
    lines = {name: (folder / name).read_text().splitlines() for name in ("train.jsonl", "openai.jsonl")}
    assert len(lines["openai.jsonl"]) == len(lines["train.jsonl"]) > 10
    for one, other in zip(*lines.values(), strict=True):
        row, theirs = json.loads(one), json.loads(other)
        assert theirs["input"]["messages"] == row["prompt"] and theirs["input"]["tools"] == []
        assert (theirs["preferred_output"], theirs["non_preferred_output"]) == (row["chosen"], row["rejected"])
    assert not (export("whole", *PAIRS, "mode.format=text", out="text") / "openai.jsonl").exists()


@pytest.mark.parametrize("format", ["chat", "text"])
def test_trl_prepares_the_pairs_for_dpo(export, runs, format, tmp_path):
    trl = pytest.importorskip("trl")
    folder = export("whole", *PAIRS, f"mode.format={format}")
    table = datasets.load_dataset(
        "json", data_files=str(folder / "train.jsonl"), split="train", cache_dir=str(tmp_path / "c")
    )
    tokenizer = AutoTokenizer.from_pretrained(runs / "whole" / "policy")
    assert tokenizer.chat_template == TEMPLATE
    config = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"), use_cpu=True, report_to="none", bf16=False, max_length=None
    )
    model = AutoModelForCausalLM.from_pretrained(runs / "whole" / "policy")
    ready = trl.DPOTrainer(model, args=config, train_dataset=table, processing_class=tokenizer).train_dataset
    assert len(ready) == len(scored(runs / "whole"))
    assert {"prompt_ids", "chosen_ids", "rejected_ids"} <= set(ready.column_names)


def test_exported_pairs_read_back_into_a_run_keep_their_margins(export, runs, tmp_path):
    folder = export("whole", *PAIRS)
    model = yaml.safe_load((folder / "config.yaml").read_text())["model"]["path"]
    settings = ["model=hf", f"model.path={model}", "data=jsonl", f"data.path={runs.parent}/pairs.jsonl", *QUICK]
    assert main([*settings, f"scored.path={folder / 'train.jsonl'}", "name=again"]) == 0
    again = {row["prompt_id"]: row["margin"] for row in scored(tmp_path / "outputs" / "again")}
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert len(again) >= 10
    assert again == {row["prompt_id"]: row["margin"] for row in lines if row["prompt_id"] in again}


def test_answers_of_the_negative_side_leave_on_request_only_and_with_a_warning(export, capsys):
    folder = export("whole", "mode.what=pairs", code=2)
    assert "mode.negative=true" in capsys.readouterr().err and not folder.exists()
    warned = export("whole", *PAIRS)
    assert "**Warning.**" in card(warned)[1] and "negative* prompt" in card(warned)[1]


def _settings(**pairs):
    return {"pairs": pairs, "iterations": 1, "iteration": {"later": {}}}


HARMFUL = [
    _settings(_target_="dlma.pairs.sampled.SampledPairs", first="positive", second="negative"),
    _settings(_target_="dlma.pairs.several.SeveralPairs", side="negative"),
    _settings(_target_="dlma.pairs.self_steering.SelfSteeringPairs"),
    _settings(_target_="mine.Pairs"),
    {**_settings(side="plain"), "iterations": 2, "iteration": {"later": {"pairs": {"side": "negative"}}}},
]
HARMLESS = [
    _settings(_target_="dlma.pairs.sampled.SampledPairs", first="plain", second="plain"),
    _settings(_target_="dlma.pairs.unrelated.UnrelatedPairs", side="plain"),
    _settings(_target_="dlma.pairs.human.HumanPairs"),
    {
        **_settings(first="positive", second="negative"),
        "iterations": 2,
        "iteration": {"later": {"pairs": {"side": "plain"}}},
    },
]


@pytest.mark.parametrize("config", HARMFUL + HARMLESS)
def test_what_was_written_under_the_negative_side_is_told_from_the_last_rounds_pairs(runs, config):
    run = FinishedRun(runs / "whole", None, trust=False)
    run.config = config
    assert (run.sides is None or "negative" in run.sides) == (config in HARMFUL)


def test_sides_are_written_where_they_say_something(export, runs, tmp_path):
    run = shutil.copytree(runs / "whole", tmp_path / "plain")
    config = (run / "config.yaml").read_text()
    (run / "files.json").unlink()
    plain = config.replace("first: positive", "first: plain").replace("second: negative", "second: plain")
    (run / "config.yaml").write_text(plain)
    assert main(["mode=export", f"mode.run={run}", f"mode.out={tmp_path / 'out'}", "mode.what=pairs"]) == 0
    row = json.loads((tmp_path / "out" / "train.jsonl").read_text().splitlines()[0])
    assert "chosen_side" not in row and "chosen_side" not in card(tmp_path / "out")[1]


def test_human_pairs_need_no_such_request(export):
    front, body = card(export("adapter", "mode.what=pairs"))
    assert "**Warning.**" not in body and "Content warning" in body
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "train.jsonl"}]


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        ("nothing", [], "not the folder of a finished run: it has no config.yaml"),
        ("base", [], "it holds no policy"),
        ("whole", ["mode.merge=true"], "is a whole model already"),
        ("adapter", ["mode.shard_gb=1"], "mode.shard_gb: an adapter is one small file"),
        ("whole", ["mode.what=pairs", "mode.shard_gb=1"], "mode.shard_gb: is of the weights of a policy"),
        ("whole", ["mode.what=pairs", "mode.merge=true"], "mode.merge: is of the weights of a policy"),
        ("whole", ["mode.negative=true"], "mode.negative: is of a file of pairs"),
        ("whole", ["mode.format=text"], "mode.format: is of a file of pairs"),
        ("whole", ["mode.shard_gb=0"], "mode.shard_gb: must be a number above 0"),
        ("whole", ["mode.what=table"], "mode.what: must be one of policy, pairs"),
    ],
)
def test_a_mistake_gives_one_line_and_leaves_nothing(export, tmp_path, capsys, name, overrides, says):
    export(name, *overrides, code=2)
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_older_export_is_not_overwritten(export, capsys):
    folder = export("whole")
    before = (folder / "README.md").read_bytes()
    export("whole", *PAIRS, code=2)
    assert "there is something already" in capsys.readouterr().err
    assert (folder / "README.md").read_bytes() == before


# The hub


@pytest.fixture
def hub(monkeypatch):
    """A hub that keeps what it is given; `fails` makes it refuse."""
    import huggingface_hub

    class Hub:
        repos: ClassVar[dict] = {}
        files: ClassVar[dict] = {}
        fails: ClassVar[Exception | None] = None

        def create_repo(self, name, *, repo_type, private, exist_ok):
            if Hub.fails:
                raise Hub.fails
            Hub.repos[name] = (repo_type, private)
            return f"hub/{name}"

        def upload_folder(self, *, repo_id, folder_path, repo_type, commit_message):
            Hub.files[repo_id] = {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return Hub


def test_nothing_is_uploaded_unless_asked_for(export, hub):
    export("whole")
    assert hub.repos == {} and hub.files == {}


@pytest.mark.parametrize(
    ("overrides", "kind", "private"),
    [
        (["mode.push=me/one"], "model", True),
        ([*PAIRS, "mode.push=me/one", "mode.private=false"], "dataset", False),
    ],
)
def test_an_upload_is_the_export_file_by_file(export, hub, capsys, overrides, kind, private):
    folder = export("whole", *overrides)
    assert hub.repos == {"me/one": (kind, private)}
    assert hub.files["me/one"] == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert "uploaded: hub/me/one" in capsys.readouterr().out


def test_a_failed_upload_leaves_the_export_and_says_what_to_do(export, hub, capsys):
    hub.fails = OSError("401 Unauthorized\nmore")
    folder = export("whole", "mode.push=me/one", code=2)
    line = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(line) == 1 and "mode.push=me/one: the upload failed (401 Unauthorized); `hf auth login`" in line[0]
    assert (folder / "README.md").is_file()


def test_a_base_from_the_hub_is_named_in_the_card_and_a_commit_is_not_looked_up(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs / "adapter", copy)
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    settings["model"] |= {"path": "someone/some-model", "revision": "abc"}
    (copy / "config.yaml").write_text(yaml.safe_dump(settings))
    (copy / "files.json").unlink()
    assert main(["mode=export", f"mode.run={copy}"]) == 0
    front, body = card(copy / "export" / "policy")
    assert (front["base_model"], front["base_model_relation"]) == ("someone/some-model", "adapter")
    assert "from `someone/some-model`" in body


def test_an_export_imports_no_torch_unless_it_merges(runs, tmp_path):
    code = "import sys; from dlma.app import main; code = main(sys.argv[1:]); sys.exit(code or 'torch' in sys.modules)"
    line = [sys.executable, "-c", code, "mode=export", f"mode.run={runs / 'whole'}", f"mode.out={tmp_path / 'out'}"]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, env=here)
    assert done.returncode == 0, done.stderr
