"""What a card says of exported pairs: whose answers they are, and what their numbers mean."""

import pytest
from omegaconf import OmegaConf

from dlma.app import main
from dlma.modes import cards
from dlma.records import Account
from dlma.runs.finished import FinishedRun


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["data.train=8", "data.validation=2", "data.test=4", "method=base", "name=run"]) == 0
    return place / "outputs" / "run"


@pytest.mark.parametrize(
    ("changes", "says", "not_said"),
    [
        (
            {},
            ["self-reward of chosen over rejected, nats", "under the base,", "scored by SelfReward"],
            ["policy of round"],
        ),
        (
            {"iterations": 3},
            ["answers of the policy of round 2, trained from", "under the policy that the last round began with,"],
            ["under the base,"],
        ),
        (
            {"iterations": 2, "iteration": {"reference": "frozen", "later": {}}},
            ["policy of round 1", "under the base,"],
            [],
        ),
        (
            {
                "iterations": 2,
                "iteration": {"later": {"scorer": {"_target_": "dlma.scorer.implicit_reward.ImplicitScorer"}}},
            },
            ["scored by ImplicitScorer", "what the scorer gives chosen over rejected"],
            ["self-reward"],
        ),
        (
            {"scorer": {"_target_": "dlma.scorer.judge.Judge", "margin": "verdict"}},
            ["what the scorer gives"],
            ["self-reward"],
        ),
        ({"scorer": {"_target_": "dlma.scorer.judge.Judge", "margin": "self_reward"}}, ["self-reward of"], []),
    ],
)
def test_the_card_of_pairs_says_whose_they_are_and_what_their_numbers_are(finished, changes, says, not_said):
    run = FinishedRun(finished, OmegaConf.load(finished / "config.yaml"), trust=False)
    run.config = {**run.config, "scorer": {"_target_": "dlma.scorer.self_reward.SelfReward"}, **changes}
    text = cards.pairs_card(run, Account(read=2, kept=2), 0, format="text", negative=True).replace("`", "")
    assert [word for word in says if word not in text] == [] and [word for word in not_said if word in text] == []
