"""What a run on a real model will take is said before it begins, and nothing where nothing is to be done."""

import re

import pytest
from omegaconf import OmegaConf
from small_models import save_small
from toy_tokenizers import tokenizer

from dlma.config import compose
from dlma.config.help import conf_dir
from dlma.modes.run import QuickPlan, foretold
from dlma.plan.dry_run import DryRunContext


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    tok = tokenizer("gpt2")
    special = (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id)
    save_small(place / "tiny", "llama", tokenizer=tok, special=special, context=512)
    rows = "".join(f'{{"prompt": "how do i clean the lamp number {i} ?"}}\n' for i in range(40))
    (place / "prompts.jsonl").write_text(rows)
    words = [f"model.path={place / 'tiny'}", f"data.path={place / 'prompts.jsonl'}", f"store.root={place / 'store'}"]
    plan = compose.plan(compose.search_path(conf_dir(), None), ["model=hf", "data=jsonl", *words], False)
    return DryRunContext(plan.cfg, prompts=None, held_out=None)


def test_the_line_names_the_time_and_the_stages_that_take_it(cell):
    line = foretold(cell)
    assert re.match(r"tiny: about \d+ (s|min) on this machine \(pairs \d+ s, ", line)
    assert line.endswith("prompts as read; answers at the limit")


def test_the_sizes_are_those_of_the_drawn_model(cell):
    from dlma.plan.estimate import RunPlan

    quick = QuickPlan(cell)
    exact = RunPlan(cell, quick.assumed, {}, "here", None, {})
    ours, theirs = quick.model_sizes[0], exact.model_sizes[0]
    assert (ours.body, ours.head, ours.attention) == (theirs.body, theirs.head, theirs.attention)
    assert ours.bytes == pytest.approx(theirs.bytes, rel=0.02)  # vectors and buffers are left out
    assert quick.model_sizes[1] == 2 * exact.model_sizes[1]  # half of its heads hold keys


def test_where_every_stage_is_there_nothing_is_said_and_no_model_read(cell, monkeypatch):
    monkeypatch.setattr(QuickPlan, "__init__", lambda self, cell: None)
    monkeypatch.setattr(QuickPlan, "stages", {"pairs": OmegaConf.create({"done": True})}, raising=False)
    assert foretold(cell) is None
