"""experiment=pair_budget, small: its report holds the methods at equal pairs and at equal operations."""

import pyarrow.parquet as pq
import pytest

from dlma.sweep.results import read_csv

SMALL = ["data.train=24", "data.validation=4", "data.test=6", "recipe.max_new_tokens=16", "recipe.batch_pairs=4"]
CELLS = ["method=rlcd,dlma", "labels.max_pairs=8,24", "seed=0,1"]


@pytest.mark.slow
def test_methods_are_compared_at_equal_pairs_and_at_equal_operations(run_main, elsewhere):
    ran = run_main("-m", "experiment=pair_budget", *CELLS, *SMALL, "sweep.flops=null", "name=budget")
    assert ran.code == 0, ran.err
    folder = elsewhere / "outputs" / "budget"
    found = read_csv(folder / "results.csv")
    compared = [one for one in found if (one.metric, one.statistic) == ("harmful", "difference")]
    assert ("dlma, max_pairs=8", "rlcd, max_pairs=8") in {(one.label, one.versus) for one in compared}
    assert sum((one.label, one.versus, one.axis) == ("dlma", "rlcd", "flops") for one in compared) == 3
    spent = {(one.label, one.metric, one.versus): one.value for one in found if one.statistic == "cost"}
    assert "read at equal FLOPs" in (folder / "report.md").read_text()
    tables = [pq.read_table(folder / f"dlma,labels.max_pairs=8,seed={seed}" / "pairs.parquet") for seed in (0, 1)]
    drawn = [
        len(ids) for table in tables for side in ("positive", "negative") for ids in table[f"{side}_ids"].to_pylist()
    ]
    for pairs, share in ((8, 1 / 3), (24, 1)):
        assert spent[f"dlma, max_pairs={pairs}", "tokens_sampled", ""] == pytest.approx(share * sum(drawn) / 2)
    three = spent["rlcd, max_pairs=24", "flops", ""] / spent["rlcd, max_pairs=8", "flops", ""]
    assert three == pytest.approx(3)  # as many times the pairs, and the steps
    more = spent["dlma, max_pairs=8", "flops", ""] / spent["rlcd, max_pairs=8", "flops", ""]
    assert spent["dlma, max_pairs=8", "flops", "rlcd, max_pairs=8"] == pytest.approx(more) and more > 1
