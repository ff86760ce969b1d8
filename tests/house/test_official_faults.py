"""The thirteen faults of the official code (exlaw/DLMA at 6fceb3c), each with the tests that would catch it here.

`HELD_BY` names, for each fault, the tests that hold it; those that stand in no other file follow below.
"""

import ast
import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from scored_examples import OPTIONS, scored_pairs
from small_models import small_model

from dlma.config import schema, signatures
from dlma.errors import UserError
from dlma.functional import logprob
from dlma.functional.noise import row_key
from dlma.model.engine import Engine
from dlma.model.trees import Completion
from dlma.objective.dpo import DPO
from dlma.pairs.sampled import SampledPairs, usable
from dlma.records import Context
from dlma.sampler.local import LocalSampler, Request
from dlma.scorer.self_reward import SelfReward

HELD_BY = {
    1: ["test_fault_1_scores_come_from_the_prompts_that_made_the_pair"],
    2: ["test_fault_2_what_is_trained_on_are_the_plain_context_and_the_sampled_ids"],
    3: ["test_finished_means_the_model_ended_it", "test_a_produced_eos_is_counted_and_a_missing_one_is_not"],
    4: ["test_fault_4_sampled_ids_reach_training_untouched", "test_fault_4_empty_answers_are_dropped_and_counted"],
    5: ["test_margin_zero_is_plain_dpo", "test_fault_5_the_no_margin_ablation_trains"],
    6: [
        "test_fault_4_empty_answers_are_dropped_and_counted",
        "test_every_shipped_option_composes_and_fits_the_signature_it_names",
    ],
    7: ["test_fault_7_every_recipe_value_reaches_a_component"],
    8: ["test_fault_8_whatever_the_limit_the_last_user_turn_is_whole"],
    9: ["test_fault_9_a_prompt_that_recurs_per_annotation_is_in_one_split_once"],
    10: [
        "test_a_pad_id_that_equals_eos_hides_nothing",
        "test_fault_10_the_boundary_between_prompt_and_answer_is_checked_not_assumed",
    ],
    11: ["test_fault_11_the_head_sees_chunks_of_response_positions_only"],
    12: ["test_fault_12_pairs_scored_in_another_dtype_are_refused"],
    13: [
        "test_the_same_config_and_seed_give_the_same_bytes_in_another_store",
        "test_another_seed_gives_other_pairs_on_the_same_prompts",
        "test_a_run_killed_anywhere_and_started_again_ends_with_the_same_bytes",
    ],
}  # fmt: skip


def test_every_fault_has_a_test_that_exists():
    here = Path(__file__).parents[1]
    names = {
        node.name
        for path in here.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert set(HELD_BY) == set(range(1, 14))
    assert [test for tests in HELD_BY.values() for test in tests if test not in names] == []


CONTEXT = Context(
    prompt_id="p", question="q", category=None, wording="helpful", plain_ids=[0, 5, 6],
    positive_ids=[0, 5, 7, 6], negative_ids=[0, 5, 8, 6], dropped_turns=0,
)  # fmt: skip


class Shard:
    index = 0

    def __init__(self, rows):
        self.rows = rows


def sampled_pair(model, seed=0):
    sampler = LocalSampler(**{**dict(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=12), **sampler_shape()})
    module = SampledPairs(model, sampler, seed=seed, first="positive", second="negative")
    return module.predict_step(Shard([CONTEXT]), 0)[0], sampler


def sampler_shape():
    """`rows` where the sampler asks for it."""
    return {"rows": 4} if "rows" in signatures.signature("dlma.sampler.local.LocalSampler").fields else {}


def test_fault_1_scores_come_from_the_prompts_that_made_the_pair():
    """The official code scores helpful data with the harmless prompts: other contexts must give another R."""
    model = small_model()
    pair, _ = sampled_pair(model)
    assert (pair.positive_context_ids, pair.negative_context_ids) == (CONTEXT.positive_ids, CONTEXT.negative_ids)
    other = dataclasses.replace(pair, positive_context_ids=[0, 5, 20, 6], negative_context_ids=[0, 5, 21, 6])
    own, foreign = (SelfReward(model).score([p])[0].margin for p in (pair, other))
    assert abs(own - foreign) > 0.05


def test_fault_2_what_is_trained_on_are_the_plain_context_and_the_sampled_ids():
    model = small_model()
    pair, _ = sampled_pair(model)
    rule = DPO(model, **OPTIONS)
    (micro,) = rule.micros(rule.items(SelfReward(model).score([pair])))
    engine = Engine(model, layout="dense")
    wanted = engine.score(
        [[Completion(CONTEXT.plain_ids, pair.positive_ids), Completion(CONTEXT.plain_ids, pair.negative_ids)]]
    )
    assert rule.engine.response_logp(micro.rows).tolist() == pytest.approx(wanted[0], abs=1e-4)


def test_fault_4_sampled_ids_reach_training_untouched(monkeypatch):
    """Decoding is for people: with a decoder that loses everything, ids and scores stay what they were."""
    model = small_model()
    before, sampler = sampled_pair(model)
    monkeypatch.setattr(type(model), "decode", lambda self, ids: "lost")
    after, _ = sampled_pair(model)
    assert after.positive_ids == before.positive_ids and after.positive_text == "lost"
    request = Request(row_key(0, "p", "positive", 0), CONTEXT.positive_ids)
    assert sampler.sample(model, [request])[0].ids == before.positive_ids


def test_fault_4_empty_answers_are_dropped_and_counted():
    pair, _ = sampled_pair(small_model())
    empty = dataclasses.replace(pair, negative_text=" \n")
    kept, account = usable([pair, empty])
    assert kept == [pair]
    assert (account.read, account.kept, account.dropped) == (2, 1, {"empty answer": 1})


def test_fault_5_the_no_margin_ablation_trains():
    """Weight 0 takes R out of the loss altogether: any R gives the same loss, ln 2 at the start."""
    model = small_model()
    pairs = scored_pairs(model)
    rule = DPO(model, **{**OPTIONS, "margin_weight": 0.0})
    losses = []
    for scale in (1.0, 100.0):
        scaled = [dataclasses.replace(p, margin=p.margin * scale) for p in pairs]
        losses.append(sum(rule.loss(m)[0].item() for m in rule.micros(rule.items(scaled))) / len(pairs))
    assert losses[0] == losses[1] == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-4)


def leaves(node: type, path: str = "") -> Iterator[str]:
    """The dotted keys of a config dataclass; an optional node counts as one key."""
    for name, kind in typing.get_type_hints(node).items():
        if dataclasses.is_dataclass(kind):
            yield from leaves(kind, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def test_fault_7_every_recipe_value_reaches_a_component():
    """The official shell script's options are all ignored: here each key of a recipe is read by some YAML or code."""
    root = Path(__file__).parents[2]
    text = "".join(p.read_text() for p in (root / "conf").rglob("*.yaml") if p.parent.name != "recipe")
    code = "".join(p.read_text() for p in (root / "dlma").rglob("*.py"))
    fields = [name for name in leaves(schema.Recipe) if name not in ("name", "exclusive")]
    unread = [f for f in fields if f"${{recipe.{f}}}" not in text and f"recipe.{f}" not in code]
    assert unread == []


def test_fault_11_the_head_sees_chunks_of_response_positions_only(monkeypatch):
    model = small_model()
    seen = []
    piece = logprob._logits
    monkeypatch.setattr(logprob, "_logits", lambda h, w, b: seen.append(tuple(h.shape)) or piece(h, w, b))
    answers = [[7] * 50, [8] * 60]
    Engine(model, layout="tree", chunk=32).score([[Completion([0, *[5] * 100], a) for a in answers]])
    assert sum(shape[0] for shape in seen) == 110
    assert max(shape[0] for shape in seen) <= 32
    assert all(len(shape) == 2 for shape in seen)


def test_fault_11_log_softmax_is_float32_not_float64():
    assert logprob.token_logp(torch.zeros(1, 3), torch.tensor([0])).dtype == torch.float32


def test_fault_12_pairs_scored_in_another_dtype_are_refused():
    """Reference in bfloat16, policy in float32: their difference is not 0 at step 0, and the run stops."""
    model = small_model()
    pairs = scored_pairs(model)
    low = small_model()
    low.network.to(torch.bfloat16)
    drifted = [dataclasses.replace(p, **references(low, p)) for p in pairs]
    rule = DPO(model, **OPTIONS)
    from dlma.training.rule import Step

    step = Step(rule.micros(rule.items(drifted)), len(drifted))
    with pytest.raises(UserError, match="step-0 check"):
        rule.check_first(step, 0.0)


def references(model, pair):
    answers = [Completion(pair.plain_context_ids, a) for a in (pair.positive_ids, pair.negative_ids)]
    positive, negative = Engine(model, layout="dense").score([answers])[0]
    return {"positive_reference": positive, "negative_reference": negative}
