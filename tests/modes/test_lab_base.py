"""mode=lab_base: what a base of one's own has to say, and which names are refused."""

import pytest

from dlma.errors import UserError
from dlma.lab import build
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


DIALS = (
    "obedience",
    "spread",
    "mood",
    "judge",
    "confound",
    "help_obedience",
    "sentences",
    "tokens",
    "start",
    "architecture",
)


def test_a_folder_that_holds_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"mode\.out=.*: holds other things than a base"):
        lab_base.run(None, name="standard", seed=0, out=str(tmp_path), **dict.fromkeys(DIALS))
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_base_that_could_not_be_measured_is_not_there(tmp_path, monkeypatch):
    def stop(*args, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "begin", lambda dials, plan: (None, None))
    monkeypatch.setattr(build, "train", lambda *args: None)
    monkeypatch.setattr(build, "save", lambda model, tokenizer, out: (out / "model.safetensors").write_bytes(b""))
    monkeypatch.setattr(build, "measure_base", stop)
    with pytest.raises(KeyboardInterrupt):
        build.build_base(tmp_path / "mine", name="mine", dials=None, plan=None, prompts=4)
    assert list(tmp_path.iterdir()) == []
