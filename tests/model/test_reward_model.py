"""The reward model: the state after an answer's last token through one linear output, whatever stands beside it."""

import pytest
import torch
from small_models import FOUR_SHAPES, small_model, small_network, small_tokenizer

from dlma.model.language import LanguageModel
from dlma.model.load import ModelSpec
from dlma.model.reward_model import RewardModel
from dlma.model.trees import Completion

GROUPS = [
    [Completion([0, 5, 6], [7, 8, 1]), Completion([0, 5, 6], [7, 9])],
    [Completion([0, 9, 11, 12, 13], [4]), Completion([0, 9, 11, 12, 13], [4, 5, 6, 7])],
    [Completion([0, 5, 6], [20, 21, 22, 1]), Completion([0, 5, 6], [20, 21, 22, 1])],
]


def planted(model):
    """A reward model with a random head."""
    reward = RewardModel(model)
    with torch.no_grad():
        reward.head.weight.normal_(0, 1, generator=torch.Generator().manual_seed(4))
        reward.head.bias.fill_(0.25)
    return reward


def by_hand(reward, sequence):
    """The last hidden state of one whole row, times the head."""
    ids = torch.tensor([[*sequence.context, *sequence.response]])
    state = reward.model.causal.base_model(ids).last_hidden_state[0, -1].float()
    return (state @ reward.head.weight[0] + reward.head.bias[0]).item()


@torch.no_grad()
@pytest.mark.parametrize("kind", FOUR_SHAPES)
@pytest.mark.parametrize("layout", ["tree", "dense"])
def test_rewards_are_those_of_each_row_alone(kind, layout):
    reward = planted(small_model(kind))
    reward.engine.layout, reward.engine._decides = layout, False
    for group, found in zip(GROUPS, reward.score(GROUPS), strict=True):
        assert found == pytest.approx([by_hand(reward, s) for s in group], abs=1e-4)


def test_an_untrained_reward_model_gives_0():
    assert RewardModel(small_model()).score(GROUPS) == [[0.0, 0.0]] * 3


def test_no_groups_no_rewards():
    assert RewardModel(small_model()).score([]) == []


def test_a_saved_reward_model_is_the_same_and_frozen(tmp_path):
    small_network().save_pretrained(tmp_path / "base")
    small_tokenizer().save_pretrained(tmp_path / "base")
    spec = ModelSpec("small", tmp_path / "base", "float32")
    reward = planted(LanguageModel.load(spec))
    with torch.no_grad():
        for parameter in reward.network.parameters():
            parameter.mul_(1.01)
    reward.save(tmp_path / "reward")
    again = RewardModel.load(spec.trained(tmp_path / "reward"), tmp_path / "reward")
    assert again.score(GROUPS) == reward.score(GROUPS)
    assert not any(p.requires_grad for p in again.parameters())
