"""Models by folder and hub name: presets, what the model's own files say, and one line for what cannot be had."""

import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors
from omegaconf import OmegaConf
from small_models import plain_logp, save_small, small_network, small_tokenizer

from dlma.app import conf_dir
from dlma.config import compose
from dlma.config.build import build
from dlma.context import RunContext
from dlma.errors import UserError
from dlma.model.engine import Engine
from dlma.model.load import hf_model
from dlma.model.trees import Completion

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PRESETS = {  # what each is, and the recipe that suits it
    "llama2_7b": ("meta-llama/Llama-2-7b-hf", "paper"),
    "llama2_13b": ("meta-llama/Llama-2-13b-hf", "paper"),
    "mistral_7b": ("mistralai/Mistral-7B-v0.1", "small_lora"),
    "llama3_2_1b": ("meta-llama/Llama-3.2-1B", "small_lora"),
    "qwen3_0_6b": ("Qwen/Qwen3-0.6B", "small_full"),
    "smollm2_135m": ("HuggingFaceTB/SmolLM2-135M", "small_full"),
    "smollm2_135m_instruct": ("HuggingFaceTB/SmolLM2-135M-Instruct", "small_lora"),
    "qwen3_8b": ("Qwen/Qwen3-8B", "chat_lora_24gb"),
}
BASES = {"llama2_7b", "llama2_13b", "mistral_7b", "llama3_2_1b", "smollm2_135m"}  # not tuned for chat


def composed(*overrides):
    return compose.plan(compose.search_path(conf_dir(), None), [*overrides, "data=jsonl", "data.path=p.jsonl"], False)


def model(path, **changes):
    settings = {"path": str(path), "revision": "main", "dtype": "float32", "bits": None, "lora": None}
    return hf_model(**{**settings, **changes})


# --- presets


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_a_hub_model_and_selects_its_recipe(name):
    cfg = composed(f"model={name}").cfg
    assert (cfg.model.path, cfg.recipe.name) == PRESETS[name]
    assert cfg.model._recipe_ == cfg.recipe.name and cfg.model.trust_remote_code is False
    assert cfg.model.chat is (name not in BASES) and cfg.prompts.format == "auto"


def test_a_preset_says_nothing_that_the_models_own_files_say():
    allowed = {"defaults", "_recipe_", "path", "revision", "chat"}
    for name in PRESETS:
        assert set(OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")) <= allowed


@pytest.mark.parametrize("recipe", ["paper", "small_full", "small_lora"])
@pytest.mark.parametrize(("adapter", "lora", "bits"), [("none", False, None), ("lora", True, None), ("qlora", True, 4)])
def test_the_adapter_is_one_override_under_any_recipe(recipe, adapter, lora, bits):
    cfg = composed("model=llama2_7b", f"recipe={recipe}", f"adapter={adapter}").cfg
    assert (cfg.model.lora is not None) is lora and cfg.model.bits == bits


# --- the commit


def snapshot(folder):
    """A model as it lies in the hub's cache."""
    place = folder / "models--owner--name" / "snapshots" / COMMIT
    place.mkdir(parents=True)
    save_small(place)
    return place


def test_the_resolved_commit_is_the_revision_in_what_is_recorded(tmp_path, monkeypatch):
    place = snapshot(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, revision, allow_patterns: str(place))
    cfg = composed("model=hf", "model.path=owner/name").cfg
    cell = RunContext(cfg, tmp_path)
    assert cell.spec.commit == COMMIT and cell.spec.source == "owner/name"
    assert cell.settings["model"]["revision"] == "main"
    stage = cell.store.stage("prompts", {}, libraries=())
    cell.make(stage, lambda folder: (folder / "rows").write_text("x") and {})
    assert stage.manifest["config"]["model"]["revision"] == COMMIT


def test_a_local_folder_has_no_commit_and_its_revision_stands_as_written(tmp_path):
    save_small(tmp_path / "m")
    cell = RunContext(composed("model=hf", f"model.path={tmp_path / 'm'}").cfg, tmp_path)
    assert cell.spec.commit is None and cell.spec.source is None
    assert cell.recorded["model"]["revision"] == "main"


# --- what the model's own files say


def test_context_and_special_tokens_come_from_the_models_own_files(tmp_path):
    folder = save_small(tmp_path, context=48)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [1, 7]}))
    loaded = model(folder).load()
    assert loaded.context == 48 and loaded.eos_ids == {1, 7}
    assert (loaded.tokenizer.bos_token_id, loaded.pad_id) == (0, 2)


# --- ids and rows


def with_ids(folder, network_size, **ids):
    """A saved model of `network_size` rows whose tokenizer may have more or fewer entries."""
    tokenizer = small_tokenizer(40)
    for name, token in ids.items():
        tokenizer.add_special_tokens({name: token})
    small_network(vocabulary=network_size).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_padding_id_beyond_the_embedding_is_replaced_by_one_within(tmp_path):
    spec = model(with_ids(tmp_path, 40, pad_token="[PAD]"))
    loaded = spec.load()
    assert (loaded.tokenizer.pad_token_id, loaded.pad_id, loaded.vocabulary) == (40, 0, 40)
    lengths = [Completion([0, 5, 6], [7]), Completion([0, 5], [7, 8, 9, 1])]
    scores = Engine(loaded, notice=lambda line: None).score([[one] for one in lengths])
    own = [float(plain_logp(loaded.network, one.context, one.response).detach()) for one in lengths]
    assert [value for (value,) in scores] == pytest.approx(own, abs=1e-5)


@pytest.mark.parametrize("kind", ["bos", "eos"])
def test_a_bos_or_eos_beyond_the_embedding_is_refused_by_name(tmp_path, kind):
    folder = with_ids(tmp_path, 40, **{f"{kind}_token": "<new>"})
    with pytest.raises(UserError, match=rf"the {kind.upper()} of .* is id 40, and the embedding has 40 rows"):
        model(folder).load()


def test_the_config_says_how_many_ids_a_model_has_whatever_its_tokenizer(tmp_path):
    for size in (48, 40):
        folder = with_ids(tmp_path / str(size), size, pad_token="[PAD]")
        assert model(folder).vocabulary == size == model(folder).load().vocabulary


def test_an_eos_of_the_generation_config_that_no_row_can_give_ends_nothing(tmp_path):
    folder = with_ids(tmp_path, 40)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [1, 41]}))
    assert model(folder).load().eos_ids == {1}


# --- what cannot be had


def failing(reason):
    def fail(*args, **named):
        raise reason

    return fail


def answered(kind, status):
    return kind("long\nmessage", response=SimpleNamespace(headers={}, request=None, status_code=status))


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        (answered(errors.GatedRepoError, 403), "accept its licence on its hub page, then `hf auth login`"),
        (answered(errors.RepositoryNotFoundError, 401), "no such model on the hub (or a private one"),
        (answered(errors.RevisionNotFoundError, 404), "no model.revision=main: give a branch, tag or commit"),
        (errors.LocalEntryNotFoundError("x"), "`hf download owner/name`"),
        (errors.HFValidationError("x"), "neither a folder here nor a name on the hub"),
        (answered(errors.HfHubHTTPError, 500), "could not be fetched from the hub (long): try again"),
        (errors.HTTPError("unreachable"), "could not be fetched from the hub (unreachable)"),
        (OSError("No space left on device"), "could not be fetched from the hub (No space left on device)"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_line_with_a_remedy(monkeypatch, reason, says):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(reason))
    with pytest.raises(UserError) as said:
        model("owner/name")
    line = str(said.value)
    assert line.startswith("model.path=owner/name: ") and says in line and "\n" not in line


def test_without_network_a_name_that_is_not_in_the_cache_fails_at_once():
    with pytest.raises(UserError, match="not in the local cache"):
        model("nobody/nothing")


def test_four_bit_weights_want_an_adapter_and_bitsandbytes(tmp_path, monkeypatch):
    folder = save_small(tmp_path)
    with pytest.raises(UserError, match=r"model.bits=4: .*adapter=qlora"):
        model(folder, bits=4)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'dlma\[qlora\]'"):
        model(folder, bits=4, lora={"rank": 2, "alpha": 4.0, "targets": "all-linear"})


def test_pickled_weights_and_broken_configs_are_named(tmp_path):
    folder = save_small(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights are not loaded"):
        model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        model(folder)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="no such folder"):
        build({**composed("model=hf", f"model.path={folder}").cfg.model})
