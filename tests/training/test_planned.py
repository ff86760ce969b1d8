"""Passes of planned answers hold each item once, whatever the budget; and how far a first loss may lie."""

from types import SimpleNamespace

import pytest
from small_models import small_model

from dlma.errors import UserError
from dlma.model.engine import Engine
from dlma.model.trees import Completion
from dlma.training.planned import passes, require_reference


@pytest.mark.parametrize(("budget", "layout"), [(1, "tree"), (64, "tree"), (4096, "tree"), (64, "dense")])
def test_every_item_is_in_one_pass_with_its_own_rows(budget, layout):
    engine = Engine(small_model(), token_budget=budget, layout=layout)
    groups = [[Completion([0, 5, 6], [7] * (1 + n)), Completion([0, 5, 6], [8, 9])] for n in range(6)]
    planned = engine.plan(groups)
    share = len(planned) // len(groups)
    items = [SimpleNamespace(planned=planned[i * share : (i + 1) * share], number=i) for i in range(6)]
    found = passes(engine, items)
    assert sorted(item.number for _, own in found for item in own) == list(range(6))
    assert len(found) == 6 if budget == 1 else len(found) < 6
    for rows, own in found:
        ours = engine.response_logp(rows).tolist()
        alone = [value for item in own for value in engine.score([groups[item.number]])[0]]
        assert ours == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize(("drift", "loss", "refused"), [(0.01, 1.9, False), (0.011, 1.0, True), (0.0, 2.01, True)])
def test_the_first_loss_may_lie_as_far_as_a_hundred_tokens_differ(drift, loss, refused):
    if refused:
        with pytest.raises(UserError, match="step-0 check: policy and stored reference differ"):
            require_reference(drift=drift, loss=loss, wanted=1.0, allowed=0.01)
    else:
        require_reference(drift=drift, loss=loss, wanted=1.0, allowed=0.01)
