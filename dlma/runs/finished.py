"""Finished runs: config, scored pairs, policy and provenance, read from the run folder."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from omegaconf import DictConfig

from dlma.config.build import build
from dlma.errors import UserError
from dlma.model.load import ModelSpec
from dlma.records import Account, Prompt, ScoredPair
from dlma.runs.folder import POLICY, TUNED, RunFolder

_KEYS = ("seed", "recipe", "model", "sft", "data", "prompts", "pairs", "scorer", "labels", "objective")


class FinishedRun:
    """The folder that a run left; nothing is computed here.

    present: the config of the present command line, for its own components
    trust: it lets code run that comes with the model
    KEYS: what its config must have
    """

    KEYS: ClassVar[tuple[str, ...]] = _KEYS

    def __init__(self, folder: Path, present: DictConfig, *, trust: bool) -> None:
        self.records = RunFolder(folder)
        self.records.need_finished("mode.run")
        self.folder = folder
        self.present = present
        self.trust = trust
        self.recorded = self.records.recorded
        self.recorded.need(*self.KEYS)
        self.config = self.recorded.values
        self.manifest = self.records.manifest()
        self.metrics = self.records.metrics()

    @property
    def name(self) -> str:
        """The folder's name, which says the method and what differs from the defaults."""
        return self.folder.resolve().name

    @property
    def method(self) -> str:
        """The row of conf/method."""
        return self.metrics[0]["method"] if self.metrics else "unknown"

    @property
    def alerts(self) -> list[str]:
        """The names of the alerts that fired."""
        return (self.records.status().get("result") or {}).get("alerts", [])

    def account(self, stage: str) -> Account | None:
        """What a stage read, kept and dropped."""
        found = self.manifest.get(stage, {}).get("notes", {}).get("account")
        return None if found is None else Account(**found)

    def scored(self) -> list[ScoredPair]:
        """The scored pairs."""
        return self.records.scored()

    def prompts(self) -> dict[str, Prompt]:
        """The prompts by id."""
        return {row.id: row for row in self.records.prompts()}

    @property
    def prompt_settings(self) -> dict:
        """The settings of the prompts."""
        return self.recorded.component("prompts", "prompts", chosen=self.present.prompts._target_)

    @property
    def rounds(self) -> int:
        """How many rounds it was to have."""
        return self.config.get("iterations", 1)

    def last(self, name: str) -> dict:
        """The settings of a component in the last round."""
        later = (self.config.get("iteration") or {}).get("later") or {}
        return (later.get(name) if self.rounds > 1 else None) or self.config[name]

    @property
    def sides(self) -> tuple[str, str] | None:
        """Under which sides of the prompt both answers of the last round's pairs were written; None where it varies.

        "human" for answers that were not sampled. Pairs of a file of one's own have those of the pairs they replace.
        """
        pairs = self.last("pairs")
        if str(pairs.get("_target_")).endswith((".HumanPairs", ".NoPairs")):
            return "human", "human"
        one, other = (pairs.get(name, pairs.get("side")) for name in ("first", "second"))
        return None if one is None or other is None else (one, other)

    @property
    def policy(self) -> Path:
        """The folder of the trained model or adapter; raises UserError where there is none."""
        folder = self.records.sound(POLICY)
        if not folder.is_dir():
            raise UserError(
                f"mode.run={self.folder}: it holds no policy: method={self.method} trains none, or "
                "store.keep_policies let it go"
            )
        return folder

    @cached_property
    def wording(self):
        """The prompt wording."""
        return build(self.prompt_settings)

    @property
    def tuned(self) -> bool:
        """Whether the run began with instruction tuning of its own."""
        return TUNED in self.manifest

    @cached_property
    def base(self) -> ModelSpec:
        """The model that was aligned, in full precision."""
        return self._base(bits=None)

    def _base(self, **changes: object) -> ModelSpec:
        node = self.recorded.model(trust=self.trust, chosen=self.present.model._target_, **changes)
        spec = dataclasses.replace(build(node), lora=None)
        return spec.trained(self.records.sound(TUNED)) if self.tuned else spec

    @property
    def hub_base(self) -> str | None:
        """The base's name on the hub, if it came from there and was not tuned first."""
        path = self.recorded.component("model", "model", chosen=self.present.model._target_).get("path")
        if path is None or self.tuned or Path(path).expanduser().exists() or path.count("/") != 1:
            return None
        return None if path.startswith((".", "/", "~")) else path
