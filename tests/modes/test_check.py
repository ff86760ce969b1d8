"""mode=check: every component that would be built is listed with its place, outer ones first."""

import yaml

from dlma.modes.check import targets


def test_the_targets_of_a_config_are_listed_with_their_places():
    config = {
        "seed": 0,
        "objective": {"_target_": "dlma.objective.dpo.DPO", "loss": {"_target_": "dlma.objective.losses.Sigmoid"}},
        "sft": {"_target_": None, "data": {"_target_": "dlma.data.corpus.Corpus"}},
        "recipe": {"beta": 1.0},
    }
    assert list(targets(config)) == [
        ("objective", "dlma.objective.dpo.DPO"),
        ("objective.loss", "dlma.objective.losses.Sigmoid"),
        ("sft.data", "dlma.data.corpus.Corpus"),
    ]


def test_the_mode_prints_the_config_and_what_would_be_built(run_main):
    ran = run_main("mode=check", "seed=7", "judges=[]")
    assert ran.code == 0
    config, _, listed = ran.out.partition("what would be built:\n")
    assert yaml.safe_load(config)["seed"] == 7 and yaml.safe_load(config)["judges"] == {}
    *lines, last = listed.splitlines()
    assert last == "config ok"
    assert "  objective -> dlma.objective.dpo.DPO" in lines and "  objective.loss -> " in "\n".join(lines)
    assert not any("judges" in line.split(" -> ")[0].split(".") for line in lines)
