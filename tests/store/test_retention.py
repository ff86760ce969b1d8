"""What the store mode shows and removes, and which policies are kept."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from store_kit import never, spoil, write_policy, write_rows

from dlma import files
from dlma.errors import UserError
from dlma.modes import store as store_mode
from dlma.modes.store import show
from dlma.runs import policies, publish, written
from dlma.store import owned, retention
from dlma.store.store import Store


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    return Store(tmp_path / "store", notify=said.append)


def test_keeping_the_best_of_a_group_deletes_the_weights_of_the_others(store, tmp_path, said):
    stages, runs = [], [tmp_path / f"run{n}" / "policy" for n in range(3)]
    for n, score in enumerate((0.1, 0.9, float("nan"))):
        policy = store.make(store.stage("policy", {"n": n}), write_policy)
        publish.publish_tree(policy, "policy", runs[n])
        policies.keep(store, "best", policy, score=score, group=tmp_path / "sweep", published=runs[n])
        stages.append(policy)
    assert [(policy.folder / "policy/model.safetensors").exists() for policy in stages] == [False, True, False]
    assert [(run / "model.safetensors").exists() for run in runs] == [False, True, False]
    again = Store(store.root, notify=said.append)
    for policy in stages:
        again.make(policy, never)
        assert policy.read("train.csv") == b"step,loss\n"
    assert again.counts == {"run": {}, "reused": {"policy": 3}}


def test_a_pruned_stage_is_computed_again_when_its_weights_are_wanted(store, tmp_path, said):
    for n, score in enumerate((1.0, 2.0)):
        policy = store.make(store.stage("policy", {"n": n}), write_policy)
        policies.keep(store, "best", policy, score=score, group=tmp_path / "sweep")
    loser = store.make(store.stage("policy", {"n": 0}), write_policy)
    assert loser.pruned == ["policy/model.safetensors"]
    assert (loser.path("policy") / "model.safetensors").read_bytes() == b"weights"
    assert loser.pruned == []
    assert "pruned" in said[0]
    assert list(store.root.rglob("*.damaged-*")) == []


def test_keeping_adapters_drops_merged_weights_and_leaves_full_policies_alone(store, tmp_path):
    def write_lora(folder):
        for name in ("adapter/adapter_model.safetensors", "merged/model.safetensors"):
            (folder / name).parent.mkdir()
            (folder / name).write_bytes(b"weights")

    lora = store.make(store.stage("policy", {"lora": 8}), write_lora)
    full = store.make(store.stage("policy", {"lora": 0}), write_policy)
    pruned = [policies.keep(store, "adapter", stage, score=0.0, group=tmp_path / "g") for stage in (lora, full)]
    assert pruned == [[f"{lora}: weights deleted (store.keep_policies)"], []]
    assert lora.pruned == ["merged/model.safetensors"]
    assert lora.path("adapter").is_dir()
    assert policies.keep(store, "all", full, score=0.0, group=tmp_path / "g") == []


@pytest.fixture
def end(store):
    """End a cell: its policy is made, published where it says and held against the others of its sweep."""

    def call(n, score, group, run="run"):
        policy = store.make(store.stage("policy", {"n": n}), write_policy)
        place = group / run / "policy"
        if not policy.pruned:
            publish.publish_tree(policy, "policy", place)
        policies.keep(store, "best", policy, score=score, group=group, published=place)
        return place / "model.safetensors"

    return call


def test_a_policy_published_over_a_worse_one_stays_in_the_run_folder(end, store, tmp_path):
    end(0, 1.0, tmp_path / "trial")
    assert end(1, 2.0, tmp_path / "trial").is_file()
    assert store.stage("policy", {"n": 0}).pruned and not store.stage("policy", {"n": 1}).pruned


def test_of_a_cell_that_was_run_anew_the_policy_of_now_counts(end, store, tmp_path):
    """With an edited recipe or another torch the same cells have other policies: the best of these stays."""
    end(0, 2.0, tmp_path / "trial")
    assert end(1, 1.0, tmp_path / "trial").is_file()
    assert store.stage("policy", {"n": 0}).pruned and not store.stage("policy", {"n": 1}).pruned


@pytest.mark.parametrize("earlier", [1.0, 1.9])
def test_a_sweep_that_is_run_anew_keeps_its_best_whatever_its_cells_scored_before(end, store, tmp_path, earlier):
    for n, score, cell in [(0, 2.0, "a"), (1, earlier, "b"), (2, 1.5, "a"), (3, 0.5, "b")]:
        end(n, score, tmp_path / "sweep", cell)
    assert [bool(store.stage("policy", {"n": n}).pruned) for n in range(4)] == [True, True, False, True]


def test_sweeps_of_one_name_in_two_projects_do_not_compete(end, tmp_path):
    weights = [end(n, float(n), tmp_path / project / "sweep") for n, project in enumerate(("one", "other"))]
    assert all(path.is_file() for path in weights)


def test_the_weights_of_a_loser_go_from_every_run_that_shares_it(end, tmp_path):
    shared = [end(0, 1.0, tmp_path / "sweep", run) for run in ("a", "b")]
    assert all(path.is_file() for path in shared)
    assert end(1, 2.0, tmp_path / "sweep", "c").is_file()
    assert not any(path.exists() for path in shared)


def test_a_board_of_another_form_is_read_as_empty(end, store, tmp_path):
    end(0, 9.0, tmp_path / "sweep", "a")
    (board,) = (store.root / ".groups").glob("*.json")
    key = store.stage("policy", {"n": 0}).key
    board.write_text(json.dumps({key: {"score": 9.0, "published": str(tmp_path)}, "x": None}))
    assert end(1, 1.0, tmp_path / "sweep", "b").is_file()


def shelf(store):
    """One stage of each state."""
    store.make(store.stage("pairs", {"n": 1}), write_rows)
    stage = store.make(store.stage("scored", {"n": 1}), write_rows)
    spoil(stage.folder / "rows.parquet")
    stage.table()
    partial = store.stage("policy", {}).partial
    (partial / "scratch").mkdir(parents=True)
    (partial / "scratch" / "step.ckpt").write_bytes(b"0" * 2000)
    return OmegaConf.create({"store": {"root": str(store.root)}})


def states(store):
    return sorted((holding.folder.parent.name, holding.state) for holding in retention.holdings(store.root))


FULL = [("pairs", "done"), ("policy", "partial"), ("scored", "damaged"), ("scored", "done")]


@pytest.mark.parametrize(
    ("clean", "left"),
    [
        ("none", FULL),
        ("partial", [FULL[0], FULL[2], FULL[3]]),
        ("damaged", [FULL[0], FULL[1], FULL[3]]),
        ("all", []),
    ],
)
def test_the_store_mode_removes_what_is_asked_and_nothing_else(store, capsys, clean, left):
    cfg = shelf(store)
    show(cfg, clean=clean, yes=clean != "none")
    shown = capsys.readouterr().out
    assert states(store) == left
    assert "4 stages" in shown
    assert ("removed" in shown) == (clean != "none")
    assert ("2.0 kB" in shown) == (clean != "damaged")


def test_the_store_mode_spares_young_stages_and_stages_at_work(store, capsys):
    cfg = shelf(store)
    show(cfg, clean="all", older_than_days=1.0, yes=True)
    assert states(store) == FULL
    with store.lock(store.stage("policy", {}).folder):
        show(cfg, clean="all", yes=True)
    assert states(store) == [FULL[1]]
    assert "in use by another process" in capsys.readouterr().out


def test_what_another_process_removes_while_it_is_listed_counts_no_more(store, monkeypatch):
    stage = store.make(store.stage("pairs", {}), write_policy)
    (whole,) = retention.holdings(store.root)
    lstat, weights = Path.lstat, stage.folder / "policy" / "model.safetensors"
    monkeypatch.setattr(Path, "lstat", lambda path: (path == weights and path.unlink()) or lstat(path))
    (found,) = retention.holdings(store.root)
    assert (found.size, found.state) == (whole.size - len(b"weights"), "done")


def everything(folder):
    """Every file, folder and link below a folder, with what it holds."""
    paths = (path for path in folder.rglob("*") if path.suffix != ".lock")
    return {path: path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes() for path in paths}


@pytest.mark.parametrize("clean", ["partial", "damaged", "all"])
def test_without_a_yes_cleaning_only_lists_what_it_would_remove(store, capsys, clean):
    cfg = shelf(store)
    before, count = everything(store.root), {"partial": 1, "damaged": 1, "all": 4}[clean]
    show(cfg, clean=clean)
    shown = capsys.readouterr().out
    assert everything(store.root) == before
    assert f"mode.yes=true removes {count}, " in shown and "to be removed" in shown
    assert ("damaged-1" in shown) == (clean != "partial")


def test_a_yes_without_anything_to_clean_is_refused(store):
    with pytest.raises(UserError, match=r"mode.yes=true"):
        show(shelf(store), yes=True)


KEY = "0123456789abcdef"


@pytest.mark.parametrize("clean", ["none", "partial", "damaged", "all"])
@pytest.mark.parametrize("names", [["Documents/thesis", "photos/2024"], [f"policy/{KEY}", "notes"], ["policy/2024"]])
def test_a_folder_that_is_no_store_is_refused_and_untouched(tmp_path, names, clean):
    home = tmp_path / "home"
    for name in names:
        (home / name).mkdir(parents=True)
        (home / name / "mine.txt").write_text("mine")
    before = everything(home)
    with pytest.raises(UserError, match=r"no store"):
        show(OmegaConf.create({"store": {"root": str(home)}}), clean=clean, yes=clean != "none")
    with pytest.raises(UserError, match=r"no store"):
        Store(home).make(Store(home).stage("pairs", {}), never)
    assert everything(home) == before


def test_what_lies_in_a_store_and_is_no_stage_is_neither_counted_nor_removed(store, tmp_path, capsys):
    cfg = shelf(store)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "mine.txt").write_text("mine")
    for name in (f"Documents/{KEY}", "policy/2024", f"policy/{KEY}.partial.bak", f"policy/x{KEY}", "cache/judge"):
        (store.root / name).mkdir(parents=True)
        (store.root / name / "mine.txt").write_text("mine")
    (store.root / "policy" / KEY).symlink_to(precious)
    (store.root / "answers").symlink_to(tmp_path)
    (tmp_path / KEY).mkdir()
    stage = store.stage("policy", {}).partial
    (stage / "link").symlink_to(precious)
    kept = {path: held for path, held in everything(tmp_path).items() if "mine" in path.name or path.is_symlink()}
    show(cfg, clean="all", yes=True)
    assert "4 stages" in capsys.readouterr().out and not stage.exists()
    left = everything(tmp_path)
    assert {path: held for path, held in kept.items() if stage not in path.parents}.items() <= left.items()
    assert (tmp_path / KEY).is_dir()


def test_an_older_store_is_known_by_its_manifests_and_marked(store, capsys):
    cfg = shelf(store)
    (store.root / "dlma_store.json").unlink()
    (store.root / "thesis.tex").write_text("mine")
    show(cfg, clean="all")
    assert "mode.yes=true removes 4" in capsys.readouterr().out
    assert not owned.is_marked(store.root)
    show(cfg, clean="all", yes=True)
    assert owned.is_marked(store.root) and states(store) == []
    assert (store.root / "thesis.tex").read_text() == "mine"


def test_an_older_store_that_was_killed_in_its_first_stage_is_known(store, tmp_path):
    partial = store.stage("policy", {}).partial
    partial.mkdir(parents=True)
    store.make(store.stage("policy", {}), write_policy)
    assert owned.is_marked(store.root)


def test_a_mark_of_others_is_no_mark(tmp_path):
    (tmp_path / "dlma_store.json").write_text("{}")
    with pytest.raises(UserError, match="no store"):
        Store(tmp_path).claim()


@pytest.mark.parametrize("root", ["", " "])
def test_an_empty_root_is_refused_in_every_mode(root, run_main):
    for mode in ("store", "run"):
        ran = run_main(f"mode={mode}", f"store.root='{root}'")
        assert (ran.code, ran.err.count("\n")) == (2, 1) and "store.root: is empty" in ran.err
    assert list(ran.folder.iterdir()) == []


def test_a_link_in_a_folder_at_work_is_refused_and_not_followed(store, tmp_path):
    precious = tmp_path / "precious"
    (precious / "rows.parquet").mkdir(parents=True)
    (precious / "manifest.json").write_text("mine")
    before = everything(precious)
    store.claim()
    for number, name in enumerate(("", "scratch")):
        stage = store.stage("pairs", {"n": number})
        place = stage.partial / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(precious)
        with pytest.raises(UserError, match="symbolic link"):
            store.make(stage, never)
    assert everything(precious) == before


def test_pruning_by_a_manifest_that_leads_elsewhere_removes_nothing_there(store, tmp_path):
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "mine.safetensors").write_bytes(b"mine")
    stage = store.make(store.stage("policy", {"n": 0}), write_policy)
    (stage.folder / "link").symlink_to(tmp_path / "linked")
    names = ["../../../mine.safetensors", str(tmp_path / "mine.safetensors"), "link/mine.safetensors"]
    listed = stage.manifest["files"] | {name: {"sha256": "", "size": 4} for name in names}
    files.write_json(stage.folder / "manifest.json", {**stage.manifest, "files": listed})
    policies.keep(store, "best", stage, score=0.0, group=tmp_path / "sweep")
    better = store.make(store.stage("policy", {"n": 1}), write_policy)
    policies.keep(store, "best", better, score=1.0, group=tmp_path / "sweep")
    assert not (stage.folder / "policy/model.safetensors").exists()
    assert (tmp_path / "mine.safetensors").exists() and (tmp_path / "linked/mine.safetensors").exists()


def test_of_a_losers_run_folder_only_weights_that_a_run_wrote_there_go(end, store, tmp_path):
    place = end(0, 1.0, tmp_path / "sweep", "a").parent
    (place / "mine.safetensors").write_bytes(b"mine")
    touched = end(0, 1.0, tmp_path / "sweep", "b")
    touched.write_bytes(b"trained on by hand")
    end(1, 2.0, tmp_path / "sweep", "c")
    assert sorted(path.name for path in place.iterdir()) == ["config.json", "mine.safetensors"]
    assert touched.read_bytes() == b"trained on by hand"
    assert written.damage(place.parent, ["policy/config.json"]) is None


def test_the_store_mode_on_an_absent_store_writes_nothing(tmp_path, capsys):
    show(OmegaConf.create({"store": {"root": str(tmp_path / "none")}}))
    assert "0 stages" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (4.2e6, "4.2 MB"), (3e12, "3.0 TB")]
)
def test_sizes_read_in_powers_of_a_thousand(size, text):
    assert store_mode.size_text(size) == text


@pytest.mark.parametrize(("age", "text"), [(5, "now"), (90, "2 min"), (7200, "2 h"), (259200, "3 d")])
def test_ages_read_in_the_largest_unit(age, text):
    assert store_mode.age_text(age) == text


def test_a_policy_that_was_cleaned_away_no_longer_counts_as_the_best(store, tmp_path):
    best = store.make(store.stage("policy", {"n": 0}), write_policy)
    policies.keep(store, "best", best, score=9.0, group=tmp_path / "sweep")
    show(OmegaConf.create({"store": {"root": str(store.root)}}), clean="all", yes=True)
    second = store.make(store.stage("policy", {"n": 1}), write_policy)
    assert policies.keep(store, "best", second, score=1.0, group=tmp_path / "sweep") == []
    assert second.pruned == []
