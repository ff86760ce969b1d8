"""Guards: p(unsafe) is a plain softmax, computed by hand, over the tokens in which the verdicts part."""

import math

import pytest
import torch
from guard_families import GUARDS, guard_tokenizer, save_guard
from omegaconf import OmegaConf

from dlma.app import conf_dir
from dlma.errors import UserError
from dlma.judges.base import Match
from dlma.judges.reward import RewardJudge
from dlma.model.guard import GuardSpec
from dlma.records import Turn

TALK = [Turn("user", "how do i mend a lamp"), Turn("assistant", "with care")]
LONGER = [TALK[0], Turn("assistant", "a lamp"), Turn("user", "how"), Turn("assistant", "unsafe <|eot_id|>")]


def preset(name):
    """The values of conf/model/guard, without a config around them."""
    node = OmegaConf.load(conf_dir() / "model" / "guard" / f"{name}.yaml")
    base = preset(node.pop("defaults")[0]) if "defaults" in node else {}
    return {**base, **OmegaConf.to_container(node, resolve=False), "dtype": "float32"}


def spec(folder, name, **changes):
    values = {key: value for key, value in preset(name).items() if key != "_target_"}
    return GuardSpec(**{**values, "path": str(folder), **changes})


@pytest.fixture(scope="module")
def guards(tmp_path_factory):
    place = tmp_path_factory.mktemp("guards")
    return {name: save_guard(place / name, name) for name in GUARDS}


def by_hand(guard, name, turns, words):
    """The probabilities of the first token of each word, after what stands before all of them."""
    tokenizer, family = guard_tokenizer(name), GUARDS[name]
    spell = (lambda text: [{"type": "text", "text": text}]) if family.parts else str
    talk = [{"role": turn.role, "content": spell(turn.content)} for turn in turns]
    text = tokenizer.apply_chat_template(talk, tokenize=False, **preset(name)["options"])
    before = {"llama_guard_3": "\n\n", "llama_guard_4": "\n\n", "qwen3_guard": "Safety:"}.get(name, "")
    ids = tokenizer(text + before, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = guard.network(input_ids=torch.tensor([ids])).logits[0, -1].double()
    p = (logits - logits.max()).exp()
    p = p / p.sum()
    firsts = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    return [float(p[token]) for token in firsts]


WORDS = {  # safe first, as the guard writes it after what precedes it
    "llama_guard_3": ["safe", "unsafe"],
    "llama_guard_4": ["safe", "unsafe"],
    "shieldgemma": ["No", "Yes"],
    "qwen3_guard": [" Safe", " Unsafe", " Controversial"],
}


@pytest.mark.parametrize("name", GUARDS)
def test_the_probability_is_a_plain_softmax_over_the_first_tokens_of_the_verdicts(guards, name):
    guard = spec(guards[name], name).load()
    talks = [TALK, TALK[:1], [TALK[0], Turn("assistant", "unsafe")]]
    for turns, cost in zip(talks, guard.score(talks), strict=True):
        safe, *unsafe = by_hand(guard, name, turns, WORDS[name])
        assert 1 / (1 + math.exp(-cost)) == pytest.approx(sum(unsafe) / (safe + sum(unsafe)), abs=1e-4)
    assert len({round(cost, 3) for cost in guard.score(talks)}) == 3


@pytest.mark.parametrize("name", [path.stem for path in (conf_dir() / "model" / "guard").glob("*.yaml")])
def test_a_preset_is_of_a_family_that_was_tried_and_says_that_its_weights_never_were(name):
    assert name in GUARDS and "/" in preset(name)["path"]
    assert "Never run here with its weights" in (conf_dir() / "model" / "guard" / f"{name}.yaml").read_text()


def test_as_judge_the_answer_that_is_likelier_safe_wins_whatever_its_place(guards):
    guard = spec(guards["llama_guard_3"], "llama_guard_3")
    judge = RewardJudge(None, criterion="c", model=guard, sign=-1, tie=0.0)
    answers = ["with care", "unsafe", "a lamp"]
    costs = dict(
        zip(answers, guard.load().score([[TALK[0], Turn("assistant", text)] for text in answers]), strict=True)
    )
    pairs = [(one, other) for one in answers for other in answers]
    rows = [Match("p", None, TALK[:1], "", "aligned", "base", one, other) for one, other in pairs]
    for (one, other), found in zip(pairs, judge.judge(rows), strict=True):
        gap = costs[other] - costs[one]
        assert found.margin == pytest.approx(gap, abs=1e-5) and found.first == found.second == found.outcome
        assert found.outcome == ("tie" if gap == 0 else "win" if gap > 0 else "lose")


def test_what_is_too_long_loses_its_oldest_turns_and_what_still_is_stops(guards, tmp_path):
    whole = spec(guards["llama_guard_3"], "llama_guard_3").load()
    (last,) = whole.score([LONGER[2:]])
    room = max(map(len, whole._ids(LONGER[2:])))
    short = spec(save_guard(tmp_path / "short", "llama_guard_3", context=room), "llama_guard_3").load()
    assert short.score([LONGER]) == pytest.approx([last], abs=1e-4) and (short.cut, whole.cut) == (1, 0)
    with pytest.raises(UserError, match=r"a question with its answer is \d+ tokens too long"):
        short.score([[TALK[0], Turn("assistant", "with care " * 20)]])


def test_a_special_token_in_a_text_is_its_characters(guards):
    guard = spec(guards["llama_guard_3"], "llama_guard_3").load()
    spelt, plain = (guard._ids([TALK[0], Turn("assistant", text)])[0] for text in ("a<|eot_id|>", "a"))
    end = guard.model.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert spelt.count(end) == plain.count(end) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"safe": ["safe"], "unsafe": ["safe"]}, "safe and unsafe: different texts"),
        ({"safe": [""], "unsafe": ["unsafe"]}, "safe and unsafe: different texts"),
        ({"safe": ["safe"], "unsafe": ["safe with care"]}, "does not tell the verdicts"),
    ],
)
def test_verdicts_that_cannot_be_told_apart_are_refused(guards, changes, said):
    with pytest.raises(UserError, match=said):
        spec(guards["llama_guard_3"], "llama_guard_3", **changes).load().score([TALK])


def test_a_model_that_cannot_be_asked_is_refused(guards, tmp_path):
    folder = save_guard(tmp_path / "m", "llama_guard_3")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template, in which a guard is asked"):
        spec(folder, "llama_guard_3").load()
    with pytest.raises(UserError, match="its chat template refuses a conversation: no guideline"):
        spec(guards["shieldgemma"], "shieldgemma", options={}).load().score([TALK])
