"""Every architecture with every kind of tokenizer: contexts are scored as the model's own dense forward scores them."""

import pytest
import torch
import yaml
from small_models import ALL_SHAPES, small_network
from toy_tokenizers import KINDS, SENTENCES, tokenizer

from dlma.app import conf_dir
from dlma.functional.noise import row_key
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.tokens import answer_ids, encode, with_eos
from dlma.model.trees import Completion
from dlma.prompts.contexts import render_contexts
from dlma.prompts.wording import Wording
from dlma.records import Prompt, Turn
from dlma.sampler.local import LocalSampler, Request

ANSWERS = ("I would rather not help with that.", "Sure, here is how to do it.")
QUESTION = "what is a kind answer to a rude question?"
FALLS_BACK = {"bloom"}  # ALiBi: its positions are not the mask's to say


def wording(**changes):
    content = yaml.safe_load((conf_dir() / "prompts" / "harmless_affix.yaml").read_text())
    del content["_target_"]
    return Wording(**{**content, "format": "template", **changes})


def model(family, kind):
    tok = tokenizer(kind)
    special = (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id)
    return LanguageModel(small_network(family, vocabulary=len(tok), special=special), tok, family)


def sequences(tok, spoken):
    """Both answers after all three contexts, as the self-reward scores them."""
    prompt = Prompt("p", [Turn("user", QUESTION)], "train")
    (context,), _ = render_contexts([prompt], tok, spoken, seed=0, max_prompt_tokens=200)
    ids = [context.positive_ids, context.negative_ids, context.plain_ids]
    eos = tok.eos_token_id
    answers = [with_eos(encode(tok, [text])[0][tok.bos_token_id is not None :], True, eos)[0] for text in ANSWERS]
    return [Completion(c, a) for c in ids for a in answers]


@torch.no_grad()
def own_forward(network, one):
    """log pi(response | context) from the model's own forward over the whole row, float64 softmax."""
    ids = [*one.context, *one.response]
    logp = network(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(logp[place - 1, ids[place]].item() for place in range(len(one.context), len(ids)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ALL_SHAPES)
def test_scores_are_those_of_the_models_own_forward(family, kind):
    one = model(family, kind)
    group = sequences(one.tokenizer, wording(format="chat" if kind == "chat" else "template"))
    engine = Engine(one, notice=lambda line: None)
    assert engine.score([group])[0] == pytest.approx([own_forward(one.network, s) for s in group], rel=1e-5)
    assert engine.layout == ("dense" if family in FALLS_BACK else "tree")


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_the_tokenizers_own(kind):
    one, tok = model("llama", kind), tokenizer(kind)
    assert one.eos_ids == (frozenset() if tok.eos_token_id is None else {tok.eos_token_id})
    assert one.pad_id == (0 if tok.pad_token_id is None else tok.pad_token_id)
    for row in sequences(tok, wording()):
        begins = tok("a")["input_ids"][:1] == [tok.bos_token_id]  # GPT-2-like tokenizers add none
        assert row.context.count(tok.bos_token_id) == begins
        assert row.response.count(tok.eos_token_id) == (tok.eos_token_id is not None)


@pytest.mark.parametrize("family", ALL_SHAPES)
def test_the_likeliest_answer_is_that_of_the_models_own_forward(family):
    """Greedy decoding through the cache, beyond any window, against one dense forward per token."""
    one = model(family, "llama")
    context = encode(one.tokenizer, SENTENCES[:1])[0][:24]
    sampler = LocalSampler(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=12)
    (drawn,) = sampler.sample(one, [Request(row_key(0, "p", "plain", 0), context)])
    ids = list(context)
    for token in drawn.ids:
        with torch.no_grad():
            logits = one.network(torch.tensor([ids])).logits[0, -1]
        assert logits[token].item() == pytest.approx(logits.max().item(), rel=1e-4)
        ids.append(token)
    assert drawn.finished == (ids[-1] in one.eos_ids)


def test_an_answers_ids_do_not_depend_on_the_tokenizer_reading_it_after_its_context():
    """For kinds whose tokens end where the template ends, an answer read alone is the answer read in place."""
    for kind in ("llama", "gpt2", "qwen", "bare", "no_pad"):
        tok = tokenizer(kind)
        context = "USER: hi\nASSISTANT:\n"
        (alone,), (joined,) = encode(tok, [context]), encode(tok, [context + ANSWERS[0]])
        (plain,) = tok([ANSWERS[0]], add_special_tokens=False)["input_ids"]
        assert answer_ids([alone], [joined], tok.eos_token_id) == plain
