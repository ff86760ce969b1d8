"""docs/start.ipynb: committed without outputs, its commands are sound, and it runs whole."""

import os
import re
import resource
import shlex

import nbformat
import pytest
from nbclient import NotebookClient
from source_tree import ROOT

from dlma.config import compose
from dlma.config.help import conf_dir

PATH = ROOT / "docs" / "start.ipynb"
NOTEBOOK = nbformat.read(PATH, as_version=4)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]
SECONDS = 180  # on one core, and so at most that on two


def stripped(cell) -> bool:
    return not cell.outputs and cell.execution_count is None and not cell.metadata


def test_the_committed_notebook_is_valid_and_holds_no_outputs_and_nothing_of_a_machine():
    nbformat.validate(NOTEBOOK)
    assert CODE and all(map(stripped, CODE))
    assert {*NOTEBOOK.metadata} == {"kernelspec", "language_info"} and NOTEBOOK.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in NOTEBOOK.cells]
    assert ids == [f"cell-{i:02}" for i in range(len(ids))]  # none that an editor drew


@pytest.mark.parametrize(
    "change", [{"outputs": [{"output_type": "stream"}]}, {"execution_count": 3}, {"metadata": {"a": 1}}]
)
def test_a_cell_that_was_run_is_not_stripped(change):
    assert not stripped(nbformat.from_dict({**CODE[0], **change}))


def test_the_commands_that_it_names_are_sound(elsewhere):
    text = "\n".join(cell.source for cell in NOTEBOOK.cells if cell.cell_type == "markdown")
    lines = re.findall(r"`python run\.py ([^`]+)`", text)
    assert len(lines) >= 3
    for line in lines:
        compose.plan(compose.search_path(conf_dir(), None), shlex.split(line), False)
    assert [name for name in re.findall(r"`(docs/[\w./]+)`", text) if not (ROOT / name).is_file()] == []
    assert re.findall(r"```bash\n(.*?)```", text, re.S) == ["make setup\n"]


def shown(cell) -> str:
    """What a cell has shown, as text; rich's tables come as pages with a text of their own."""
    return "".join(part.get("text", "") or part.get("data", {}).get("text/plain", "") for part in cell.outputs)


@pytest.mark.slow
def test_it_runs_whole_within_three_minutes_of_one_core(elsewhere, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = NotebookClient(NOTEBOOK, timeout=900, kernel_name="python3").execute(cwd=str(elsewhere))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = [shown(cell) for cell in done.cells if cell.cell_type == "code"]
    assert "harmful" in said[1] and "next:" in said[1]  # the table of the run, and what comes after
    shares = [float(share) for share in re.findall(r"(\d+\.\d) % \[", said[2])]
    assert len(shares) == 3 and shares[2] < shares[0]  # base, prompted, aligned
    assert float(re.search(r"^\[(-?\d+\.\d+)\]$", said[4], re.M)[1]) != 0
    assert (elsewhere / "dlma-start" / "outputs" / "compare" / "report.html").is_file() and "self-reward" in said[6]
    assert not {"outputs", "store"} & {*os.listdir(elsewhere)}  # nothing lies where the notebook does
    assert not [text for text in said if "Warning" in text or "Traceback" in text]
    assert 5 < took < SECONDS
