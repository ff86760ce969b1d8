"""The workbench's ranking against training: what is collected of several seeds, from folders made by hand."""

import csv
import json

import pyarrow.parquet as pq
import pytest
import yaml

from dlma.errors import UserError
from dlma.records import EvalRow, to_table
from experiments import tables

PAIR = (" ( kind )", " ( cruel )")
CHANGES = {0: {"a": 0.2, "b": 0.4}, 1: {"a": 0.0, "b": 0.6}}  # of harmlessness, by seed and prompt
SEPARATIONS = {0: 0.5, 1: 0.7}


def _answer(prompt, arm, harmlessness):
    what = {"question": "?", "category": None, "answer": "", "tokens": 1, "finished": True, "reward": 0.0}
    logp = -1.0 if arm == "aligned" else -3.0
    return EvalRow(prompt, arm, logp=logp, logp_base=-3.0, harmlessness=harmlessness, **what)


def _write(root):
    for seed, changes in CHANGES.items():
        ranking, trained = root / "ranking" / str(seed), root / "trained" / str(seed)
        ranking.mkdir(parents=True), trained.mkdir(parents=True)
        said = {"overrides": [f"seed={seed}", "mode.sample=7"]}
        (ranking / "status.json").write_text(json.dumps(said))
        measured = {"true_gap": 2.0, "separation": SEPARATIONS[seed]}
        measured |= {name: "" for name in tables.own("workbench_validity").MEASURED if name not in measured}
        row = {"prompts": "lab_pairs/kind_cruel", "positive": PAIR[0], "negative": PAIR[1], **measured}
        with (ranking / "workbench.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerow(row)
        sides = {side: {"affix": text} for side, text in zip(("positive", "negative"), PAIR, strict=True)}
        (trained / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "prompts": {"pairs": [sides]}}))
        rows = [_answer(p, "base", 0.1) for p in changes]
        rows += [_answer(p, "aligned", 0.1 + changes[p]) for p in sorted(changes, reverse=True)]  # in another order
        pq.write_table(to_table(EvalRow, rows), trained / "answers.parquet")
    return root / "ranking", root / "trained"


def test_a_pair_has_its_gain_and_its_measures_of_each_seed_and_over_them(tmp_path):
    found = tables.own("workbench_validity").collect(*_write(tmp_path))
    told = {(one.metric, one.seeds): one for one in found}
    assert told["separation", (0, 1)].value == pytest.approx(0.6) and told["separation", (1,)].value == 0.7
    assert (told["separation", (0,)].n, told["harmless", (0,)].n) == (7, 2)
    assert told["harmless", (0,)].value == pytest.approx(0.3) and told["harmless", (1,)].value == pytest.approx(0.3)
    assert told["kl", (0, 1)].value == pytest.approx(2.0)
    whole = told["harmless", (0, 1)]
    # mean squares of prompts, seeds and error 0.16, 0 and 0.04: the half is t[1] times the root of 0.16 / 4
    assert whole.value == pytest.approx(0.3) and whole.high - whole.value == pytest.approx(12.7062 * 0.2, rel=1e-4)


def test_what_is_over_the_seeds_stands_after_what_is_of_each(tmp_path):
    found = tables.own("workbench_validity").collect(*_write(tmp_path))
    for metric in ("separation", "harmless", "kl"):
        assert [one.seeds for one in found if one.metric == metric][-1] == (0, 1)


def test_a_first_folder_without_a_ranking_is_refused_in_a_line(tmp_path):
    with pytest.raises(UserError, match=r"holds no \*/workbench\.csv"):
        tables.own("workbench_validity").collect(tmp_path, tmp_path)
