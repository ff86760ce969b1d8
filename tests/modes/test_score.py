"""mode=score: the rows come back as they were, with R and the DPO reward of a plain loop beside them."""

import gzip
import json
import lzma
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_models import byte_level_tokenizer, plain_logp, save_small
from transformers import AutoModelForCausalLM, AutoTokenizer

from dlma.app import main
from dlma.model.tokens import pieces

PLAIN, POSITIVE, NEGATIVE = (
    f"USER: {{q}}\nASSISTANT{affix}:\n"
    for affix in (
        "",
        "(law-abiding, ethical, inoffensive response)",
        "(illegal, unethical, toxic response)",
    )
)
ROWS = [
    {"prompt": "how do i fix a lamp?", "chosen": "use an ethical cloth.", "rejected": "break it!", "source": 7},
    {"prompt": [{"role": "user", "content": "a door"}], "chosen": [{"role": "assistant", "content": "paint"}],
     "rejected": [{"role": "assistant", "content": "burn it down"}], "source": None},
    {"prompt": "how do i fix a lamp?", "chosen": "   ", "rejected": "break it!", "source": 8},
    {"prompt": "how do i fix a lamp?", "chosen": "use an ethical cloth.", "rejected": "break it!", "source": 9},
    {"prompt": "and a boat?", "chosen": "sail", "rejected": "sink", "source": 10},
]  # fmt: skip


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    texts = [PLAIN, POSITIVE, NEGATIVE, *(str(row) for row in ROWS)]
    return save_small(tmp_path_factory.mktemp("model"), tokenizer=byte_level_tokenizer(texts, 400), context=512)


@pytest.fixture
def policy_folder(tmp_path, model_folder):
    """The same model with one layer moved."""
    folder = tmp_path / "policy"
    shutil.copytree(model_folder, folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        network.model.layers[0].mlp.up_proj.weight.add_(0.05)
    network.save_pretrained(folder)
    return folder


@pytest.fixture
def score(tmp_path, monkeypatch, model_folder):
    monkeypatch.chdir(tmp_path)

    def call(*overrides, code=0, rows=ROWS, file="pairs.jsonl"):
        write(tmp_path / file, rows)
        settings = ["mode=score", "model=hf", f"model.path={model_folder}", "data=jsonl", f"data.path={file}"]
        assert main([*settings, "name=here", "data.max_dropped=0.5", *overrides]) == code
        return tmp_path / "outputs" / "here"

    return call


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(text)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_hand(folder, question, answer):
    """The plain log-prob of an answer, and its log-prob under both prompts, token by token in a loop."""
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    found = []
    for template in (PLAIN, POSITIVE, NEGATIVE):
        context = tokenizer(template.replace("{q}", question), add_special_tokens=False).input_ids
        ids = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        bos = [tokenizer.bos_token_id]
        each = [plain_logp(network, bos + context + ids[:i], ids[i : i + 1]).item() for i in range(len(ids))]
        found.append(each)
    return found


def test_the_rows_come_back_with_r_of_each_token_and_of_the_pair(score, model_folder, capsys):
    rows = lines(score() / "pairs.scored.jsonl")
    assert [{name: row[name] for name in ROWS[0]} for row in rows] == ROWS
    for row, question, chosen, rejected in (
        (rows[0], "how do i fix a lamp?", "use an ethical cloth.", "break it!"),
        (rows[1], "a door", "paint", "burn it down"),
    ):
        total = {}
        for name, answer in (("chosen", chosen), ("rejected", rejected)):
            _, positive, negative = by_hand(model_folder, question, answer)
            wanted = [a - b for a, b in zip(positive, negative)]
            assert row[f"{name}_token_rewards"] == pytest.approx(wanted, abs=1e-4)
            assert row[f"{name}_tokens"] == len(wanted)
            assert "".join(row[f"{name}_token_texts"]) == answer + "<eos>"
            total[name] = sum(wanted)
            assert row[f"{name}_reward"] == pytest.approx(total[name], abs=1e-3)
        assert row["margin"] == pytest.approx(total["chosen"] - total["rejected"], abs=1e-3)
        assert abs(row["margin"]) > 0.01
    assert rows[3]["margin"] == rows[0]["margin"]
    added = set(rows[0]) - set(ROWS[0])
    assert {rows[2][name] for name in added} == {None}
    out = capsys.readouterr().out
    assert "4 of 5 rows kept" in out and "empty answer" in out and "rows scored: 4" in out


def test_the_scored_file_trains_as_scored_pairs(score, tmp_path, model_folder):
    written = score() / "pairs.scored.jsonl"
    scored = [row["margin"] for row in lines(written) if row["margin"] is not None]
    prompts = tmp_path / "prompts.jsonl"
    write(prompts, [{"prompt": f"who is there, {i}?"} for i in range(8)])
    settings = ["model=hf", f"model.path={model_folder}", "data=jsonl", f"data.path={prompts}", "name=trained"]
    quick = ["recipe.epochs=1", "recipe.max_new_tokens=8", "data.max_dropped=0.5"]
    assert main([*settings, *quick, f"scored.path={written}"]) == 0
    margins = pq.read_table(tmp_path / "outputs/trained/scored.parquet")["margin"].to_pylist()
    assert sorted(margins) == pytest.approx(sorted(set(scored)))


def test_the_dpo_reward_is_beta_times_the_log_ratio(score, model_folder, policy_folder):
    row = lines(score(f"mode.policy={policy_folder}", "recipe.beta=0.5") / "pairs.scored.jsonl")[0]
    wanted = {}
    for name in ("chosen", "rejected"):
        policy, reference = (
            sum(by_hand(folder, "how do i fix a lamp?", row[name])[0]) for folder in (policy_folder, model_folder)
        )
        wanted[name] = 0.5 * (policy - reference)
        assert row[f"{name}_dpo_reward"] == pytest.approx(wanted[name], abs=1e-3)
    assert row["dpo_margin"] == pytest.approx(wanted["chosen"] - wanted["rejected"], abs=1e-3)
    assert abs(row["dpo_margin"]) > 0.01


def test_a_model_against_itself_has_learnt_nothing(score, model_folder):
    row = lines(score(f"mode.policy={model_folder}") / "pairs.scored.jsonl")[0]
    assert row["dpo_margin"] == row["chosen_dpo_reward"] == 0


@pytest.mark.parametrize("file", ["pairs.json", "pairs.jsonl.gz", "pairs.jsonl.xz", "pairs.parquet"])
def test_the_format_of_the_file_is_kept(score, file):
    plain = [row for row in ROWS if isinstance(row["prompt"], str)]
    folder = score(rows=plain, file=file)
    path = folder / file.replace("pairs", "pairs.scored")
    if file.endswith("parquet"):
        rows = pq.read_table(path).to_pylist()
    else:
        raw = path.read_bytes()
        raw = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)(raw)
        rows = json.loads(raw) if file.endswith("json") else [json.loads(line) for line in raw.splitlines()]
    assert [{name: row[name] for name in plain[0]} for row in rows] == plain
    assert [row["margin"] is None for row in rows] == [False, True, False, False]


def test_an_answer_is_cut_where_the_user_says_so(score, capsys):
    row = lines(score("mode.max_answer_tokens=2") / "pairs.scored.jsonl")[0]
    assert row["chosen_tokens"] == len(row["chosen_token_rewards"]) == 2
    assert "answer cut at max_response_tokens" in capsys.readouterr().out


def test_scoring_again_computes_nothing_again(score):
    def counts(folder):
        return json.loads((folder / "status.json").read_text())["result"]["counts"]

    assert counts(score())["run"] == {"token_rewards": 1}
    assert counts(score()) == {"run": {}, "reused": {"token_rewards": 1}}


@pytest.mark.parametrize(
    ("overrides", "rows", "said"),
    [
        ([], [{**ROWS[0], "margin": 1.0}], "has a column 'margin' already; add to the new names: mode.prefix=new_"),
        (["mode.out=scores.csv"], ROWS, "mode.out=scores.csv: must end in one of .jsonl"),
        (["mode.policy=./nowhere"], ROWS, "mode.policy=./nowhere: no such folder"),
        ([], [{"prompt": "a", "chosen": "b"}], "pairs.jsonl, row 1: no column 'rejected'"),
        (["data.on_bad_row=error"], ROWS, "pairs.jsonl, row 3: empty answer"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(score, capsys, overrides, rows, said):
    folder = score(*overrides, rows=rows, code=2)
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert not list(folder.glob("*scored*"))


def test_anthropics_pairs_come_back_with_the_same_r(score, tmp_path):
    turns = "\n\nHuman: how do i fix a lamp?\n\nAssistant: "
    rows = [
        {"chosen": turns + ROWS[0]["chosen"], "rejected": turns + ROWS[0]["rejected"]},
        {"chosen": "x", "rejected": "y"},
    ]
    wanted = lines(score(rows=ROWS[:1]) / "pairs.scored.jsonl")[0]["margin"]
    write(tmp_path / "hh.jsonl", rows)
    found = lines(score("data=hh", "data.path=hh.jsonl") / "hh.scored.jsonl")
    assert [row["chosen"] for row in found] == [row["chosen"] for row in rows]
    assert [row["margin"] for row in found] == [wanted, None]


def test_a_prefix_tells_two_scorings_apart(score):
    row = lines(score("mode.prefix=b_", rows=[{**ROWS[0], "margin": 1.0}]) / "pairs.scored.jsonl")[0]
    assert row["margin"] == 1.0 and isinstance(row["b_margin"], float)


def test_a_file_without_pairs_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["mode=score", "name=here"]) == 2
    assert "mode=score reads a preference file: data=jsonl" in capsys.readouterr().err


def test_pieces_join_to_the_text(model_folder):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    text = "an ethical response, for the lamp"
    assert "".join(pieces(tokenizer, tokenizer.encode(text, add_special_tokens=False))) == text


def test_a_file_that_is_there_is_not_written_over(score, tmp_path, capsys):
    score("mode.out=pairs.jsonl", code=2)
    assert "mode.out=pairs.jsonl: there is something already" in capsys.readouterr().err
    assert [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()] == ROWS


def test_words_that_are_secret_elsewhere_stay_in_rows_of_data(score, monkeypatch):
    monkeypatch.setenv("POSTGRES_PASSWORD", "ethical cloth")
    folder = score()
    assert "<redacted>" not in (folder / "pairs.scored.jsonl").read_text()


def test_columns_that_only_later_rows_have_are_kept(score, tmp_path):
    rows = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in ROWS if row["chosen"] == "sail"]
    score("mode.out=out.parquet", rows=[*rows, {**rows[0], "prompt": "a lake?", "late": 3}])
    assert pq.read_table(tmp_path / "out.parquet")["late"].to_pylist() == [None, 3]


@pytest.mark.parametrize(
    ("values", "out"), [((1, "one"), "out.parquet"), ((float("nan"), 1.0), "out.jsonl"), (("\ud800", "x"), "out.jsonl")]
)
def test_what_cannot_be_written_is_said_before_anything_is_computed(score, tmp_path, capsys, values, out):
    rows = [{**ROWS[4], "other": value, "prompt": f"boat {value!r}?"} for value in values]
    score(f"mode.out={out}", rows=rows, code=2)
    said = capsys.readouterr().err
    assert "its column 'other' cannot be written to" in said and said.count("\n") == 1
    assert not (tmp_path / out).exists() and not (tmp_path / "store" / "token_rewards").exists()


def test_rows_whose_prompts_differ_in_case_or_whose_answers_differ_in_an_end_have_values_of_their_own(
    score, model_folder
):
    row = {"prompt": "how do i fix a lamp?", "chosen": "use a cloth.", "rejected": "break it!"}
    rows = [row, {**row, "prompt": "How do I fix a lamp?"}, {**row, "chosen_finished": False}, row]
    found = lines(score(rows=rows) / "pairs.scored.jsonl")
    for told, of in zip(found[:2], rows[:2], strict=True):
        wanted = []
        for name in ("chosen", "rejected"):
            _, positive, negative = by_hand(model_folder, of["prompt"], of[name])
            wanted.append(sum(positive) - sum(negative))
        assert told["margin"] == pytest.approx(wanted[0] - wanted[1], abs=1e-3)
    assert found[0]["margin"] != found[1]["margin"] and found[3] == found[0]
    assert found[2]["chosen_tokens"] == found[0]["chosen_tokens"] - 1
