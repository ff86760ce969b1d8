"""The rehearsal of experiment=first_real: random weights of SmolLM2-135M's exact shape, real prompts, measured.

python experiments/first_real/rehearse.py FOLDER harmless-base/test.jsonl.gz 12 64   # -> results.csv
python experiments/first_real/rehearse.py render                                     # -> README.md, between markers

Builds a model in FOLDER (from its public config, with a byte-level BPE trained on the prompts and filled up to the
same vocabulary), runs the experiment on so many prompts, with so many tokens per answer, in a process of its own, and
notes what each stage took and the most memory that the process held while it ran. Random weights almost never draw an
EOS, so every answer has its full length: the figures are those of the worst case. Linux only.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from dlma.sweep.results import Result, by_row, read_csv, write_csv

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# The public config.json of HuggingFaceTB/SmolLM2-135M, whose exact name for each value is transformers' own.
SHAPE = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
PARAMETERS = 134_515_008  # of that shape; held by a test
README, RESULTS = HERE / "README.md", HERE / "results.csv"
BASE = "SmolLM2-135M"  # its shape
COLUMNS = ("rows", "wall_s", "cpu_s", "peak_mb", "sampled_tokens", "engine_tokens")
TICKS = os.sysconf("SC_CLK_TCK")


def build(folder: Path, prompts: Path) -> None:
    """The model and tokenizer, in Hugging Face format; nothing is done where they lie already."""
    if (folder / "model.safetensors").is_file():
        return
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    network = LlamaForCausalLM(LlamaConfig(**SHAPE))
    network.save_pretrained(folder)
    tokenizer(prompts).save_pretrained(folder)


def tokenizer(prompts: Path):
    """A byte-level BPE of the prompts' text, as many tokens as it yields, the rest filled up."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    with gzip.open(prompts, "rt") as lines:
        texts = [json.loads(line)["chosen"] for line in lines]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    end, alphabet = "<|endoftext|>", pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=SHAPE["vocab_size"], special_tokens=[end], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(texts, trainer)
    raw.add_tokens([f"<unused {i}>" for i in range(SHAPE["vocab_size"] - raw.get_vocab_size())])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=end, eos_token=end)


class Seen:
    """What was seen of a stage from outside: CPU seconds of the process at first and at last, and its peak bytes."""

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.peak = 0

    def look(self, process: int) -> None:
        """Read /proc once; a process that has just ended changes nothing."""
        try:
            status, stat = (Path(f"/proc/{process}/{name}").read_text() for name in ("status", "stat"))
        except OSError:
            return
        rss = next((line for line in status.splitlines() if line.startswith("VmRSS")), None)
        if rss is not None:
            self.peak = max(self.peak, int(rss.split()[1]) * 1024)
            user, system = stat.rpartition(")")[2].split()[11:13]
            self.cpu.append((int(user) + int(system)) / TICKS)


def run(folder: Path, prompts: Path, count: str, tokens: str) -> dict[str, Seen]:
    """The experiment in a process of its own, each stage watched while its folder is under way."""
    store = folder / "store"
    line = [sys.executable, str(ROOT / "run.py"), "experiment=first_real", f"model.path={folder}"]
    line += [f"data.path={prompts}", f"data.max_prompts={count}", f"store.root={store}", "name=rehearsal"]
    line += [f"recipe.max_new_tokens={tokens}"]
    process = subprocess.Popen([*line, f"hydra.run.dir={folder / 'run'}"])
    seen: dict[str, Seen] = {}
    while process.poll() is None:
        for partial in store.glob("*/*.partial"):
            seen.setdefault(f"{partial.parent.name}/{partial.stem}", Seen()).look(process.pid)
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the run failed with code {process.returncode}")
    return seen


def measured(store: Path, seen: dict[str, Seen]) -> list[Result]:
    """The costs of each stage that took long enough to be seen, in the order in which they were made."""
    folders = [path.parent for path in store.glob("*/*/manifest.json")]
    rows = [(json.loads((folder / "manifest.json").read_text()), folder) for folder in folders]
    rows.sort(key=lambda pair: (pair[0]["started"], pair[0]["ended"]))
    watched = [(m, folder, seen[name]) for m, folder in rows if (name := f"{m['name']}/{m['key']}") in seen]
    return [one for each in watched for one in costs(*each)]


def costs(manifest: dict, folder: Path, seen: Seen) -> list[Result]:
    """Of one stage, named with its arm or split: rows, wall and CPU seconds, peak memory, tokens, where known."""
    values = manifest["values"]
    what = values.get("arm") or values.get("split")
    started, ended = (datetime.fromisoformat(manifest[name]) for name in ("started", "ended"))
    engine = engine_of(manifest["notes"])
    stage = manifest["name"] + (f" ({what})" if what else "")
    numbers = {
        "rows": manifest["files"].get("rows.parquet", {}).get("rows", ""),
        "wall_s": round((ended - started).total_seconds()),
        "cpu_s": round(seen.cpu[-1] - seen.cpu[0]) if seen.cpu else "",
        "peak_mb": round(seen.peak / 1e6),
        "sampled_tokens": sampled(manifest["name"], folder),
        "engine_tokens": engine.get("tokens", ""),
    }
    kept = {name: float(value) for name, value in numbers.items() if value != ""}
    return [Result(BASE, stage, name, 1, value, seeds=(0,), statistic="cost") for name, value in kept.items()]


def sampled(stage: str, folder: Path) -> int | str:
    """How many tokens were drawn in a stage that samples answers."""
    import pyarrow.parquet as pq

    columns = {"pairs": ["positive_ids", "negative_ids"], "answers": ["ids"]}
    if stage not in columns:
        return ""
    table = pq.read_table(folder / "rows.parquet", columns=columns[stage])
    return sum(len(ids) for column in columns[stage] for ids in table[column].to_pylist())


def engine_of(notes: dict) -> dict:
    """The report of the engine that did the stage's work, if one did."""
    report = notes.get("engine") or {}
    return report if "tokens" in report else next(iter(report.values()), {})


def render() -> str:
    """The Markdown of results.csv."""
    heads = ["stage", "rows", "wall, s", "CPU, s", "peak memory, MB", "tokens drawn", "tokens scored or trained on"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for own in by_row(read_csv(RESULTS)).values():
        values = {one.metric: f"{one.value:.0f}" for one in own}
        lines.append([own[0].method, *(values.get(name, "") for name in COLUMNS)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(*words: str) -> None:
    """Build, run, measure and write results.csv; or put what stands there into the README."""
    if words == ("render",):
        page = README.read_text()
        before, rest = page.split("<!-- rehearsal:start -->\n")
        after = rest.partition("\n<!-- rehearsal:end -->")[2]
        README.write_text(f"{before}<!-- rehearsal:start -->\n{render()}\n<!-- rehearsal:end -->{after}")
        return
    folder, prompts, count, tokens = words
    place, source = Path(folder).resolve(), Path(prompts).resolve()
    build(place, source)
    rows = measured(place / "store", run(place, source, count, tokens))
    RESULTS.write_bytes(write_csv(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
