"""The causal architectures of transformers: scored and sampled as their own plain forward pass has it, or refused."""

import random
from typing import get_args

import pytest
import torch
from tiny_layouts import LAYOUTS, LONG_ROPE, REFUSED, tiny_model

from dlma.errors import UserError
from dlma.model import engine as engine_module
from dlma.model.alone import Way
from dlma.model.engine import Engine
from dlma.model.trees import Completion
from dlma.sampler.local import LocalSampler, Request
from dlma.sampler.ways import way_of_decoding

NEW = 8
GREEDY = LocalSampler(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=NEW)


def row(tokens, seed):
    return [0, *random.Random(seed).choices(range(3, 40), k=tokens - 1)]


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(engine_module, "_said", set())


SYSTEM = row(40, 1)  # long enough to be a trunk
GROUPS = [
    [Completion([*SYSTEM, *row(n, n)], row(9, n + 1)), Completion([*SYSTEM, *row(n, n)], row(4, n + 2))]
    for n in (5, 30)
] + [[Completion([*SYSTEM, 7], row(5, 3)), Completion(SYSTEM[:3], [5, 6, 7])]]
CONTEXTS = [row(1, 0), row(9, 4), row(30, 5), row(75, 6)]  # the longest ends in another 64 slots


@torch.no_grad()
def plain(model, ids):
    """Logits of the plain forward pass."""
    return model.network(torch.tensor([ids])).logits[0]


def plain_logp(model, one):
    ids = [*one.context, *one.response]
    logp = plain(model, ids).double().log_softmax(-1)
    return sum(logp[place - 1, ids[place]].item() for place in range(len(one.context), len(ids)))


def scored(model):
    """How rows are scored, once their scores are those of the plain forward pass."""
    engine = Engine(model, notice=lambda line: None)
    for group, got in zip(GROUPS, engine.score(GROUPS), strict=True):
        assert got == pytest.approx([plain_logp(model, one) for one in group], rel=1e-5)
    return engine.layout


def sampled(model):
    """How rows are sampled, once each greedy token is the likeliest of the plain forward pass."""
    requests = [Request(key, context) for key, context in enumerate(CONTEXTS)]
    answers = GREEDY.sample(model, requests)
    for context, answer in zip(CONTEXTS, answers, strict=True):
        logits = plain(model, [*context, *answer.ids])[len(context) - 1 : -1]
        drawn = logits.gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
        assert torch.allclose(drawn, logits.max(1).values, rtol=1e-4)  # equal, but for ties in the last digits
    assert GREEDY.sample(model, requests[2:3]) == answers[2:3]
    return way_of_decoding(model, len(CONTEXTS[-1]) + NEW)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_scored_and_sampled_as_its_plain_forward_pass_has_it(name, capsys):
    kind, changes, scoring, sampling = LAYOUTS[name]
    model = tiny_model(kind, **changes)
    assert (scored(model), sampled(model)) == (scoring, sampling)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sampler:")]
    assert bool(said) == (sampling in get_args(Way))
    assert all("one at a time" in line and "side by side: " in line for line in said)


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_looks_ahead_is_refused_for_that(name):
    kind, reason = REFUSED[name]
    with pytest.raises(UserError, match=f"model.path: {kind}: {reason}"):
        tiny_model(kind)


@torch.no_grad()
def test_rotary_factors_that_follow_the_length_of_a_pass_are_those_of_the_row_alone():
    """Phi-3's longrope: a row past 32 tokens has others from its first token on (huggingface/transformers#33129)."""
    model = tiny_model("phi3", **LONG_ROPE)
    assert scored(model) == "dense"
    requests = [Request(key, row(tokens, 4 + key)) for key, tokens in enumerate((9, 28, 75))]
    model.eos_ids = frozenset()  # so that the second row grows past 32
    answers = GREEDY.sample(model, requests)
    for request, answer in zip(requests, answers, strict=True):
        ids = list(request.context_ids)
        for token in answer.ids:
            assert plain(model, ids)[-1].argmax() == token
            ids.append(token)
    assert way_of_decoding(model, 128) == "whole rows"
    assert way_of_decoding(tiny_model("phi3", sliding_window=None), 128) == "full"


LONG = 6 * 16  # tokens, beyond a window of 64


def gpt_neo(window=64):
    return tiny_model("gpt_neo", window_size=window, attention_types=[[["global", "local"], 1]])


def test_a_longer_row_than_was_tried_is_tried_anew_and_shorter_rows_keep_their_way():
    """Inside its window a local layer is a plain one; a short row's answer is the same before, beside and after."""
    short, long = Request(0, row(20, 1)), Request(1, row(LONG, 2))
    model = gpt_neo()
    before = GREEDY.sample(model, [short])
    assert way_of_decoding(model, 28) == "full"
    beside = GREEDY.sample(model, [long, short])
    assert (way_of_decoding(model, LONG + NEW), way_of_decoding(model, 28)) == ("own cache", "full")
    after = GREEDY.sample(model, [short])
    assert GREEDY.sample(gpt_neo(), [short, long]) == [*before, beside[0]]
    assert before == beside[1:] == after
    ids = [*long.context_ids, *beside[0].ids]
    assert plain(model, ids)[LONG - 1 : -1].argmax(1).tolist() == beside[0].ids


def test_scores_do_not_depend_on_longer_rows_that_came_before():
    model, fresh = gpt_neo(), gpt_neo()
    short = [[Completion(row(20, 1), row(9, 2)), Completion(row(20, 1), row(9, 3))]]
    engine = Engine(model, notice=lambda line: None)
    engine.score([[Completion(row(150, 4), row(9, 5)), Completion(row(150, 4), row(9, 6))]])
    assert engine.layout == "dense"
    assert engine.score(short) == Engine(fresh, notice=lambda line: None).score(short)


def test_rows_of_one_tile_are_compared_with_each_alone(capsys):
    """A network whose logits grow with the rows of a pass gets everything one at a time."""
    model = tiny_model("llama")
    model.causal.model.norm.register_forward_hook(lambda module, args, out: out * len(out))
    assert (scored(model), sampled(model)) == ("dense", "own cache")
    engine = Engine(model, notice=lambda line: None)
    engine.score(GROUPS)
    assert "one row at a time (padding changes its logits" in engine.describe()
    assert "its logits differ by" in capsys.readouterr().err


def test_a_network_without_a_cache_is_said_to_have_none(capsys):
    sampled(tiny_model("openai-gpt"))
    assert "one at a time over the model's own cache: the network keeps no cache" in capsys.readouterr().err


def test_weights_that_are_no_numbers_are_named():
    model = tiny_model("llama")
    with torch.no_grad():
        model.network.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(
        UserError, match=r"hold NaN or infinite values, first in model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        type(model)(model.network, model.tokenizer, "broken")


def test_logits_that_overflow_are_told_from_weights_that_do():
    model = tiny_model("llama")
    with torch.no_grad():
        model.network.lm_head.weight.mul_(1e38)
        model.network.model.norm.weight.fill_(1e38)
    with pytest.raises(UserError, match=r"its weights are finite, but its logits .* are not, in float32"):
        type(model)(model.network, model.tokenizer, "broken")


def test_a_row_beyond_the_position_table_is_refused_with_the_networks_own_words():
    model = tiny_model("gpt2", max_position_embeddings=64)
    model.context = 128
    with pytest.raises(UserError, match="its own forward pass fails on a row of 128 tokens: index out of range"):
        GREEDY.sample(model, [Request(0, row(60, 1))])


def test_a_network_that_no_way_gets_right_is_refused_with_what_each_came_to():
    """Its logits depend on the row's length, so that no prefix has those of the whole."""
    model = tiny_model("llama")
    model.causal.model.norm.register_forward_hook(lambda module, args, out: out * out.shape[1])
    with pytest.raises(
        UserError, match=r"no way of sampling rows of 64 tokens is right: .*each read anew .* differ by"
    ):
        GREEDY.sample(model, [Request(0, row(9, 1))])
