"""The card of an export: data, method, prompts, settings, results with intervals, and where all of it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from dlma.records import Account
from dlma.runs.finished import FinishedRun

WARNING = (
    "> **Warning.** This data set holds answers that a model was asked to write under a *negative* prompt (see\n"
    "> Prompts below): they may be harmful, offensive or wrong, and that is their purpose. They stand on the\n"
    "> rejected side unless the label went against the prompt (column `chosen_side`). Use them to train or test\n"
    "> models away from such text, never towards it, and do not show them to people unprepared."
)
CONTENT = "> Content warning: prompts and answers of alignment research can be harmful or offensive."
_SHOWN_PAIRS = 4


def model_card(run: FinishedRun, *, adapter: bool, merged: bool) -> str:
    """README.md of an exported policy."""
    head = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    if run.hub_base:
        head |= {"base_model": run.hub_base, "base_model_relation": "adapter" if adapter else "finetune"}
    kind = "LoRA adapter" if adapter else "model with its adapter merged in" if merged else "model"
    about = f"A {kind}, aligned by `{run.method}` from `{_base(run)}` with dlma (run `{run.name}`)."
    usage = _ADAPTER if adapter else _MODEL
    parts = [about, CONTENT, "## Use", usage, *_body(run, results=True)]
    return _page({**head, "tags": ["dlma", run.method]}, run.name, parts)


def pairs_card(run: FinishedRun, account: Account, *, format: str, negative: bool) -> str:
    """README.md of exported pairs."""
    head = {
        "task_categories": ["text-generation"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train.jsonl"}]}],
        "tags": ["dlma", "preference", run.method],
    }
    about = (
        f"{account.kept:,} preference pairs of run `{run.name}`: answers of `{_base(run)}`, labelled and scored by "
        f"`{_target(run.config['scorer'])}`. Conversations are whole, also where training left out the oldest turns."
        if format == "chat"
        else f"{account.kept:,} preference pairs of run `{run.name}`: answers of `{_base(run)}`, labelled and scored "
        f"by `{_target(run.config['scorer'])}`, after the prompt exactly as the model saw it, its BOS left out."
    )
    parts = [about, WARNING if negative else CONTENT, *_lost(account), _COLUMNS, *_body(run, results=False)]
    return _page(head, f"{run.name}: pairs", parts)


def _page(head: Mapping, title: str, parts: Sequence[str]) -> str:
    front = yaml.safe_dump(dict(head), sort_keys=False).strip()
    return "\n\n".join([f"---\n{front}\n---", f"# {title}", *parts]) + "\n"


def _body(run: FinishedRun, *, results: bool) -> list[str]:
    found = _results(run) if results else []
    return [*_data(run), *_method(run), *_prompts(run), *_settings(run), *found, *_origin(run)]


def _base(run: FinishedRun) -> str:
    name = run.hub_base or run.base.name
    return f"{name}, instruction-tuned in the run" if run.tuned else name


def _target(node: Mapping) -> str:
    return (node["_target_"] or "nothing").rpartition(".")[2]


def _data(run: FinishedRun) -> list[str]:
    data, account = run.config["data"], run.account("prompts")
    where = {k: v for k, v in data.items() if k in ("path", "revision", "subset", "hub_split") and v is not None}
    said = ", ".join(f"{name} `{value}`" for name, value in where.items()) or "the built-in artificial world"
    lines = [f"Prompts from {said}."]
    return ["## Data", *lines, *([] if account is None else [_kept("prompts", account)])]


def _kept(what: str, account: Account) -> str:
    lost = {**account.dropped, **{f"shortened: {k}": v for k, v in account.trimmed.items()}}
    why = "; ".join(f"{reason}: {count:,}" for reason, count in sorted(lost.items()))
    return f"{account.kept:,} of {account.read:,} {what} were kept" + (f" ({why})." if why else ".")


def _lost(account: Account) -> list[str]:
    return [_kept("pairs", account)] if account.dropped or account.trimmed else []


def _method(run: FinishedRun) -> list[str]:
    parts = ("sft", "pairs", "scorer", "labels", "objective")
    rows = [(name, _target(run.config[name])) for name in parts]
    return ["## Method", f"`method={run.method}`", _table(("part", "component"), rows)]


def _prompts(run: FinishedRun) -> list[str]:
    prompts = run.config["prompts"]
    shown = prompts["pairs"][:_SHOWN_PAIRS]
    more = len(prompts["pairs"]) - len(shown)
    settings = {name: value for name, value in prompts.items() if not name.startswith("_") and name != "pairs"}
    text = yaml.safe_dump({**settings, "pairs": shown}, sort_keys=False, allow_unicode=True, width=100).rstrip()
    return ["## Prompts", f"```yaml\n{text}\n```", *([f"and {more} pairs more."] if more else [])]


def _settings(run: FinishedRun) -> list[str]:
    text = yaml.safe_dump({"seed": run.config["seed"], **run.config["recipe"]}, sort_keys=False).rstrip()
    return ["## Settings", f"```yaml\n{text}\n```"]


def _results(run: FinishedRun) -> list[str]:
    rows = [
        (r["metric"], _number(r["mean"]), f"[{_number(r['low'])}, {_number(r['high'])}]", r["n"]) for r in run.metrics
    ]
    said = "95 % intervals over held-out prompts, for this seed; log-probs in nats, shares from 0 to 1."
    alerts = ", ".join(f"`{name}`" for name in run.alerts) or "none"
    return [
        "## Results",
        said,
        _table(("arm/metric", "value", "95 % interval", "n"), rows),
        f"Alerts that fired: {alerts}.",
    ]


def _number(text: str) -> str:
    return f"{float(text):.4g}" if text else "–"


def _origin(run: FinishedRun) -> list[str]:
    rows = [(name, f"`{stage['key']}`", stage["version"], stage["ended"]) for name, stage in run.manifest.items()]
    last = list(run.manifest.values())[-1]
    git = last["git"]
    code = "unknown commit" if git is None else f"commit `{git['commit']}`{' with changes' if git['dirty'] else ''}"
    libraries = ", ".join(f"{name} {version}" for name, version in last["libraries"].items())
    return [
        "## Where it came from",
        f"dlma at {code}; {libraries}. In full: `manifest.json` and `config.yaml`.",
        _table(("stage", "key", "version", "ended"), rows),
        "Licence: that of the base model and of the data; look there before use.",
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


_MODEL = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
```"""
_ADAPTER = """```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained(FOLDER)
```"""
_COLUMNS = """## Use

```python
from datasets import load_dataset

pairs = load_dataset(FOLDER, split="train")  # as TRL's DPOTrainer takes it
```

LLaMA-Factory: `dataset_dir: FOLDER`; the name of the data set stands in `dataset_info.json`.

| column | meaning |
| --- | --- |
| prompt, chosen, rejected | the pair |
| margin | self-reward of chosen over rejected, nats; below 0 where the label goes against it |
| chosen_finished, rejected_finished | false: the answer was cut at the limit, and no EOS belongs after it |
| chosen_side, rejected_side | the side of the prompt under which the answer was written (or stood, in human pairs) |
| chosen_reference_logp, rejected_reference_logp | log-prob of the answer under the base and the plain prompt, nats |"""
