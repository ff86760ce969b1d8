"""What is counted of a stage, by hand."""

import pytest
from small_models import small_model

from dlma.model.engine import Engine
from dlma.model.trees import Completion, build_tree
from dlma.model.work import Work, counted, work
from dlma.sampler.local import LocalSampler, Request


class Shown(list):
    """Every pair of counts that was shown."""

    def __call__(self, done, total):
        self.append((done, total))


def test_a_shard_of_one_part_has_a_known_end_from_its_beginning():
    shown = Shown()
    one = Work([100, 50], 1, shown)
    assert (one.done, one.total) == (0, 150)
    one.foresee(80)
    assert one.total == 80 + 40  # the second shard is expected to take 0.8 of its size too
    one.did(30)
    assert (one.done, one.total) == (30, 120)
    one.spare(20)
    assert one.total == 60 + 30
    one.did(30)
    one.end_shard()
    assert (one.done, one.total) == (60, 90)
    one.foresee(70)
    one.did(70)
    one.end_shard()
    assert (one.done, one.total) == (130, 130) == shown[-1]


def test_a_shard_of_several_parts_is_taken_by_its_size_until_the_last_has_begun():
    one = Work([100], 2, Shown())
    one.foresee(30)
    one.did(30)
    assert (one.done, one.total) == (30, 100)
    one.foresee(50)
    assert one.total == 80
    one.did(50)
    one.end_shard()
    assert (one.done, one.total) == (80, 80)


def test_more_than_was_foreseen_moves_the_end():
    one = Work([10], 1, Shown())
    one.foresee(5)
    one.did(8)  # memory ran out, and a part was computed again
    assert one.total == 8


def test_the_innermost_count_is_kept_and_nobody_has_to_listen():
    outer, inner = Work([1], 1, Shown()), Work([1], 1, Shown())
    work().did(5)
    with counted(outer):
        with counted(inner):
            work().did(3)
        work().did(2)
    assert (outer.done, inner.done) == (2, 3)


GROUPS = [[Completion([0, 4, 5, 6 + i], [7, 8 + i, 1]), Completion([0, 4, 5, 6 + i], [9, 1])] for i in range(3)]


@pytest.mark.parametrize(("layout", "kind"), [("tree", "llama"), ("dense", "llama"), ("dense", "bloom")])
def test_an_engine_counts_the_tokens_that_it_computes_layer_by_layer(layout, kind):
    shown = Shown()
    engine = Engine(small_model(kind), layout=layout, token_budget=1)
    with counted(Work([1000], 1, shown)):
        engine.score(GROUPS)
        work().end_shard()
    nodes = sum(
        len(build_tree(g)) if layout == "tree" else sum(len(c.context) + len(c.response) for c in g) for g in GROUPS
    )
    assert shown[0] == (0, shown[-1][1]) and shown[-1][0] == shown[-1][1]
    assert nodes - 2 * 4 <= shown[-1][1] <= nodes  # an opening that all share is computed once
    assert len(shown) > 2 + 2 * len(GROUPS)  # two layers a pass, each told
    assert [done for done, _ in shown] == sorted(done for done, _ in shown)


def test_a_sampler_counts_what_it_reads_and_draws_and_spares_what_was_not_drawn():
    model, shown = small_model(), Shown()
    sampler = LocalSampler(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=12)
    requests = [Request(key, [0, 4, 5 + key]) for key in range(8)]
    with counted(Work([1], 1, shown)):
        answers = sampler.sample(model, requests)
    drawn = sum(len(answer.ids) for answer in answers)
    assert shown[0] == (0, 8 * (3 + 12)) and shown[-1] == (8 * 3 + drawn, 8 * 3 + drawn)
    assert drawn < 8 * 12
