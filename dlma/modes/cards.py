"""Cards of an export: data, method, prompts, settings, results with intervals, and where all of it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from huggingface_hub import CardData, DatasetCardData, EvalResult, ModelCardData

from dlma.errors import UserError
from dlma.modes.preferences import TRL
from dlma.records import Account
from dlma.report.markdown import code, fenced, plain, table
from dlma.runs.finished import FinishedRun
from dlma.store.owned import MANIFEST

WARNING = (
    "> **Warning.** This data set holds answers that a model was asked to write under a *negative* prompt (see\n"
    "> Prompts below): they may be harmful, offensive or wrong, and that is their purpose. They stand on the\n"
    "> rejected side unless the label went against the prompt. Use them to train or test\n"
    "> models away from such text, never towards it, and do not show them to people unprepared."
)
CONTENT = "> Content warning: prompts and answers of alignment research can be harmful or offensive."
ALIGNED = "aligned"
_WORLD = "built-in artificial world"
_BUILT_IN = {"LabPrompts": _WORLD, "LabRows": _WORLD, "Requests": "built-in grammar of writing requests"}
_SHOWN_PAIRS = 4


def model_card(run: FinishedRun, *, adapter: bool, merged: bool) -> str:
    """README.md of an exported policy."""
    relation: dict[str, Any] = {"base_model_relation": "adapter" if adapter else "finetune"} if run.hub_base else {}
    head = ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        base_model=run.hub_base,
        tags=list(dict.fromkeys(["dlma", run.method])),
        model_name=run.name,
        eval_results=_measured(run),
        **relation,
    )
    kind = "LoRA adapter" if adapter else "model with its adapter merged in" if merged else "model"
    about = f"A {kind}, aligned by {code(run.method)} from {code(_base(run))} with dlma (run {code(run.name)})."
    usage = _MODEL if not adapter else _ADAPTER_WITH_ENDS if _names_ends(run) else _ADAPTER
    parts = [about, CONTENT, "## Use", usage, *_body(run, results=True)]
    return page(head, run.name, parts)


def _names_ends(run: FinishedRun) -> bool:
    """Whether an adapter comes with ends of answers that its base does not know."""
    return (run.policy / "generation_config.json").is_file()


def pairs_card(run: FinishedRun, account: Account, changed: int, *, format: str, negative: bool) -> str:
    """README.md of exported pairs; changed: how many of them this tokenizer encodes to other ids than were used."""
    head = DatasetCardData(
        task_categories=["text-generation"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": TRL}]}],
        tags=list(dict.fromkeys(["dlma", "preference", run.method])),
    )
    name, base, scorer = map(code, (run.name, _base(run), _target(run.last("scorer"))))
    whose = base if run.rounds == 1 else f"the policy of round {run.rounds - 1}, trained from {base},"
    about = f"{account.kept:,} preference pairs of run {name}: answers of {whose} labelled and scored by {scorer}" + (
        ". Conversations are whole, also where training left out the oldest turns."
        if format == "chat"
        else ", after the prompt exactly as the model saw it, without the BOS that its tokenizer adds."
    )
    back = (
        f"Encoded again by the model's tokenizer, {account.kept - changed:,} of {account.kept:,} pairs have the token "
        "ids that were scored and trained on."
    )
    columns = _COLUMNS.format(margin=_margin(run), reference=_reference(run))
    columns = f"{columns}\n{_SIDES}" if run.sides in SIDED else columns
    parts = [about, WARNING if negative else CONTENT, *_lost(account), back, columns, *_body(run, results=False)]
    return page(head, f"{run.name}: pairs", parts)


def _margin(run: FinishedRun) -> str:
    """What the margin of a pair is."""
    scorer = run.last("scorer")
    is_reward = ".self_reward" in scorer["_target_"] or scorer.get("margin") == "self_reward"
    return "self-reward of chosen over rejected, nats" if is_reward else "what the scorer gives chosen over rejected"


def _reference(run: FinishedRun) -> str:
    """Under which model the reference's log-probs are."""
    frozen = (run.config.get("iteration") or {}).get("reference") == "frozen"
    return "the base" if run.rounds == 1 or frozen else "the policy that the last round began with"


def _measured(run: FinishedRun) -> list[EvalResult]:
    """What was measured of the aligned answers, with n and 95 % interval, as the hub's `model-index`."""
    data = _named(run.config["data"])
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=data,
            dataset_name=f"held-out prompts of {data}",
            metric_type=row["metric"].removeprefix(f"{ALIGNED}/"),
            metric_value=float(row["mean"]),
            metric_args={"n": int(row["n"])} | {end: float(row[end]) for end in ("low", "high") if row[end]},
        )
        for row in run.metrics
        if row["metric"].startswith(f"{ALIGNED}/") and row["mean"]
    ]


def page(head: CardData, title: str, parts: Sequence[str]) -> str:
    """A card: its metadata, a title, and paragraphs."""
    return "\n\n".join([f"---\n{head.to_yaml().strip()}\n---", f"# {plain(title)}", *parts]) + "\n"


def _body(run: FinishedRun, *, results: bool) -> list[str]:
    found = _results(run) if results else []
    return [*_data(run), *_method(run), *_prompts(run), *_settings(run), *found, *_origin(run)]


def _base(run: FinishedRun) -> str:
    name = run.hub_base or run.base.title
    return f"{name}, instruction-tuned in the run" if run.tuned else name


def _target(node: Mapping) -> str:
    return (node["_target_"] or "nothing").rpartition(".")[2]


def _named(data: Mapping) -> str:
    """Where prompts are from: a path, a wheel of the package index, or a component's own world."""
    if "wheel" in data:
        return f"wheel {data['wheel']['name']}=={data['wheel']['version']}"
    return str(data.get("path") or _BUILT_IN.get(_target(data), _target(data)))


def _data(run: FinishedRun) -> list[str]:
    data, account = run.config["data"], run.account("prompts")
    where = {k: v for k, v in data.items() if k in ("path", "revision", "subset", "hub_split") and v is not None}
    said = ", ".join(f"{name} {code(str(value))}" for name, value in where.items()) or f"the {_named(data)}"
    lines = [f"Prompts from {said}."]
    return ["## Data", *lines, *([] if account is None else [_kept("prompts", account)])]


def _kept(what: str, account: Account) -> str:
    lost = {**account.dropped, **{f"shortened: {k}": v for k, v in account.trimmed.items()}}
    why = "; ".join(f"{plain(reason)}: {count:,}" for reason, count in sorted(lost.items()))
    return f"{account.kept:,} of {account.read:,} {what} were kept" + (f" ({why})." if why else ".")


def _lost(account: Account) -> list[str]:
    return [_kept("pairs", account)] if account.dropped or account.trimmed else []


def _method(run: FinishedRun) -> list[str]:
    parts = ("sft", "pairs", "scorer", "labels", "objective")
    rows = [(name, _target(run.config[name])) for name in parts]
    return ["## Method", code(f"method={run.method}"), table(("part", "component"), rows)]


def _prompts(run: FinishedRun) -> list[str]:
    prompts = run.prompt_settings
    shown = prompts["pairs"][:_SHOWN_PAIRS]
    more = len(prompts["pairs"]) - len(shown)
    settings = {name: value for name, value in prompts.items() if not name.startswith("_") and name != "pairs"}
    text = yaml.safe_dump({**settings, "pairs": shown}, sort_keys=False, allow_unicode=True, width=100).rstrip()
    return ["## Prompts", fenced(text, "yaml"), *([f"and {more} pairs more."] if more else [])]


def _settings(run: FinishedRun) -> list[str]:
    text = yaml.safe_dump({"seed": run.config["seed"], **run.config["recipe"]}, sort_keys=False).rstrip()
    return ["## Settings", fenced(text, "yaml")]


def _results(run: FinishedRun) -> list[str]:
    rows = [
        (plain(r["metric"]), _number(r["mean"]), f"[{_number(r['low'])}, {_number(r['high'])}]", r["n"])
        for r in run.metrics
    ]
    said = "95 % intervals over held-out prompts, for this seed; log-probs in nats, shares from 0 to 1."
    alerts = ", ".join(code(name) for name in run.alerts) or "none"
    return [
        "## Results",
        said,
        table(("arm/metric", "value", "95 % interval", "n"), rows),
        f"Alerts that fired: {alerts}.",
    ]


def _number(text: str) -> str:
    return f"{float(text):.4g}" if text else "–"


_TOLD = {"key", "version", "ended", "git", "libraries"}  # of each stage in manifest.json


def _origin(run: FinishedRun) -> list[str]:
    if not run.manifest or not all(stage.keys() >= _TOLD for stage in run.manifest.values()):
        raise UserError(f"{run.folder / MANIFEST}: does not say where each stage came from; run its command again")
    rows = [
        (plain(name), code(stage["key"]), str(stage["version"]), stage["ended"]) for name, stage in run.manifest.items()
    ]
    last = list(run.manifest.values())[-1]
    git = last["git"]
    origin = "unknown commit" if git is None else f"commit `{git['commit']}`{' with changes' if git['dirty'] else ''}"
    libraries = ", ".join(f"{name} {version}" for name, version in last["libraries"].items())
    return [
        "## Where it came from",
        f"dlma at {origin}; {libraries}. In full: `manifest.json` and `config.yaml`.",
        table(("stage", "key", "version", "ended"), rows),
        "Licence: that of the base model and of the data; look there before use.",
    ]


_MODEL = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
```"""
_ADAPTER = """```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained(FOLDER)
```"""
_ADAPTER_WITH_ENDS = """```python
from peft import AutoPeftModelForCausalLM
from transformers import GenerationConfig

model = AutoPeftModelForCausalLM.from_pretrained(FOLDER)
model.base_model.model.generation_config = GenerationConfig.from_pretrained(FOLDER)  # ends a turn as the template does
```"""
_COLUMNS = """## Use

```python
from datasets import load_dataset

pairs = load_dataset(FOLDER, split="train")  # as TRL's DPOTrainer takes it
```

LLaMA-Factory: `dataset_dir: FOLDER`; the name of the data set stands in `dataset_info.json`. Pairs of chats also stand
in `openai.jsonl`, as OpenAI's preference tuning reads them.

| column | meaning |
| --- | --- |
| prompt, chosen, rejected | the pair |
| margin | {margin}; below 0 where the label goes against it |
| chosen_finished, rejected_finished | false: the answer was cut at the limit, and no EOS belongs after it |
| chosen_reference_logp, rejected_reference_logp | log-prob of it to the plain prompt under {reference}, nats |"""
_SIDES = (
    "| chosen_side, rejected_side | the side of the prompt under which the answer was written "
    "(or stood, in human pairs) |"
)
SIDED = (("positive", "negative"), ("human", "human"))  # pairs of which the two sides say something
