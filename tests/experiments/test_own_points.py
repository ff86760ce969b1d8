"""A method's own point: the rules, and that they see validation prompts alone."""

import csv

import pytest
from planted_runs import answers, plant

from experiments import own_points, tables, texts

VALIDATION = {"evaluation.split": "validation"}


def point(method, kl, reward, base="lab-standard"):
    values = {"base": base, "method": method, "row": f"{method} {kl}", "n": 5, "kl": kl, "self_reward": reward}
    return own_points.Point(**values, by_reward=0, by_kl=0)


@pytest.mark.parametrize(
    ("kls", "rewards", "by_reward", "by_kl"),
    [
        ([0.2, 0.5, 1.0, 1.1], [3.0, 5.0, 4.0, 9.0], 1, 2),  # 1 nat is inside, what lies beyond is not asked
        ([0.5, 0.2, 0.9], [1.0, 3.0, 2.0], 1, 2),  # the reward need not grow with the KL
        ([3.0, 1.5, 2.0], [1.0, 0.0, 9.0], 1, 1),  # none inside: the least KL by either rule
        ([0.4], [-2.0], 0, 0),
    ],
)
def test_the_rules_by_hand(kls, rewards, by_reward, by_kl):
    given = [point("a", kl, reward) for kl, reward in zip(kls, rewards)]
    other = [
        point("b", 0.1, 99.0),
        point("a", 0.1, 99.0, base="lab-weak"),
    ]  # another method, another base: of their own
    found = own_points.chosen(given + other)
    assert [one["by_reward"] for one in found] == [int(i == by_reward) for i in range(len(kls))] + [1, 1]
    assert [one["by_kl"] for one in found] == [int(i == by_kl) for i in range(len(kls))] + [1, 1]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """An experiment without results."""
    monkeypatch.setattr(tables, "HERE", tmp_path / "experiments")
    (tmp_path / "experiments" / "mine").mkdir(parents=True)
    (tmp_path / "experiments" / "mine" / "table.yaml").write_text("commands: []")
    return tmp_path / "experiments" / "mine"


def test_the_means_are_of_the_runs_over_their_seeds(mine, tmp_path, capsys):
    """The settings of two seeds, one line each; KL and R as the answers have them."""
    means = {}
    for seed in (0, 1):
        for beta, kl in ((0.5, 0.9), (1.0, 0.3)):
            rows = answers("base", seed, prompts=40, harm=0.7)
            rows += answers("aligned", seed, prompts=40, harm=0.3, kl=kl, tag=str(beta))
            own = [row for row in rows if row.arm == "aligned"]
            means.setdefault(beta, []).append(sum(row.logp - row.logp_base for row in own) / 40)
            folder = tmp_path / "sweep" / f"{beta}-{seed}"
            items = [
                {"metric": "wit", "arm": "aligned", "item": f"of its own {i}", "value": 1.0, "weight": 1.0}
                for i in (1, 2)
            ]
            table = [{"metric": "wit", "arm": "aligned", "unit": "", "label": "wit", "estimate": {"value": 1.0}}]
            made = {"rows": rows, "config": VALIDATION, "scores": items, "status": {"result": {"summary": table}}}
            plant(folder, seed=seed, overrides={"recipe.beta": beta}, **made)
    assert tables.main(["own", "mine", str(tmp_path / "sweep")]) == 0
    lines = list(csv.DictReader((mine / "own_points.csv").open()))
    assert {line["row"]: float(line["kl"]) for line in lines} == {
        f"dlma, beta={beta}": round(sum(found) / 2, 4) for beta, found in means.items()
    }
    assert {(line["n"], line["self_reward"]) for line in lines} == {("40", "0.5")}
    assert [line["row"] for line in lines if line["by_kl"] == "1"] == ["dlma, beta=0.5"]
    assert "dlma, beta=0.5: 0.9" in capsys.readouterr().out


def test_a_run_on_other_prompts_is_refused(mine, tmp_path, capsys):
    plant(tmp_path / "sweep" / "a", config={"evaluation.split": "test"})
    assert tables.main(["own", "mine", str(tmp_path / "sweep")]) == 2
    assert (
        "evaluation.split=test: an own point is chosen on evaluation.split=validation alone" in capsys.readouterr().err
    )
    assert not (mine / "own_points.csv").exists()


def test_a_page_names_the_row_that_a_rule_chose(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "HERE", tmp_path)
    (tmp_path / "mine").mkdir()
    given = [point("a", 0.2, 3.0), point("a", 0.8, 1.0), point("a", 0.5, 9.0, base="lab-weak")]
    own_points.write(tmp_path / "mine", own_points.chosen(given))
    numbers = texts.Numbers("mine")
    assert (numbers.own_point("by_reward", "a"), numbers.own_point("by_kl", "a")) == ("a 0.2", "a 0.8")
    assert numbers.own_point("by_kl", "a", base="lab-weak") == "a 0.5"


@pytest.mark.parametrize("name", ["tuning", "lab_tuning"])
def test_what_earlier_experiments_chose_by_the_self_reward_is_what_the_rule_chooses(name):
    lines = list(csv.DictReader((tables.HERE / name / "outcome.csv").open()))
    for method in {line.get("method") for line in lines}:
        own = [line for line in lines if line.get("method") == method]
        found = [{**line, "kl": float(line["kl"]), "self_reward": float(line["self_reward"])} for line in own]
        assert own_points.best(found, "self_reward")["chosen"] == "1"
        assert sum(line["chosen"] == "1" for line in own) == 1
