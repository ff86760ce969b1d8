"""mode=reward: a reward model of people's pairs, by which other runs on the same base are measured.

It is an adapter and a linear head, trained on the human pairs of the validation prompts and tested on those of the test
prompts: a run with the same data options trains on neither and learns from no prompt that the reward model knows. The
folder `reward/` holds the two, the settings by which prompts are written, what is known of it (reward.json) and a card;
metrics=[trained_reward] reads it. The longer answer stands beside its accuracy as a control.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml
from huggingface_hub import ModelCardData
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from dlma import files, pipeline, records
from dlma.config.build import build, resolved, scientific
from dlma.config.run_names import run_folder
from dlma.config.schema import Component
from dlma.context import RunContext
from dlma.data.text import prompt_id
from dlma.errors import UserError
from dlma.metrics.summary import Row
from dlma.metrics.trained_reward import ABOUT, SETTINGS, About
from dlma.modes import agreement
from dlma.modes.cards import CONTENT, page
from dlma.records import Pair, Prompt
from dlma.report.markdown import code, fenced
from dlma.runs.folder import REWARD
from dlma.runs.publish import publish_tree
from dlma.screen import Console
from dlma.statistics.format import number
from dlma.store.stage import Stage

TEST, TITLE = "test", "Reward model of people's pairs"
NEEDED = ("seed", "data", "prompts", "recipe", "model", "reward")  # of the settings


def run(cfg: DictConfig, /, *, split: Literal["validation", "train"], nodes: dict[str, Component]) -> dict:
    """The reward model and its accuracy on held-out pairs.

    split: whose prompts' pairs it learns from; nodes: what stands in place of reward= and pairs=
    """
    cell = RunContext(OmegaConf.create({**resolved(cfg), **nodes}), run_folder())
    if cell.spec.lora is None:
        raise UserError("mode=reward: trains an adapter and a head: recipe=small_lora or adapter=lora")
    if cfg.scored.path or cell.cfg.pairs.path:
        raise UserError("mode=reward: reads the pairs that come with the prompts of data=, so that splits keep apart")
    pipeline.instruction_tune(cell)
    prompts = pipeline.read_prompts(cell)
    learned, held_out = (human_pairs(cell, prompts, one) for one in (split, TEST))
    trained = learn(cell, learned, prompts)
    rewarded = agreement.reward_pairs(cell, trained, held_out)
    rows = agreement.report(cell, agreement.Asked(prompts, held_out, {}, rewarded, {}), None, [])
    made = keep(cell, trained, rewarded, rows)
    folder = publish_tree(made, REWARD, cell.folder / REWARD)
    _say(About.read(folder), folder)
    return {"counts": cell.store.counts, "summary": [row.as_dict() for row in rows], "run_dir": str(cell.folder)}


def human_pairs(cell: RunContext, prompts: Stage, split: str) -> Stage:
    """The human pairs of a split; raises UserError where there is none."""
    rows = records.from_table(Prompt, prompts.table())
    if any(row.split == split and None not in (row.chosen, row.rejected) for row in rows):
        contexts = pipeline.render(cell, prompts, split, human=split)
        pairs = pipeline.make_pairs(cell, contexts, contexts)
        if pairs.table().num_rows:
            return pairs
    raise UserError(f"mode=reward: no {split} prompt with a usable human pair: other data=, or a larger share of them")


def learn(cell: RunContext, pairs: Stage, prompts: Stage) -> Stage:
    """The reward model of human pairs: people's choice is the label, without a margin."""

    def write(folder: Path) -> dict:
        from dlma.pairs.sampled import usable
        from dlma.scorer.construction import with_margin

        rows, _ = usable(records.from_table(Pair, pairs.table()))
        reference = (math.nan, math.nan)  # not computed: no reward model asks for it
        chosen = [with_margin(pair, *reference, 0.0, "positive") for pair in rows]
        labelled, account = build(cell.cfg.labels).apply(chosen)
        rule = build(cell.cfg.reward, cell.trainee())
        rule.fit(labelled, cell.runtime, folder, lambda row: None)
        texts = {row.id: prompt_id(row.turns) for row in prompts.rows(Prompt)}
        known = sorted({texts[pair.prompt_id] for pair in labelled})
        return {"account": dataclasses.asdict(account), "engine": rule.report(), "learned": known}

    key = {**scientific(cell.cfg.reward), **cell.training}
    return cell.make(cell.store.stage("reward", key, uses=[pairs]), write)


def keep(cell: RunContext, trained: Stage, rewarded: Stage, rows: Sequence[Row]) -> Stage:
    """The folder to hand out: adapter, head, settings, what is known of them, and a card."""
    found = {row.metric: row.estimate for row in rows}
    right = found["agreement/reward"]
    about = About(
        base=cell.frozen.source or cell.frozen.name,
        weights=cell.base_hashes(),
        data=cell.settings["data"].get("path") or "the built-in data",
        pairs=rewarded.table().num_rows,
        accuracy=right.value,
        low=right.low,
        high=right.high,
        longer=found["agreement/longer"].value,
        learned=trained.notes["learned"],
    )

    def write(folder: Path) -> dict:
        target, settings = folder / REWARD, {name: cell.recorded[name] for name in NEEDED}
        target.mkdir(exist_ok=True)
        for file in sorted(trained.path(REWARD).glob("*")):
            if file.suffix == ".safetensors" or file.name == "adapter_config.json":
                shutil.copyfile(file, target / file.name)
        files.write_json(target / ABOUT, dataclasses.asdict(about))
        files.write_bytes(target / SETTINGS, yaml.safe_dump(settings, sort_keys=False).encode())
        files.write_bytes(target / "README.md", card(about, settings).encode())
        return {}

    return cell.make(cell.store.stage("reward_model", {}, uses=[trained, rewarded]), write)


def card(about: About, settings: dict) -> str:
    """README.md of a trained reward model."""
    head = ModelCardData(library_name="peft", tags=["dlma", "reward-model"], model_name=TITLE)
    said = (
        f"A LoRA adapter and a linear head on {code(about.base)}: the reward of an answer is the head's output at its "
        f"last token. Trained with dlma (mode=reward) on the human pairs of {len(about.learned):,} prompts of "
        f"{code(about.data)}."
    )
    longer = number(about.longer, "share")
    tested = (
        f"The preferred answer has the larger reward in {about.held_out} pairs of other prompts (with its 95 % "
        f"interval); the longer answer, equal lengths as half, is the preferred one in {longer} of them. Rewards of "
        "answers to one prompt can be compared; their zero is the mean of the answers that it learned from."
    )
    use = fenced("metrics=[text,trained_reward] metrics.trained_reward.path=FOLDER", "text")
    kept = f"`{ABOUT}`: the hash of the base's weights, and the ids (hashes) of the prompts that it learned from."
    rule = {"seed": settings["seed"], "lora": settings["model"]["lora"], "reward": settings["reward"]}
    shown = fenced(yaml.safe_dump(rule, sort_keys=False).rstrip(), "yaml")
    parts = [said, CONTENT, "## Held-out accuracy", tested, "## Use", use, kept, "## Settings", shown]
    return page(head, TITLE, parts)


def _say(about: About, folder: Path) -> None:
    console = Console()
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
    console.print(f"learned from the pairs of {len(about.learned):,} prompts; adapter and head: {size:.2f} MB")
    console.print(escape(f"use: metrics=[text,trained_reward] metrics.trained_reward.path={folder}"))
