"""experiment=pair_budget, small: its report holds the methods at equal pairs and at equal operations."""

import pyarrow.parquet as pq
import pytest

from dlma.sweep import estimates as sweep_results

SMALL = ["data.train=24", "data.validation=4", "data.test=6", "recipe.max_new_tokens=16", "recipe.batch_pairs=4"]
CELLS = ["method=rlcd,dlma", "labels.max_pairs=8,24", "seed=0,1"]


@pytest.mark.slow
def test_methods_are_compared_at_equal_pairs_and_at_equal_operations(run_main, elsewhere):
    ran = run_main("-m", "experiment=pair_budget", *CELLS, *SMALL, "sweep.flops=null", "name=budget")
    assert ran.code == 0, ran.err
    folder = elsewhere / "outputs" / "budget"
    found = {(row.method, row.metric): row for row in sweep_results.read_csv(folder / "results.csv")}
    assert ("dlma, max_pairs=8", "harmful minus rlcd, max_pairs=8") in found
    at = [name for method, name in found if method == "dlma" and name.startswith("harmful at flops")]
    assert sum(name.endswith(" minus rlcd") for name in at) == 3
    assert "read at equal FLOPs" in (folder / "report.md").read_text()
    tables = [pq.read_table(folder / f"dlma,labels.max_pairs=8,seed={seed}" / "pairs.parquet") for seed in (0, 1)]
    drawn = [
        len(ids) for table in tables for side in ("positive", "negative") for ids in table[f"{side}_ids"].to_pylist()
    ]
    for pairs, share in ((8, 1 / 3), (24, 1)):
        assert found[f"dlma, max_pairs={pairs}", "cost tokens sampled"].mean == pytest.approx(share * sum(drawn) / 2)
    three = found["rlcd, max_pairs=24", "cost flops"].mean / found["rlcd, max_pairs=8", "cost flops"].mean
    assert three == pytest.approx(3)  # as many times the pairs, and the steps
    more = found["dlma, max_pairs=8", "cost flops"].mean / found["rlcd, max_pairs=8", "cost flops"].mean
    assert found["dlma, max_pairs=8", "cost flops over rlcd, max_pairs=8"].mean == pytest.approx(more) and more > 1
