"""Several pairs to a prompt: their noise, their ids, and that shards do not matter."""

import pytest
from small_models import small_model

from dlma.pairs.sampled import SampledPairs
from dlma.pairs.several import SeveralPairs
from dlma.records import Context
from dlma.sampler.local import LocalSampler
from dlma.trainer.runtime import Shard

ROWS = [Context(f"p{i}", f"q{i}", None, "w", [0, 5 + i, 6, 7], [0, 5 + i, 8, 7], [0, 5 + i, 9, 7], 0) for i in range(6)]
SAMPLER = LocalSampler(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=8)


@pytest.fixture(scope="module")
def model():
    return small_model()


def several(model, **changes):
    return SeveralPairs(model, SAMPLER, **{**dict(seed=0, side="plain", per_prompt=3), **changes})


def test_a_prompt_has_so_many_pairs_of_different_answers_under_one_context(model):
    pairs = several(model).predict_step(Shard(0, ROWS), 0)
    assert [pair.id for pair in pairs] == [f"p{i}-{n}" for i in range(6) for n in range(3)]
    for i, row in enumerate(ROWS):
        own = pairs[3 * i : 3 * i + 3]
        assert {pair.prompt_id for pair in own} == {row.prompt_id}
        assert len({tuple(ids) for pair in own for ids in (pair.positive_ids, pair.negative_ids)}) > 3


def test_the_first_pair_is_that_of_two_plain_samples_and_more_pairs_leave_the_first_ones(model):
    plain = SampledPairs(model, SAMPLER, seed=0, first="plain", second="plain").predict_step(Shard(0, ROWS), 0)
    one, three = (several(model, per_prompt=n).predict_step(Shard(0, ROWS), 0) for n in (1, 3))
    for two, single, first in zip(plain, one, three[::3], strict=True):
        assert (two.positive_ids, two.negative_ids) == (single.positive_ids, single.negative_ids)
        assert single == first


def test_the_shards_do_not_matter(model):
    whole = several(model).predict_step(Shard(0, ROWS), 0)
    assert [p for i in range(6) for p in several(model).predict_step(Shard(i, ROWS[i : i + 1], ROWS), 0)] == whole
