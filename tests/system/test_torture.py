"""`make torture`: its short form finds nothing, and what differs is named."""

from pathlib import Path

import pytest
import torture


@pytest.mark.slow
def test_the_short_form_finds_no_fault(capsys):
    assert torture.main(["--short"]) == 0, capsys.readouterr().out
    assert "all byte-equal" in capsys.readouterr().out


def test_what_differs_is_missing_or_new_is_named(tmp_path: Path):
    cell = tmp_path / "outputs" / "torture" / "dlma"
    cell.mkdir(parents=True)
    (cell / "metrics.csv").write_bytes(b"a")
    (cell / "train.csv").write_bytes(b"b")
    calm = {"dlma/metrics.csv": b"other", "dlma/pairs.parquet": b"c"}
    assert torture.differences(tmp_path, 0, calm, "x") == [
        "x: dlma/metrics.csv differs",
        "x: dlma/pairs.parquet differs",
        "x: dlma/train.csv differs",
    ]
    assert torture.differences(tmp_path, 3, calm, "x") == ["x: exit code 3, see said.txt"]


def test_every_harm_changes_the_bytes():
    assert [harm for harm, change in torture.HARM.items() if change(b"some bytes") == b"some bytes"] == []
