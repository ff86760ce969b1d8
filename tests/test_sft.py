"""Instruction tuning: the template, what is counted, the loss against Hugging Face's, and the stage in a run."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from instruction_examples import BEGIN, ROWS, TEMPLATE, THINGS, VERBS, corpus, prompt, rule, texts, tiny_model
from small_models import byte_level_tokenizer, save_small
from transformers import AutoModelForCausalLM

from dlma.app import main
from dlma.errors import UserError
from dlma.records import Turn
from dlma.sft import CUT, NO_ANSWER, TOO_LONG, InstructionTuning, Template
from dlma.trainer.runtime import Runtime


def test_the_template_is_that_of_safe_rlhf():
    turns = [Turn("user", "a {b}"), Turn("assistant", "c"), Turn("user", "d")]
    rendered = TEMPLATE.render(prompt(turns=turns), "</s>")
    assert rendered == "BEGINNING OF CONVERSATION: USER: a {b} ASSISTANT:c</s>USER: d ASSISTANT:"
    with pytest.raises(UserError, match=r"sft.template.user: must hold \{text\}"):
        Template(begin="", user="USER:", assistant="A:")


def test_the_answer_and_its_eos_are_learnt_and_nothing_of_the_prompt():
    model = tiny_model()
    (example,), account = rule(model).examples([prompt("How do I bake?", "Go slowly.")])
    bos, eos = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    assert example.context[0] == bos and example.response[-1] == eos
    assert model.tokenizer.decode(example.context[1:]) == f"{BEGIN}USER: How do I bake? ASSISTANT:"
    assert model.tokenizer.decode(example.response[:-1]) == "Go slowly."
    assert account.kept == account.read == 1


def test_a_long_answer_is_cut_without_an_eos_and_what_cannot_be_used_is_counted():
    model = tiny_model()
    (whole,), _ = rule(model).examples([prompt()])
    room = len(whole.context) + 1
    found, account = rule(model, max_tokens=room, data=corpus("x.jsonl", max_dropped=1.0)).examples(
        [prompt(), prompt("How? " * 30), prompt(chosen=None), prompt(chosen="")]
    )
    assert [example.response for example in found] == [whole.response[:1]]
    assert account.trimmed == {CUT: 1}
    assert account.dropped == {TOO_LONG: 1, NO_ANSWER: 1, "empty answer": 1}
    with pytest.raises(UserError, match=r"sft.data: .*raise sft.max_tokens"):
        rule(model, max_tokens=3, data=corpus("x.jsonl", max_dropped=0.0)).examples([prompt()])


def test_loss_and_gradient_are_those_of_hugging_face_on_the_answers_tokens():
    model = tiny_model()
    tuning = rule(model)
    rows = [prompt(f"How do I {verb}?", f"{thing} it is.") for verb, thing in zip(VERBS, THINGS)]
    examples, _ = tuning.examples(rows)
    total = sum(tuning.loss(micro)[0] for micro in tuning.micros(tuning.items(examples))) / len(examples)
    total.backward()
    mine = {name: p.grad.clone() for name, p in model.network.named_parameters()}
    model.network.zero_grad()
    tokens, theirs = 0, 0.0
    for example in examples:  # one row at a time: Hugging Face's own shift and mean, weighed by its tokens
        ids = torch.tensor([[*example.context, *example.response]])
        labels = ids.clone()
        labels[:, : len(example.context)] = -100
        theirs = theirs + model.network(input_ids=ids, labels=labels).loss * len(example.response)
        tokens += len(example.response)
    (theirs / tokens).backward()
    assert total.item() == pytest.approx((theirs / tokens).item(), rel=1e-5)
    for name, parameter in model.network.named_parameters():
        difference = (mine[name] - parameter.grad).norm() / parameter.grad.norm().clamp_min(1e-12)
        assert difference < 1e-4, name


# In a run


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    asked = ["USER: ASSISTANT(law-abiding, ethical, inoffensive response):\n"]
    model = save_small(folder / "model", tokenizer=byte_level_tokenizer([*texts(), *asked], 400), context=512)
    (folder / "alpaca.json").write_text(json.dumps(ROWS))
    lines = "".join(json.dumps({"prompt": f"Shall I {verb} {thing}?"}) + "\n" for verb in VERBS for thing in THINGS)
    (folder / "prompts.jsonl").write_text(lines)
    return model, folder / "alpaca.json", folder / "prompts.jsonl"


@pytest.fixture
def run(places, tmp_path):
    model, instructions, prompts = places

    def call(*overrides, tuned=True, code=0, name="here"):
        sft = ["sft=alpaca", f"sft.data.path={instructions}", "sft.epochs=2", "sft.batch=8", "sft.optim.lr=3e-3"]
        settings = ["model=hf", f"model.path={model}", "data=jsonl", f"data.path={prompts}", f"name={name}"]
        quick = [f"recipe.{value}" for value in ("max_new_tokens=8", "epochs=1", "batch_pairs=8", "lr=1e-3")]
        assert main([*settings, *quick, *(sft if tuned else []), *overrides]) == code
        return tmp_path / "outputs" / name

    return call


def counts(folder):
    return json.loads((folder / "status.json").read_text())["result"]["counts"]


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_tuned_model_is_the_base_of_every_later_stage_and_the_method_can_go_without(run, places, capsys):
    plain, tuned = run(tuned=False, name="plain"), run(name="tuned")
    assert "tuned" not in counts(plain)["run"] and counts(tuned)["run"]["tuned"] == 1
    assert counts(tuned)["reused"] == {"prompts": 1}  # prompts do not depend on the model; all else does
    assert not same(weights(places[0]), weights(tuned / "tuned"))
    before, after = (pq.read_table(f / "pairs.parquet")["positive_ids"] for f in (plain, tuned))
    assert before != after
    assert "tuned: 2" in capsys.readouterr().out  # the account of the instructions
    base = [r for r in pq.read_table(tuned / "answers.parquet").to_pylist() if r["arm"] == "base"]
    assert all(row["logp"] == row["logp_base"] for row in base)
    assert counts(run(name="again"))["run"] == {}


def test_tuning_lowers_the_loss_along_half_a_cosine(run, tmp_path):
    run("method=base")
    (log,) = tmp_path.glob("store/tuned/*/train.csv")
    names, *rows = [line.split(",") for line in log.read_text().splitlines()]
    table = [dict(zip(names, map(float, row))) for row in rows]
    assert table[-1]["loss"] < table[0]["loss"] - 0.5
    rates = [row["lr"] for row in table]
    assert rates[0] == pytest.approx(3e-3) and rates == sorted(rates, reverse=True) and rates[-1] < 1e-3


def test_an_adapter_is_taken_into_the_base_and_the_next_one_starts_fresh(run, places):
    folder = run("recipe.lora={rank: 4, alpha: 8, targets: all-linear}")
    assert not (folder / "tuned" / "adapter_config.json").exists()
    assert not same(weights(places[0]), weights(folder / "tuned"))
    settings = json.loads((folder / "policy" / "adapter_config.json").read_text())
    assert Path(settings["base_model_name_or_path"]).parts[-3] == "tuned"


def test_a_run_killed_while_tuning_goes_on_to_the_same_bytes(run, tmp_path, monkeypatch):
    def result(store):
        (folder,) = (tmp_path / store / "tuned").glob("*/policy")
        return (folder / "model.safetensors").read_bytes()

    class Killed(BaseException):
        pass

    record = InstructionTuning.record

    def dying(self, *rest):
        if self.global_step == 3:
            raise Killed
        record(self, *rest)

    options = ["method=base", "trainer.checkpoint_steps=2"]
    run("store.root=straight", *options)
    with monkeypatch.context() as patch:
        patch.setattr(InstructionTuning, "record", dying)
        with pytest.raises(Killed):
            run("store.root=killed", *options)
    run("store.root=killed", *options)
    assert result("killed") == result("straight")


def test_a_quantised_base_is_refused_before_any_work(run, capsys):
    pytest.importorskip("bitsandbytes")
    run("adapter=qlora", code=2)
    assert "an adapter cannot be merged into quantised weights" in capsys.readouterr().err


def test_an_unknown_schedule_gives_one_line(run, capsys):
    run("sft.optim.schedule=linear", code=2)
    assert "error: sft.optim.schedule: must be one of constant, cosine, not 'linear'" in capsys.readouterr().err


def test_instructions_of_which_none_can_be_used_are_one_line(run, capsys):
    run("sft.max_tokens=2", "sft.data.max_dropped=1", code=2, name="none")
    assert "sft.data: no usable row among" in capsys.readouterr().err


def test_a_reason_of_reading_and_of_encoding_is_counted_for_both(tmp_path):
    """Read equals kept and dropped: one row has no output, of another nothing is left once it is encoded."""
    model = tiny_model()
    rows = [{"instruction": f"How {i}?", "output": "So."} for i in range(20)]
    rows += [{"instruction": "Why?", "output": ""}, {"instruction": "When?", "output": model.tokenizer.eos_token}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    account = rule(model, data=corpus(str(tmp_path / "rows.json"), max_dropped=1.0)).fit(
        Runtime(), tmp_path / "out", lambda row: None
    )
    assert account.read == len(rows) == account.kept + sum(account.dropped.values())
