"""From a command line to what Hydra gets: each override sets what it says, once, and nothing is passed over."""

from pathlib import Path

import pytest
from command_line import MODE, statuses

from dlma.config import compose
from dlma.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
JUDGE = "dlma.scorer.judge"


def own(folder, text, name="study", group="experiment"):
    """A folder for --config-dir with one file of a group."""
    (folder / group).mkdir(parents=True, exist_ok=True)
    (folder / group / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    return folder


def swept(folder, params, before="", name="study"):
    return own(folder, f"{before}hydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {params}\n", name)


def plan(*lines, multirun=False, extra=None):
    return compose.plan(compose.search_path(CONF, extra and str(extra)), list(lines), multirun)


def refused(*lines, multirun=True, extra=None):
    with pytest.raises(UserError) as raised:
        plan(*lines, multirun=multirun, extra=extra)
    return str(raised.value)


def test_a_group_and_the_same_group_in_a_package_are_two_settings():
    alone = plan("mode=agreement", "scorer=judge").cfg
    both = plan("mode=agreement", "scorer=judge", "+scorer@mode.scorers.x=construction", "+scorer@mode.scorers.y=judge")
    found = both.cfg
    assert found.scorer == alone.scorer and found.scorer._target_.startswith(JUDGE)
    own_scorers = found.mode.scorers.keys() - alone.mode.scorers.keys()
    assert own_scorers == {"x", "y"}
    assert found.mode.scorers.y._target_ == alone.scorer._target_ != found.mode.scorers.x._target_


def test_a_sweep_over_a_package_is_a_sweep_over_it_alone():
    found = plan(
        "mode=agreement", "scorer=judge,self_reward", "+scorer@mode.scorers.x=construction,judge", multirun=True
    )
    assert found.cells == 4 and found.cfg.scorer._target_.startswith(JUDGE)
    assert sum("scorer@mode.scorers.x=" in line for line in found.overrides) == 1


def test_a_package_leaves_the_experiments_sweep_of_that_group_as_it_is(tmp_path):
    folder = swept(tmp_path, "{scorer: 'self_reward,judge', seed: '0,1'}")
    found = plan("experiment=study", "mode=agreement", "+scorer@mode.scorers.x=construction", extra=folder)
    assert found.cells == 4
    assert "scorer=self_reward,judge" in found.overrides
    assert "+scorer@mode.scorers.x=construction" in found.overrides


def test_what_an_experiments_own_sweep_gives_need_not_stand_elsewhere(tmp_path):
    folder = swept(tmp_path, "{model.path: 'own/a,own/b'}", "defaults: [{override /model: hf}]\n")
    assert plan("experiment=study", extra=folder).cells == 2


def test_a_key_that_no_file_writes_can_be_swept_by_an_experiment(tmp_path, run_main, mode):
    folder = swept(tmp_path / "mine", "{sampler.rows: '4,8'}")
    seen = []
    mode(lambda cfg, /: seen.append(cfg.sampler.rows) or {})
    ran = run_main("--config-dir", str(folder), "experiment=study", MODE)
    assert (ran.code, seen) == (0, [4, 8]), ran.err


def test_a_list_of_options_can_be_swept():
    found = plan("judges=[oracle],[self]", multirun=True)
    alone = [plan(f"judges=[{name}]").cfg.judges for name in ("oracle", "self")]
    assert [cfg.judges for cfg in found.each()] == alone and alone[0] != alone[1]
    assert "judges=nosuch: no such option" in refused("judges=[oracle],[nosuch]")


def test_a_group_of_ones_own_is_added_with_a_plus(tmp_path, run_main, mode):
    folder = own(tmp_path / "mine", "seed: 5\n", "bar", "foo")
    seen = []
    mode(lambda cfg, /: seen.append(cfg.seed) or {})
    ran = run_main("--config-dir", str(folder), "+foo=bar", MODE)
    assert (ran.code, seen) == (0, [5]), ran.err


@pytest.mark.slow
def test_two_experiments_with_sweeps_are_not_one_sweep(tmp_path):
    swept(tmp_path, "{seed: '0,1'}", name="one")
    swept(tmp_path, "{seed: '2,3'}", name="two")
    own(tmp_path, "seed: 4\n", "plain")
    own(tmp_path, "seed: 5\n", "other")
    for first, second in (("one", "two"), ("plain", "two"), ("two", "plain")):
        said = refused(f"experiment={first},{second}", extra=tmp_path)
        assert "brings a sweep of its own; run experiments with sweeps one after the other" in said
    assert plan("experiment=plain,other", multirun=True, extra=tmp_path).cells == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("seed=0,1,0", "seed=0,1,0: 0 stands there twice"),
        ("model.base=weak,'weak'", "model.base=weak,weak: weak stands there twice"),
        ("name=a,b", "name=a,b: is the whole sweep's; give one value"),
        ("sweep.margin=0.03,0.05", "sweep.margin=0.03,0.05: is the whole sweep's; give one value"),
        ("hydra.sweep.subdir=x", "hydra.sweep.subdir: cells are named by what varies"),
        ("hydra.run.dir=x", "hydra.run.dir: is the folder of a single run"),
    ],
)
def test_cells_that_would_share_a_folder_are_refused(line, said):
    assert said in refused("seed=0,1" if not line.startswith("seed") else "recipe.beta=1,2", line)


def test_a_switch_whose_name_ends_like_a_secret_is_part_of_a_cells_name(run_main, mode):
    mode(lambda cfg, /: {})
    ran = run_main("-m", MODE, "objective.per_token=true,false")
    assert ran.code == 0, ran.out
    names = {path.rpartition("/")[2].lower() for path in statuses(ran.folder)}
    assert names == {"dlma,objective.per_token=true", "dlma,objective.per_token=false"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hydra.sweeper.params.seed='0,1'", "hydra.sweeper.params.seed: is for an experiment's file"),
        ("seed=glob(*)", "seed=glob(*): glob is for the options of a group"),
    ],
)
def test_other_ways_to_ask_for_a_sweep_are_one_line(line, said):
    assert said in refused(line)


def test_a_text_with_commas_is_told_from_a_sweep():
    assert "a text with commas \"runs='a,b'\"" in refused("mode=report", "runs=a,b", multirun=False)


def test_a_sweeps_folder_is_nothing_to_a_single_run():
    assert "hydra.sweep.dir: is the folder of a sweep (-m)" in refused("hydra.sweep.dir=x", multirun=False)


@pytest.mark.parametrize("looking", ["check", "plan"])
def test_a_mode_that_only_looks_leaves_no_folder_whatever_folder_the_run_would_have(looking, run_main):
    ran = run_main(f"mode={looking}", "hydra.run.dir=there", "data.train=10")
    assert ran.code == 0, ran.err
    assert not (ran.folder / "there").exists()


@pytest.mark.parametrize("line", ["hydra.sweep.dir=${nope}", "~method"])
def test_a_sweep_whose_folder_cannot_be_named_is_one_line(line, run_main):
    ran = run_main("-m", "seed=0,1", line)
    assert ran.code == 2 and ran.err.startswith("error: ") and "Traceback" not in ran.err


@pytest.mark.parametrize("flag", [["--config-name", "x"], ["--package", "x"], ["--experimental-rerun", "x.pickle"]])
def test_a_flag_of_hydra_that_a_run_does_not_read_is_refused(flag, run_main):
    ran = run_main(MODE, *flag)
    assert ran.code == 2 and f"{flag[0]}: says nothing to a run" in ran.err


@pytest.mark.parametrize("line", ["scorer=judge,self_reward", "pairs=plain,contrastive", "scorer.token_budget=1,2"])
def test_how_pairs_are_made_or_scored_says_nothing_to_pairs_that_come_scored(line):
    assert f"{line}: says nothing to the pairs of scored.path" in refused("scored.path=mine.parquet", line)
    plan("scored.path=mine.parquet", "method=dlma,rlcd", multirun=True)
    for paths in ("null,mine.parquet", "mine.parquet,null"):
        plan(f"scored.path={paths}", line, multirun=True)
