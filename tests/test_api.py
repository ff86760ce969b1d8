"""The Python API: the self-reward against a plain loop over the two prompts; options that are a run's, or refused."""

import dataclasses

import pytest
import torch
from small_models import byte_level_tokenizer, plain_logp, small_network
from toy_tokenizers import OWN_TEMPLATES

from dlma import api
from dlma.app import conf_dir
from dlma.config import compose
from dlma.data.text import prompt_id
from dlma.errors import BadRow, UserError
from dlma.prompts.wording import Wording
from dlma.records import Turn

TEXTS = ["how do i fix a lamp", "with care and ease", "smash it"]
KIND, CALM = ({"positive": {"affix": f" ( {good} )"}, "negative": {"affix": " ( cruel )"}} for good in ("kind", "calm"))


def wording(*pairs):
    return Wording(
        source="test", system="{system}", user="ask : {text}\n", assistant="reply : {text}\n", answer="reply{affix} :",
        pairs=list(pairs), **OWN_TEMPLATES,
    )  # fmt: skip


WORDING = wording(KIND)


def test_rows_of_text_are_scored_without_a_run():
    tokenizer = byte_level_tokenizer(TEXTS, 300)
    network = small_network(vocabulary=len(tokenizer))
    row = {"prompt": TEXTS[0], "first": " " + TEXTS[1], "second": " " + TEXTS[2]}
    swapped = {**row, "first": row["second"], "second": row["first"]}
    margins = api.self_reward(network, tokenizer, [row, swapped], WORDING)

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    contexts = [[0, *ids(f"ask : {TEXTS[0]}\nreply ( {word} ) :")] for word in ("kind", "cruel")]
    answers = [[*ids(row[name]), 1] for name in ("first", "second")]
    logp = [[plain_logp(network, c, a).item() for a in answers] for c in contexts]
    by_hand = (logp[0][0] - logp[1][0]) - (logp[0][1] - logp[1][1])
    assert margins == pytest.approx([by_hand, -by_hand], abs=1e-3)


def test_of_several_affixes_a_prompt_has_that_of_a_run_with_seed_0():
    tokenizer = byte_level_tokenizer(TEXTS, 300)
    network = small_network(vocabulary=len(tokenizer))
    asked = [f"How do I fix a lamp, {i} ?" for i in range(8)]
    rows = [{"prompt": text, "first": " " + TEXTS[1], "second": " " + TEXTS[2]} for text in asked]
    several, *each = (
        api.self_reward(network, tokenizer, rows, wording(*pairs)) for pairs in ([KIND, CALM], [KIND], [CALM])
    )
    drawn = [wording(KIND, CALM).choose(prompt_id([Turn("user", text)]), 0) for text in asked]
    assert several == pytest.approx([each[n][i] for i, n in enumerate(drawn)], abs=1e-4) and len(set(drawn)) == 2


def test_an_empty_answer_is_refused():
    tokenizer = byte_level_tokenizer(TEXTS, 300)
    network = small_network(vocabulary=len(tokenizer))
    with pytest.raises(BadRow, match="empty answer"):
        api.self_reward(network, tokenizer, [{"prompt": "a", "first": "", "second": " b"}], WORDING)


@pytest.fixture(scope="module")
def quick():
    """Options of a small model; composed once."""
    return api.options("recipe=small_full", "recipe.batch_pairs=2", "recipe.max_new_tokens=8", "labels=sign")


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer(TEXTS, 300)


def test_options_are_the_config_of_a_run_with_the_same_words(quick):
    words = ["model=hf", "model.path=given", "data=jsonl", "data.path=given", "recipe=small_full"]
    words += ["recipe.batch_pairs=2", "recipe.max_new_tokens=8", "labels=sign"]
    assert quick == compose.plan(compose.search_path(conf_dir(), None), words, multirun=False).cfg


def test_a_preset_of_a_model_brings_its_recipe_and_its_format():
    chosen = api.options("model=smollm2_135m_instruct")
    assert (chosen.recipe.name, chosen.model.chat) == ("small_lora", True)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("evaluation=text", "evaluation=text: says nothing here"),
        ("data.path=x", "data.path=x: says nothing here"),
        ("model.revision=x", "model.revision=x: says nothing here"),
        ("iterations=2", "iterations=2: says nothing here"),
        ("method=dice", "iterations=2: rounds are for a run"),
        ("method=cream", "iterations=2: rounds are for a run"),
        ("recipe.bta=1", "recipe.bta: unknown key; did you mean recipe.beta"),
        ("recipe.beta=-1", "recipe.beta"),
        ("recipe=lab", "use recipe=small_full"),
        ("pairs.path=x.jsonl", "pairs.path: only a run does that"),
        ("recipe.score_dtype=float32", "recipe.score_dtype: only a run does that"),
        ("objective.target_kl=1.0", "objective.target_kl: only a run does that"),
        ("adapter=qlora", "model.bits: only a run does that"),
        ("trainer=ddp", "trainer.devices: only a run does that"),
    ],
)
def test_what_is_not_read_or_is_wrong_is_refused_by_name(word, said):
    with pytest.raises(UserError) as raised:
        api.options(word)
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("words", "change", "said"),
    [
        (["recipe.dtype=bfloat16"], lambda network: network, "recipe.dtype=bfloat16: the network is in float32"),
        ([], lambda network: network.to("meta"), "trainer: the network is on meta"),
        (["method=base"], lambda network: network, "objective: "),
        (["objective=ppo"], lambda network: network, "objective: "),
    ],
)
def test_what_align_cannot_do_is_said_before_anything_is_sampled(tokenizer, words, change, said):
    network = change(small_network(vocabulary=len(tokenizer)))
    if network.device.type == "meta":  # the engine would look at its numbers first
        with pytest.raises(UserError, match=said):
            api._runtime(network, api.options("recipe=small_full"))
        return
    with pytest.raises(UserError, match=said):
        api.align(network, tokenizer, ["a"], api.options("recipe=small_full", *words))


def test_a_folder_that_holds_something_is_left_alone(tokenizer, quick, tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="holds something already"):
        api.align(small_network(vocabulary=len(tokenizer)), tokenizer, ["a"], quick, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_pairs_are_of_each_prompt_once_and_what_is_left_out_is_told(tokenizer, quick, caplog):
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    pairs = api.contrastive_pairs(
        small_network(vocabulary=len(tokenizer), context=512), tokenizer, ["fix a lamp", " Fix a  lamp", chat], quick
    )
    assert [pair.question for pair in pairs] == ["fix a lamp", "c"]
    assert "prompts: 1 of 3 left out (duplicate prompt: 1)" in caplog.text
    assert all(0 < len(ids) <= 8 for pair in pairs for ids in (pair.positive_ids, pair.negative_ids))
    texts = [tokenizer.decode(pair.plain_context_ids) for pair in pairs]
    assert texts[1] == "<bos>USER: a\nASSISTANT: b\nUSER: c\nASSISTANT:\n"


def test_rows_are_labelled_and_clamped_as_the_options_say(tokenizer, quick):
    network = small_network(vocabulary=len(tokenizer), context=512)
    pairs = api.contrastive_pairs(network, tokenizer, [f"lamp {number}" for number in range(6)], quick)
    pairs = [dataclasses.replace(p, margin=m) for p, m in zip(pairs, (-90.0, 3.0, 50.0, -0.5, 0.25, 7.0))]
    rows = api.training_rows(pairs, quick)
    assert [row["columns"][4] for row in rows] == [40.0, 3.0, 40.0, 0.5, 0.25, 7.0]  # |R|, clamped at 40 nats
    turned = [p.margin < 0 for p in pairs]
    for row, pair, other in zip(rows, pairs, turned, strict=True):
        both = [pair.negative_ids, pair.positive_ids] if other else [pair.positive_ids, pair.negative_ids]
        assert row["answer_ids"] == both and row["columns"][2:4] == [len(both[0]), len(both[1])]
        reference = [plain_logp(network, pair.plain_context_ids, ids).item() for ids in both]
        assert row["columns"][:2] == pytest.approx(reference, abs=1e-3)


def test_an_adapter_of_ones_own_is_not_wrapped_in_another(tokenizer):
    from peft import LoraConfig, get_peft_model

    network = get_peft_model(small_network(vocabulary=len(tokenizer)), LoraConfig(task_type="CAUSAL_LM"))
    with pytest.raises(UserError, match=r"recipe\.lora: the network has an adapter of its own"):
        api._with_lora(network, api.options("adapter=lora"))
    assert api._with_lora(network, api.options("recipe=small_full")) is network


def test_the_network_comes_back_trained_and_without_gradients(tokenizer, quick):
    network = small_network(vocabulary=len(tokenizer), context=512)
    before = network.lm_head.weight.detach().clone()
    seen = []
    aligned = api.align(network, tokenizer, ["a lamp", "a boat"], quick, listen=seen.append)
    assert aligned.network is network and not torch.equal(before, network.lm_head.weight)
    assert seen == aligned.steps and len(seen) == 1
    assert all(parameter.grad is None for parameter in network.parameters()) and not network.training
