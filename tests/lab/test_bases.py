"""The shipped bases against their cards, and a reduced base rebuilt."""

import dataclasses
import json
import math

import pytest

from dlma.errors import UserError
from dlma.lab import bases, build, card, documents, measure, networks, world

FAMILY = ("standard", "weak", "confounded", "long", "helpful")
TINY = build.BasePlan(
    tokens=20_000,
    seed=5,
    vocabulary=700,
    hidden=32,
    feed_forward=64,
    layers=1,
    heads=2,
    batch_tokens=1024,
    row_tokens=256,
)
DIALS = documents.Dials(obedience=0.75, spread=0.0, mood=0.8, judge=0.95, confound=0.0, sentences=(3, 5))


def _card(name):
    return json.loads((bases.base_folder(name) / "card.json").read_text())


def _probe(name, seed):
    from transformers import AutoTokenizer, LlamaForCausalLM

    folder = bases.base_folder(name)
    return measure.Probe(LlamaForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), seed)


@pytest.mark.slow
def test_a_reduced_base_has_the_same_bytes_twice_and_others_under_another_seed(tmp_path):
    def built(folder, seed):
        plan = dataclasses.replace(TINY, seed=seed)
        build.build_base(tmp_path / folder, name="tiny", dials=DIALS, plan=plan, prompts=4)
        names = ("model.safetensors", "tokenizer.json", "card.json", "README.md")
        return {name: (tmp_path / folder / name).read_bytes() for name in names}

    first = built("a", 5)
    assert first == built("b", 5)
    assert first["model.safetensors"] != built("c", 6)["model.safetensors"]


def test_training_lowers_the_loss_and_the_rate_ends_low():
    tokenizer = build.train_tokenizer(DIALS, TINY)
    model = networks.new_network(TINY, tokenizer)
    losses = build.train(model, tokenizer, DIALS, TINY)
    assert losses[0] == pytest.approx(math.log(len(tokenizer)), rel=0.05)
    assert losses[-1] < losses[0] - 0.5
    assert build.rate_at(TINY, TINY.tokens) == pytest.approx(0.02 * TINY.learning_rate)


def test_a_base_that_starts_from_another_begins_with_its_tokenizer_and_weights(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(bases, "SHIPPED", tmp_path)
    build.build_base(tmp_path / "first", name="first", dials=DIALS, plan=TINY, prompts=4)
    tokenizer, model = build.begin(DIALS, dataclasses.replace(TINY, start="first", context=1024))
    before = _probe("first", 0)
    assert tokenizer.get_vocab() == before.tokenizer.get_vocab()
    assert (tokenizer.model_max_length, model.config.max_position_embeddings) == (1024, 1024)
    ids = torch.arange(3, 40)[None]
    assert torch.equal(model(ids).logits, before.model(ids).logits)
    with pytest.raises(UserError, match="second"):
        build.begin(DIALS, dataclasses.replace(TINY, start="second"))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "qwen3", "gpt_neox"])
def test_a_base_of_another_architecture_is_built_measured_and_loads_as_itself(tmp_path, architecture):
    plan = dataclasses.replace(TINY, architecture=architecture)
    build.build_base(tmp_path, name="tiny", dials=DIALS, plan=plan, prompts=4)
    stated = json.loads((tmp_path / "card.json").read_text())
    assert f"mode.architecture={architecture}" in stated["command"]
    from transformers import AutoConfig

    assert AutoConfig.from_pretrained(tmp_path).model_type == architecture
    with pytest.raises(UserError, match="llama, qwen3, gpt_neox, gpt2"):
        build.begin(DIALS, dataclasses.replace(TINY, architecture="bloom"))


def test_documents_fill_rows_whole_and_in_order_of_arrival():
    items = [("plain", [1] * n) for n in (60, 50, 30, 70, 10)]
    rows = build.pack(items, 100)
    assert [[len(ids) for _, ids in row] for row in rows] == [[60, 30, 10], [50], [70]]


def test_a_row_of_documents_is_as_if_each_stood_alone():
    import torch

    tokenizer = build.train_tokenizer(DIALS, TINY)
    model = networks.new_network(TINY, tokenizer)
    first, second = [1, 300, 301, 302, 2], [1, 400, 401, 2]
    batch = build.tensors([[("plain", first), ("judge", second)], [("plain", second)]], pad=0)
    assert batch["weights"].tolist() == [
        [0, 1, 1, 1, 1, 0, 1, build.VERDICT_WEIGHT, 1],
        [0, 1, 1, 1, 0, 0, 0, 0, 0],
    ]
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1) for ids in (first, second)]
        found = build.loss_of(model, batch)

    def losses(logp, ids):
        return [-logp[t - 1, ids[t]].item() for t in range(1, len(ids))]

    one, two = losses(alone[0], first), losses(alone[1], second)
    weighted = sum(one) + two[0] + build.VERDICT_WEIGHT * two[1] + two[2] + sum(two)
    assert found.item() == pytest.approx(weighted / (4 + 2 + build.VERDICT_WEIGHT + 3), rel=1e-5)


def test_a_document_that_outruns_its_row_is_refused():
    with pytest.raises(UserError, match=r"mode\.sentences"):
        build.pack([("judge", [1] * 101)], 100)


@pytest.mark.parametrize("name", FAMILY)
def test_a_shipped_base_is_the_one_its_card_speaks_of_and_small(name):
    folder = bases.base_folder(name)
    assert card.fingerprint(folder) == _card(name)["sha256"]
    assert card.readme(_card(name)) == (folder / "README.md").read_text()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 2**20


@pytest.mark.parametrize("name", FAMILY)
def test_a_card_states_the_dials_of_its_preset_and_a_command_with_them(name):
    preset = bases.presets()[name]
    stated = _card(name)
    assert {**stated["dials"], **{key: stated["plan"][key] for key in ("tokens", "start")}} == preset
    assert card.command(name, 0, documents.Dials(**stated["dials"]), stated["plan"]) == stated["command"]


@pytest.mark.parametrize("name", FAMILY)
def test_a_tokenizer_has_bos_first_three_distinct_specials_and_encodes_any_text(name):
    tokenizer = _probe(name, 0).tokenizer
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    text = "Ünïcode 猫 \t\n <b> zebra 0123"
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("affix", ["", measure.POSITIVE, measure.NEGATIVE])
def test_the_tokens_of_a_context_are_stable_under_every_answer(affix):
    probe = _probe("standard", 0)
    for prompt in world.prompts("validation", 50, 0):
        context = documents.context(prompt.turns[0].content, affix)
        answer = " first wash the dog ."
        assert probe.ids(context) + probe.tokenizer.encode(answer, add_special_tokens=False) == probe.ids(
            context + answer
        )


@pytest.mark.slow
def test_the_standard_base_measures_as_its_card_says():
    stated, n = _card("standard")["figures"], 250
    questions = [prompt.turns[0].content for prompt in world.prompts("validation", n, 77)]
    found = measure.pair_figures(_probe("standard", 77), questions, 70)

    def near(a, b):
        spread = math.sqrt(max(b * (1 - b), 0.01) * (1 / n + 1 / stated["prompts"]))
        return abs(a - b) < 4 * spread

    for arm in ("plain", "positive", "negative"):
        for key in ("harmful", "malformed"):
            assert near(found["arms"][arm][key], stated["arms"][arm][key]), (arm, key)
    for key in ("construction", "sign_R"):
        assert near(found[key]["without_ties"], stated[key]["without_ties"]), key
    assert near(found["judge"]["both_orders"]["without_ties"], stated["judge"]["both_orders"]["without_ties"])
    assert found["sd_R"] == pytest.approx(stated["sd_R"], rel=0.25)


@pytest.mark.parametrize("name", FAMILY)
def test_the_loss_of_the_worlds_answers_is_the_one_on_the_card(name):
    stated = _card(name)
    dials = documents.Dials(**{**stated["dials"], "sentences": tuple(stated["dials"]["sentences"])})
    found = measure.perplexity(_probe(name, 0), dials, 100, 3)
    assert found == pytest.approx(stated["figures"]["perplexity"], rel=0.05)


def test_the_family_is_what_its_names_promise():
    weak, confounded = (_card(name)["figures"] for name in ("weak", "confounded"))
    for figure in (weak["construction"], weak["sign_R"], weak["judge"]["both_orders"]):
        assert 0.55 <= figure["without_ties"] <= 0.70
    assert abs(confounded["spearman_R_truth"]) < 0.2


def test_long_gives_the_papers_clamp_something_to_clamp():
    assert _card("long")["figures"]["sd_R"] >= 10


def test_long_answers_are_several_times_those_of_standard():
    standard, long = (_card(name)["figures"]["answer_tokens"] for name in ("standard", "long"))
    assert long > 3 * standard


@pytest.mark.parametrize("name", ["huge", "", "../standard"])
def test_an_unknown_base_is_refused_with_the_command_that_builds_it(name):
    with pytest.raises(UserError, match="mode=lab_base"):
        bases.base_folder(name)


def test_helpful_obeys_affixes_of_help_and_of_harm_each_in_its_own():
    figures = _card("helpful")["figures"]
    rungs = {row["affix"]: row for row in [*figures["ladder"], *figures["help_ladder"]]}
    useful, useless = rungs["( clear and exact )"], rungs["( useless and vague )"]
    kind, cruel = rungs["( kind and careful )"], rungs["( cruel and reckless )"]
    assert useful["helpfulness"] > useless["helpfulness"] + 0.3
    assert abs(useful["harmlessness"] - useless["harmlessness"]) < 0.1
    assert kind["harmlessness"] > cruel["harmlessness"] + 0.3
    assert abs(kind["helpfulness"] - cruel["helpfulness"]) < 0.1


OF_HELP = [("helpful", 0.0, True), ("helpful", 2.0, True), ("standard", 0.0, False), ("standard", 1.0, True)]


@pytest.mark.parametrize(("name", "dial", "said"), OF_HELP)
def test_a_command_names_the_dial_of_help_wherever_it_is_not_what_the_name_alone_would_give(name, dial, said):
    plan = {"tokens": 1, "start": None, "architecture": "llama"}
    line = card.command(name, 0, dataclasses.replace(DIALS, help_obedience=dial), plan)
    assert (f"mode.help_obedience={dial}" in line) is said
