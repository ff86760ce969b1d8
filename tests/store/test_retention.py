"""What the store mode shows and removes, and which policies are kept."""

import json

import pytest
from omegaconf import OmegaConf
from store_kit import never, spoil, write_policy, write_rows

from dlma.runs import publish
from dlma.store import retention
from dlma.store.store import Store


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    return Store(tmp_path / "store", notify=said.append)


def test_keeping_the_best_of_a_group_deletes_the_weights_of_the_others(store, tmp_path, said):
    policies, runs = [], [tmp_path / f"run{n}" / "policy" for n in range(3)]
    for n, score in enumerate((0.1, 0.9, float("nan"))):
        policy = store.make(store.stage("policy", {"n": n}), write_policy)
        publish.publish_tree(policy, "policy", runs[n])
        retention.keep(store, "best", policy, score=score, group=tmp_path / "sweep", published=runs[n])
        policies.append(policy)
    assert [(policy.folder / "policy/model.safetensors").exists() for policy in policies] == [False, True, False]
    assert [(run / "model.safetensors").exists() for run in runs] == [False, True, False]
    again = Store(store.root, notify=said.append)
    for policy in policies:
        again.make(policy, never)
        assert policy.read("train.csv") == b"step,loss\n"
    assert again.counts == {"run": {}, "reused": {"policy": 3}}


def test_a_pruned_stage_is_computed_again_when_its_weights_are_wanted(store, tmp_path, said):
    for n, score in enumerate((1.0, 2.0)):
        policy = store.make(store.stage("policy", {"n": n}), write_policy)
        retention.keep(store, "best", policy, score=score, group=tmp_path / "sweep")
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
    pruned = [retention.keep(store, "adapter", stage, score=0.0, group=tmp_path / "g") for stage in (lora, full)]
    assert pruned == [[f"{lora}: weights deleted (store.keep_policies)"], []]
    assert lora.pruned == ["merged/model.safetensors"]
    assert lora.path("adapter").is_dir()
    assert retention.keep(store, "all", full, score=0.0, group=tmp_path / "g") == []


@pytest.fixture
def end(store):
    """End a cell: its policy is made, published where it says and held against the others of its sweep."""

    def call(n, score, group, run="run"):
        policy = store.make(store.stage("policy", {"n": n}), write_policy)
        place = group / run / "policy"
        if not policy.pruned:
            publish.publish_tree(policy, "policy", place)
        retention.keep(store, "best", policy, score=score, group=group, published=place)
        return place / "model.safetensors"

    return call


def test_a_policy_published_over_a_worse_one_stays_in_the_run_folder(end, store, tmp_path):
    end(0, 1.0, tmp_path / "trial")
    assert end(1, 2.0, tmp_path / "trial").is_file()
    assert store.stage("policy", {"n": 0}).pruned and not store.stage("policy", {"n": 1}).pruned


def test_a_policy_published_over_the_best_one_goes_if_it_is_worse(end, store, tmp_path):
    end(0, 2.0, tmp_path / "trial")
    assert not end(1, 1.0, tmp_path / "trial").exists()
    assert not store.stage("policy", {"n": 0}).pruned


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
    retention.show(cfg, clean=clean)
    shown = capsys.readouterr().out
    assert states(store) == left
    assert "4 stages" in shown
    assert ("removed" in shown) == (clean != "none")
    assert "2.0 kB" in shown


def test_the_store_mode_spares_young_stages_and_stages_at_work(store, capsys):
    cfg = shelf(store)
    retention.show(cfg, clean="all", older_than_days=1.0)
    assert states(store) == FULL
    with store.lock(store.stage("policy", {}).folder):
        retention.show(cfg, clean="all")
    assert states(store) == [FULL[1]]
    assert "in use by another process" in capsys.readouterr().out


def test_the_store_mode_on_an_absent_store_writes_nothing(tmp_path, capsys):
    retention.show(OmegaConf.create({"store": {"root": str(tmp_path / "none")}}))
    assert "0 stages" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (4.2e6, "4.2 MB"), (3e12, "3.0 TB")]
)
def test_sizes_read_in_powers_of_a_thousand(size, text):
    assert retention.size_text(size) == text


@pytest.mark.parametrize(("age", "text"), [(5, "now"), (90, "2 min"), (7200, "2 h"), (259200, "3 d")])
def test_ages_read_in_the_largest_unit(age, text):
    assert retention.age_text(age) == text


def test_a_policy_that_was_cleaned_away_no_longer_counts_as_the_best(store, tmp_path):
    best = store.make(store.stage("policy", {"n": 0}), write_policy)
    retention.keep(store, "best", best, score=9.0, group=tmp_path / "sweep")
    retention.show(OmegaConf.create({"store": {"root": str(store.root)}}), clean="all")
    second = store.make(store.stage("policy", {"n": 1}), write_policy)
    assert retention.keep(store, "best", second, score=1.0, group=tmp_path / "sweep") == []
    assert second.pruned == []
