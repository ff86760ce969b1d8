"""Several trackers are told the same; one that fails costs a line; the CSV files of a run hold the trackers' keys."""

import logging

import pytest
from tracked import CURVE, SUMMARY, TABLE, record

from dlma.logger.trackers import CsvTracker, Trackers, flat, left_out


class Remembering:
    """Keeps what it is told, as its name stands in front."""

    def __init__(self, told, name):
        self.told = told
        self.name = name

    def __getattr__(self, call):
        return lambda *words, **more: self.told.append((self.name, call, words, more))


def test_each_is_told_everything_in_turn(tmp_path):
    told = []
    record(Trackers([Remembering(told, "one"), Remembering(told, "two")]), tmp_path, "cell")
    assert [call for _, call, _, _ in told] == [
        name for name in ("start", *["log"] * len(CURVE), "table", "finish") for _ in range(2)
    ]
    one, two = ([rest for name, *rest in told if name == who] for who in ("one", "two"))
    assert one == two
    assert one[-2:] == [["table", ("samples", *TABLE), {}], ["finish", (SUMMARY, 0), {}]]


def test_none_at_all_and_csv_keep_nothing(tmp_path):
    record(Trackers([]), tmp_path, "cell")
    record(Trackers([CsvTracker()]), tmp_path, "cell")
    assert not any(tmp_path.iterdir())


def test_a_row_names_its_step():
    with pytest.raises(ValueError, match="train/step"):
        Trackers([]).log({"train/loss": 1.0})


def test_what_a_tracker_fails_at_is_one_line(caplog):
    with caplog.at_level(logging.WARNING), left_out("Some", "a row"):
        raise ConnectionError("gone\nfor good")
    assert caplog.messages == ["Some: a row is left out: ConnectionError: gone for good"]


def test_a_config_is_flat_with_dotted_keys_and_without_secrets():
    found = flat(
        {"recipe": {"lr": 1e-4, "lora": None}, "judges": {}, "tags": [1, "b"], "endpoint": {"api_key": "x-y-z"}}
    )
    hidden = found.pop("endpoint.api_key")
    assert found == {"recipe.lr": "0.0001", "recipe.lora": "None", "judges": "{}", "tags": "[1, 'b']"}
    assert "x-y-z" not in hidden
