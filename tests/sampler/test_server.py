"""Sampling by a server: the ids that it drew, in order, through every kind of fault; and the right distribution."""

import copy
import itertools
import json

import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from scipy.stats import chisquare
from small_models import plain_logp, save_small, small_model, small_tokenizer
from small_server import SmallServer, naive
from transformers import AutoModelForCausalLM

from dlma.app import conf_dir
from dlma.config.build import scientific
from dlma.config.compose import plan, search_path
from dlma.errors import UserError
from dlma.functional.noise import row_key
from dlma.model.language import LanguageModel, with_lora
from dlma.model.load import Lora
from dlma.sampler.local import LocalSampler, Request
from dlma.sampler.server import ServerSampler, Weights
from dlma.trainer.ranks import Ranks

SETTINGS = dict(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=6)
QUICK = dict(first_wait=0.01, timeout=60.0, served=None, extra={"return_token_ids": True})


def requests(n=12):
    return [Request(row_key(0, f"p{i}", "plain", 0), [0, 3 + i % 7, 5, 4 + i % 3]) for i in range(n)]


def sampler(*servers, **options):
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return ServerSampler(**{**SETTINGS, **QUICK, "urls": urls, **options})


def expected(model, rows):
    return [naive(model.network, row.context_ids, row.key % 2**31, 6)[0] for row in rows]


@pytest.fixture(scope="module")
def model():
    return small_model(vocabulary=12, spread=0.6)


def test_answers_come_back_as_ids_in_order_each_with_its_own_seed(model):
    rows = requests()
    with SmallServer(model.network, pause=0.02) as server:
        answers = sampler(server).sample(model, rows)
    assert [answer.ids for answer in answers] == expected(model, rows)
    assert [answer.finished for answer in answers] == [answer.ids[-1] == 1 for answer in answers]
    assert {True, False} == {answer.finished for answer in answers}
    assert len({body["seed"] for body, _ in server.asked}) == len(rows)
    assert {body["model"] for body, _ in server.asked} == {"small"}
    assert server.most_at_once > 1


@pytest.mark.parametrize("fault", ["429", "500", "slow", "truncated", "reset", "list"])
def test_a_fault_is_tried_again_and_counted(model, fault):
    rows = requests(4)
    with SmallServer(model.network, faults=[fault, fault]) as server:
        ours = sampler(server, timeout=1.0 if fault == "slow" else 60.0)
        answers = ours.sample(model, rows)
    assert [answer.ids for answer in answers] == expected(model, rows)
    assert sum(ours.report()["failed_tries"].values()) >= 2  # on a busy machine a good answer may be slow too


def test_a_dead_server_does_not_matter_where_another_lives(model):
    rows = requests(6)
    with SmallServer(model.network) as gone:
        dead = gone.url
    with SmallServer(model.network) as one, SmallServer(model.network) as two:
        answers = sampler(dead, one, two, served="small").sample(model, rows)
        assert one.asked and two.asked
    assert [answer.ids for answer in answers] == expected(model, rows)


def test_tries_come_to_an_end_with_the_reason(model):
    with SmallServer(model.network, faults=["500"] * 99) as server, pytest.raises(UserError, match=r"in 3 tries.*500"):
        sampler(server, tries=3).sample(model, requests(2))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"status": 400}, "refuses.*too long"),
        ({"style": "text"}, "return_token_ids"),
        ({"models": ("a", "b")}, "sampler.served.*a, b"),
    ],
)
def test_what_no_further_try_can_mend_is_told_at_once(model, options, wanted):
    with SmallServer(model.network, **options) as server, pytest.raises(UserError, match=wanted):
        sampler(server).sample(model, requests(2))
    assert len(server.asked) <= 2


ENDS = [("stop", "length"), ("eos_token", "length"), ("eos", "limit")]  # vLLM, SGLang and llama.cpp; TGI; llama.cpp


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("style", ["names", "no_eos", "content", "ids"])
def test_ids_and_eos_are_found_where_a_server_puts_them_whatever_it_calls_the_end(model, style, ends):
    rows = requests()
    with SmallServer(model.network, style=style, ends=ends) as server:
        ours = sampler(server)
        answers = ours.sample(model, rows)
    assert [answer.ids for answer in answers] == expected(model, rows)
    assert [answer.finished for answer in answers] == [ids[-1] == 1 for ids in expected(model, rows)]
    assert ours.report()["failed_tries"] == {} and ours.report()["parity"]["max_gap"] < 1e-5


def ends_at_once():
    """A model whose first token is mostly its EOS, and requests that draw both kinds of answer."""
    model = small_model(vocabulary=12, spread=0.6)
    with torch.no_grad():
        model.network.lm_head.weight[1] = 0
        states = torch.stack([model.network.model(torch.tensor([r.context_ids]))[0][0, -1] for r in requests()])
        model.network.lm_head.weight[1] = 6 * states.mean(0) / (states @ states.mean(0)).mean()
    return model


@pytest.mark.parametrize("style", ["ids", "no_eos", "content"])
def test_an_answer_that_is_nothing_but_an_eos_is_one(style):
    model, rows = ends_at_once(), requests()
    wanted = expected(model, rows)
    assert [1] in wanted and any(len(ids) > 1 for ids in wanted)
    with SmallServer(model.network, style=style) as server:
        answers = sampler(server).sample(model, rows)
    assert [answer.ids for answer in answers] == wanted and len(server.asked) == len(rows)
    assert all(answer.finished for answer in answers if answer.ids == [1])


@pytest.mark.parametrize(("field", "value"), [("stop_reason", 1), ("matched_stop", 1), ("matched_stop", [1])])
def test_of_several_eos_the_one_that_the_server_names_is_taken(field, value):
    model, rows = small_model(vocabulary=12, spread=0.6), requests()
    model.eos_ids = frozenset({1, 2})
    wanted = [[*ids[: ids.index(2)], 2] if 2 in ids else ids for ids in expected(model, rows)]
    with SmallServer(model.network, style="no_eos", more={field: value}) as server:
        answers = sampler(server).sample(model, rows)
    assert [answer.ids for answer in answers] == wanted


@pytest.mark.parametrize(
    ("eos", "options", "wanted"),
    [
        ({1, 2}, {"style": "no_eos"}, r"at which of the model's EOS tokens \(1, 2\)"),
        ({1}, {"style": "no_eos", "more": {"stop_reason": 9}}, "stopped at 9, which is no EOS"),
        ({1}, {"style": "no_eos", "more": {"matched_stop": "END"}}, "stopped at 'END', which is no EOS"),
        ({1}, {"style": "no_eos", "ends": ("stop_sequence", "length")}, "ended with 'stop_sequence'; an end is one of"),
        ({1}, {"ends": ("stop", "content_filter")}, "ended with 'content_filter'"),
        ({1}, {"ends": ("stop", "repetition")}, "ended with 'repetition'"),
    ],
)
def test_a_definite_answer_is_not_asked_for_again(model, eos, options, wanted):
    """The same seed brings the same answer: an end that is none of the model's is told, after one try of each row."""
    model.eos_ids = frozenset(eos)
    rows = requests()
    try:
        with SmallServer(model.network, **options) as server, pytest.raises(UserError, match=wanted):
            sampler(server, in_flight=1).sample(model, rows)
    finally:
        model.eos_ids = frozenset({1})
    seeds = [body["seed"] for body, _ in server.asked]
    assert len(seeds) == len(set(seeds))


def test_an_answer_shorter_than_asked_for_that_no_eos_ends_is_the_servers_own_limit(model):
    with SmallServer(model.network, limit=3) as server, pytest.raises(UserError, match="the server has a limit of its"):
        sampler(server).sample(model, requests())


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_answer_that_the_server_broke_off_is_asked_for_again(model, reason):
    rows = requests(4)
    with SmallServer(model.network, faults=[reason]) as server:
        ours = sampler(server)
        answers = ours.sample(model, rows)
    assert [answer.ids for answer in answers] == expected(model, rows)
    assert ours.report()["failed_tries"] == {f"an answer that ended with {reason}": 1}


def test_an_end_that_only_the_template_names_is_asked_for_and_cut_where_the_server_goes_on(model):
    """The small server knows no `stop_token_ids`: what it says behind the turn's end is cut, and counted."""
    rows, plain = requests(), small_model(vocabulary=12, spread=0.6)
    plain.added_end, plain.eos_ids = 2, frozenset({1, 2})
    wanted = [ids[: ids.index(2) + 1] if 2 in ids else ids for ids in expected(plain, rows)]
    behind = sum(map(len, expected(plain, rows))) - sum(map(len, wanted))
    assert behind > 0
    with SmallServer(plain.network) as server:
        ours, other = sampler(server), sampler(server)
        answers = ours.sample(plain, rows)
        other.sample(model, rows)
    assert [answer.ids for answer in answers] == wanted
    assert [answer.finished for answer in answers] == [ids[-1] in (1, 2) for ids in wanted]
    assert [body.get("stop_token_ids") for body, _ in server.asked] == [[2]] * len(rows) + [None] * len(rows)
    assert (ours.report()["tokens_behind_ends"], other.report()["tokens_behind_ends"]) == (behind, 0)


@pytest.mark.parametrize("name", ["stop", "n", "stream", "ignore_eos"])
def test_an_extra_field_that_makes_another_thing_of_an_answer_is_refused(name):
    with pytest.raises(UserError, match=rf"sampler\.extra: {name}: an answer is one, whole"):
        sampler("http://127.0.0.1:9/v1", extra={name: 1})


def test_parity_with_the_local_engine_is_reported(model, capsys):
    rows = requests(9)
    with SmallServer(model.network) as server:
        ours = sampler(server, parity_rows=4)
        ours.sample(model, rows)
    parity = ours.report()["parity"]
    assert parity["rows"] == 4
    assert parity["mean_gap"] <= parity["max_gap"] < 1e-5
    assert "differ from the local engine's by" in capsys.readouterr().err


def test_a_server_with_other_weights_is_found_out(model):
    other = small_model(vocabulary=12, spread=0.6, seed=1)
    with SmallServer(other.network) as server, pytest.raises(UserError, match="another model"):
        sampler(server).sample(model, requests())


def test_the_key_is_sent_from_its_variable_and_missed_by_name(model, monkeypatch):
    with SmallServer(model.network) as server:
        with pytest.raises(UserError, match="WARES_KEY"):
            sampler(server, key_env="WARES_KEY").sample(model, requests(1))
        monkeypatch.setenv("WARES_KEY", "open sesame")
        sampler(server, key_env="WARES_KEY").sample(model, requests(1))
        assert server.asked[-1][1]["Authorization"] == "Bearer open sesame"


def test_what_a_server_would_take_from_the_models_own_defaults_is_said(model):
    with SmallServer(model.network) as server:
        sampler(server).sample(model, requests(1))
        sampler(server, top_k=3).sample(model, requests(1))
    assert [body["top_k"] for body, _ in server.asked] == [-1, 3]
    neutral = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert all(body.items() >= neutral.items() for body, _ in server.asked)


def test_extra_fields_are_sent_and_those_that_the_sampler_sets_are_refused(model):
    with SmallServer(model.network) as server:
        sampler(server, top_k=3, extra={"return_token_ids": True, "min_p": 0.1}).sample(model, requests(1))
    ((body, _),) = server.asked
    assert body["return_token_ids"] and body["min_p"] == 0.1 and body["repetition_penalty"] == 1.0
    for name in ("model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "seed", "logprobs"):
        with pytest.raises(UserError, match=rf"sampler\.extra: the sampler sets {name} itself"):
            sampler(server, extra={name: 1})


def test_what_changes_the_answers_is_part_of_the_key_and_the_servers_places_are_not():
    def key(*words):
        words = ["sampler=server", "sampler.urls=[http://a/v1]", "sampler.policy=local", *words]
        return scientific(plan(search_path(conf_dir(), None), words, False).cfg.sampler)

    assert key("sampler.urls=[http://b/v1]", "sampler.in_flight=2") == key()
    for word in ("sampler.served=tuned", "+sampler.extra.min_p=0.1", "recipe.temperature=0.5"):
        assert key(word) != key()


@pytest.mark.slow
def test_server_and_local_sampler_draw_from_the_same_distribution():
    model = small_model(vocabulary=6, spread=1.0)
    context, limit = [0, 4, 3], 2
    ends = {(1,), *((a, b) for a, b in itertools.product(range(6), repeat=2) if a != 1)}
    truth = {ids: float(plain_logp(model.network, context, ids).detach().exp()) for ids in ends}
    assert sum(truth.values()) == pytest.approx(1.0)
    rows = [Request(row_key(0, f"p{i}", "plain", 0), context) for i in range(800)]
    with SmallServer(model.network) as server:
        drawn = sampler(server, max_new_tokens=limit, in_flight=8).sample(model, rows)
    local = LocalSampler(**{**SETTINGS, "max_new_tokens": limit}).sample(model, rows)
    likely = [ids for ids in truth if truth[ids] * len(rows) >= 8]
    for answers in (drawn, local):
        counts = [sum(tuple(answer.ids) == ids for answer in answers) for ids in likely]
        share = [truth[ids] * len(rows) for ids in likely]
        rest = (len(rows) - sum(counts), len(rows) - sum(share))
        assert chisquare([*counts, rest[0]], [*share, rest[1]]).pvalue > 1e-3
    assert [a.ids for a in drawn] != [a.ids for a in local]  # other tokens from the same seeds: that is not promised


def test_an_imposed_length_is_refused():
    with pytest.raises(UserError, match="sampler=local"):
        sampler("http://127.0.0.1:9/v1").sample(None, [Request(0, [0], 3)])
    with pytest.raises(UserError, match=r"sampler\.urls"):
        ServerSampler(**SETTINGS, **QUICK).sample(None, requests(1))


def test_whole_weights_that_no_server_holds_are_refused_without_a_command_that_starts_one(model, tmp_path):
    ours = sampler("http://127.0.0.1:9/v1")
    served = ours.serving(Weights(tmp_path, None, held=False), tmp_path / "log", Ranks())
    with pytest.raises(UserError, match=r"^sampler\.start: the servers of sampler\.urls do not hold"), served:
        pytest.fail("it is served")


def test_a_policy_in_training_is_sampled_as_it_is_then_by_its_adapter(tmp_path):
    """The server has what the weights are at each call, under a name of its own, and nothing is left of it."""
    base = small_model(vocabulary=12, spread=0.6)
    policy = LanguageModel(with_lora(copy.deepcopy(base.network), Lora(4, 8.0, "all-linear")), base.tokenizer, "policy")
    rows = requests()
    with SmallServer(base.network, updating=True) as server:
        ours = sampler(server)
        for step in range(2):
            with torch.no_grad():
                for name, weight in policy.network.named_parameters():
                    if "lora_B" in name:
                        weight.normal_(0, 0.3 * step, generator=torch.Generator().manual_seed(step))
            answers = ours.sample_trained(policy, rows, tmp_path / "rollout")
            assert [answer.ids for answer in answers] == expected(policy, rows)
        assert not server.adapters and not (tmp_path / "rollout").exists()
    names = [body["model"] for body, _ in server.asked]
    assert len(set(names)) == 2 and expected(policy, rows) != expected(base, rows)


def test_a_run_samples_base_and_policy_by_the_server_scores_here_and_notes_the_parity(run_main, tmp_path):
    save_small(tmp_path / "model", tokenizer=small_tokenizer(40), context=256, spread=0.6)
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    rows = [{"prompt": f"w{3 + i} w{5 + i % 9} w{7 + i % 5} ?"} for i in range(20)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = ["recipe.max_new_tokens=6", "recipe.epochs=1", "recipe.batch_pairs=4", "name=served", "adapter=lora"]
    learn = ["recipe.lora.rank=4", "recipe.lr=0.05", "recipe.optim.warmup=1"]
    with SmallServer(network, faults=["500", "truncated"], updating=True) as server:
        where = [f"sampler.urls=[{server.url}]", "sampler.first_wait=0.01", "sampler=server"]
        data = ["model=hf", f"model.path={tmp_path / 'model'}", "data=jsonl", f"data.path={tmp_path / 'p.jsonl'}"]
        ran = run_main(*where, *data, *small, *learn)
    assert ran.code == 0, ran.err
    assert "differ from the local engine's by" in ran.err and "in process" not in ran.err
    pairs = pq.read_table(ran.folder / "outputs" / "served" / "pairs.parquet").to_pylist()
    asked = {(tuple(body["prompt"]), body["seed"]) for body, _ in server.asked}
    for pair in pairs:
        for side in ("positive", "negative"):
            context = pair[f"{side}_context_ids"]
            seed = row_key(0, pair["prompt_id"], side, 0) % 2**31
            assert (tuple(context), seed) in asked
            assert naive(network, context, seed, 6)[0] == pair[f"{side}_ids"]
    scored = pq.read_table(ran.folder / "outputs" / "served" / "scored.parquet").to_pylist()[0]
    own = plain_logp(network, scored["plain_context_ids"], scored["positive_ids"])
    assert scored["positive_reference"] == pytest.approx(float(own.detach()), abs=1e-4)
    (manifest,) = (ran.folder / "store" / "pairs").glob("*/manifest.json")
    sampler = json.loads(manifest.read_text())["notes"]["engine"]["sampler"]
    assert sampler["parity"]["rows"] > 0 and sampler["parity"]["max_gap"] < 1e-4
    assert sum(sampler["failed_tries"].values()) == 2
    policy = PeftModel.from_pretrained(network, ran.folder / "outputs" / "served" / "policy").eval()
    loads = [body for what, body in server.changes if what == "load_lora_adapter" and body["lora_path"]]
    by_name = [body for body, _ in server.asked if body["model"] == loads[0]["lora_name"]]
    answers = pq.read_table(ran.folder / "outputs" / "served" / "answers.parquet").to_pylist()
    assert len(loads) == 1 and not server.adapters
    assert len(by_name) == sum(row["arm"] == "aligned" for row in answers) > 0
    logp = {row_key(0, r["prompt_id"], "held-out", 0) % 2**31: r["logp"] for r in answers if r["arm"] == "aligned"}
    for body in by_name:
        answer = naive(policy, body["prompt"], body["seed"], 6)[0]
        own = plain_logp(policy, body["prompt"], answer)
        assert logp[body["seed"]] == pytest.approx(float(own.detach()), abs=1e-4)
