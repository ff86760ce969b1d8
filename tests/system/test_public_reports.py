"""What users of the peers reported of their models and files comes out right here: one small input for each report."""

import json

import pytest
import torch
from pairs_of_files import imported_pairs
from peft import LoraConfig, get_peft_model
from small_models import byte_level_tokenizer, save_small, small_network, small_tokenizer
from toy_tokenizers import CHAT_TEMPLATE, OWN_TEMPLATES
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig, PreTrainedTokenizer

from dlma.data.corpus import Corpus
from dlma.data.jsonl import Columns
from dlma.errors import BadRow, UserError
from dlma.model.language import LanguageModel
from dlma.model.load import Lora, ModelSpec, hf_model
from dlma.model.merge import save_merged
from dlma.model.saved import save
from dlma.model.tokens import GUARD, Characters, encode, tokenized, turn_end
from dlma.prompts.rendering import answer_end, rendered
from dlma.prompts.wording import Wording
from dlma.records import Turn
from dlma.sampler.local import LocalSampler, Request

LINES = ["how do i mend the lamp?", "what is soup?", "where do beans grow?"]
ROW = torch.tensor([[0, 4, 5, 6]])
ASKED = [Turn("user", "how do i mend the lamp?")]
SIDES = [{"positive": {"affix": "good"}, "negative": {"affix": "bad"}}]
PLAIN = dict(source="t", system="", user="USER: {text}\n", assistant="ASSISTANT: {text}\n", answer="ASSISTANT{affix}:")


def chat_wording(**options):
    return Wording(
        **PLAIN, pairs=SIDES, format="chat", chat_affix="user", chat_join="{text} {affix}", chat_options=options
    )


def load(folder, **options):
    return ModelSpec("m", folder, "float32", **options).load()


def edit(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


# --- a template of a model that also sees images wants a list of parts, and writes nothing of a text
# vllm-project/vllm#9358


def in_parts(inner):
    return (
        "{% for m in messages %}[{{ m['role'] }}]{% for p in m['content'] %}{% if p['type'] == 'text' %}"
        + inner
        + "{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )


def test_a_template_that_wants_parts_gets_them():
    tok = byte_level_tokenizer(LINES, 300)
    tok.chat_template = in_parts("{{ p['text'] }}")
    talk = [*ASKED, Turn("assistant", "so."), Turn("user", "and then?")]
    wanted = "[user]how do i mend the lamp?[assistant]so.[user]and then? good[assistant]"
    assert rendered(tok, chat_wording(), talk, "positive", 0) == wanted


def test_a_template_that_writes_nothing_of_what_is_asked_is_refused():
    tok = byte_level_tokenizer(LINES, 300)
    tok.chat_template = in_parts("")
    with pytest.raises(UserError, match=r"prompts.format=chat: .* leaves out what the user says"):
        rendered(tok, chat_wording(), ASKED, "plain", 0)
    assert LanguageModel(small_network(vocabulary=len(tok)), tok, "m").eos_ids == {1}


# --- several templates and none of them the default; templates that raise whatever they like
# EleutherAI/lm-evaluation-harness#2129, huggingface/transformers#45422

TEMPLATES = [
    ({"rag": CHAT_TEMPLATE, "tool_use": "{{ messages[0]['content'] }}"}, "multiple chat templates"),
    ("{{ 1 + 'a' }}", "unsupported operand"),
    ("{{ messages[0]['content'] + messages[0]['name'] }}", "no attribute 'name'|undefined|concatenate"),
    ("{{ 1 // 0 }}", "division"),
    ("{% for m in %}", "Expected an expression|unexpected"),
]


@pytest.mark.parametrize(("template", "reason"), TEMPLATES)
def test_a_template_that_fails_hinders_no_run_without_it_and_is_one_line_in_a_run_with_it(template, reason):
    tok = small_tokenizer()
    tok.chat_template = template
    assert LanguageModel(small_network(), tok, "m").eos_ids == {1}
    with pytest.raises(UserError, match=rf"prompts.format=chat: the chat template of .* refuses .*({reason})"):
        rendered(tok, chat_wording(), ASKED, "plain", 0)


def test_of_several_templates_one_is_named_in_the_options():
    tok = byte_level_tokenizer(LINES, 400, ("<bos>", "<eos>", "<pad>", "<|im_start|>", "<|im_end|>"))
    tok.chat_template = TEMPLATES[0][0]
    wording = chat_wording(chat_template="rag")
    wanted = "<|im_start|>user\nhow do i mend the lamp?<|im_end|>\n<|im_start|>assistant\n"
    assert rendered(tok, wording, ASKED, "plain", 0) == wanted
    assert answer_end(tok, wording) == tok.convert_tokens_to_ids("<|im_end|>")


# --- tokenizers in Python do not say where a token lies
# huggingface/transformers#9056


class Letters(PreTrainedTokenizer):
    """One id a character; what it cannot write is `unknown`."""

    def __init__(self, without="", **names):
        letters = [letter for letter in map(chr, range(32, 127)) if letter not in without]
        self.ids = {token: i for i, token in enumerate(["<s>", "</s>", "<pad>", "<unk>", *letters])}
        self.names = {i: token for token, i in self.ids.items()}
        super().__init__(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", **names)

    @property
    def vocab_size(self):
        return len(self.ids)

    def get_vocab(self):
        return dict(self.ids)

    def _tokenize(self, text):
        return list(text)

    def _convert_token_to_id(self, token):
        return self.ids.get(token, 3)

    def _convert_id_to_token(self, index):
        return self.names[index]

    def convert_tokens_to_string(self, tokens):
        return "".join(tokens)


def test_a_tokenizer_in_python_reads_a_spelt_token_as_characters_too():
    tok = Letters()
    assert not tok.is_fast
    guarded = Characters(tok).checked("say </s> now")
    assert GUARD in guarded
    for special in (False, True):
        (ids,) = tokenized(tok, [guarded], special=special)
        assert ids == [tok.ids[letter] for letter in "say </s> now"]
    assert encode(tok, ["</s>" + guarded])[0][0] == tok.eos_token_id
    with pytest.raises(BadRow, match="cannot write as characters"):
        Characters(Letters(without="/")).checked("say </s> now")


# --- an adapter beside a whole model is put on by transformers unasked; an adapter alone is no model
# huggingface/peft#1381


def test_an_adapter_beside_a_model_or_instead_of_one_is_refused_by_name(tmp_path):
    whole = save_small(tmp_path / "whole")
    adapted = get_peft_model(small_network(), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.peft_config["default"].base_model_name_or_path = "some/base"
    for folder in (whole, tmp_path / "alone"):
        adapted.save_pretrained(folder)
    options = dict(revision="main", dtype="float32", bits=None, lora=None)
    with pytest.raises(UserError, match="holds a whole model and an adapter"):
        hf_model(path=str(whole), **options)
    with pytest.raises(UserError, match="an adapter alone, trained on some/base"):
        hf_model(path=str(tmp_path / "alone"), **options)


# --- turns that call tools or think beside their text, and texts beside the prompt, are not read as if they did not
# axolotl-ai-cloud/axolotl#3824, hiyouga/LlamaFactory#5743


def user(text):
    return {"role": "user", "content": text}


def told(content, **more):
    return {"role": "assistant", "content": content, **more}


CALL = [{"type": "function", "function": {"name": "weather", "arguments": "{}"}}]
NO, ONE = [told("rain")], {"prompt": [user("wind?")], "chosen": [told("sun")], "rejected": [told("rain")]}
WHOLE = {
    "a part of text": ONE | {"prompt": [user([{"type": "text", "text": "wi"}, {"type": "text", "text": "nd?"}])]},
    "one turn, no list": ONE | {"chosen": told("sun"), "rejected": told("rain")},
    "empty extras": ONE | {"chosen": [told("sun", tool_calls=[], reasoning_content="")], "system": "", "tools": None},
}
LOST = {
    "a turn with tool_calls": ONE | {"chosen": [told("wait", tool_calls=CALL)]},
    "a turn with function_call": ONE | {"prompt": [user("a"), told("b", function_call=CALL[0]), user("c")]},
    "a turn with tool_calls,": ONE | {"rejected": [told(None, tool_calls=CALL)]},
    "a turn with reasoning_content": ONE | {"chosen": [told("sun", reasoning_content="hm")]},
    "a turn without text": ONE | {"chosen": [told(None)]},
    "a turn with parts that are no text": ONE | {"prompt": [user([{"type": "image"}, {"type": "text", "text": "q"}])]},
    "a row with system": ONE | {"system": "Be kind."},
    "a row with tools": ONE | {"tools": CALL},
    "a row with images": ONE | {"images": ["a.png"]},
}
READ = dict(
    revision="main", subset=None, hub_split="train", max_words=None, max_prompts=None, only=None, every_pair=False
)
STRICT = dict(on_bad_row="drop", max_dropped=0.5)
OTHERS = [{"prompt": f"{line} {i}", "chosen": "yes", "rejected": "no"} for i in range(3) for line in LINES]


def both_readers(tmp_path, row):
    """The rows' prompts and both accounts, read as a data set and as pairs."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [*OTHERS, row]))
    columns = Columns(prompt_column="prompt", category_column="category", category=None)
    shares = dict(validation_share=0.1, test_share=0.3)
    prompts, first = Corpus(path=str(path), format=columns, **READ, **shares, **STRICT).read()
    limits = dict(seed=0, max_prompt_tokens=500, max_response_tokens=99)
    wording = Wording(**PLAIN, pairs=SIDES, **OWN_TEMPLATES)
    pairs, second = imported_pairs(str(path), byte_level_tokenizer(LINES, 400), wording, **limits, **STRICT)
    return prompts, pairs, first, second


@pytest.mark.parametrize("name", WHOLE)
def test_forms_that_say_the_same_are_read_as_the_same(tmp_path, name):
    prompts, pairs, *accounts = both_readers(tmp_path, WHOLE[name])
    assert [account.dropped for account in accounts] == [{}, {}]
    assert [Turn("user", "wind?")] in [prompt.turns for prompt in prompts]
    assert ("wind?", "sun", "rain") in [(pair.question, pair.positive_text, pair.negative_text) for pair in pairs]


@pytest.mark.parametrize("name", LOST)
def test_what_would_be_lost_drops_the_row_and_is_counted(tmp_path, name):
    prompts, pairs, *accounts = both_readers(tmp_path, LOST[name])
    assert len(prompts) == len(pairs) == len(OTHERS)
    for account in accounts:
        ((reason, count),) = account.dropped.items()
        assert reason.startswith(name.removesuffix(",")) and count == 1


# --- weights that were saved in four bits
# unslothai/unsloth#1596


def test_weights_that_lie_in_four_bits_are_read_as_frozen_ones_only(tmp_path):
    save_small(tmp_path / "whole", spread=0.1)
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    packed = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", quantization_config=how)
    packed.save_pretrained(tmp_path / "packed")
    small_tokenizer().save_pretrained(tmp_path / "packed")
    options = dict(path=str(tmp_path / "packed"), revision="main", dtype="float32")
    with pytest.raises(UserError, match=r"quantised \(bitsandbytes\): adapter=qlora .*; or take the model in full"):
        hf_model(**options, bits=None, lora=None)
    model = hf_model(**options, bits=4, lora=Lora(2, 4, ["q_proj"])).load()
    assert torch.equal(model.network(input_ids=ROW).logits, packed(input_ids=ROW).logits)
    edit(tmp_path / "packed" / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UserError, match=r"quantised \(gptq\): take the model in full precision"):
        hf_model(**options, bits=4, lora=Lora(2, 4, ["q_proj"]))


# --- a published generation config that is not valid, met when the model is saved
# huggingface/transformers#29988


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE])
def test_a_generation_config_with_sampling_flags_and_no_sampling_is_saved_as_it_is(tmp_path, template):
    tok = byte_level_tokenizer(LINES, 400, ("<bos>", "<eos>", "<pad>", "<|im_start|>", "<|im_end|>"))
    tok.chat_template = template
    save_small(tmp_path / "base", tokenizer=tok)
    flags = {"do_sample": False, "temperature": 0.9, "top_p": 0.6}
    edit(tmp_path / "base" / "generation_config.json", **flags)
    model = load(tmp_path / "base")
    save(model, tmp_path / "out", network=model.network)
    held = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert {name: held[name] for name in flags} == flags
    assert held["eos_token_id"] == (1 if template is None else [1, 4])


# --- a config that says the head is tied, and weights with a head of their own
# huggingface/transformers#42612


def test_a_head_of_its_own_is_kept_whatever_the_config_says(tmp_path):
    network = small_network(tied=False)
    network.save_pretrained(tmp_path / "base")
    small_tokenizer().save_pretrained(tmp_path / "base")
    edit(tmp_path / "base" / "config.json", tie_word_embeddings=True)
    wanted = network(ROW).logits
    model = load(tmp_path / "base")
    assert torch.equal(model.network(ROW).logits, wanted)
    save(model, tmp_path / "out", network=model.network)
    assert torch.equal(load(tmp_path / "out").network(ROW).logits, wanted)


# --- a tokenizer.json that was saved with truncation and padding switched on
# deepjavalibrary/djl#2741


def test_texts_are_neither_cut_nor_filled_up_by_what_a_tokenizer_file_has_switched_on(tmp_path):
    tok = byte_level_tokenizer(LINES, 300)
    wanted = encode(tok, LINES)
    tok.save_pretrained(tmp_path)
    tok.backend_tokenizer.enable_truncation(3)
    tok.backend_tokenizer.enable_padding(length=50)
    tok.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert encode(AutoTokenizer.from_pretrained(tmp_path), LINES) == wanted


# --- a tuned model goes on past the end of its turn
# QwenLM/Qwen3#1064, hiyouga/LlamaFactory#7943


def talking_model(folder):
    """A model whose template's turn end, id 4, is none of its EOS, and which ends turns soon; and a context."""
    tok = byte_level_tokenizer(LINES, 300, ("<bos>", "<eos>", "<pad>", "<|im_start|>", "<|im_end|>"))
    tok.chat_template = CHAT_TEMPLATE
    network = small_network(vocabulary=len(tok), tied=False)
    context = encode(tok, [rendered(tok, chat_wording(), ASKED, "plain", 0)], chat=True)[0]
    with torch.no_grad():
        state = network.model(network.generate(torch.tensor([context]), max_new_tokens=3, do_sample=False))[0][0, -1]
        network.lm_head.weight[4] = state * (40 / state.norm())
    network.save_pretrained(folder)
    tok.save_pretrained(folder)
    return context


def generated(folder, context):
    network = AutoModelForCausalLM.from_pretrained(folder)
    return network.generate(torch.tensor([context]), max_new_tokens=12, do_sample=False)[0, len(context) :].tolist()


def test_a_model_that_is_handed_out_ends_its_turn_in_transformers_as_here(tmp_path):
    context = talking_model(tmp_path / "base")
    greedy = LocalSampler(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=12)
    model = load(tmp_path / "base")
    (answer,) = greedy.sample(model, [Request(0, context)])
    assert model.added_end == turn_end(model.tokenizer, {}) == 4
    assert answer.ids[-1] == 4 and answer.finished and len(answer.ids) < 12
    assert generated(tmp_path / "base", context)[: len(answer.ids) + 1] != answer.ids
    save(model, tmp_path / "full", network=model.network)
    adapted = load(tmp_path / "base", lora=Lora(2, 4, ["q_proj"]))
    save(adapted, tmp_path / "adapter", network=adapted.network)
    save_merged(adapted, tmp_path / "merged")
    for name in ("full", "merged"):
        assert generated(tmp_path / name, context) == answer.ids
        assert load(tmp_path / name).eos_ids == model.eos_ids
    assert GenerationConfig.from_pretrained(tmp_path / "adapter").eos_token_id == [1, 4]
    assert load(tmp_path / "base", adapter=tmp_path / "adapter").eos_ids == model.eos_ids
