"""The lab's skills of a base equal what the dense code behind its card measures on the same documents."""

import math

import pytest
import torch

from dlma.evaluation.context import EvaluationContext
from dlma.lab import measure
from dlma.metrics.base import MetricInput
from dlma.metrics.lab_skills import LabSkills
from dlma.model.load import lab_base


@pytest.fixture(scope="module")
def model():
    """The standard base, spoilt until it gets some endings right and others wrong."""
    found = lab_base(base="standard", dtype="float32", bits=None, lora=None).load()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.network.parameters():
            parameter += 0.25 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return found


@pytest.fixture(scope="module")
def scores(model):
    skills = LabSkills(EvaluationContext({"base": lambda: model}, ["weights"], str, None))
    return skills.items, skills.scores(MetricInput({}, {}, ["base"]))


@pytest.fixture(scope="module")
def probe(model):
    return measure.Probe(model.network, model.tokenizer, 0)


@pytest.mark.parametrize("skill", ["counting", "facts"])
def test_the_share_of_endings_that_are_the_likeliest(scores, probe, skill):
    items, found = scores
    ours = [score.value for score in found if score.metric == f"skill_{skill}"]
    theirs = measure._greedy(probe, [item.name for item in items if item.skill == skill], 2)
    assert sum(ours) / len(ours) == pytest.approx(theirs)
    assert 0.05 < theirs < 0.95


def test_the_loss_is_that_of_the_endings_per_token(scores, probe):
    items, found = scores
    losses = {score.item: score for score in found if score.metric == "skill_loss"}
    for item in items[::40]:
        start, whole = probe.ids(item.beginning), probe.ids(item.beginning + item.end)
        (logp,) = probe.logp([item.beginning], [whole[len(start) :]])
        assert losses[item.name].value == pytest.approx(-logp, abs=1e-4)
        assert losses[item.name].weight == len(whole) - len(start)
    assert all(math.isfinite(score.value) for score in found)
