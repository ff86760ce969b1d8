"""How a run's time grows with processes: the page's table is that of the committed rounds."""

import json

from source_tree import ROOT

from benchmarks import processes
from benchmarks.table import RESULTS


def test_medians_stand_beside_one_another_with_their_quotient():
    kinds = (*processes.STAGES, processes.WHOLE)
    rounds = {"1": [dict.fromkeys(kinds, value) for value in (30.0, 60.0, 40.0)]}
    rounds["2"] = [dict.fromkeys(kinds, value) for value in (25.0, 20.0, 90.0)]
    lines = processes.shown(rounds).splitlines()
    assert len(lines) == 2 + len(kinds)
    assert lines[2] == "| pairs | 40 | 25 | 1.6 |"


def test_the_page_has_the_table_of_the_committed_rounds():
    found = json.loads((RESULTS / "processes.json").read_text(encoding="utf-8"))
    assert found["sizes"] == [*processes.SIZES]
    assert {count: len(runs) for count, runs in found["rounds"].items()} == {"1": 3, "2": 3}
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    inside = page.split(processes.START)[1].split(processes.END)[0].strip()
    assert inside == processes.shown(found["rounds"])
