"""Published numbers: marked, never invented, and shown only where the set-up is comparable."""

import re
from pathlib import Path

import pytest
import yaml
from planted_runs import plant

from dlma.errors import UserError
from dlma.runs import cells as run_folders
from dlma.sweep import published
from dlma.sweep import settings as sweep_settings

ENTRY = {"method": "dlma", "metric": "cost", "value": -1.5, "mark": "[2]", "source": "a table"}


def rows_of(*folders):
    return sweep_settings.settings([run_folders.read_cell(folder) for folder in folders])


def planted(tmp_path, **setup):
    path = tmp_path / "known.yaml"
    path.write_text(yaml.safe_dump([{**ENTRY, "setup": setup}]))
    return published.read(path)


def test_a_comparable_set_up_shows_the_number_with_its_mark(tmp_path):
    rows = rows_of(plant(tmp_path / "a", config={"model.path": "org/Llama-2-7b-hf", "data.path": "hh/harmless"}))
    suited = planted(tmp_path, **{"model.path": "*[Ll]lama-2-7b*", "data.path": "*harmless*"})
    assert published.beside(rows, suited) == {("dlma", "lab-standard", "cost"): "cost -1.5 [2] a table"}
    other = planted(tmp_path, **{"model.path": "*[Ll]lama-2-7b*", "data.path": "*helpful*"})
    assert published.beside(rows, other) == {}
    assert published.beside(rows, planted(tmp_path)) == {}  # no set-up named: comparable with nothing


def test_the_lab_is_comparable_with_nothing_published(tmp_path):
    rows = rows_of(plant(tmp_path / "a"), plant(tmp_path / "b", method="rlcd"))
    assert published.beside(rows, published.read()) == {}


def test_every_published_number_is_marked_and_stands_in_the_notes_on_the_paper():
    entries = published.read()
    assert entries and all(re.fullmatch(r"\[(V|2|I)\]", entry.mark) for entry in entries)
    assert all(entry.setup and entry.source for entry in entries)


def test_a_file_that_is_no_list_of_known_values_is_said(tmp_path):
    path = Path(tmp_path / "known.yaml")
    path.write_text("- {method: dlma}")
    with pytest.raises(UserError, match=r"sweep\.known=.*known\.yaml: not a list of known values"):
        published.read(path)
