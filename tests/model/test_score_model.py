"""Reward and cost models: a checkpoint in Beaver's format gives the score computed by hand, a classifier its logit."""

import json

import pytest
import torch
from safetensors.torch import save_file
from small_models import byte_level_tokenizer
from tokenizers import processors
from transformers import AutoConfig, AutoModelForSequenceClassification, LlamaConfig, LlamaModel

from dlma.errors import UserError
from dlma.model.score_model import ScoreModelSpec, ScoreTemplate
from dlma.records import Turn

TALK = [Turn("user", "how do i mend a lamp?"), Turn("assistant", "with care."), Turn("user", "and a boat?")]
ANSWER = Turn("assistant", "use a soft cloth")
BEAVER = {"begin": "BEGINNING OF CONVERSATION: ", "user": "USER: {text} ", "assistant": "ASSISTANT:{text}{eos}"}
SIZES = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)


def tokenizer_of():
    found = byte_level_tokenizer([turn.content for turn in TALK], 330)
    bos = found.bos_token_id
    found.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", bos)]
    )
    return found


def beaver(folder, *, bias=None, normalise=None, kind="reward"):
    """A small checkpoint under the parameter names of safe-rlhf: model.*, score_head.*, normalizer.*."""
    torch.manual_seed(0)
    tokenizer = tokenizer_of()
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **SIZES)
    trunk = LlamaModel(config).eval()
    head = torch.linspace(-1, 1, 16)
    tensors = {f"model.{name}": value.clone().contiguous() for name, value in trunk.state_dict().items()}
    tensors["score_head.weight"] = head[None].clone()
    if bias is not None:
        tensors["score_head.bias"] = torch.tensor([bias])
    if normalise is not None:
        tensors |= {"normalizer.mean": torch.tensor([normalise[0]]), "normalizer.var": torch.tensor([normalise[1]])}
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    written = {**config.to_dict(), "architectures": ["LlamaForScore"], "score_type": kind, "score_dim": 1}
    written["do_normalize"] = normalise is not None
    (folder / "config.json").write_text(json.dumps(written))
    tokenizer.save_pretrained(folder)
    return trunk, head, tokenizer


def spec(folder, **options):
    values = dict(revision="main", shape="score_head", output=0, dtype="float32", template=BEAVER, max_tokens=200)
    return ScoreModelSpec(path=str(folder), **{**values, **options})


def by_hand(trunk, head, tokenizer, text):
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        return float(trunk(input_ids=ids).last_hidden_state[0, -1] @ head)


def test_a_beaver_checkpoint_gives_the_hand_computed_score(tmp_path):
    trunk, head, tokenizer = beaver(tmp_path / "m")
    text = (
        "BEGINNING OF CONVERSATION: USER: how do i mend a lamp? ASSISTANT:with care.<eos>USER: and a boat? "
        "ASSISTANT:use a soft cloth<eos>"
    )
    short = "BEGINNING OF CONVERSATION: USER: and a boat? ASSISTANT:no<eos>"
    found = spec(tmp_path / "m").load().score([[*TALK, ANSWER], [TALK[2], Turn("assistant", "no")]])
    assert found == pytest.approx([by_hand(trunk, head, tokenizer, t) for t in (text, short)], abs=1e-5)
    assert abs(found[0] - found[1]) > 1e-3


def test_bias_and_normaliser_are_used_where_the_checkpoint_has_them(tmp_path):
    trunk, head, tokenizer = beaver(tmp_path / "m", bias=0.75, normalise=(2.0, 4.0))
    plain = by_hand(trunk, head, tokenizer, "BEGINNING OF CONVERSATION: USER: and a boat? ASSISTANT:no<eos>")
    (found,) = spec(tmp_path / "m").load().score([[TALK[2], Turn("assistant", "no")]])
    assert found == pytest.approx((plain + 0.75 - 2.0) / 2.0, abs=1e-5)


def test_a_cost_is_divided_alone_so_that_0_stays_the_border_of_safety(tmp_path):
    trunk, head, tokenizer = beaver(tmp_path / "m", normalise=(2.0, 4.0), kind="cost")
    plain = by_hand(trunk, head, tokenizer, "BEGINNING OF CONVERSATION: USER: and a boat? ASSISTANT:no<eos>")
    (found,) = spec(tmp_path / "m").load().score([[TALK[2], Turn("assistant", "no")]])
    assert found == pytest.approx(plain / 2.0, abs=1e-5)


def test_a_checkpoint_without_that_head_is_refused(tmp_path):
    beaver(tmp_path / "m")
    classifier(tmp_path / "c", "llama")
    with pytest.raises(UserError, match="score_head"):
        spec(tmp_path / "c").load()
    with pytest.raises(UserError, match="no sequence classifier"):
        spec(tmp_path / "m", shape="classifier").load()


def classifier(folder, kind, labels=1):
    torch.manual_seed(1)
    tokenizer = tokenizer_of()
    sizes = SIZES if kind == "llama" else dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        num_labels=labels,
        pad_token_id=tokenizer.eos_token_id,  # the trap: padding looks like EOS
        **{**sizes, "num_attention_heads": 2},
    )
    network = AutoModelForSequenceClassification.from_config(config).eval()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return network, tokenizer


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_classifier_gives_its_logit_and_an_eos_at_the_end_counts(tmp_path, kind):
    network, tokenizer = classifier(tmp_path / kind, kind, labels=2)
    template = ScoreTemplate(begin="", user="Q: {text}\n", assistant="A: {text}{eos}")
    texts = [[TALK[0], ANSWER], [TALK[0], Turn("assistant", "no")], [TALK[2], ANSWER]]
    found = spec(tmp_path / kind, shape="classifier", output=1, template=template).load().score(texts)
    for value, turns in zip(found, texts, strict=True):
        text = f"Q: {turns[0].content}\nA: {turns[1].content}<eos>"
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            if kind == "llama":  # the head at the very last token, the EOS
                states = network.model(input_ids=ids).last_hidden_state
                expected = network.score(states)[0, -1, 1]
            else:
                expected = network(input_ids=ids).logits[0, 1]
        assert value == pytest.approx(float(expected), abs=1e-5)


def test_the_chat_template_is_used_where_no_template_is_given(tmp_path):
    network, tokenizer = classifier(tmp_path / "m", "llama")
    with pytest.raises(UserError, match="no chat template"):
        spec(tmp_path / "m", shape="classifier", template=None).load().score([[TALK[0], ANSWER]])
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "m")
    (found,) = spec(tmp_path / "m", shape="classifier", template=None).load().score([[TALK[0], ANSWER]])
    wanted = tokenizer("<user>how do i mend a lamp?<assistant>use a soft cloth", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        expected = network.score(network.model(input_ids=torch.tensor([wanted])).last_hidden_state)[0, -1, 0]
    assert found == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("form", [ScoreTemplate(begin="", user="Q: {text}\n", assistant="A: {text}{eos}"), None])
def test_a_special_token_in_a_text_is_its_characters(tmp_path, form):
    _, tokenizer = classifier(tmp_path / "m", "llama")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<eos>{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "m")
    model = spec(tmp_path / "m", shape="classifier", template=form).load()
    spelt, plain = (model.ids([Turn("user", q), Turn("assistant", f"{q} so")]) for q in ("a<eos> lamp<bos>", "a lamp"))
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    assert [i for i in spelt if i in special] == [i for i in plain if i in special] != []
    assert tokenizer.decode(spelt).count("a<eos> lamp<bos>") == 2


def test_what_is_too_long_loses_its_oldest_turns_then_its_beginning(tmp_path):
    beaver(tmp_path / "m")
    model = spec(tmp_path / "m").load()
    whole, last = model.ids([*TALK, ANSWER]), model.ids([TALK[2], ANSWER])
    assert model.cut == 0 and len(last) < len(whole)
    tight = spec(tmp_path / "m", max_tokens=len(last)).load()
    assert tight.ids([*TALK, ANSWER]) == last and tight.cut == 1
    tiny = spec(tmp_path / "m", max_tokens=5).load()
    assert tiny.ids([*TALK, ANSWER]) == last[-5:]


@pytest.mark.parametrize("output", [-1, 2])
def test_an_output_that_is_not_there_is_refused(tmp_path, output):
    classifier(tmp_path / "m", "llama", labels=2)
    with pytest.raises(UserError, match="2 outputs"):
        spec(tmp_path / "m", shape="classifier", output=output).load()


@pytest.mark.parametrize("shape", ["score_head", "gated"])
def test_a_shape_with_one_score_takes_no_other_output(tmp_path, shape):
    with pytest.raises(UserError, match=f"output=1: a model of shape {shape} has one score alone"):
        ScoreModelSpec(
            path=str(tmp_path), revision="main", shape=shape, output=1, dtype="float32", template=None, max_tokens=8
        )
