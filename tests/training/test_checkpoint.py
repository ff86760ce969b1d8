"""What is heard of a training that goes on from a resume point: each step once, and in order."""

from types import SimpleNamespace

import pytest

from dlma.training.checkpoint import ResumePoint


@pytest.mark.parametrize("begun", [0, 3])
def test_the_steps_of_before_are_heard_first(tmp_path, begun):
    heard = []
    bar = SimpleNamespace(set_postfix=lambda *a, **k: None)
    point = ResumePoint(tmp_path, 1000, bar, lambda row: heard.append(row["step"]))
    point._count = lambda trainer, meter: setattr(point, "steps", point.steps + 1)
    module = SimpleNamespace(log_rows=[{"step": n} for n in range(1, begun + 1)], meter=None)
    for step in range(begun + 1, 6):
        module.log_rows.append({"step": step})
        point.on_train_batch_end(SimpleNamespace(global_step=step), module, None, None, 0)
    assert heard == [1, 2, 3, 4, 5]
