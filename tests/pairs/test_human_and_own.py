"""The human pair of a prompt, and the model's own answers after it: those that each kind of pairs gives alone."""

import pytest
from small_models import small_model

from dlma.pairs.human import HumanPairs
from dlma.pairs.human_and_own import HumanAndOwnPairs
from dlma.pairs.several import SeveralPairs
from dlma.records import Context
from dlma.sampler.local import LocalSampler
from dlma.trainer.runtime import Shard

HUMAN = {1: ([11, 12, 1], [13, 1]), 3: ([14, 15, 16, 17], [18, 1])}
ROWS = [
    Context(f"p{i}", f"q{i}", None, "w", [0, 5 + i, 6], [0, 5 + i, 8], [0, 5 + i, 9], 0,
            chosen_ids=HUMAN.get(i, (None, None))[0], rejected_ids=HUMAN.get(i, (None, None))[1])
    for i in range(4)
]  # fmt: skip
SAMPLER = LocalSampler(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=8)


@pytest.fixture(scope="module")
def model():
    return small_model()


def test_each_prompt_with_a_human_pair_has_it_first_and_then_pairs_of_its_own(model):
    made = HumanAndOwnPairs(model, SAMPLER, seed=0, side="plain", per_prompt=3, max_answer_tokens=3)
    found = made.predict_step(Shard(0, ROWS), 0)
    human = HumanPairs(model, SAMPLER, max_answer_tokens=3).predict_step(Shard(0, ROWS), 0)
    own = SeveralPairs(model, SAMPLER, seed=0, side="plain", per_prompt=3).predict_step(Shard(0, ROWS), 0)
    assert [pair.prompt_id for pair in found] == ["p1"] * 3 + ["p3"] * 3
    assert found == [human[0], *own[4:6], human[1], *own[10:12]]
    assert len({pair.id for pair in found}) == 6
