"""Learning-rate schedules, against transformers' and by hand."""

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from dlma.functional.schedules import rate_share


def shares(**options):
    return [rate_share(step, **options) for step in range(options["steps"])]


@pytest.mark.parametrize(("warmup", "steps"), [(0, 7), (3, 20), (5, 6), (1, 1)])
def test_the_cosine_is_that_of_transformers_after_a_warm_up_that_is_one_step_ahead(warmup, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
    theirs = [peer.lr_lambdas[0](step) for step in range(steps + 1)]
    mine = shares(warmup=warmup, steps=steps, shape="cosine")
    assert mine[warmup:] == pytest.approx(theirs[warmup:steps])
    assert mine[:warmup] == pytest.approx(theirs[1 : warmup + 1])


def test_constant_stays_at_the_peak_and_no_step_is_wasted():
    assert shares(warmup=4, steps=6, shape="constant") == [0.25, 0.5, 0.75, 1, 1, 1]
    assert all(share > 0 for share in shares(warmup=2, steps=50, shape="cosine"))
    assert shares(warmup=0, steps=2, shape="cosine") == pytest.approx([1, 0.5])


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match="not one of constant, cosine"):
        rate_share(0, warmup=0, steps=1, shape="linear")
