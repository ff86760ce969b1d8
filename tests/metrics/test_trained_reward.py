"""The trained reward: an answer is read to its end as in training, and what its folder says is checked."""

import json

import pytest
import torch
import yaml
from small_models import byte_level_tokenizer, small_network
from toy_tokenizers import CHAT_TEMPLATE
from wordings import content

from dlma.errors import UserError
from dlma.evaluation.context import EvaluationContext
from dlma.metrics.base import MetricInput, Selective
from dlma.metrics.trained_reward import About, TrainedReward
from dlma.model.language import LanguageModel
from dlma.model.reward_model import RewardModel
from dlma.model.trees import Completion
from dlma.records import Answer, Turn

TALK = [Turn("user", "how do i mend a lamp?"), Turn("assistant", "with care."), Turn("user", "and a boat?")]
IM_END, EOS = 3, 1
KNOWN = {
    **dict(base="small", weights=["print"], data="hh", learned=["a", "b"]),
    **dict(pairs=40, accuracy=0.575, low=0.42, high=0.72, longer=0.5),
}


@pytest.fixture(scope="module")
def reward():
    special = ("<bos>", "<eos>", "<pad>", "<|im_end|>", "<|im_start|>")
    tokenizer = byte_level_tokenizer([turn.content for turn in TALK], 330, special=special)
    tokenizer.chat_template = CHAT_TEMPLATE
    found = RewardModel(
        LanguageModel(small_network(vocabulary=len(tokenizer), special=(0, EOS, 2)), tokenizer, "small")
    )
    with torch.no_grad():
        found.head.weight.normal_(0, 1, generator=torch.Generator().manual_seed(4))
    return found


def metric(folder, reward=None, settings=None, **changes):
    (folder / "reward.json").write_text(json.dumps({**KNOWN, **changes}))
    prompts = {**content("harmless_affix"), **(settings or {})}
    (folder / "settings.yaml").write_text(yaml.safe_dump({"prompts": prompts}))
    own = {"base_hashes": lambda: ["print"], "reward": lambda folder: reward}
    bench = EvaluationContext({}, [], lambda folder: "adapter", None, **own)
    return TrainedReward(bench, path=str(folder))


def answer(ids, finished, prompt="p"):
    return Answer(prompt, "base", "q", None, "text", ids, finished, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("format", "end"), [("template", EOS), ("chat", IM_END)])
def test_answers_are_read_in_the_format_of_training_to_their_end(format, end, reward, tmp_path):
    texts = {
        "template": "USER: how do i mend a lamp?\nASSISTANT: with care.\nUSER: and a boat?\nASSISTANT:\n",
        "chat": "<|im_start|>user\nhow do i mend a lamp?<|im_end|>\n<|im_start|>assistant\nwith care.<|im_end|>\n"
        "<|im_start|>user\nand a boat?<|im_end|>\n<|im_start|>assistant\n",
    }
    context = reward.model.tokenizer(texts[format], add_special_tokens=format == "template")["input_ids"]
    answers = [answer([40, 41, EOS], True), answer([40, 41, IM_END], True), answer([40, 41, 42], False)]
    found = metric(tmp_path, reward, {"format": format}).scores(MetricInput({"base": answers}, {"p": TALK}, ["base"]))
    responses = [[40, 41, end], [40, 41, end], [40, 41, 42]]
    wanted = [value for (value,) in reward.score([[Completion(context, ids)] for ids in responses])]
    assert [score.value for score in found] == pytest.approx(wanted, abs=1e-5)
    assert wanted[0] == pytest.approx(wanted[1], abs=1e-5) and abs(wanted[2] - wanted[0]) > 0.1
    assert {score.metric for score in found} == {"trained_reward"}


def test_its_label_and_report_state_the_held_out_accuracy(tmp_path):
    found = metric(tmp_path)
    assert "57.5 % [42.0, 72.0] of 40" in found.columns[0].label
    assert found.report() == {**KNOWN, "learned": 2}


def test_weights_and_settings_are_its_identity(tmp_path):
    found = [metric(tmp_path, settings=changed).identity() for changed in ({}, {}, {"user": "A: {text}\n"})]
    assert found[0] == found[1] != found[2] and {one[0] for one in found} == {"adapter"}


def test_prompts_and_base_are_looked_at(tmp_path):
    found = metric(tmp_path)
    assert isinstance(found, Selective)
    found.require({"c": "test", "d": "train"})
    with pytest.raises(UserError, match="from 1 test and 1 train prompts"):
        found.require({"a": "test", "b": "train", "c": "train"})
    with pytest.raises(UserError, match="other weights"):
        metric(tmp_path, weights=["another"]).require({})


@pytest.mark.parametrize("change", [{"accuracy": "0.6"}, {"learned": None}, {"weights": "print"}])
def test_a_folder_that_says_something_else_is_refused(change, tmp_path):
    (name,) = change
    with pytest.raises(UserError, match=f"not a reward model of mode=reward: .*{name}"):
        metric(tmp_path, **change)
    with pytest.raises(UserError, match="is missing"):
        About.read(tmp_path / "nowhere")
