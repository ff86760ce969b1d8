"""Sampling: the right distribution, noise of one's own, an EOS only where the model made one."""

import random

import numpy as np
import pytest
import torch
from small_models import FOUR_SHAPES, small_model

from dlma.errors import UserError
from dlma.functional.noise import draw, row_key, uniform
from dlma.sampler import local as sampling
from dlma.sampler.decode import CHUNK, Reader, Tile
from dlma.sampler.local import LocalSampler, Request


def sampler(**changes):
    options = dict(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=6, rows=4)
    return LocalSampler(**{**options, **changes})


def requests(n, seed=0):
    return [Request(row_key(seed, f"p{i}", "plain", 0), [0, *range(3, 4 + i % 20)]) for i in range(n)]


@pytest.mark.parametrize("kind", [*FOUR_SHAPES, "qwen3", "mistral", "gemma2", "bloom"])
def test_cached_decoding_equals_rereading_the_whole_row(kind):
    model = small_model(kind)
    todo = requests(7)
    for request, got in zip(todo, sampler().sample(model, todo), strict=True):
        ids = list(request.context_ids)
        for step, token in enumerate(got.ids):
            logits = model.network(torch.tensor([ids])).logits[:, -1]
            noise = uniform(np.array([request.key], dtype=np.uint64), step)
            assert draw(logits, noise, temperature=1.0, top_k=0, top_p=1.0).item() == token
            ids.append(token)


def test_an_answer_does_not_depend_on_its_company():
    model = small_model()
    todo = requests(11)
    together = sampler().sample(model, todo)
    alone = [sampler().sample(model, [request])[0] for request in todo]
    backwards = sampler().sample(model, todo[::-1])[::-1]
    assert together == alone == backwards


@pytest.mark.parametrize("kind", [*FOUR_SHAPES, "qwen3"])
def test_few_answers_are_those_of_a_run_and_take_passes_of_few_rows(kind, monkeypatch):
    """No row idles: a pass has the answers' rows, and rounding alone tells the log-probs from a run's."""
    rows = []

    class Counted(Tile):
        def __init__(self, model, count, *more):
            super().__init__(model, count, *more)
            rows.append(count)

    monkeypatch.setattr(sampling, "Tile", Counted)
    model, todo = small_model(kind), requests(20)
    few = sampler(rows=64).for_few()
    assert [few.sample(model, [request])[0] for request in todo] == sampler().sample(model, todo)
    assert rows == [1] * 20 + [sampling.TILE]
    rows.clear()
    assert few.sample(model, todo[:3]) == sampler().sample(model, todo[:3])
    assert rows == [3, sampling.TILE]


def test_finished_means_the_model_ended_it():
    model = small_model(spread=0.15)
    answers = sampler(max_new_tokens=20).sample(model, requests(60))
    assert {a.finished for a in answers} == {True, False}
    for answer in answers:
        assert answer.finished == (answer.ids[-1] == 1)
        assert 1 not in answer.ids[:-1]
        assert answer.finished or len(answer.ids) == 20


def test_every_eos_id_ends_an_answer():
    model = small_model(spread=0.15)
    model.eos_ids = frozenset({1, 9, 10})
    answers = sampler(max_new_tokens=20).sample(model, requests(60))
    assert {a.ids[-1] for a in answers if a.finished} == {1, 9, 10}


def test_a_row_that_outruns_the_context_is_refused_with_the_keys_to_change():
    with pytest.raises(UserError, match="max_new_tokens"):
        sampler(max_new_tokens=300).sample(small_model(), requests(1))


def lengths(n, seed=0, longest=40):
    """Requests of mixed contexts and imposed lengths."""
    draws = random.Random(seed)
    return [
        Request(row_key(seed, f"p{i}", "plain", 0), [0, *draws.choices(range(3, 40), k=draws.randrange(90))], length)
        for i, length in enumerate(draws.choices(range(1, longest), k=n))
    ]


@pytest.mark.parametrize(
    ("kind", "threads"),
    [("llama", 1), ("bloom", 1), ("mistral", 1), pytest.param("llama", 2, marks=pytest.mark.slow)],
)
def test_an_answer_is_the_same_at_every_setting_and_in_every_order(kind, threads):
    model, todo = small_model(kind, spread=0.1), lengths(80, longest=12)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        expected = sampler(rows=64).sample(model, todo)
        assert sampler(rows=7).sample(model, todo[:30]) == expected[:30]
        assert sampler(rows=130).sample(model, todo) == expected
        assert sampler(rows=1).sample(model, todo[:4]) == expected[:4]
        order = random.Random(1).sample(range(80), 80)
        shuffled = sampler(rows=64).sample(model, [todo[i] for i in order])
        assert [shuffled[order.index(i)] for i in range(80)] == expected
    finally:
        torch.set_num_threads(before)


def test_an_adapter_is_part_of_the_model_that_answers():
    from peft import LoraConfig, get_peft_model

    plain = small_model()
    network = get_peft_model(plain.network, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")).eval()
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model = type(plain)(network, plain.tokenizer, "adapted")
    (got,) = sampler(temperature=0).sample(model, [Request(0, [0, 5, 6])])
    ids = [0, 5, 6]
    for token in got.ids:
        assert network(torch.tensor([ids])).logits[0, -1].argmax().item() == token
        ids.append(token)


def test_a_row_that_ends_makes_room_at_once(monkeypatch):
    steps, step = [], Tile.step
    monkeypatch.setattr(Tile, "step", lambda tile: steps.append(1) or step(tile))
    todo = [Request(i, [0, 3], 1 + i % 8) for i in range(64)]
    monkeypatch.setattr(sampling, "way_of_decoding", lambda model, room: "full")
    sampler(rows=8, max_new_tokens=8).sample(small_model(), todo)
    assert len(steps) <= -(-sum(r.length for r in todo) // 8) + 8


def test_a_system_text_that_many_contexts_share_is_read_once(monkeypatch):
    passes, one_pass = [], Reader._pass
    monkeypatch.setattr(Reader, "_pass", lambda *args: passes.append(1) or one_pass(*args))
    monkeypatch.setattr(sampling, "way_of_decoding", lambda model, room: "full")
    draws = random.Random(0)
    systems = [[0, *draws.choices(range(3, 40), k=6 * CHUNK + extra)] for extra in (0, 3)]
    todo = [Request(i, systems[i % 2] + draws.choices(range(3, 40), k=10), 5) for i in range(128)]
    model = small_model(spread=0.1)
    together = sampler().sample(model, todo)
    assert len(passes) == 2 * (6 + 128 // 2 // 16)
    passes.clear()
    alone = [sampler().sample(model, [request])[0] for request in todo[:6]]
    assert len(passes) == 6 * 7
    assert alone == together[:6]


def test_an_imposed_length_is_kept_whatever_the_model_says():
    model = small_model(spread=0.15)
    answers = sampler(max_new_tokens=30).sample(model, [Request(i, [0, 3], 30) for i in range(20)])
    assert {len(a.ids) for a in answers} == {30}
    assert any(1 in a.ids for a in answers)
    assert not any(a.finished for a in answers)


def test_no_requests_no_answers():
    assert sampler().sample(small_model(), []) == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_million_tokens_are_the_same_at_every_setting():
    model, todo = small_model(spread=0.1), lengths(50_000)
    expected = sampler(rows=64, max_new_tokens=40).sample(model, todo)
    assert sum(len(a.ids) for a in expected) > 900_000
    assert sampler(rows=7, max_new_tokens=40).sample(model, todo) == expected
    assert sampler(rows=1, max_new_tokens=40).sample(model, todo[:500]) == expected[:500]
    assert sampler(max_new_tokens=40).sample(model, todo[::-1])[::-1] == expected
