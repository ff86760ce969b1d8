"""mode=run: all stages of the method (dlma/pipeline.py); on a real model it is said first what they will take.

The estimate is that of mode=plan, for the stages that the store does not hold, with sizes read off the files' headers
and rates measured now. The bars of the stages say what is left of each, as it turns out.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import fields

import yaml
from omegaconf import DictConfig

from dlma import pipeline
from dlma.config.help import conf_dir
from dlma.config.run_names import run_folder
from dlma.config.unread import unread
from dlma.context import RunContext
from dlma.cost.flops import ModelSize
from dlma.cost.wire import Exchanged
from dlma.plan.dry_run import HERE, DryRunContext
from dlma.plan.estimate import Assumptions, RunPlan
from dlma.plan.words import NAMED
from dlma.trainer import ranks


def run(cfg: DictConfig, /) -> dict:
    """The run's result, after a line on what it will take, and one for each override that says nothing to it."""
    if not ranks.here().number:
        _tell_what_is_unread(cfg)
    real = cfg.model.keys() & {"path", "wheel"} and not ranks.here().number
    if real and cfg.sft._target_ is None:  # what is to be tuned first has no files yet
        settled = copy.deepcopy(cfg)
        RunContext(settled, run_folder())  # chooses what the config leaves open, as the run itself will
        line = foretold(DryRunContext(settled, prompts=None, held_out=None))
        if line is not None:
            print(line, file=sys.stderr, flush=True)
    return pipeline.run(cfg)


def _tell_what_is_unread(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    said = HydraConfig.get()
    for override in unread(cfg, said.overrides.task):
        method = said.runtime.choices["method"]
        print(f"warning: {override}: nothing in method={method} reads it", file=sys.stderr, flush=True)


class QuickPlan(RunPlan):
    """A plan for this machine that draws no model: its sizes are those of the tensors in its files."""

    def __init__(self, cell: DryRunContext) -> None:
        node = yaml.safe_load((conf_dir() / "mode" / "plan.yaml").read_text(encoding="utf-8"))["mode"]
        known = {field.name: node[field.name] for field in fields(Assumptions)}
        super().__init__(cell, Assumptions(**known), {}, HERE, None, {})

    @property
    def model_sizes(self) -> tuple[ModelSize, int, Exchanged]:
        from dlma.model.compute_dtype import shapes_of

        config, number = self.config.get_text_config(), 4 if self.cell.spec.dtype == "float32" else 2
        matrices = {shape: count * shape[0] * shape[1] for shape, count in shapes_of(self.cell.spec).items()}
        body = sum(size for shape, size in matrices.items() if config.vocab_size not in shape)
        attention = config.num_hidden_layers * config.hidden_size
        parameters = sum(matrices.values())
        head = config.vocab_size * config.hidden_size
        shape = ModelSize(parameters, 0, body, head, attention, number * parameters)
        return shape, 2 * number * attention, Exchanged(0, 0, 0)  # what runs here exchanges by memory


def foretold(cell: DryRunContext) -> str | None:
    """What the stages that are not in the store will take here, in a line; None where all are there, or no weights."""
    if cell.folder_here is None:
        return None
    plan = QuickPlan(cell)
    if all(stage.done for stage in plan.stages.values()):
        return None
    hours = {line.name: line.hours for line in plan.lines if line.hours and not line.stage.done}
    total = sum(hours.values())
    parts = ", ".join(f"{name} {_time(one)}" for name, one in hours.items() if one >= NAMED * total)
    return f"{cell.spec.name}: about {_time(total)} on this machine ({parts}); {plan.sizes.source}"


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.0f} min" if hours >= 1 / 60 else f"{hours * 3600:.0f} s"
