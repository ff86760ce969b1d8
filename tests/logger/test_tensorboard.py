"""TensorBoard's own reader finds every curve, figure and text that the tracker was told of."""

import logging

import pytest
from tracked import CURVE, holds_secret, record

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from dlma.logger.tensorboard import TensorBoardTracker


@pytest.fixture
def read(tmp_path):
    record(TensorBoardTracker(), tmp_path, "seed=1", exit_code=2)
    found = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    found.Reload()
    return found


def points(read, name):
    return [(event.step, make_ndarray(event.tensor_proto).item()) for event in read.Tensors(name)]


def test_curves_summary_and_end_read_back_under_the_same_keys(read, tmp_path):
    assert points(read, "train/loss") == [(step, pytest.approx(value)) for step, value in CURVE]
    assert points(read, "eval/aligned/harmful") == [(0, 0.25)]
    assert points(read, "exit_code") == [(0, 2.0)]
    assert set(read.Tags()["tensors"]) == {"config", "train/loss", "samples", "eval/aligned/harmful", "exit_code"}
    assert not holds_secret(tmp_path)


def test_config_and_table_are_texts_whose_cells_stay_cells(read):
    (config,), (table,) = points(read, "config"), points(read, "samples")
    lines = config[1].decode().splitlines()
    assert lines[:4] == ["| key | value |", "| --- | --- |", "| name | seed=1 |", "| group | my-sweep |"]
    assert "| recipe.lr | 0.0001 |" in lines
    assert table[1].decode().splitlines()[2:] == ["| &lt;b&gt;q&lt;/b&gt; | a |", "| q2 | None |"]


def test_a_folder_that_cannot_be_written_costs_lines_and_not_the_run(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        record(TensorBoardTracker(), tmp_path, "one")
    assert caplog.messages and all(line.startswith("TensorBoard: ") for line in caplog.messages)
