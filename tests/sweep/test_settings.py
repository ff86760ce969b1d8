"""Runs become settings: what differs is named, seeds go together, the base and the prompted base stand once."""

import math

import pytest
import yaml
from planted_runs import answers, plant

from dlma.errors import UserError
from dlma.runs import cells as run_folders
from dlma.sweep import settings as sweep_settings


def rows_of(*folders):
    return sweep_settings.settings([run_folders.read_cell(folder) for folder in folders])


def labels(rows):
    return [(row.label, sorted(row.runs)) for row in rows]


def test_seeds_go_together_and_shared_arms_stand_once(tmp_path):
    cells = [plant(tmp_path / f"{m}{s}", method=m, seed=s) for m in ("dlma", "rlcd") for s in (0, 1)]
    assert labels(rows_of(*cells)) == [("base", [0, 1]), ("prompted", [0, 1]), ("dlma", [0, 1]), ("rlcd", [0, 1])]


def test_a_setting_is_named_by_what_differs_only(tmp_path):
    over = [{"recipe.beta": b, "recipe.lr": 1e-4, "labels": "sign"} for b in (0.5, 1.0)]
    cells = [plant(tmp_path / f"c{i}", overrides=o, tag=str(i)) for i, o in enumerate(over)]
    assert [row.label for row in rows_of(*cells)] == ["base", "prompted", "dlma, beta=0.5", "dlma, beta=1.0"]


def test_an_override_that_gives_the_default_is_the_same_setting(tmp_path):
    one = plant(tmp_path / "a", seed=0)
    two = plant(tmp_path / "b", seed=1, overrides={"recipe.beta": 0.5})
    other = plant(tmp_path / "c", seed=0, overrides={"recipe.beta": 2.0}, tag="2")
    found = labels(rows_of(one, two, other))
    assert found[2:] == [("dlma, beta=0.5", [0, 1]), ("dlma, beta=2.0", [0])]


def test_a_group_that_was_not_chosen_has_no_part_in_the_name(tmp_path):
    one = plant(tmp_path / "a")
    two = plant(tmp_path / "b", overrides={"labels": "shuffled"}, tag="x")
    assert [row.label for row in rows_of(one, two)][2:] == ["dlma", "dlma, labels=shuffled"]


def test_where_or_how_a_run_was_done_is_no_setting(tmp_path):
    one = plant(tmp_path / "a", seed=0)
    two = plant(tmp_path / "b", seed=1, overrides={"trainer.threads": 1, "sweep.retry_failed": "true", "name": "x"})
    assert labels(rows_of(one, two))[2:] == [("dlma", [0, 1])]


def test_what_a_component_notes_of_its_work_is_no_setting(tmp_path):
    """As of runs before and after such a note was added."""
    noted = {"labels": "sign", "labels._work_.kind": "none", "labels._needs_.module": "extra"}
    one = plant(tmp_path / "a", seed=0, config={"labels": "sign"})
    two = plant(tmp_path / "b", seed=1, config=noted)
    assert [sorted(row.runs) for row in rows_of(one, two) if row.arm == "aligned"] == [[0, 1]]


def test_settings_that_overrides_do_not_tell_apart_show_what_their_configs_hold(tmp_path):
    one = plant(tmp_path / "a", config={"objective.loss": "ipo"})
    two = plant(tmp_path / "b", config={"objective.loss": "sigmoid"}, tag="x")
    found = [row.label for row in rows_of(one, two)][2:]
    assert found == ["dlma, objective.loss=ipo", "dlma, objective.loss=sigmoid"]


def test_bases_have_rows_of_their_own(tmp_path):
    one = plant(tmp_path / "a", base="lab-standard")
    two = plant(tmp_path / "b", base="lab-weak", overrides={"model.base": "weak"}, tag="w")
    found = [(row.base, row.label) for row in rows_of(one, two)]
    assert found == [(base, label) for base in ("lab-standard", "lab-weak") for label in ("base", "prompted", "dlma")]


def test_the_methods_whose_answers_are_a_shared_arms_are_that_row(tmp_path):
    base, prompted = (answers(arm, 0, prompts=20, harm=0.5) for arm in ("base", "prompted"))
    again = [type(row)(**{**vars(row), "arm": "aligned"}) for row in prompted]
    cells = [
        plant(tmp_path / "a", method="base", rows=base + prompted),
        plant(tmp_path / "b", method="prompted", rows=base + prompted + again),
    ]
    assert [row.label for row in rows_of(*cells)] == ["base", "prompted"]


def test_a_policy_that_answers_like_the_base_is_no_base(tmp_path):
    base = answers("base", 0, prompts=20, harm=0.5)
    trained = [type(row)(**{**vars(row), "arm": "aligned", "logp": row.logp + 1e-5}) for row in base]
    assert [row.label for row in rows_of(plant(tmp_path / "a", rows=base + trained))] == ["base", "dlma"]


def test_base_answers_that_differ_are_rows_of_their_own(tmp_path):
    one = plant(tmp_path / "a", overrides={"recipe.temperature": 1.0}, prompts=30)
    two = plant(tmp_path / "b", overrides={"recipe.temperature": 0.5}, prompts=40, tag="x")
    rows = rows_of(one, two)
    assert [row.label for row in rows if row.arm == "base"] == ["base, temperature=1.0", "base, temperature=0.5"]
    cold = next(row for row in rows if row.label == "dlma, temperature=0.5")
    assert sweep_settings.baseline_of(cold, rows, None).label == "base, temperature=0.5"


def test_a_base_is_named_by_what_all_its_runs_have_and_others_have_not(tmp_path):
    """Pairs do not touch the base's answers, the data does."""
    cells = [
        plant(tmp_path / f"{data}{pairs}", overrides={"pairs": pairs, "data": data}, prompts=prompts, tag=pairs + data)
        for data, prompts in (("lab", 30), ("by_row", 40))
        for pairs in ("plain", "contrastive")
    ]
    rows = rows_of(*cells)
    assert [row.label for row in rows if row.arm == "base"] == ["base, data=lab", "base, data=by_row"]
    assert all(set(row.runs) == {0} for row in rows)


def test_base_answers_that_no_one_override_tells_apart_have_all_overrides(tmp_path):
    """The base answers by whether a equals b."""
    cells = [
        plant(tmp_path / f"{a}{b}", overrides={"recipe.a": a, "recipe.b": b}, prompts=30 + 10 * (a == b), tag=f"{a}{b}")
        for a in (1, 2)
        for b in (1, 2)
    ]
    assert [row.label for row in rows_of(*cells) if row.arm == "base"] == ["base, a=1, b=1", "base, a=1, b=2"]


def test_one_run_with_a_seed_of_its_own_leaves_another_sweep_whole(tmp_path):
    """recipe.seed follows the run's seed in the sweep, and is 5 in the run beside it."""
    cells = [plant(tmp_path / "sweep" / f"{seed}", seed=seed) for seed in (0, 1, 2)]
    cells.append(plant(tmp_path / "alone" / "odd", overrides={"recipe.seed": 5}, tag="odd"))
    cells.append(plant(tmp_path / "alone2" / "like", seed=3))
    own = {row.label: set(row.runs) for row in rows_of(*cells) if row.arm == "aligned"}
    assert sorted(map(sorted, own.values())) == [[0], [0, 1, 2, 3]]


def test_a_number_without_bound_is_a_number(tmp_path):
    cells = [plant(tmp_path / f"{high}", overrides={"recipe.high": high}, tag=str(high)) for high in (1.0, math.inf)]
    assert [row.label for row in rows_of(*cells) if row.arm == "aligned"] == ["dlma, high=1.0", "dlma, high=inf"]


def test_sweeps_of_one_seed_each_go_together_though_a_fixed_seed_is_the_runs_in_one_of_them(tmp_path):
    """recipe.seed follows the run's; data.seed is 0 in all, so that it only looks as if it followed in the first."""
    cells = [plant(tmp_path / f"sweep{seed}" / "one", seed=seed, overrides={"data.seed": 0}) for seed in (0, 1)]
    assert [set(row.runs) for row in rows_of(*cells) if row.arm == "aligned"] == [{0, 1}]


def test_a_seed_that_does_not_follow_the_runs_seed_tells_settings_apart(tmp_path):
    """recipe.seed follows the run's; data.seed is set apart."""
    cells = [
        plant(tmp_path / f"{data}{seed}", seed=seed, overrides={"data.seed": data}, tag=str(data))
        for data in (0, 1)
        for seed in (0, 1)
    ]
    own = {row.label: set(row.runs) for row in rows_of(*cells) if row.arm == "aligned"}
    assert own == {"dlma, data.seed=0": {0, 1}, "dlma, data.seed=1": {0, 1}}


def test_a_value_is_the_same_however_it_was_given(tmp_path):
    """null, 1 and 1e0 on the command line; None and 1.0 in the config of a method that has them by default."""
    given = [("dlma", {"labels.min_margin": "null"}, None), ("dlma", {"labels.min_margin": "1"}, 1.0)]
    given += [("rlcd", {}, None), ("rlcd", {"labels.min_margin": "1e0"}, 1.0)]
    cells = []
    for i, (method, overrides, value) in enumerate(given):
        folder = plant(tmp_path / f"{i}", method=method, overrides=overrides, tag=str(i))
        tree = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump({**tree, "labels": {"min_margin": value}}))
        cells.append(folder)
    rows = rows_of(*cells)
    own = [row.label for row in rows if row.arm == "aligned"]
    assert own == [f"{m}, min_margin={v}" for m in ("dlma", "rlcd") for v in ("null", "1.0")]
    dlma = next(row for row in rows if row.label == "dlma, min_margin=null")
    assert sweep_settings.baseline_of(dlma, rows, "rlcd").label == "rlcd, min_margin=null"


def test_one_base_in_another_company_of_prompts_is_one_base(tmp_path):
    """Its likelihoods differ in a last digit; that the method base answers as it does is seen in its own run."""
    base = answers("base", 0, prompts=20, harm=0.5)
    moved = [type(row)(**{**vars(row), "logp": row.logp + 1e-6}) for row in base]
    again = [type(row)(**{**vars(row), "arm": "aligned"}) for row in moved]
    cells = [
        plant(tmp_path / "a", rows=base + answers("aligned", 0, prompts=20, harm=0.2)),
        plant(tmp_path / "b", method="base", overrides={"prompts": "other"}, rows=moved + again),
    ]
    assert [row.label for row in rows_of(*cells)] == ["base", "dlma"]


def test_of_two_runs_of_one_seed_the_newest_counts(tmp_path):
    old = plant(tmp_path / "a", status={"started": 1.0}, tag="old")
    new = plant(tmp_path / "b", status={"started": 2.0}, tag="new")
    (row,) = [row for row in rows_of(new, old) if row.label == "dlma"]
    assert row.runs[0].folder == new


def test_the_baseline_is_found_by_label_or_method_and_said_when_not(tmp_path):
    over = [("dlma", {"recipe.beta": 0.5}), ("dlma", {"recipe.beta": 1.0}), ("rlcd", {"recipe.beta": 0.5})]
    cells = [plant(tmp_path / f"{i}", method=m, overrides=o, tag=str(i)) for i, (m, o) in enumerate(over)]
    rows = rows_of(*cells)
    dlma = next(row for row in rows if row.label == "dlma, beta=0.5")
    assert sweep_settings.baseline_of(dlma, rows, None).label == "base"
    assert sweep_settings.baseline_of(dlma, rows, "prompted").label == "prompted"
    assert sweep_settings.baseline_of(dlma, rows, "rlcd").method == "rlcd"
    assert sweep_settings.baseline_of(dlma, rows, "dlma, beta=0.5") is None
    rlcd = next(row for row in rows if row.method == "rlcd")
    assert sweep_settings.baseline_of(rlcd, rows, "dlma") is dlma  # of several settings the one with equal overrides
    assert sweep_settings.baseline_of(dlma, rows, "dlma") is None
    assert sweep_settings.baseline_of(rows[0], rows, "dlma") is None  # the base has no overrides
    other = rows_of(*cells, plant(tmp_path / "3", method="rlaif", overrides={"recipe.beta": 2.0}, tag="3"))
    with pytest.raises(UserError, match=r"several settings .*dlma, beta=0.5 \| dlma, beta=1.0"):
        sweep_settings.baseline_of(other[-1], other, "dlma")
    with pytest.raises(UserError, match=r"sweep.baseline=nosuch: no setting"):
        sweep_settings.baseline_of(dlma, rows, "nosuch")


@pytest.mark.parametrize("left", [(0.1,), (0.1, 1.0)])
def test_a_setting_whose_own_baseline_failed_is_held_against_none_of_the_others(tmp_path, left):
    """-m method=dlma,rlcd recipe.beta=0.1,0.3,1.0 sweep.baseline=rlcd, of which runs of rlcd failed."""
    cells = []
    for method in ("dlma", "rlcd"):
        for beta in (0.1, 0.3, 1.0):
            status = {"status": "failed", "reason": "no space"} if method == "rlcd" and beta not in left else {}
            name, told = f"{method}{beta}", {"recipe.beta": beta}
            cells.append(plant(tmp_path / name, method=method, overrides=told, tag=name, status=status))
    rows = rows_of(*cells)
    found = {row.label: sweep_settings.baseline_of(row, rows, "rlcd") for row in rows if row.method == "dlma"}
    held = {label: other and dict(other.overrides) for label, other in found.items()}
    assert held == {
        f"dlma, beta={beta}": {"recipe.beta": str(beta)} if beta in left else None for beta in (0.1, 0.3, 1.0)
    }


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_a_baseline_of_one_setting_is_that_of_all_where_none_failed(tmp_path, beta):
    cells = [plant(tmp_path / f"{beta}", overrides={"recipe.beta": beta}, tag=f"{beta}") for beta in (0.1, 0.3)]
    rows = rows_of(*cells, plant(tmp_path / "r", method="rlcd", overrides={"recipe.beta": beta}, tag="r"))
    held = [sweep_settings.baseline_of(row, rows, "rlcd") for row in rows if row.method == "dlma"]
    assert [other.method for other in held] == ["rlcd", "rlcd"]


@pytest.mark.parametrize(("key", "together"), [("recipe.temperature", False), ("recipe.beta", True)])
def test_base_answers_of_seeds_apart_are_one_row_where_they_were_asked_for_alike(tmp_path, key, together):
    one = plant(tmp_path / "a", seed=0, overrides={key: 1.0}, tag="a")
    two = plant(tmp_path / "b", seed=1, overrides={key: 0.1}, tag="b")
    found = [sorted(row.runs) for row in rows_of(one, two) if row.arm == "base"]
    assert found == ([[0, 1]] if together else [[0], [1]])
