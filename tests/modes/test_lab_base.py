"""mode=lab_base: what a base of one's own has to say, and which names are refused."""

import pytest

from dlma.errors import UserError
from dlma.modes import lab_base


def test_a_base_of_ones_own_needs_every_dial():
    given = dict.fromkeys(
        ("obedience", "spread", "mood", "judge", "confound", "sentences", "tokens", "start", "architecture")
    )
    with pytest.raises(UserError, match=r"mode\.mine|mode\.name=mine.*mode\.confound="):
        lab_base.resolve("mine", given)
    with pytest.raises(UserError, match="sentences"):
        lab_base.resolve("standard", {**given, "sentences": [5, 3]})
    assert lab_base.resolve("standard", {**given, "obedience": 0.0})["obedience"] == 0.0


@pytest.mark.parametrize("name", ["../up", "/top", "a/b", "", "x" * 256, "a\x1bb"])
def test_a_base_whose_name_would_not_find_it_again_is_refused(name):
    dials = ("obedience", "spread", "mood", "judge", "confound", "help_obedience", "sentences", "tokens", "start")
    with pytest.raises(UserError, match=r"^mode\.name: "):
        lab_base.run(None, name=name, seed=0, out=None, architecture=None, **dict.fromkeys(dials))
