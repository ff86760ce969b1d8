"""Pairs from files: our own read back exactly, others encoded once with a boundary that holds."""

import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pairs_of_files import imported_margins, imported_pairs
from toy_tokenizers import KINDS, OWN_TEMPLATES, tokenizer

from dlma.data.text import prompt_id
from dlma.errors import UserError
from dlma.model.tokens import MOVED, NO_ROW, encode
from dlma.pairs import imported
from dlma.pairs.imported import CUT, DUPLICATE, HELD_OUT, fingerprint
from dlma.prompts.contexts import TOO_LONG, TRIMMED
from dlma.prompts.wording import Wording
from dlma.records import Pair, Prompt, ScoredPair, Turn, to_table

LIMITS = {"seed": 0, "max_prompt_tokens": 1000, "max_response_tokens": 1000, "max_dropped": 0.5}
WORDING = Wording(
    source="test",
    system="",
    user="USER: {text}\n",
    assistant="ASSISTANT: {text}\n",
    answer="ASSISTANT{affix}:\n",
    pairs=[{"positive": {"affix": "(good)"}, "negative": {"affix": "(bad)"}}],
    **OWN_TEMPLATES,
)
ROW = {"prompt": "What is {this}?", "positive": "A kind answer.", "negative": "A rude one!"}
GOOD = {"prompt": "Another?", "positive": "Yes.", "negative": "No."}


def write(folder, *rows, name="pairs.jsonl"):
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pairs(path, kind="llama", wording=WORDING, **options):
    return imported_pairs(path, tokenizer(kind), wording, **{**LIMITS, **options})


def margins(path, kind="llama", **options):
    return imported_margins(path, tokenizer(kind), WORDING, **{**LIMITS, **options})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
def test_context_and_answer_ids_are_those_of_the_whole_text(tmp_path, kind, name):
    tok = tokenizer(kind)
    (pair,), account = pairs(write(tmp_path, ROW, name=name), kind)
    assert account.read == account.kept == 1 and not account.dropped
    eos = [] if tok.eos_token_id is None else [tok.eos_token_id]
    for side, affix in (("plain", ""), ("positive", "(good)"), ("negative", "(bad)")):
        context = getattr(pair, f"{side}_context_ids")
        text = f"USER: What is {{this}}?\nASSISTANT{affix}:\n"
        for answer in ("positive", "negative"):
            ids = getattr(pair, f"{answer}_ids")
            assert context + ids == encode(tok, [text + ROW[answer]])[0] + eos
    assert pair.positive_finished is pair.negative_finished is bool(eos)
    assert (pair.positive_text, pair.negative_text) == (ROW["positive"], ROW["negative"])
    assert pair.prompt_id == prompt_id([Turn("user", ROW["prompt"])]) and pair.question == ROW["prompt"]
    assert pair.wording == WORDING.label(0)


def chat(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "yes", "rejected": "no"},
        {"prompt": chat("q"), "chosen": chat("q", "yes")[1:], "rejected": chat("q", "no")[1:]},
        {"chosen": chat("q", "yes"), "rejected": chat("q", "no")},
        {"prompt": chat("q"), "positive": "yes", "negative": "no"},
        {"messages": chat("q", "an earlier answer"), "positive": "yes", "negative": "no"},
        {"prompt": "q", "chosen": chat("q", "yes"), "rejected": chat("q", "no")},
        {"chosen": "\n\nHuman: q\n\nAssistant: yes", "rejected": "\n\nHuman: q\n\nAssistant: no"},
    ],
)
def test_the_spellings_of_one_pair_give_one_pair(tmp_path, row, name):
    plain = write(tmp_path, {"prompt": "q", "positive": "yes", "negative": "no"}, name="plain.jsonl")
    assert pairs(write(tmp_path, row, name=name))[0] == pairs(plain)[0]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen"])
def test_eos_is_appended_to_finished_answers_only(tmp_path, kind):
    eos = tokenizer(kind).eos_token_id
    cases = [
        ({}, True, True),
        ({"finished": True}, True, True),
        ({"finished": None}, True, True),
        ({"finished": False}, False, False),
        ({"positive_finished": False}, False, True),
        ({"finished": False, "negative_finished": True}, False, True),
    ]
    for columns, positive, negative in cases:
        (pair,), _ = pairs(write(tmp_path, {**ROW, **columns}), kind)
        for ids, finished, expected in (
            (pair.positive_ids, pair.positive_finished, positive),
            (pair.negative_ids, pair.negative_finished, negative),
        ):
            assert finished is expected and (ids[-1] == eos) is expected and ids.count(eos) == expected


def test_an_eos_that_the_text_holds_is_not_doubled_and_none_may_stand_inside(tmp_path):
    whole = {**ROW, "positive": ROW["positive"] + "</s>"}
    assert pairs(write(tmp_path, whole))[0][0].positive_ids == pairs(write(tmp_path, ROW))[0][0].positive_ids
    inside = {**ROW, "positive": "A </s> B"}
    assert pairs(write(tmp_path, inside, GOOD))[1].dropped == {"EOS inside the answer": 1}
    nothing = {**ROW, "positive": "</s>"}
    assert pairs(write(tmp_path, nothing, GOOD))[1].dropped == {"empty answer": 1}


def ending(answer, positive, negative):
    sides = {"positive": {"affix": positive}, "negative": {"affix": negative}}
    fields = {"user": "USER: {text}\n", "assistant": "{text}", "answer": answer, **OWN_TEMPLATES}
    return Wording(source="test", system="", pairs=[sides], **fields)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_whose_boundary_moves_is_dropped_and_counted(tmp_path, kind):
    tok = tokenizer(kind)
    assert len(tok("nswer", add_special_tokens=False)["input_ids"]) < 3  # a merge reaches over the boundary
    wording = ending("{affix}\nn", "(good)", "(bad)")
    path = write(tmp_path, {**ROW, "positive": "swer: calm."}, {**GOOD, "positive": " Yes.", "negative": " No."})
    kept, account = pairs(path, kind, wording)
    assert [p.question for p in kept] == ["Another?"] and account.dropped == {MOVED: 1}
    with pytest.raises(UserError, match=r"pairs.jsonl, row 1: moved boundary"):
        pairs(path, kind, wording, on_bad_row="error")


def test_an_answer_that_only_one_side_encodes_differently_is_dropped(tmp_path):
    path = write(tmp_path, {**ROW, "positive": "swer: calm."}, {**GOOD, "positive": " Yes.", "negative": " No."})
    for positive, negative in (("n", ":"), (":", "n")):
        kept, account = pairs(path, wording=ending("{affix}", positive, negative))
        assert account.dropped == {MOVED: 1} and [p.question for p in kept] == ["Another?"]


def test_answers_stand_as_they_are_with_their_white_space(tmp_path):
    (pair,), _ = pairs(write(tmp_path, {**ROW, "positive": "  spaced  out \n"}))
    assert tokenizer("llama").decode(pair.positive_ids[:-1]) == pair.positive_text == "  spaced  out \n"


def test_long_answers_are_cut_before_anything_is_computed_and_marked_unfinished(tmp_path):
    path = write(tmp_path, ROW)
    (whole,), _ = pairs(path)
    limit = len(whole.positive_ids) - 1  # the EOS no longer fits
    (pair,), account = pairs(path, max_response_tokens=limit)
    assert pair.positive_ids == whole.positive_ids[:limit] and not pair.positive_finished
    assert tokenizer("llama").eos_token_id not in pair.positive_ids
    (exact,), account_exact = pairs(path, max_response_tokens=max(len(whole.positive_ids), len(whole.negative_ids)))
    assert exact == whole and not account_exact.trimmed
    assert account.trimmed == {CUT: 1} and pair.positive_text == ROW["positive"]
    (short,), _ = pairs(path, max_response_tokens=3)
    assert ROW["positive"].startswith(short.positive_text) and short.positive_text != ROW["positive"]
    with pytest.raises(UserError, match=r"^pairs.path: \S+pairs.jsonl, row 1: answer cut"):
        pairs(path, max_response_tokens=3, on_bad_row="error")


def test_long_prompts_lose_old_turns_like_any_other(tmp_path):
    talk = {"prompt": chat("old " * 50, "answer", "new"), "positive": "yes", "negative": "no"}
    (pair,), account = pairs(write(tmp_path, talk), max_prompt_tokens=40)
    (alone,), _ = pairs(write(tmp_path, {**talk, "prompt": "new"}))
    assert pair.negative_context_ids == alone.negative_context_ids and account.trimmed == {TRIMMED: 1}
    assert pair.prompt_id != alone.prompt_id
    path = write(tmp_path, {**talk, "prompt": "long " * 50}, GOOD)
    assert pairs(path, max_prompt_tokens=40)[1].dropped == {TOO_LONG: 1}


def test_several_pairs_of_one_prompt_are_kept_and_equal_pairs_once(tmp_path):
    rows = [ROW, {**ROW, "positive": "Another kind answer."}, ROW, {**ROW, "prompt": " WHAT is {this}? "}]
    kept, account = pairs(write(tmp_path, *rows))
    assert len(kept) == 2 and len({p.id for p in kept}) == 2 and len({p.prompt_id for p in kept}) == 1
    assert account.dropped == {DUPLICATE: 2}


def test_pairs_on_held_out_prompts_never_reach_training(tmp_path):
    held_out = {prompt_id([Turn("user", "what is  {THIS}?")])}
    kept, account = pairs(write(tmp_path, ROW, GOOD), held_out=held_out)
    assert [p.question for p in kept] == ["Another?"] and account.dropped == {HELD_OUT: 1}
    own = tmp_path / "own.parquet"
    pq.write_table(to_table(Pair, pairs(write(tmp_path, ROW, GOOD))[0]), own)
    assert pairs(str(own), held_out=held_out)[0] == kept


@pytest.mark.parametrize("with_validation", [False, True])
def test_what_is_held_out_is_known_by_its_text_and_not_by_the_pair_that_came_with_it(with_validation):
    """As with data.every_pair=true, where the id of a prompt is that of its human pair."""
    asked = {"test": "Who?", "validation": "Where?", "train": "Why?"}
    rows = [Prompt(f"pair-{split}", [Turn("user", text)], split) for split, text in asked.items()]
    prompts = SimpleNamespace(rows=lambda record: rows)
    held_out = SimpleNamespace(uses=(prompts,), table=lambda: pa.table({"prompt_id": ["pair-test"]}))
    apart = imported.kept_apart(held_out, with_validation=with_validation)
    texts = {split: prompt_id([Turn("user", text.upper())]) for split, text in asked.items()}
    assert {split for split, name in texts.items() if name in apart} == (
        {"test", "validation"} if with_validation else {"test"}
    )
    assert "pair-test" in apart


@pytest.mark.parametrize("name", ["positive_text", "negative_ids", "plain_context_ids"])
def test_our_own_pairs_lack_no_value(tmp_path, name):
    table = to_table(Pair, pairs(write(tmp_path, ROW, GOOD))[0])
    column = table[name].to_pylist()
    column[1] = [*column[1][:-1], None] if isinstance(column[1], list) else None
    place = table.column_names.index(name)
    pq.write_table(
        table.set_column(place, name, pa.array(column, table.schema.field(name).type)), tmp_path / "own.parquet"
    )
    with pytest.raises(UserError, match=f"own.parquet, row 2: {name} lacks a value"):
        pairs(str(tmp_path / "own.parquet"))


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_pairs_are_read_back_exactly(tmp_path, kind):
    sampled = Pair("id", "p", "q", "w", [5, 6], [5, 7], [5, 8], [9, 10, 11], [12], False, False, "text", "cut")
    path = tmp_path / "pairs.parquet"
    pq.write_table(to_table(Pair, [sampled]), path)

    class NeverCalled:
        bos_token_id = eos_token_id = chat_template = None

        def __len__(self):
            return len(tokenizer(kind))

    back, account = imported_pairs(str(path), NeverCalled(), WORDING, **LIMITS)
    assert back == [sampled] and account.kept == 1


def test_our_own_pairs_of_another_model_are_refused(tmp_path):
    size = len(tokenizer("llama"))
    path = tmp_path / "pairs.parquet"
    for bad in ([size], [-1], []):
        row = Pair("id", "p", "q", "w", [5], [5], [5], [1], bad, False, False, "text", "cut")
        pq.write_table(to_table(Pair, [row]), path)
        with pytest.raises(UserError, match=r"^pairs.path: \S+, row 1: token ids beyond this model's \d+ rows"):
            pairs(str(path))


def test_the_models_rows_decide_what_an_id_is_and_not_the_tokenizers_entries(tmp_path):
    """A head padded to more rows than the tokenizer has entries samples ids that no entry has."""
    size = len(tokenizer("llama"))
    path = tmp_path / "pairs.parquet"
    row = Pair("id", "p", "q", "w", [5], [5], [5], [1], [size + 3], False, False, "text", "cut")
    pq.write_table(to_table(Pair, [row]), path)
    assert pairs(str(path), vocabulary=size + 4)[0] == [row]
    with pytest.raises(UserError, match=f"beyond this model's {size + 3} rows"):
        pairs(str(path), vocabulary=size + 3)


def test_text_with_an_added_token_that_the_model_has_no_row_for_is_dropped(tmp_path):
    rows = [ROW, {**GOOD, "negative": "a <|tool|> answer"}, {**GOOD, "prompt": "a <|tool|> question"}]
    tok = tokenizer("added")
    limit = tok.convert_tokens_to_ids("<|tool|>")
    found, account = pairs(write(tmp_path, *rows, GOOD), kind="added", vocabulary=limit, max_dropped=0.6)
    assert account.dropped == {NO_ROW: 2} and len(found) == 2
    assert max(i for pair in found for ids in (pair.plain_context_ids, pair.positive_ids) for i in ids) < limit
    assert len(pairs(write(tmp_path, *rows, GOOD), kind="added")[0]) == 4


def scored(margin, chosen):
    pair = Pair("id", "p", "q", "w", [5], [5], [5], [9], [12], False, False, "text", "cut")
    return ScoredPair(**vars(pair), **dict.fromkeys(REFERENCES, -1.5), margin=margin, chosen=chosen), pair


REFERENCES = [
    "positive_reference",
    "negative_reference",
    "positive_under_positive",
    "positive_under_negative",
    "negative_under_positive",
    "negative_under_negative",
]


def test_our_own_scored_pairs_keep_margin_and_label(tmp_path):
    row, pair = scored(-2.5, "negative")
    path = tmp_path / "scored.parquet"
    pq.write_table(to_table(ScoredPair, [row]), path)
    rows, _ = margins(str(path))
    assert rows == [(pair, -2.5, "negative")] and type(rows[0][0]) is Pair
    assert pairs(str(path))[0] == [pair]


@pytest.mark.parametrize("name", ["scored.jsonl", "scored.parquet"])
def test_any_pair_file_with_a_margin_column_is_a_scored_file(tmp_path, name):
    rows = [
        {**ROW, "margin": 1.25, "chosen": "positive"},
        {**GOOD, "margin": -3.0, "chosen": "negative"},
    ]
    found, _ = margins(write(tmp_path, *rows, name=name))
    assert [(m, c) for _, m, c in found] == [(1.25, "positive"), (-3.0, "negative")]
    assert [p for p, _, _ in found] == pairs(write(tmp_path, ROW, GOOD))[0]


def test_the_positive_side_is_chosen_unless_a_row_says_otherwise(tmp_path):
    alone, _ = margins(write(tmp_path, {**ROW, "margin": -1}))
    trl, _ = margins(write(tmp_path, {"prompt": "q", "chosen": "negative", "rejected": "no", "margin": 2}))
    assert alone[0][1:] == (-1.0, "positive") and trl[0][1:] == (2.0, "positive")
    assert trl[0][0].positive_text == "negative"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "no column 'margin'"),
        ({"margin": "large"}, "margin is of type str"),
        ({"margin": True}, "margin is of type bool"),
        ({"margin": 1.0, "chosen": "first"}, "chosen must say positive or negative"),
    ],
)
def test_unreadable_margins_stop_with_file_and_row(tmp_path, columns, message):
    path = write(tmp_path, {**GOOD, "margin": 0.0}, {**ROW, **columns})
    with pytest.raises(UserError, match=f"^scored.path: {path}, row 2: {message}"):
        margins(path)


@pytest.mark.parametrize("margin", [None, float("nan"), float("inf")])
def test_margins_without_a_value_are_dropped_and_counted(tmp_path, margin):
    path = write(tmp_path, {**GOOD, "margin": 0.0}, {**ROW, "margin": margin})
    rows, account = margins(path)
    assert len(rows) == 1 and account.dropped == {"margin is not a number from -1,000,000,000 to 1,000,000,000": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "chosen": "yes"}, "no column 'rejected'"),
        ({"prompt": "q", "positive": "yes"}, "no column 'negative'"),
        ({"positive": "yes", "negative": "no"}, "no column 'prompt'"),
        ({**ROW, "positive": 3}, "positive is neither text"),
        ({**ROW, "finished": "no"}, "finished is 'no', not true or false"),
    ],
)
def test_unreadable_rows_stop_with_file_and_row(tmp_path, row, message):
    path = write(tmp_path, GOOD, row)
    with pytest.raises(UserError, match=f"^pairs.path: {path}, row 2: {message}"):
        pairs(path)


def test_empty_answers_are_dropped_and_too_many_stop(tmp_path):
    path = write(tmp_path, GOOD, {**ROW, "positive": " \n"}, {**ROW, "negative": None})
    with pytest.raises(UserError, match=r"pairs.path: \S+: 2 of 3 rows cannot be used \(empty answer: 2\)"):
        pairs(path)
    assert pairs(path, max_dropped=0.7)[1].dropped == {"empty answer": 2}


def test_unreadable_files_are_named(tmp_path):
    broken = tmp_path / "pairs.parquet"
    broken.write_bytes(b"PAR1 this is not Parquet")
    with pytest.raises(UserError, match=f"^pairs.path: {broken}: not a readable Parquet file"):
        pairs(str(broken))
    with pytest.raises(UserError, match=r"^scored.path: \S+none.parquet: no such file"):
        margins(str(tmp_path / "none.parquet"))
    wrong = to_table(Pair, []).drop_columns("positive_ids").append_column("positive_ids", pa.array([], pa.string()))
    pq.write_table(pa.concat_tables([wrong, _one_wrong(wrong.schema)]), broken)
    with pytest.raises(UserError, match=f"^pairs.path: {broken}: columns of the wrong type"):
        pairs(str(broken))


def _one_wrong(schema):
    row = Pair("id", "p", "q", "w", [5], [5], [5], [9], [12], False, False, "text", "cut")
    return pa.Table.from_pylist([{**vars(row), "positive_ids": "nine"}], schema=schema)


def test_the_fingerprint_follows_the_content(tmp_path):
    first = fingerprint(write(tmp_path, ROW))
    assert fingerprint(write(tmp_path, ROW, name="other.jsonl")) == first
    assert fingerprint(write(tmp_path, GOOD)) != first


def many(count):
    """Text rows some of which are the same, held out or empty, each of a prompt of its own otherwise."""
    row = {"positive": "Bread.", "negative": "Stones.", "margin": 1.0}
    texts = [{**row, "prompt": f"What is {place - place % 7 // 6}?"} for place in range(count)]
    return [{**text, "negative": ""} if place % 5 == 4 else text for place, text in enumerate(texts)]


@pytest.mark.parametrize("together", [1, 2, 7, 22, 23])
@pytest.mark.parametrize("own", [False, True])
def test_pairs_are_the_same_however_many_rows_are_looked_at_at_once(tmp_path, monkeypatch, own, together):
    path = write(tmp_path, *many(23))
    held_out = {prompt_id([Turn("user", "What is 8?")])}
    if own:
        found = [{**vars(pair), "margin": 1.0, "chosen": "positive"} for pair, *_ in margins(path, max_dropped=1.0)[0]]
        path = write(tmp_path, *found, found[3], name="own.parquet")
    whole, account = margins(path, max_dropped=1.0, held_out=held_out)
    assert account.dropped[DUPLICATE] > 0 and account.dropped[HELD_OUT] == 1 and len(whole) == account.kept > 10
    monkeypatch.setattr(imported, "_TOGETHER", together)
    assert margins(path, max_dropped=1.0, held_out=held_out) == (whole, account)


def test_a_bad_row_of_our_own_far_down_is_named_by_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(imported, "_TOGETHER", 2)
    good = [vars(pair) for pair in pairs(write(tmp_path, *many(4)))[0]]
    path = write(tmp_path, *good, {**good[0], "positive_ids": [10**6]}, name="own.parquet")
    with pytest.raises(UserError, match=rf"row {len(good) + 1}: token ids beyond this model's"):
        pairs(path)


def test_pairs_are_read_as_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(imported, "_TOGETHER", 4)
    path = write(tmp_path, *many(23))
    found = imported.FilePairs(path, tokenizer("llama"), WORDING, with_margin=True, **LIMITS)
    next(iter(found))
    assert found.account.read == 4 and len(found.labels) == 1
