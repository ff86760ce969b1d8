"""A dry run: walks the pipeline without computing, and lists which stages exist and which would have to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from dlma import pipeline, records
from dlma.config.build import build
from dlma.context import RunContext
from dlma.cost.flops import work_of
from dlma.errors import UserError
from dlma.model import compute_dtype, gguf
from dlma.model.compute_dtype import Choice
from dlma.model.load import Lora, ModelSpec, at_hand
from dlma.records import Context, Pair, Prompt
from dlma.runs import settled
from dlma.store.stage import Stage

HERE = "here"  # mode.device: this machine
SIDES = ("plain", "positive", "negative")
_RENDERED = 5000  # prompts whose lengths are looked at; with more, the longest is taken to be the limit
_HELD_OUT = 0.1  # of the training prompts, where both are only counted


@dataclass(frozen=True)
class Length:
    """Tokens, on average and at most."""

    mean: float
    most: int


@dataclass(frozen=True)
class Sizes:
    """What a run works on: prompts of each split, contexts by side, answers; `source` says how they are known."""

    train: int
    held_out: int
    contexts: dict[str, Length]
    answer: Length
    source: str


class DryRunContext(RunContext):
    """A cell whose stages are looked up by key and never made.

    A model that is not here is known by its name alone, a GGUF file that was not dequantised by its header.

    prompts, held_out: their number, where the data are not to be read
    """

    makes_stages = False

    def __init__(self, cfg: DictConfig, *, prompts: int | None, held_out: int | None) -> None:
        self.folder_here = at_hand(cfg.model)
        self.file = gguf.file_of(cfg.model)
        super().__init__(cfg, Path("."))
        self.counts = None if prompts is None else (prompts, held_out or max(1, round(_HELD_OUT * prompts)))
        if self.folder_here is not None and "path" in cfg.model and self.file is None:
            cfg.model.path = str(self.folder_here)

    def _settle(self) -> str:
        return settled.settle(self.cfg, self._choose_dtype, None, "")

    def _choose_dtype(self) -> Choice:
        """As a run would choose here; for another device, what a device of today has."""
        if self.setting("model.lora", None) is None:
            return compute_dtype.ALL_TRAINED
        if self.setting("mode.device", HERE) != HERE:
            return compute_dtype.of_device(True)
        if self.folder_here is None:
            return Choice("float32", f"{compute_dtype.AUTO}: not timed, the weights are not on this machine")
        return super()._choose_dtype()

    def setting(self, key: str, default: object) -> Any:
        """A value that only some components have."""
        return OmegaConf.select(self.cfg, key, default=default)

    def make(self, stage: Stage, write, *, together: bool = False) -> Stage:
        return stage

    def notes(self, stage: Stage) -> dict:
        """What the policy's stage notes down, or would."""
        objective = self.cfg.objective
        foreseen = {
            "side": self.setting("objective.side", "plain"),
            "samples": self.setting("objective.samples", 1),
            "trained": work_of(objective).get("kind") != "none",
        }
        return stage.notes if stage.done else foreseen

    @cached_property
    def spec(self) -> ModelSpec:
        if self.folder_here is not None:
            return super().spec
        lora = self.setting("model.lora", None)
        place = Path(self.cfg.model.path) if self.file is None else gguf.outline(self.file, f"{self.file}")
        return ModelSpec(
            name=place.name if self.file is None else self.file.stem,
            folder=place,
            dtype=self.cfg.model.dtype,
            trust_remote_code=self.setting("model.trust_remote_code", False),
            why=self.why_dtype,
            chat=self.setting("model.chat", None),
            lora=None if lora is None else Lora(**cast(dict, OmegaConf.to_container(lora, resolve=True))),
        )

    @cached_property
    def format(self) -> str:
        if self.folder_here is not None:
            return super().format
        return "chat" if self.spec.chat else "template"

    @cached_property
    def weights(self) -> dict:
        if self.folder_here is not None and self.store.root.is_dir():
            return super().weights
        if self.folder_here is not None:  # no store, so no memory of fingerprints, and nothing to be found
            return {"weights": [str(self.folder_here)], "dtype": self.frozen.dtype}
        return {"weights": ["not here"], "dtype": self.spec.dtype}

    @cached_property
    def data(self):
        if self.counts is None:
            return build(self.cfg.data)
        unread = {"on_bad_row": "drop", "max_dropped": 1.0, "fingerprint": lambda: "not read"}
        return SimpleNamespace(**unread)

    def sizes(self, stages: dict[str, Stage], answer_tokens: int | None) -> Sizes:
        """The numbers and lengths of prompts and answers: from the store, from the data, or the recipe's limits."""
        answer, known = self._answers(stages, answer_tokens)
        if self.counts is not None:
            limit = self.cfg.recipe.max_prompt_tokens
            contexts = dict.fromkeys(SIDES, Length(limit, limit))
            return Sizes(*self.counts, contexts, answer, f"prompts at the limit, not read; answers {known}")
        if stages["contexts"].done and stages["held_out"].done:
            rows = _read(stages["contexts"], Context)
            train, contexts = len(rows), _lengths(rows)
            held_out, how = len(_read(stages["held_out"], Context)), "in the store"
        else:
            (train, contexts), held_out, how = self._rendered()
        return Sizes(train, held_out, contexts, answer, f"prompts {how}; answers {known}")

    def _rendered(self) -> tuple[tuple[int, dict[str, Length]], int, str]:
        """Training prompts with their lengths, and held-out ones, read from the data."""
        from dlma.prompts.contexts import render_contexts

        found = list(self.data.read()[0])
        train = [row for row in found if row.split == "train"]
        held_out = sum(row.split == self.cfg.evaluation.split for row in found)
        limit = self.cfg.recipe.max_prompt_tokens
        limits = {"seed": self.cfg.seed, "max_prompt_tokens": limit, "on_bad_row": "drop", "max_dropped": 1.0}
        shown: Sequence[Prompt] = train[:_RENDERED]
        rows, _ = render_contexts(shown, self.spec.tokenizer, self.wording, **limits)
        contexts = _lengths(rows)
        if len(train) > len(shown):
            contexts = {side: Length(length.mean, limit) for side, length in contexts.items()}
        return (round(len(train) * len(rows) / max(1, len(shown))), contexts), held_out, "as read"

    def _answers(self, stages: dict[str, Stage], given: int | None) -> tuple[Length, str]:
        limit = self.cfg.recipe.max_new_tokens
        if given is not None and given > limit:
            raise UserError(f"mode.answer_tokens={given}: answers end at recipe.max_new_tokens={limit}: raise that too")
        if given is not None:
            return Length(given, limit), "as given"
        if stages["pairs"].done:
            lengths = [
                len(ids) for pair in _read(stages["pairs"], Pair) for ids in (pair.positive_ids, pair.negative_ids)
            ]
            if lengths:
                return Length(sum(lengths) / len(lengths), max(lengths)), "in the store"
        return Length(limit, limit), "at the limit"


def planned_stages(cell: DryRunContext) -> dict[str, Stage]:
    """The stages of a run by what they are for, none of them made; those of later rounds are numbered."""
    named: dict[str, Stage] = {}
    for part in pipeline.stages(cell):
        rounds = part if isinstance(part, list) else [part]
        for number, stages in enumerate(rounds, 1):
            for name, stage in ((name, _counted(stage)) for name, stage in stages.items()):
                if stage.folder not in {known.folder for known in named.values()}:
                    named[name if name not in named else f"{name} {number}"] = stage
    return named


def _counted(stage: Stage) -> Stage:
    """Of a policy at a KL that is not chosen yet the training, which all targets share: the looks are left out."""
    below = [used for used in stage.uses if used.name == stage.name == "policy"]
    return below[0] if below and not stage.done else stage


def _lengths(rows: Sequence[Context]) -> dict[str, Length]:
    found = {}
    for side in SIDES:
        lengths = [len(getattr(row, f"{side}_ids")) for row in rows] or [1]
        found[side] = Length(sum(lengths) / len(lengths), max(lengths))
    return found


def _read(stage: Stage, record: type) -> list:
    return records.from_table(record, stage.table())
