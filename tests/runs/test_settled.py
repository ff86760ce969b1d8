"""What a config leaves open is settled once for a run or sweep, and stays."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from omegaconf import OmegaConf

from dlma.model.compute_dtype import Choice
from dlma.runs.settled import left_open, settle

FAST, SLOW = Choice("bfloat16", "auto: it is fast"), Choice("float32", "auto: it is not")
TEXT = """
recipe: {dtype: auto, name: auto}
model: {dtype: "${recipe.dtype}", path: m}
metrics: {a: {model: {dtype: auto}}, b: [{dtype: auto}, {dtype: float32}]}
later: ???
"""


def config():
    return OmegaConf.create(TEXT)


def never():
    raise AssertionError("nothing is to be measured")


def test_every_auto_is_replaced_and_what_follows_a_key_still_follows_it():
    cfg = config()
    assert left_open(cfg) == ["recipe.dtype", "metrics.a.model.dtype", "metrics.b[0].dtype"]
    assert settle(cfg, lambda: FAST, None, "m") == FAST.why
    assert left_open(cfg) == []
    assert (cfg.recipe.dtype, cfg.recipe.name, cfg.model.dtype) == ("bfloat16", "auto", "bfloat16")
    assert [node.dtype for node in cfg.metrics.b] == ["bfloat16", "float32"]
    cfg.recipe.dtype = "float32"
    assert cfg.model.dtype == "float32"


def test_where_nothing_is_left_open_nothing_is_measured_and_nothing_written(tmp_path):
    cfg = OmegaConf.create({"recipe": {"dtype": "float32"}})
    assert settle(cfg, never, tmp_path / "run", "m") == "" and not (tmp_path / "run").exists()


def test_a_later_start_keeps_the_choice_of_the_first(tmp_path):
    first, later = config(), config()
    settle(first, lambda: FAST, tmp_path / "run", "m")
    assert settle(later, never, tmp_path / "run", "m") == FAST.why
    assert later == first


def test_each_model_of_a_sweep_has_its_own(tmp_path):
    settle(config(), lambda: FAST, tmp_path, "one")
    settle(config(), lambda: SLOW, tmp_path, "two")
    cfg = config()
    settle(cfg, never, tmp_path, "one")
    assert cfg.recipe.dtype == "bfloat16"


def test_cells_that_start_together_agree(tmp_path):
    cfgs = [config() for _ in range(8)]
    choices = [FAST, SLOW] * 4
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pair: settle(pair[0], lambda: pair[1], tmp_path, "m"), zip(cfgs, choices)))
    assert len({cfg.recipe.dtype for cfg in cfgs}) == 1


@pytest.mark.parametrize(
    "content", ["", '{"m": 3}', '{"m": {"dtype": "float8", "why": ""}}', '{"m": {"dtype": "float32"}}']
)
def test_what_is_no_choice_is_made_again(content, tmp_path):
    (tmp_path / "chosen.json").write_text(content)
    cfg = config()
    settle(cfg, lambda: FAST, tmp_path, "m")
    assert cfg.recipe.dtype == "bfloat16"
    assert json.loads((tmp_path / "chosen.json").read_text())["m"]["dtype"] == "bfloat16"
