"""The checks before training: each catches its own fault by name, and all are silent on healthy records."""

import dataclasses
import io
import json
import math
from typing import get_args

import pytest
from omegaconf import OmegaConf
from planted_records import BOS, EOS, PAD, healthy, prompt
from rich.console import Console

from dlma.app import conf_dir
from dlma.checks import finding as findings
from dlma.checks.inspection import Specials, inspect
from dlma.checks.preflight import CHECKS, Name, Preflight
from dlma.config.build import build
from dlma.errors import UserError
from dlma.model import trees
from dlma.records import Turn

SPECIALS = Specials(bos=BOS, eos=frozenset({EOS}), pad=PAD, filler=PAD)
replace = dataclasses.replace


def in_pairs(records: dict, places: int = 1, **changes) -> dict:
    """The same change in the first pairs as they were made and as they were scored."""
    for name in ("pairs", "scored"):
        records[name] = [replace(p, **changes) if i < places else p for i, p in enumerate(records[name])]
    return records


def counts(records: dict, specials: Specials = SPECIALS) -> dict[str, dict]:
    return json.loads(json.dumps(inspect(specials, **records)))  # as a manifest keeps them


def preflight(limit: int = 64) -> Preflight:
    standard = OmegaConf.load(conf_dir() / "preflight" / "standard.yaml")
    return build(OmegaConf.create({"preflight": standard, "recipe": {"max_new_tokens": limit}}).preflight)


def states(records: dict, specials: Specials = SPECIALS) -> dict[str, str]:
    return {one.name: one.state for one in preflight().judge(counts(records, specials))}


def stopped(records: dict, specials: Specials = SPECIALS) -> str:
    with pytest.raises(UserError) as error:
        preflight().judge(counts(records, specials))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_healthy_records_pass_every_check():
    assert states(healthy()) == dict.fromkeys(CHECKS, "ok")


# What stops the run


def no_bos(r):
    r["held_out"][3] = replace(r["held_out"][3], negative_ids=[10, 11])


def double_bos(r):
    r["contexts"][0] = replace(r["contexts"][0], positive_ids=[BOS, BOS, 10])


def no_bos_in_a_pair(r):
    in_pairs(r, plain_context_ids=[10, 11])


def eos_missing(r):
    in_pairs(r, positive_ids=[30, 31])  # still marked as finished


def eos_made_up(r):
    in_pairs(r, negative_finished=False)  # the model did not end, the ids do


def eos_inside(r):
    in_pairs(r, negative_ids=[30, EOS, 31, EOS])


def moved_boundary(r):
    first = r["scored"][0]
    context, answer = first.plain_context_ids, first.positive_ids
    r["scored"][0] = replace(first, plain_context_ids=context[:-1], positive_ids=[context[-1], *answer])


def other_answer(r):
    r["scored"][0] = replace(r["scored"][0], negative_ids=[77, EOS])


def unknown_pair(r):
    r["scored"][0] = replace(r["scored"][0], id="nobody made it")


def prompt_in_both_splits(r):
    r["prompts"].append(prompt("  WHAT is\t3? ", "train"))  # the same prompt, written otherwise


def pair_on_a_held_out_prompt(r):
    in_pairs(r, prompt_id=r["held_out"][0].prompt_id)


def pair_on_a_held_out_context_under_another_id(r):
    in_pairs(r, plain_context_ids=r["held_out"][0].plain_ids, prompt_id="other")


def margin_that_is_no_number(r):
    r["scored"][0] = replace(r["scored"][0], margin=math.nan)


def infinite_reference(r):
    r["scored"][0] = replace(r["scored"][0], negative_reference=-math.inf)


def empty_answer_in_training(r):
    in_pairs(r, positive_text=" \n")


FATAL = [
    ("bos", no_bos), ("bos", double_bos), ("bos", no_bos_in_a_pair),
    ("eos", eos_missing), ("eos", eos_made_up), ("eos", eos_inside),
    ("boundary", moved_boundary), ("boundary", other_answer), ("boundary", unknown_pair),
    ("contamination", prompt_in_both_splits), ("contamination", pair_on_a_held_out_prompt),
    ("contamination", pair_on_a_held_out_context_under_another_id),
    ("unusable", margin_that_is_no_number), ("unusable", infinite_reference),
    ("unusable", empty_answer_in_training),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fault"), FATAL)
def test_a_fault_that_makes_the_run_worthless_stops_it_by_name(name, fault):
    records = healthy()
    fault(records)
    assert stopped(records).startswith(f"preflight, {name}: ")


def standard(**changed) -> Preflight:
    limit = {"max_new_tokens": 64}
    return build(OmegaConf.merge(OmegaConf.load(conf_dir() / "preflight" / "standard.yaml"), limit, changed))


def test_a_waived_check_warns_where_it_would_stop_and_no_other_does():
    records = healthy()
    prompt_in_both_splits(records)
    found = {one.name: one.state for one in standard(waived=["contamination"]).judge(counts(records))}
    assert found.pop("contamination") == "warning" and "stop" not in found.values()
    no_bos(records)
    with pytest.raises(UserError, match="preflight, bos"):
        standard(waived=["contamination"]).judge(counts(records))


def test_a_waived_check_that_does_not_exist_is_said_with_the_config(run_main):
    assert get_args(Name) == tuple(CHECKS)
    ran = run_main("preflight.waived=[leak]", "mode=plan")
    assert ran.code == 2 and "preflight.waived: must be a list, each item one of bos, eos, " in ran.err


@pytest.mark.parametrize("hides", [PAD, EOS])
def test_padding_that_hides_tokens_is_caught_where_rows_are_collated(monkeypatch, hides):
    """A collation that masks by the pad id, as with pad equal to EOS, loses the EOS that training should see."""
    collate = trees.collate

    def masked(planned, pad_id):
        rows = collate(planned, pad_id)
        return replace(rows, target=rows.target[rows.target != pad_id])

    monkeypatch.setattr(trees, "collate", masked)
    records = in_pairs(healthy(), positive_ids=[30, PAD, EOS])
    specials = replace(SPECIALS, filler=hides)
    assert "padding: " in stopped(records, specials)
    monkeypatch.undo()
    assert states(records, specials)["padding"] == "ok"


def test_a_stop_counts_names_the_first_fault_and_all_other_stops():
    records = healthy()
    no_bos(records)
    eos_missing(records)
    line = stopped(records)
    first = records["held_out"][3].prompt_id
    assert f"1 of 270 contexts do not begin with exactly one BOS (0.4 %); first: prompt {first}, negative" in line
    assert line.endswith("(and: eos)")


# What is only worth knowing


def bos_inside(r):
    r["contexts"][0] = replace(r["contexts"][0], negative_ids=[BOS, 10, BOS, 11])


def pad_in_an_answer(r):
    in_pairs(r, positive_ids=[30, PAD, EOS])


def other_wording(r):
    in_pairs(r, plain_context_ids=[BOS, 9, 9])


def turns_lost(r):
    r["contexts"] = [replace(c, dropped_turns=2) if i < 10 else c for i, c in enumerate(r["contexts"])]


def cut_answers(r):
    in_pairs(r, places=25, positive_ids=[30, 31], positive_finished=False)
    for i, p in enumerate(r["pairs"]):  # keep the answers apart: only the cut is the fault
        for rows in (r["pairs"], r["scored"]):
            rows[i] = replace(rows[i], positive_ids=[30, 400 + i] if i < 25 else p.positive_ids)


def repeated_prompt(r):
    r["prompts"].append(prompt("HOW do i  3?", "train"))


def repeated_pair(r):
    for rows in (r["pairs"], r["scored"]):
        rows.append(replace(rows[0], id="again"))


def same_answers(r):
    for i in range(4):
        for rows in (r["pairs"], r["scored"]):
            rows[i] = replace(rows[i], negative_ids=rows[i].positive_ids)


def empty_answers(r):
    r["pairs"].append(replace(r["pairs"][0], id="dropped", positive_text=""))


WORTH_KNOWING = [
    ("specials", bos_inside), ("specials", pad_in_an_answer), ("wording", other_wording), ("trimmed", turns_lost),
    ("truncated", cut_answers), ("duplicate_prompts", repeated_prompt), ("duplicate_pairs", repeated_pair),
    ("identical_pairs", same_answers), ("empty_answers", empty_answers),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fault"), WORTH_KNOWING)
def test_a_fault_that_is_worth_knowing_warns_by_name_and_alone(name, fault):
    records = healthy()
    fault(records)
    assert states(records) == {**dict.fromkeys(CHECKS, "ok"), name: "warning"}


def test_every_check_has_a_fault_that_it_is_shown_to_catch_and_stops_or_warns_as_it_should():
    assert {name for name, _ in FATAL} | {"padding"} == {n for n, check in CHECKS.items() if check.limit is None}
    assert {name for name, _ in WORTH_KNOWING} == {n for n, check in CHECKS.items() if check.limit is not None}


def test_a_few_faults_below_the_limit_are_counted_and_pass():
    records = healthy()
    records["contexts"][0] = replace(records["contexts"][0], dropped_turns=1)
    (found,) = [one for one in preflight().judge(counts(records)) if one.name == "trimmed"]
    assert found.state == "ok" and found.text.startswith("1 of 50 contexts lost their oldest turns (2.0 %)")


def test_answers_that_are_cut_at_a_short_limit_are_the_plan_and_any_other_fault_is_not():
    records = healthy()
    cut_answers(records)
    repeated_prompt(records)
    for limit, state in ((49, "warning"), (48, "ok"), (1, "ok")):
        found = {one.name: one for one in preflight(limit).judge(counts(records))}
        assert (found["truncated"].state, found["duplicate_prompts"].state) == (state, "warning")
    assert "as planned: recipe.max_new_tokens=1 is at most preflight.short_answers=48" in found["truncated"].text
    assert not any("as planned" in one.text for one in preflight(48).judge(counts(healthy())))


# Models and runs that lack something


def test_where_pad_is_the_eos_and_bos_is_too_nothing_is_taken_for_a_fault():
    """GPT-2: one id is BOS, EOS and pad."""
    one = Specials(bos=EOS, eos=frozenset({EOS}), pad=EOS, filler=EOS)
    records = healthy()

    def begun(row, *names):
        return replace(row, **{name: [EOS, *getattr(row, name)[1:]] for name in names})

    sides = ("plain", "positive", "negative")
    for name in ("contexts", "held_out"):
        records[name] = [begun(row, *(f"{side}_ids" for side in sides)) for row in records[name]]
    for name in ("pairs", "scored"):
        records[name] = [begun(row, *(f"{side}_context_ids" for side in sides)) for row in records[name]]
    assert states(records, one) == {**dict.fromkeys(CHECKS, "ok"), "specials": "unknown"}


def test_what_a_tokenizer_does_not_have_is_not_checked_and_said_so():
    none = Specials(bos=None, eos=frozenset(), pad=None, filler=0)
    records = healthy()
    for name in ("pairs", "scored"):
        records[name] = [replace(p, positive_finished=False, negative_finished=False) for p in records[name]]
    found = states(records, none)
    assert {name for name, state in found.items() if state == "unknown"} == {"bos", "specials", "truncated"}
    assert "warning" not in found.values()


def test_where_a_format_has_no_bos_in_front_none_is_asked_for():
    records = healthy()
    no_bos(records)
    silent = replace(SPECIALS, opens=False)
    assert states(records, silent)["bos"] == "unknown" and states(healthy())["bos"] == "ok"


def test_turns_before_the_first_question_of_a_chat_are_not_lost_to_the_limit():
    records = healthy()
    talk = [Turn("assistant", "Welcome."), Turn("user", "q")]
    first = records["contexts"][0]
    records["prompts"] = [replace(p, turns=talk) if p.id == first.prompt_id else p for p in records["prompts"]]
    for lost, in_chat, bad in ((1, True, 0), (2, True, 1), (1, False, 1), (0, False, 0)):
        records["contexts"][0] = replace(first, dropped_turns=lost)
        specials = replace(SPECIALS, written=frozenset({77} if in_chat else ()))
        assert counts(records, specials)["trimmed"]["bad"] == bad


def test_without_pairs_the_prompts_and_contexts_are_still_checked():
    records = {**healthy(), "pairs": [], "scored": []}
    found = states(records)
    known = {name for name, state in found.items() if state == "ok"}
    assert known == {"bos", "contamination", "specials", "trimmed", "duplicate_prompts"}
    prompt_in_both_splits(records)
    assert "contamination" in stopped(records)


def test_pairs_of_a_file_on_other_prompts_are_not_held_against_this_runs_wording():
    records = healthy()
    records["contexts"] = []
    assert states(records)["wording"] == "unknown"


def test_the_terminal_shows_the_counts_of_what_warns_and_one_line_where_nothing_does():
    console = Console(file=io.StringIO(), width=60, soft_wrap=True)
    findings.print_findings("preflight", preflight().judge(counts(healthy())), console)
    assert console.file.getvalue() == "preflight: 14 checked, 0 to look at\n"
    records = healthy()
    same_answers(records)
    findings.print_findings("preflight", preflight().judge(counts(records)), console)
    assert "identical_pairs: 4 of 40 pairs have the same answer twice" in console.file.getvalue()
    assert "at most 5 % pass without a word" in console.file.getvalue()
