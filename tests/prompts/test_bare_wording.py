"""prompts=harmless_bare, helpful_bare: the official code's bare training text beside its sampling template."""

import pytest
from wordings import shipped

from dlma.records import Turn

ONE = [Turn("user", "how do i open a door?")]
SEVERAL = [*ONE, Turn("assistant", "by its handle."), Turn("user", "and a {text} window?")]


@pytest.mark.parametrize("name", ["harmless", "helpful"])
def test_training_sees_the_bare_conversation(name):
    bare = shipped(f"{name}_bare")
    assert bare.render(ONE, "plain", 0) == "how do i open a door?"
    # as efficient_generation.py joins the turns of processed-hh-rlhf
    several = "how do i open a door?\nASSISTANT: by its handle.\nUSER: and a {text} window?"
    assert bare.render(SEVERAL, "plain", 0) == several


@pytest.mark.parametrize("turns", [ONE, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize("side", ["positive", "negative"])
@pytest.mark.parametrize("name", ["harmless", "helpful"])
def test_sampling_and_scoring_see_what_the_templated_pair_shows(name, side, turns):
    assert shipped(f"{name}_bare").render(turns, side, 0) == shipped(f"{name}_affix").render(turns, side, 0)
