"""A run folder holds what its last run wrote, and what no run writes."""

import pytest
from store_kit import write_policy

from dlma import files
from dlma.runs import leftovers, policies, publish, written
from dlma.store.store import Store

LEFT = [
    *("policy/model.safetensors", "policy/config.json", "tuned/model.safetensors", "reward.csv", "rewards.parquet"),
    *(
        "trajectory.csv",
        "trajectory.parquet",
        "rounds.csv",
        "verdicts.parquet",
        "metric_values.parquet",
        "categories.csv",
    ),
    *("versus.csv", "versus.parquet"),
]
OWN = ["notes.md", "annotation.json", "export/policy/config.json", "policy.md"]
NOTHING = dict(rounds=[{}], judged={}, measured={}, by_category=[])


def clear(folder, stages, **parts):
    leftovers.clear(folder, stages, leftovers.written(stages, **{**NOTHING, **parts}))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def folder(tmp_path):
    for name in [*LEFT, *OWN]:
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text("left")
    written.note(tmp_path / "here", LEFT)
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
    return names - {"manifest.json", "files.json"}


def test_what_a_run_does_not_have_goes_and_what_no_run_writes_stays(store, folder):
    clear(folder, {"policy": made(store, "policy", False)})
    assert held(folder) == set(OWN)
    assert written.record(folder) == {}


@pytest.mark.parametrize("foreign", [None, {}, {"name": "an extension", "version": "1.0"}, {"policy": {"key": "1"}}])
def test_where_no_run_was_nothing_goes(store, folder, foreign):
    (folder / "files.json").unlink()
    if foreign is not None:
        files.write_json(folder / "manifest.json", foreign)
    clear(folder, {"policy": made(store, "policy", False)})
    assert held(folder) == {*LEFT, *OWN}


def test_what_a_run_of_before_the_list_left_is_kept_under_another_name(store, folder, capsys):
    (folder / "files.json").unlink()
    remember(folder, {"policy": made(store, "policy", True)})
    clear(folder, {"policy": made(store, "policy", False, 1)})
    aside = {name.replace("/", ".aside-1/") if "/" in name else f"{name}.aside-1" for name in LEFT}
    assert held(folder) == {*aside, *OWN}
    assert f"{folder / 'reward.csv.aside-1'}: kept" in capsys.readouterr().err


def test_what_was_changed_or_added_since_a_run_wrote_it_is_kept_under_another_name(store, folder):
    (folder / "policy" / "config.json").write_text("my own")
    (folder / "policy" / "deep").mkdir()
    (folder / "policy" / "deep" / "notes.md").write_text("mine")
    (folder / "reward.csv").write_text("more")
    clear(folder, {"policy": made(store, "policy", False)})
    kept = {"policy.aside-1/config.json", "policy.aside-1/deep/notes.md", "reward.csv.aside-1"}
    assert held(folder) == {*kept, *OWN}


def test_a_link_in_the_place_of_an_output_is_kept_and_what_it_leads_to_untouched(store, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    for name in ("policy", "tuned"):
        (folder / name).rename(elsewhere.with_name(f"elsewhere-{name}"))
    (folder / "policy").symlink_to(tmp_path / "elsewhere-policy")
    (folder / "tuned").mkdir()
    (folder / "tuned" / "model.safetensors").symlink_to(tmp_path / "elsewhere-tuned" / "model.safetensors")
    clear(folder, {"policy": made(store, "policy", False)})
    assert (tmp_path / "elsewhere-policy" / "config.json").read_text() == "left"
    assert (tmp_path / "elsewhere-tuned" / "model.safetensors").read_text() == "left"
    assert (folder / "policy.aside-1").is_symlink() and (folder / "tuned.aside-1/model.safetensors").is_symlink()


def test_what_a_run_has_stays_until_it_is_written(store, folder):
    stages = {name: made(store, name, True) for name in ("policy", "tuned", "reward")}
    stages |= {"intermediate": made(store, "evaluated", True), "aligned": made(store, "answers", True)}
    remember(folder, stages)
    one = {"a": stages["intermediate"]}
    clear(folder, stages, rounds=[{}, {"scored_otherwise": one["a"]}], judged=one, measured=one, by_category=[1])
    assert held(folder) == {*LEFT, *OWN}


@pytest.mark.parametrize(("n", "stays"), [(0, True), (1, False)])
def test_verdicts_against_other_methods_stay_while_the_answers_are_the_same(store, folder, n, stays):
    remember(folder, {"aligned": made(store, "answers", True)})
    stages = {"policy": made(store, "policy", True, n), "aligned": made(store, "answers", True, n)}
    clear(folder, stages)
    assert ("versus.csv" in held(folder), "versus.parquet" in held(folder)) == (stays, stays)


@pytest.mark.parametrize(("n", "stays"), [(0, True), (1, False)])
def test_a_policy_whose_weights_the_store_let_go_stays_where_it_is_the_same(store, folder, tmp_path, n, stays):
    for number, score in enumerate((1.0, 2.0, 3.0)):
        policy = made(store, "policy", True, number)
        policies.keep(store, "best", policy, score=score, group=tmp_path)
    remember(folder, {"policy": made(store, "policy", True)})
    policy = made(store, "policy", True, n)
    assert policy.pruned
    clear(folder, {"policy": policy})
    assert (folder / "policy" / "model.safetensors").exists() == stays


def test_withdrawing_leaves_what_the_store_holds(store, tmp_path):
    policy = made(store, "policy", True)
    copy = publish.publish_tree(policy, "policy", tmp_path / "run" / "policy", link=True)
    for _ in range(2):
        publish.withdraw(copy)
    assert not copy.exists() and (policy.path("policy") / "model.safetensors").is_file()
