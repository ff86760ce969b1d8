"""What a bar shows: tokens done of all, and a clock that moves while a pass is under way."""

import re
import time
from functools import partial
from types import SimpleNamespace

from small_models import small_model

from dlma.model.engine import Engine
from dlma.model.trees import Completion
from dlma.model.work import work
from dlma.trainer import bar as bars
from dlma.trainer.bar import counting, progress

GROUPS = [[Completion([0, 4, 5 + i], [7, 8, 1]), Completion([0, 4, 5 + i], [9, 1])] for i in range(3)]


def counts(text):
    """Tokens done and in all, of every state of a bar."""
    return [(float(done), float(total)) for done, total in re.findall(r"([\d.]+)/([\d.]+) \[", text)]


def test_a_bar_begins_with_its_end_known_and_ends_there(capsys, monkeypatch):
    monkeypatch.setattr(bars, "tqdm", partial(bars.tqdm, mininterval=0, miniters=1))
    module = SimpleNamespace(engine=Engine(small_model(), token_budget=1))
    with counting(module, [99, 99], "scores"):
        for _ in range(2):
            module.engine.score(GROUPS)
            work().end_shard()
    seen = counts(capsys.readouterr().err)
    assert seen[0] == (0, 198) and seen[-1][0] == seen[-1][1] < 198
    known = {total for done, total in seen if done}
    assert known == {seen[-1][1]}, "the end moved after the first shard had begun"
    assert len({done for done, _ in seen}) > 8


def test_a_bar_moves_while_nothing_is_counted(capsys, monkeypatch):
    monkeypatch.setattr(bars, "BEAT", 0.05)
    with progress("train", "tok", 10):
        capsys.readouterr()
        time.sleep(0.3)
        assert "train" in capsys.readouterr().err


def test_the_beat_is_less_than_two_seconds_and_ends_with_the_bar(capsys, monkeypatch):
    assert bars.BEAT < 2
    monkeypatch.setattr(bars, "BEAT", 0.01)
    with progress("train", "tok", 10):
        pass
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().err == ""
