"""KL and perplexity of answers drawn with a temperature or a cut, held against the sum over every answer there is."""

import itertools
import math

import numpy as np
import pytest
import torch
from small_models import small_model

from dlma.evaluation.answers import Answers
from dlma.metrics.summary import cannot, summary_rows
from dlma.model.drawn import Drawing, drawn
from dlma.model.trees import Completion
from dlma.records import Context
from dlma.sampler.local import LocalSampler
from dlma.trainer.runtime import Shard

VOCABULARY, EOS, LIMIT = 6, 1, 2
WAYS = [
    Drawing(1.0, 0, 1.0),
    Drawing(0.5, 0, 1.0),
    Drawing(1.7, 0, 1.0),
    Drawing(1.0, 3, 1.0),
    Drawing(1.0, 0, 0.8),
    Drawing(0.7, 4, 0.9),
    Drawing(0.0, 0, 1.0),
]
ANSWERS = [[EOS], *([a, b] for a, b in itertools.product(range(VOCABULARY), repeat=2) if a != EOS)]
CONTEXT = [0, 4, 3]


def distribution(network, context, way):
    """The next token's probabilities under a way of drawing, written out: softmax, sorted, cut, renormalised."""
    with torch.no_grad():
        logits = network(torch.tensor([context])).logits[0, -1].double().numpy()
    if way.temperature == 0:
        return np.eye(len(logits))[logits.argmax()]
    p = np.exp(logits / way.temperature - (logits / way.temperature).max())
    if way.top_k:
        p[p < np.sort(p)[-way.top_k]] = 0
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    kept, total = [], 0.0
    for token in order:
        if total < way.top_p or way.top_p == 1 or not kept:
            kept.append(token)
        total += p[token]
    cut = np.where(np.isin(np.arange(len(p)), kept), p, 0)
    return cut / cut.sum()


def chance(network, context, answer, way):
    """The probability of an answer, token by token."""
    ids, found = list(context), 1.0
    for token in answer:
        found *= distribution(network, ids, way)[token]
        ids.append(token)
    return found


@pytest.fixture(scope="module")
def models():
    return small_model(vocabulary=VOCABULARY, spread=0.35), small_model(vocabulary=VOCABULARY, spread=0.35, seed=3)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_log_probs_are_those_of_the_renormalised_distribution(models, way):
    model, _ = models
    found = drawn(model, [Completion(CONTEXT, a) for a in ANSWERS], [way, way.uncut], token_budget=64)
    for answer, (one, uncut) in zip(ANSWERS, found, strict=True):
        wanted = chance(model.network, CONTEXT, answer, way)
        assert math.exp(one) == pytest.approx(wanted, abs=1e-6)
        assert (one == -math.inf) == (wanted == 0)
        assert math.exp(uncut) == pytest.approx(chance(model.network, CONTEXT, answer, way.uncut), rel=1e-5)
    assert sum(math.exp(one) for one, _ in found) == pytest.approx(1.0, abs=1e-6)


def rows(model, base, way, n=300):
    """What Answers and the evaluation say of n answers to one prompt of many names."""
    from dlma.evaluation.text import eval_row

    settings = dict(temperature=way.temperature, top_k=way.top_k, top_p=way.top_p)
    sampler = LocalSampler(max_new_tokens=LIMIT, **settings)
    contexts = [Context(f"p{i}", "q", None, "w", CONTEXT, CONTEXT, CONTEXT, 0, None, None) for i in range(n)]
    module = Answers(model, base, sampler, arm="aligned", side="plain", seed=0)
    return [eval_row(answer) for answer in module.predict_step(Shard(0, contexts), 0)]


def truth(model, base, way):
    """By enumeration: KL of the drawn distribution to the base uncut and cut, its entropy per answer, and what the
    base's cut rules out."""
    p = {tuple(a): chance(model.network, CONTEXT, a, way) for a in ANSWERS}
    uncut = {tuple(a): chance(base.network, CONTEXT, a, way.uncut) for a in ANSWERS}
    cut = {tuple(a): chance(base.network, CONTEXT, a, way) for a in ANSWERS}
    p = {a: value for a, value in p.items() if value > 0}
    mean = lambda value: sum(p[a] * value(a) for a in p)  # noqa: E731
    out = mean(lambda a: cut[a] == 0)
    return {
        "kl": mean(lambda a: math.log(p[a] / uncut[a])),
        "kl_cut": math.inf if out else mean(lambda a: math.log(p[a] / cut[a])),
        "ruled_out": out,
        "entropy": mean(lambda a: -math.log(p[a])) / mean(len),
        "perplexity": math.exp(mean(lambda a: -math.log(chance(base.network, CONTEXT, list(a), WAYS[0]))) / mean(len)),
    }


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_figures_of_a_run_are_those_by_enumeration(models, way):
    found = rows(*models, way)
    shown = {row.metric: row.estimate for row in summary_rows(found, ["aligned"])}
    wanted = truth(*models, way)
    for name in ("kl", "entropy", "perplexity"):
        estimate, slack = shown[name], 1e-4
        width = 2 * (estimate.high - estimate.low) if estimate.high == estimate.high else 0  # four standard errors
        assert abs(estimate.value - wanted[name]) <= width + slack, name
    if way.plain:
        assert not {"kl_cut", "ruled_out", "log_ratio_1", "surprise_1", "perplexity_drawn"} & set(shown)
        assert all(row.logp_drawn is None for row in found)
    elif any(row.logp_base_drawn is None for row in found):
        assert wanted["kl_cut"] == math.inf and "kl_cut" not in shown and "perplexity_drawn" not in shown
        assert any("infinite" in line and "aligned" in line for line in cannot(found))
        assert shown["ruled_out"].value == pytest.approx(wanted["ruled_out"], abs=0.1)
    else:
        assert wanted["kl_cut"] < math.inf and shown["kl_cut"].value == pytest.approx(wanted["kl_cut"], abs=0.3)
        assert not any("infinite" in line for line in cannot(found))


@pytest.mark.parametrize("way", WAYS[1:], ids=str)
def test_the_base_is_at_no_distance_from_itself_drawn_from_alike(models, way):
    found = rows(models[1], models[1], way, n=40)
    assert all(row.logp_drawn == row.logp_base_drawn for row in found)


def test_labels_say_which_distribution_a_figure_is_of(models):
    plain = {r.metric: r.label for r in summary_rows(rows(*models, WAYS[0], n=20), ["aligned"])}
    cut = {r.metric: r.label for r in summary_rows(rows(*models, WAYS[1], n=20), ["aligned"])}
    assert set(plain.values()) == {""}
    assert "at the same temperature, nothing cut" in cut["kl"] and "temperature 1" in cut["perplexity"]
    assert {"log_ratio_1", "surprise_1", "kl_cut"} <= set(cut)
