"""A run folder holds what its last run wrote, and what no run writes."""

import pytest
from store_kit import write_policy

from dlma import files
from dlma.runs import leftovers, publish
from dlma.store import retention
from dlma.store.store import Store

LEFT = [
    *("policy/model.safetensors", "policy/config.json", "tuned/model.safetensors", "reward.csv", "rewards.parquet"),
    *("along.csv", "along.parquet", "rounds.csv", "verdicts.parquet", "scores.parquet", "categories.csv"),
    *("versus.csv", "versus.parquet"),
]
OWN = ["notes.md", "annotation.json", "export/policy/config.json", "policy.md"]
NOTHING = dict(rounds=[{}], judged={}, measured={}, by_category=[])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def folder(tmp_path):
    for name in [*LEFT, *OWN]:
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text("left")
    files.write_json(tmp_path / "here" / "manifest.json", {})
    return tmp_path / "here"


def made(store, name, trained, n=0):
    def write(folder):
        write_policy(folder)
        return {"trained": trained}

    return store.make(store.stage(name, {"n": n}), write)


def remember(folder, stages):
    """The earlier run had these stages."""
    files.write_json(folder / "manifest.json", {name: stage.manifest for name, stage in stages.items()})


def held(folder):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return names - {"manifest.json"}


def test_what_a_run_does_not_have_goes_and_what_no_run_writes_stays(store, folder):
    leftovers.clear(folder, {"policy": made(store, "policy", False)}, **NOTHING)
    assert held(folder) == set(OWN)


def test_where_no_run_was_nothing_goes(store, folder):
    (folder / "manifest.json").unlink()
    leftovers.clear(folder, {"policy": made(store, "policy", False)}, **NOTHING)
    assert held(folder) == {*LEFT, *OWN}


def test_what_a_run_has_stays_until_it_is_written(store, folder):
    stages = {name: made(store, name, True) for name in ("policy", "tuned", "reward")}
    stages |= {"along": made(store, "verdicts", True), "aligned": made(store, "answers", True)}
    remember(folder, stages)
    one = {"a": stages["along"]}
    leftovers.clear(folder, stages, rounds=[{}, {}], judged=one, measured=one, by_category=[1])
    assert held(folder) == {*LEFT, *OWN}


@pytest.mark.parametrize(("n", "stays"), [(0, True), (1, False)])
def test_verdicts_against_other_methods_stay_while_the_answers_are_the_same(store, folder, n, stays):
    remember(folder, {"aligned": made(store, "answers", True)})
    stages = {"policy": made(store, "policy", True, n), "aligned": made(store, "answers", True, n)}
    leftovers.clear(folder, stages, **NOTHING)
    assert ("versus.csv" in held(folder), "versus.parquet" in held(folder)) == (stays, stays)


@pytest.mark.parametrize(("n", "stays"), [(0, True), (1, False)])
def test_a_policy_whose_weights_the_store_let_go_stays_where_it_is_the_same(store, folder, tmp_path, n, stays):
    for number, score in enumerate((1.0, 2.0, 3.0)):
        policy = made(store, "policy", True, number)
        retention.keep(store, "best", policy, score=score, group=tmp_path)
    remember(folder, {"policy": made(store, "policy", True)})
    policy = made(store, "policy", True, n)
    assert policy.pruned
    leftovers.clear(folder, {"policy": policy}, **NOTHING)
    assert (folder / "policy" / "model.safetensors").exists() == stays


def test_withdrawing_a_link_leaves_what_it_leads_to(store, tmp_path):
    policy = made(store, "policy", True)
    copy = publish.publish_tree(policy, "policy", tmp_path / "run" / "policy")
    (tmp_path / "run" / "link").symlink_to(copy)
    publish.withdraw(tmp_path / "run" / "link")
    assert (copy / "model.safetensors").is_file()
    for _ in range(2):
        publish.withdraw(copy)
    assert not copy.exists() and (policy.path("policy") / "model.safetensors").is_file()
