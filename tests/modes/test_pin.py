"""mode=pin: branches become commits, all or none, and nothing else in a preset changes."""

import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors
from omegaconf import OmegaConf

from dlma.config.help import conf_dir
from dlma.modes import pin

FILES = sorted((conf_dir() / "model").glob("*.yaml"))
NAMES = [path.stem for path in FILES if path.stem != "hf" and "revision: main" in path.read_text()]


@pytest.fixture
def presets(tmp_path, monkeypatch):
    """A copy of conf/, which stands for the shipped one."""
    shutil.copytree(conf_dir(), tmp_path / "conf")
    monkeypatch.setattr(pin, "conf_dir", lambda: tmp_path / "conf")
    return tmp_path / "conf" / "model"


@pytest.fixture
def hub(monkeypatch):
    """A hub whose models have commits made from their names; what was asked of it."""
    asked = []

    class Hub:
        def model_info(self, name, revision):
            asked.append((name, revision))
            return type("Info", (), {"sha": commit(name)})

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return asked


def commit(name):
    return name.encode().hex()[:40].ljust(40, "0")


def test_every_hub_preset_is_found_and_no_other(presets):
    assert sorted(pin.hub_presets(presets)) == NAMES


def test_commits_are_written_into_the_presets_and_nothing_else_changes(presets, hub, run_main):
    before = {path.stem: path.read_text() for path in presets.glob("*.yaml")}
    ran = run_main("mode=pin")
    assert ran.code == 0 and [line.split(":")[0] for line in ran.out.splitlines()] == NAMES
    for path in presets.glob("*.yaml"):
        preset = OmegaConf.load(path)
        if path.stem in NAMES:
            assert preset.revision == commit(preset.path)
            assert path.read_text().replace(preset.revision, "main") == before[path.stem]
        else:
            assert path.read_text() == before[path.stem]
    assert {revision for _, revision in hub} == {"main"}


def test_a_pinned_preset_is_pinned_anew_to_the_branch(presets, hub, run_main):
    assert run_main("mode=pin", "mode.presets=[smollm2_135m]").code == 0
    path = presets / "smollm2_135m.yaml"
    path.write_text(path.read_text().replace(commit("HuggingFaceTB/SmolLM2-135M"), "f" * 40))
    assert run_main("mode=pin", "mode.presets=[smollm2_135m]").code == 0
    assert OmegaConf.load(path).revision == commit("HuggingFaceTB/SmolLM2-135M")
    assert [name for name, _ in hub] == ["HuggingFaceTB/SmolLM2-135M"] * 2


def test_without_the_hub_nothing_is_changed(presets, monkeypatch, run_main):
    class Down:
        def model_info(self, name, revision):
            if name.startswith("Qwen"):
                raise errors.OfflineModeIsEnabled("no network")
            return type("Info", (), {"sha": commit(name)})

    monkeypatch.setattr(huggingface_hub, "HfApi", Down)
    before = {path: path.read_text() for path in presets.glob("*.yaml")}
    ran = run_main("mode=pin")
    assert ran.code == 2 and ran.err.startswith("error: Qwen/Qwen3-0.6B: ") and "no network" in ran.err
    assert {path: path.read_text() for path in presets.glob("*.yaml")} == before


def test_a_model_without_a_commit_changes_nothing(presets, monkeypatch, run_main):
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **options: SimpleNamespace(sha=None))
    before = {path: path.read_text() for path in presets.glob("*.yaml")}
    ran = run_main("mode=pin")
    assert ran.code == 2 and ran.err.endswith(": the hub names no commit of it; nothing was changed\n")
    assert {path: path.read_text() for path in presets.glob("*.yaml")} == before


def test_an_unknown_preset_is_named(presets, hub, run_main):
    ran = run_main("mode=pin", "mode.presets=[smollm,lab]")
    assert ran.code == 2 and "smollm, lab: no preset of a hub model" in ran.err and hub == []
