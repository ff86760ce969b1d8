"""ArmoRM's head: a checkpoint under its names gives the score computed by hand; code in its folder is not run."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from dlma.errors import UserError
from dlma.model.gated_head import BEFORE_ANSWER
from dlma.model.score_model import ScoreModelSpec
from dlma.records import Turn

HIDDEN, OBJECTIVES, INNER = 8, 3, 5
WORDS = {"<unk>": 0, "user": 882, "\n\n": 271, "assistant": 78191, "how": 5, "lamp": 6, "care": 7, "so": 8}
HEADERS = {
    "<|begin_of_text|>": 128000,
    "<|start_header_id|>": 128006,
    "<|end_header_id|>": 128007,
    "<|eot_id|>": 128009,
}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}"
    "<|eot_id|>{% endfor %}"
)
TALK = [Turn("user", "how lamp"), Turn("assistant", "so"), Turn("user", "lamp lamp"), Turn("assistant", "care so")]


def tokenizer():
    """Llama 3's ids for what its template writes, and a few words."""
    raw = Tokenizer(models.WordLevel(WORDS | HEADERS, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n|\w+"), "isolated")
    raw.add_special_tokens([AddedToken(name, special=True) for name in HEADERS])
    found = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    found.chat_template = TEMPLATE
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small checkpoint under ArmoRM's parameter names, with code beside it that must not run."""
    place = tmp_path_factory.mktemp("armorm")
    torch.manual_seed(0)
    sizes = dict(intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
    config = LlamaConfig(vocab_size=128010, hidden_size=HIDDEN, max_position_embeddings=64, **sizes)
    trunk = LlamaModel(config)
    for parameter in trunk.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter)  # large enough that a state tells of what stands before it
    tensors = {f"model.{name}": value for name, value in trunk.state_dict().items()}
    tensors |= {
        "regression_layer.weight": torch.randn(OBJECTIVES, HIDDEN),
        "reward_transform_matrix": torch.eye(OBJECTIVES) + 0.1 * torch.randn(OBJECTIVES, OBJECTIVES),
        "gating.logit_scale": torch.tensor([1.5]),
        "gating.layers.0.weight": torch.randn(INNER, HIDDEN),
        "gating.layers.0.bias": torch.randn(INNER),
        "gating.layers.1.weight": torch.randn(OBJECTIVES, INNER),
        "gating.layers.1.bias": torch.randn(OBJECTIVES),
    }
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    written = {**config.to_dict(), "architectures": ["LlamaForRewardModelWithGating"], "gating_temperature": 4}
    written["auto_map"] = {"AutoModelForSequenceClassification": "modeling_custom.LlamaForRewardModelWithGating"}
    (place / "config.json").write_text(json.dumps(written))
    (place / "modeling_custom.py").write_text("raise SystemExit('was run')\n")
    tokenizer().save_pretrained(place)
    return place


def spec(folder, **changes):
    values = dict(revision="main", shape="gated", output=0, dtype="float32", template=None, max_tokens=64)
    return ScoreModelSpec(path=str(folder), **{**values, **changes})


def by_hand(folder, turns):
    """The formula of its authors' code, one objective at a time."""
    held = load_file(folder / "model.safetensors")
    trunk = LlamaModel.from_pretrained(folder).eval()
    talk = [{"role": turn.role, "content": turn.content} for turn in turns]
    ids = tokenizer().apply_chat_template(talk, tokenize=True, return_dict=False)
    places = [i for i in range(len(ids)) if tuple(ids[i : i + 5]) == BEFORE_ANSWER]
    with torch.no_grad():
        states = trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]
    inner = (held["gating.layers.0.weight"] @ states[places[-1]] + held["gating.layers.0.bias"]).clamp(min=0)
    gate = held["gating.layers.1.weight"] @ inner + held["gating.layers.1.bias"]
    weights = 1.5 * torch.softmax(gate / 4, 0)
    rewards = [float(held["regression_layer.weight"][k] @ states[-1]) for k in range(OBJECTIVES)]
    transform = held["reward_transform_matrix"]
    changed = [sum(rewards[j] * float(transform[j, k]) for j in range(OBJECTIVES)) for k in range(OBJECTIVES)]
    return sum(float(weights[k]) * changed[k] for k in range(OBJECTIVES)), weights


def test_a_checkpoint_gives_the_hand_computed_score_and_its_code_is_not_run(folder):
    talks = [TALK, TALK[:2], [Turn("user", "lamp how"), Turn("assistant", "so")], TALK[2:]]
    found = spec(folder).load().score(talks)
    assert found == pytest.approx([by_hand(folder, turns)[0] for turns in talks], abs=1e-5)
    gates = [by_hand(folder, turns)[1] for turns in talks]
    assert (gates[0] - gates[1]).abs().max() > 0.01  # what counts follows from the question


def test_a_text_without_a_question_and_a_checkpoint_of_another_shape_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="a text has no question before its answer"):
        spec(folder).load().score([[Turn("user", "how")]])
    with pytest.raises(UserError, match="no sequence classifier"):
        spec(folder, shape="classifier").load()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    held = load_file(folder / "model.safetensors")
    del held["gating.layers.1.bias"]
    save_file(held, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="no gated head in its weights"):
        spec(tmp_path).load()
