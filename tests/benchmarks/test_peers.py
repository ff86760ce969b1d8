"""The peers compute the right numbers: a fast wrong peer would prove nothing."""

import pytest
import torch

from benchmarks import ours, peer_llama_cpp, peers, workload
from benchmarks.clock import Clock
from benchmarks.flops import scoring_sequences
from benchmarks.shapes import model_folder, shape_of

TINY = shape_of("tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLMA_BENCH_FOLDER", str(tmp_path_factory.mktemp("bench")))
        yield model_folder(TINY)


@pytest.fixture(scope="module")
def model(folder):
    return peers.load(folder)


def plain_logp(model, context, answer):
    """log pi(answer | context), one forward pass a token."""
    ids, total = list(context), 0.0
    with torch.no_grad():
        for token in answer:
            total += model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)[token].item()
            ids.append(token)
    return total


def expected(model, pair):
    one_pos, other_pos, one_neg, other_neg, one, other = [plain_logp(model, *s) for s in scoring_sequences(pair)]
    return [(one_pos - one_neg) - (other_pos - other_neg), one, other]


@pytest.mark.parametrize("scorer", [peers.official, peers.fair], ids=["official", "fair"])
@pytest.mark.parametrize("data", ["imposed", "long"])
def test_a_plain_scorer_gives_the_margin_and_the_references(model, scorer, data):
    pairs = workload.pairs_of(TINY, data, 5)
    clock = Clock()
    found = scorer(model, pairs, clock)
    assert found[0] == pytest.approx(expected(model, pairs[0]), abs=1e-3)
    assert found[4] == pytest.approx(expected(model, pairs[4]), abs=1e-3)
    assert clock.seconds["work"] > 0


def test_ours_agrees_with_the_fair_scorer(folder, model):
    pairs = workload.pairs_of(TINY, "long", 4)
    found, operations = ours.score(ours.load(folder, "tiny"), pairs, Clock())
    assert operations > 0
    for mine, theirs in zip(found, peers.fair(model, pairs, Clock()), strict=True):
        assert mine == pytest.approx(theirs, abs=2e-3)


def test_batches_keep_the_token_budget_and_leave_no_row_out():
    lengths = [5, 40, 10, 10, 3]
    batches = peers._batches(lengths, 40)
    assert sorted(i for batch in batches for i in batch) == [0, 1, 2, 3, 4]
    assert all(len(batch) * max(lengths[i] for i in batch) <= 40 for batch in batches)


@pytest.mark.parametrize("sampler", [peers.generate, peers.continuous], ids=["generate", "continuous"])
def test_a_peer_draws_answers_of_the_imposed_lengths(model, sampler):
    task = peers.Task([[0, 5, 6], [0, 7], [0, 8, 9, 10]], 6, [2, 6, 3])
    assert sampler(model, task, Clock(), 2) == 11


@pytest.mark.slow
@pytest.mark.skipif(not peer_llama_cpp.files(), reason="llama-cpp-python and DLMA_BENCH_GGUF are wanted")
def test_llama_cpp_draws_answers_of_the_imposed_lengths():
    model = peer_llama_cpp.Model(peer_llama_cpp.files()[0], threads=1)
    task = peers.Task([[0, 5, 6], [0, 7], [0, 8, 9, 10]], 6, [2, 6, 3])
    assert peer_llama_cpp.sample(model, task, Clock(), 2) == 11


def test_ours_draws_answers_of_the_imposed_lengths(folder):
    contexts = [[0, 5, 6], [0, 7], [0, 8, 9, 10]]
    drawn = ours.sample(ours.load(folder, "tiny"), contexts, Clock(), limit=6, lengths=[2, 6, 3])
    assert drawn == 11


def test_tokens_are_counted_up_to_and_with_the_first_end():
    assert peers._length([5, 6, 1, 9, 1], [1]) == 3
    assert peers._length([5, 6], [1]) == 2


def test_both_sides_take_the_pairs_in_one_order():
    places = ours.visits(8, 4)
    assert sorted(places) == list(range(8))
    rows = [row for _, row in sorted(zip(places, "abcdefgh", strict=True))]
    assert "".join(rows[i] for i in places) == "abcdefgh"
