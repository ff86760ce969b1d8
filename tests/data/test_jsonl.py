"""The JSON reader: the accepted shapes of a row, and one line for each unreadable file."""

import gzip
import json
import lzma
from pathlib import Path

import pytest

from dlma.csv_text import table
from dlma.data.corpus import Corpus
from dlma.data.jsonl import CUT_ANSWER, Columns
from dlma.data.text import files_of, fingerprint, rows_of
from dlma.errors import UserError
from dlma.records import Turn

SETTINGS = {
    "revision": "main",
    "subset": None,
    "hub_split": "train",
    "max_words": None,
    "max_prompts": None,
    "only": None,
    "every_pair": False,
    "validation_share": 0.0,
    "test_share": 0.5,
    "on_bad_row": "drop",
    "max_dropped": 0.5,
}


def read(path, prompt_column="prompt", category_column="category", **changes):
    columns = Columns(prompt_column=prompt_column, category_column=category_column, category=None)
    prompts, account = Corpus(path=str(path), format=columns, **{**SETTINGS, **changes}).read()
    return list(prompts), account


def write(folder, rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chat(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def only(folder, row, **changes):
    prompts, account = read(write(folder, [row, {"prompt": "another"}]), **changes)
    return prompts[0], account


def test_text_and_chats_become_turns(tmp_path):
    prompts, _ = read(
        write(
            tmp_path,
            [
                {"prompt": "  What?  ", "category": "Odd"},
                {"prompt": chat("a", "b", "c")},
                {"messages": chat("d", "e", "f")},
                {"prompt": "\n\nHuman: g\n\nAssistant: h\n\nHuman: i\n\nAssistant:"},
                {"prompt": ["j"]},
            ],
        )
    )
    assert [p.turns for p in prompts] == [
        [Turn("user", "What?")],
        [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")],
        [Turn("user", "d"), Turn("assistant", "e"), Turn("user", "f")],
        [Turn("user", "g"), Turn("assistant", "h"), Turn("user", "i")],
        [Turn("user", "j")],
    ]
    assert [p.category for p in prompts] == ["Odd", None, None, None, None]


def test_human_pairs_are_read_as_text_and_as_turns(tmp_path):
    text, _ = only(tmp_path, {"prompt": "q", "chosen": "yes", "rejected": "no"})
    turns, _ = only(
        tmp_path,
        {
            "prompt": "q",
            "chosen": [{"role": "assistant", "content": "yes"}],
            "rejected": [{"role": "assistant", "content": "no"}],
        },
    )
    whole, _ = only(tmp_path, {"chosen": chat("q", "yes"), "rejected": chat("q", "no")})
    assert text == turns == whole
    assert (text.chosen, text.rejected) == ("yes", "no")


HEAD = chat("How?", "Sure.", "And then?")
SPELLINGS = {
    "whole chats": {"chosen": [*HEAD, *chat("", "yes")[1:]], "rejected": [*HEAD, *chat("", "no")[1:]]},
    "their first message again": {
        "prompt": "How?",
        "chosen": [*HEAD, *chat("", "yes")[1:]],
        "rejected": [*HEAD, *chat("", "no")[1:]],
    },
    "their first message, spelt otherwise": {
        "prompt": " HOW? ",
        "chosen": [*HEAD, *chat("", "yes")[1:]],
        "rejected": [*HEAD, *chat("", "no")[1:]],
    },
    "their beginning": {
        "prompt": HEAD,
        "chosen": [*HEAD, *chat("", "yes")[1:]],
        "rejected": [*HEAD, *chat("", "no")[1:]],
    },
    "turns that follow": {
        "prompt": HEAD[:1],
        "chosen": [*HEAD[1:], *chat("", "yes")[1:]],
        "rejected": [*HEAD[1:], *chat("", "no")[1:]],
    },
    "the last turn alone": {"prompt": HEAD, "chosen": chat("", "yes")[1:], "rejected": chat("", "no")[1:]},
    "messages": {"messages": HEAD, "chosen": "yes", "rejected": "no"},
    "Anthropic text": {
        "chosen": "\n\nHuman: How?\n\nAssistant: Sure.\n\nHuman: And then?\n\nAssistant: yes",
        "rejected": "\n\nHuman: How?\n\nAssistant: Sure.\n\nHuman: And then?\n\nAssistant: no",
    },
    "Anthropic text with its prompt": {
        "prompt": "\n\nHuman: How?\n\nAssistant: Sure.\n\nHuman: And then?\n\nAssistant:",
        "chosen": "\n\nHuman: How?\n\nAssistant: Sure.\n\nHuman: And then?\n\nAssistant: yes",
        "rejected": "\n\nHuman: How?\n\nAssistant: Sure.\n\nHuman: And then?\n\nAssistant: no",
    },
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_turn_before_the_last_is_part_of_the_prompt(tmp_path, spelling):
    found, account = only(tmp_path, SPELLINGS[spelling])
    assert found.turns == [Turn("user", "How?"), Turn("assistant", "Sure."), Turn("user", "And then?")]
    assert (found.chosen, found.rejected) == ("yes", "no")
    assert not account.trimmed and not account.dropped


def test_an_answer_at_the_end_of_a_chat_is_taken_off_and_counted(tmp_path):
    prompt, account = only(tmp_path, {"messages": chat("q", "answer")})
    assert prompt.turns == [Turn("user", "q")]
    assert account.trimmed == {CUT_ANSWER: 1}
    with pytest.raises(UserError, match=r"rows.jsonl, row 1: a last assistant turn.*on_bad_row=drop"):
        only(tmp_path, {"messages": chat("q", "answer")}, on_bad_row="error")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "  "}, "empty prompt"),
        ({"prompt": []}, "empty prompt"),
        ({"prompt": None}, "empty prompt"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "no user turn before the answer"),
        ({"prompt": [{"role": "system", "content": "x"}, *chat("q")]}, "a role other than user and assistant"),
        ({"prompt": "q", "chosen": " ", "rejected": "no"}, "empty answer"),
        ({"prompt": "q", "chosen": chat("q"), "rejected": "no"}, "an answer that is not the assistant's"),
        ({"chosen": chat("q", "yes"), "rejected": chat("r", "no")}, "prompts differ within the pair"),
        (
            {
                "prompt": "q",
                "chosen": chat("", "Hi.", "And?", "yes")[1:],
                "rejected": chat("", "Go.", "And?", "no")[1:],
            },
            "prompts differ within the pair",
        ),
        (
            {"prompt": "q", "chosen": chat("", "Hi.", "And?", "yes")[1:], "rejected": "no"},
            "prompts differ within the pair",
        ),
        (
            {"prompt": "q", "chosen": chat("other", "yes"), "rejected": chat("other", "no")},
            "turns that neither begin with their prompt nor follow it",
        ),
        ({"prompt": "", "chosen": chat("other", "yes"), "rejected": chat("other", "no")}, "empty prompt"),
        ({"prompt": "q", "chosen": [], "rejected": "no"}, "empty answer"),
        ({"prompt": "half a pair \ud83d"}, "broken Unicode"),
    ],
)
def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path, row, reason):
    path = write(tmp_path, [{"prompt": "one"}, row, {"prompt": "two"}])
    prompts, account = read(path)
    assert len(prompts) == 2 and account.dropped == {reason: 1}
    with pytest.raises(UserError, match=f"rows.jsonl, row 2: {reason}"):
        read(path, on_bad_row="error")


@pytest.mark.parametrize("written", [json.dumps, lambda turns: json.dumps(turns, indent=1), None])
def test_a_chat_that_a_cell_of_a_table_holds_as_text_is_the_chat(tmp_path, written):
    turns, answers = chat("one", "two", "three"), [chat("", "yes")[1:], chat("", "no")[1:]]
    cells = [written(one) if written else one for one in (turns, *answers)]
    path = tmp_path / "rows.csv"
    names = ("prompt", "chosen", "rejected")
    texts = [one if isinstance(one, str) else json.dumps(one) for one in cells]
    path.write_bytes(table(names, [texts, ("another", "a", "b")]))
    for file in (path, write(tmp_path, [dict(zip(names, cells, strict=True)), {"prompt": "another"}])):
        (prompt, _), _ = read(file)
        assert [(turn.role, turn.content) for turn in prompt.turns] == [
            ("user", "one"),
            ("assistant", "two"),
            ("user", "three"),
        ]
        assert (prompt.chosen, prompt.rejected) == ("yes", "no")


@pytest.mark.parametrize("text", ["[a list]", '[{"key": 1}]', '["role"]', 'What does [{"role": "user"}] mean?'])
def test_other_text_in_brackets_is_text(tmp_path, text):
    assert only(tmp_path, {"prompt": text})[0].turns == [Turn("user", text)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": str(chat("q"))}, "prompt holds a chat as text that is no JSON"),
        ({"messages": str(chat("q"))}, "messages holds a chat as text that is no JSON"),
        ({"prompt": "q", "chosen": str(chat("a")), "rejected": "no"}, "chosen holds a chat as text that is no JSON"),
        ({"conversations": str([{"from": "human", "value": "q"}])}, "conversations holds a chat as text"),
        ({"question": "q"}, "no column 'prompt'; the row has question"),
        ({"prompt": 3}, "prompt is neither text nor a list of turns"),
        ({"prompt": ["q", "r"]}, "prompt is neither text nor a list of turns"),
        ({"prompt": [{"role": "user"}]}, "no column 'content'"),
        ({"prompt": [{"role": "user", "content": 3}]}, "content is of type int"),
        ({"prompt": "q", "category": ["a"]}, "category is of type list"),
        ({"prompt": "q", "chosen": 3, "rejected": "no"}, "chosen is neither text"),
        (["q"], "not a JSON object"),
    ],
)
def test_unreadable_rows_stop_with_file_and_row(tmp_path, row, message):
    path = write(tmp_path, [{"prompt": "one"}, row])
    with pytest.raises(UserError, match=f"^{path}, row 2: {message}"):
        read(path)


def test_other_columns_can_be_named(tmp_path):
    path = write(tmp_path, [{"q": "one", "kind": "A"}, {"q": "two", "kind": "B"}])
    prompts, _ = read(path, prompt_column="q", category_column="kind")
    assert [(p.turns[0].content, p.category) for p in prompts] == [("one", "A"), ("two", "B")]


def test_lines_lists_gzip_byte_order_marks_and_folders_hold_the_same(tmp_path):
    rows = [{"prompt": "naïve {x}"}, {"prompt": "two"}, {"prompt": "three"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    contents = {
        "a.jsonl": lines,
        "b.jsonl": b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n\r\n"),
        "c.jsonl.gz": gzip.compress(lines, mtime=0),
        "d.json": json.dumps(rows, indent=2).encode(),
        "e.json": lines,
        "f.json.gz": gzip.compress(json.dumps(rows).encode()),
        "g.jsonl.xz": lzma.compress(lines),
    }
    expected = None
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        prompts, account = read(tmp_path / name)
        assert account.read == account.kept == 3
        expected = expected or prompts
        assert prompts == expected
    together, account = read(tmp_path)
    assert together == expected and account.read == 21 and account.dropped == {"duplicate prompt": 18}


def test_the_fingerprint_follows_the_content_and_not_the_name(tmp_path):
    a, b = write(tmp_path, [{"prompt": "a"}], "a.jsonl"), write(tmp_path, [{"prompt": "a"}], "b.jsonl")
    assert fingerprint(str(a)) == fingerprint(str(b))
    write(tmp_path, [{"prompt": "c"}], "b.jsonl")
    assert fingerprint(str(a)) != fingerprint(str(b))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"", ": the file is empty"),
        ("x.jsonl", b" \n\n", ": the file is empty"),
        ("x.jsonl", b'{"prompt": "a"}\n\n{"prompt": ', ", row 3: not JSON"),
        (
            "x.jsonl",
            b'{"prompt": "a"}\n{"prompt": "b", "prompt": "c"}',
            ", row 2: the key 'prompt' twice in one object",
        ),
        ("x.json", b'[{"m": [{"role": "user", "role": "x"}]}]', ": the key 'role' twice in one object"),
        ("x.jsonl", '{"prompt": "a"}\n{"prompt": "naïve"}\n'.encode("latin-1"), ", row 2: not UTF-8"),
        ("x.json", b'{\n"prompt": "a"\n}\n', ": an object over several lines; write each on one line"),
        ("x.json", b'[\n{"prompt": "a"},\n{"prompt" "b"}]', ", line 3: not JSON"),
        ("x.json", '[\n{"prompt": "naïve"}]'.encode("latin-1"), ", line 2: not UTF-8"),
        (
            "x.jsonl.gz",
            gzip.compress(b'{"prompt": "a"}\n' * 99, mtime=0)[:-9],
            ": the gzip data is damaged or cut short",
        ),
        ("x.jsonl.gz", b"\x1f\x8bnot gzip at all", ": the gzip data is damaged or cut short"),
        ("x.jsonl", b'{"prompt": ' + b"[" * 200_000, ", row 1: n"),
        ("x.jsonl.xz", lzma.compress(b'{"prompt": "a"}\n' * 99)[:-9], ": the xz data is damaged or cut short"),
        ("x.parquet", b"PAR1", ": not a readable Parquet file"),
        ("x.txt", b"a", ": expected a file that ends in"),
    ],
)
def test_an_unreadable_file_gives_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}{message}") and "\n" not in str(caught.value)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=f"^{tmp_path}/none.jsonl: no such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=f"^{tmp_path}: the folder holds no .jsonl"):
        read(tmp_path)


def test_a_locked_file_is_named(tmp_path, monkeypatch):
    path = write(tmp_path, [{"prompt": "a"}])

    def locked(self, mode):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", locked)
    with pytest.raises(UserError, match=rf"^{path}: cannot be read \(Permission denied\)"):
        read(path)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
@pytest.mark.parametrize("line", [b"{", b"\xff", b"1"])
def test_where_a_packed_file_is_damaged_that_is_said_and_not_what_its_rows_then_are(tmp_path, pack, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(pack(b'{"prompt": "a"}\n' + line + b"\n" + bytes(range(256)) * 400)[:-4])
    with pytest.raises(UserError, match=rf"^{path}: the (gzip|xz) data is damaged or cut short; copy the file again$"):
        list(rows_of(path))


def test_hidden_files_of_a_folder_are_not_read(tmp_path):
    """A notebook's checkpoint of an older file would bring back rows that were deleted."""
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n')
    before = fingerprint(str(tmp_path))
    for place in (".ipynb_checkpoints/a-checkpoint.jsonl", ".old.jsonl", "in/.x/b.jsonl"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("rubbish")
    assert files_of(str(tmp_path)) == [tmp_path / "a.jsonl"] and fingerprint(str(tmp_path)) == before
