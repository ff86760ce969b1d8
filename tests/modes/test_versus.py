"""mode=versus: planted runs and a judge that prefers the shorter answer give the counts that they must."""

import csv
import json
from functools import cache

import pyarrow.parquet as pq
import pytest
import yaml
from chat_server import serving, shorter

from dlma.app import conf_dir
from dlma.config.build import resolved
from dlma.config.compose import plan, search_path
from dlma.modes.versus import unique
from dlma.records import EvalRow, Prompt, Turn, to_table

PROMPTS = [Prompt(f"p{i}", [Turn("user", f"how do i mend the lamp {i} ?")], "test") for i in range(6)]


@cache
def settings():
    """A config as a run of the lab has it."""
    return resolved(plan(search_path(conf_dir(), None), [], False).cfg)


def plant(folder, method, lengths, seed=0, arm="aligned"):
    """A finished run on the lab whose answer to prompt i has `lengths[i]` letters."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**settings(), "seed": seed}))
    (folder / "manifest.json").write_text("{}")
    (folder / "status.json").write_text(json.dumps({"status": "done"}))
    rows = [
        ["method", "base", "seed", "metric", "n", "mean", "low", "high"],
        [method, "lab", seed, "base/kl", 6, 0, 0, 0],
    ]
    with (folder / "metrics.csv").open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    answers = [
        EvalRow(prompt.id, arm, prompt.turns[-1].content, None, "a" * length, 3, True, -1.0, -1.0, 0.0)
        for prompt, length in zip(PROMPTS, lengths, strict=True)
    ]
    pq.write_table(to_table(EvalRow, answers), folder / "answers.parquet")
    pq.write_table(to_table(Prompt, PROMPTS), folder / "prompts.parquet")


@pytest.fixture
def sweep(elsewhere):
    plant(elsewhere / "sweep" / "dlma", "dlma", [1, 1, 1, 2, 5, 6])
    plant(elsewhere / "sweep" / "rlcd", "rlcd", [2, 2, 2, 2, 2, 2])  # dlma: 3 wins, 1 tie, 2 losses
    plant(elsewhere / "sweep" / "cd", "cd", [9, 9, 9, 9, 9, 9])
    plant(elsewhere / "sweep" / "base", "base", [1, 1, 1, 1, 1, 1], arm="base")
    plant(elsewhere / "sweep" / "other", "rlaif", [1, 1, 1, 1, 1, 1], seed=1)
    return elsewhere / "sweep"


@pytest.fixture
def judged(run_main):
    """Calls the mode with a judge on loopback; `.server` has what it was asked."""
    with serving(shorter) as server:

        def call(*overrides):
            asked = ["judges=[llm_harmless]", "endpoint.model=m", f"endpoint.base_url={server.url}"]
            return run_main("mode=versus", "mode.runs=[sweep]", *asked, *overrides)

        call.server = server
        yield call


def rows(folder):
    return {row["metric"]: row for row in csv.DictReader((folder / "versus.csv").open())}


def test_wins_ties_and_losses_against_every_other_method(sweep, judged):
    done = judged()
    assert done.code == 0, done.err
    found = rows(sweep / "dlma")
    shares = {name: float(found[f"aligned/{name}/llm_harmless/rlcd"]["mean"]) for name in ("win", "tie", "lose")}
    assert shares == pytest.approx({"win": 3 / 6, "tie": 1 / 6, "lose": 2 / 6})
    assert float(found["aligned/win/llm_harmless/cd"]["mean"]) == 1.0
    assert {name.split("/")[-1] for name in found} == {
        "rlcd",
        "cd",
    }  # the base has no answers of its own, seed 1 no match
    assert {row["seed"] for row in found.values()} == {"0"} and {row["method"] for row in found.values()} == {"dlma"}
    verdicts = pq.read_table(sweep / "dlma" / "versus.parquet").to_pylist()
    assert len(verdicts) == 12 and not (sweep / "rlcd" / "versus.csv").exists()


def test_a_second_start_asks_nothing_and_a_choice_of_rivals_is_kept(sweep, judged):
    assert judged().code == 0
    before, asked = rows(sweep / "dlma"), len(judged.server.asked)
    assert judged().code == 0
    assert rows(sweep / "dlma") == before and len(judged.server.asked) == asked > 0
    judged("mode.against=[cd]")
    assert {name.split("/")[-1] for name in rows(sweep / "dlma")} == {"cd"}


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["mode.method=cdd"], "no such run"),
        (["mode.method=rlaif"], "no run of another method shares"),
        (["judges=[]"], "there is no judge"),
        (["mode.runs=[nowhere]"], "no finished run there"),
    ],
)
def test_mistakes_are_told_in_one_line(sweep, judged, overrides, reason):
    done = judged(*overrides)
    assert done.code == 2 and reason in done.err and "Traceback" not in done.err


def test_two_runs_of_one_method_are_two_rivals(sweep, judged, elsewhere):
    plant(elsewhere / "sweep" / "rlcd_again", "rlcd", [9, 9, 9, 9, 9, 9])
    done = judged("mode.against=[rlcd]")
    assert done.code == 0, done.err
    wins = {name.split("/")[-1]: float(row["mean"]) for name, row in rows(sweep / "dlma").items() if "/win/" in name}
    assert wins == pytest.approx({"rlcd (rlcd)": 3 / 6, "rlcd (rlcd_again)": 1.0})


def test_rivals_are_named_by_as_much_of_their_place_as_tells_them_apart(tmp_path):
    places = [tmp_path / "one" / "a", tmp_path / "two" / "a", tmp_path / "two" / "b"]
    assert unique(places) == {places[0]: "one:a", places[1]: "two:a", places[2]: "two:b"}
    assert unique([]) == {}
