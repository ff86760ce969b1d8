"""What one config would cost: its stages, the load of each, memory by part, and the micro-batch that would fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from dlma.cost.flops import Device, ModelSize, Workload, work_of
from dlma.errors import UserError
from dlma.plan import loads
from dlma.plan.dry_run import HERE, DryRunContext, Sizes, planned_stages
from dlma.store.stage import Stage

if TYPE_CHECKING:
    from dlma.cost.memory import Footprint, Pass


@dataclass(frozen=True)
class StagePlan:
    """A stage: what it is for, its key's stage, and what it would compute (None: not known)."""

    name: str
    stage: Stage
    load: Workload | None
    hours: float | None


@dataclass(frozen=True)
class Assumptions:
    """What is assumed of the device."""

    reserve: float
    compute_share: float
    bandwidth_share: float
    answer_tokens: int | None


class RunPlan:
    """One cell: its stages, loads, footprints and the micro-batch that would fit.

    devices, chosen, memory: the devices that have a name, the one that is meant, and its memory in GB if not its own
    shapes: of models already looked at, shared by the cells of a sweep
    """

    def __init__(
        self,
        cell: DryRunContext,
        assumed: Assumptions,
        devices: Mapping[str, dict],
        chosen: str,
        memory: float | None,
        shapes: dict[str, tuple[ModelSize, int]],
    ) -> None:
        self.cell, self.cfg, self.assumed = cell, cell.cfg, assumed
        self.stages = planned_stages(cell)
        self.sizes: Sizes = cell.sizes(self.stages, assumed.answer_tokens)
        self._devices, self._chosen, self._memory = devices, chosen, memory
        self._shapes = shapes

    @cached_property
    def config(self):
        """The transformers config of the model."""
        from dlma.cost.meta_model import read_config

        spec, revision = self.cell.spec, self.cell.setting("model.revision", "main")
        return read_config(str(spec.folder), revision, spec.trust_remote_code)

    @property
    def shape(self) -> ModelSize:
        """The model's sizes."""
        return self.model_sizes[0]

    @property
    def model_sizes(self) -> tuple[ModelSize, int]:
        """The model's sizes, and the bytes of a token's keys and values; plans of one model draw it once."""
        key = f"{self.cell.spec} {self._trains}"
        if key not in self._shapes:
            from dlma.cost.memory import position_bytes, shape_of
            from dlma.cost.meta_model import drawn

            with drawn(self.cell.spec, self.config) as model:
                self._shapes[key] = shape_of(model, self.config, trains=self._trains), position_bytes(model)
        return self._shapes[key]

    @cached_property
    def device(self) -> Device:
        """The device that the plan is for."""
        dtype = self.cell.spec.dtype
        if self._chosen == HERE:
            found = _this_machine(self.config, dtype, self.cfg.trainer.accelerator)
        elif self._chosen in self._devices:
            node = self._devices[self._chosen]
            rates = (node[dtype] * 1e12, node["bandwidth"] * 1e9)
            found = Device(self._chosen, node["memory_gb"] * 1e9, *rates, node["source"])
        else:
            raise UserError(f"mode.device={self._chosen}: choose {HERE} or one of {', '.join(self._devices)}")
        memory = found.memory if self._memory is None else self._memory * 1e9
        return Device(found.name, memory, found.rate, found.bandwidth, found.source)

    @property
    def processes(self) -> int:
        return self.cfg.trainer.devices

    @property
    def _trains(self) -> bool:
        return self.cell.notes(self.stages["policy"])["trained"]

    @property
    def _samples_at_once(self) -> int:
        return self.cell.setting("sampler.rows", 64)

    @cached_property
    def lines(self) -> list[StagePlan]:
        """Every stage of the run."""
        samples = self.cell.notes(self.stages["policy"])["samples"]
        found = []
        for name, stage in self.stages.items():
            load = loads.load_of(name, self.cfg, self.sizes, samples)
            found.append(StagePlan(name, stage, load, None if load is None else self._hours(load)))
        return found

    def _hours(self, load: Workload) -> float:
        shares = {"compute": self.assumed.compute_share, "bandwidth": self.assumed.bandwidth_share}
        width = self.sizes.contexts["plain"].mean + self.sizes.answer.mean / 2
        cache = width * self.model_sizes[1]
        one = load.seconds(self.shape, self.device, rows=self._samples_at_once, cache=cache, **shares)
        return one / 3600 / self.processes

    @cached_property
    def footprints(self) -> dict[str, Footprint]:
        """Memory of each kind of work."""
        found = {"sampling": self._sampling(), "scoring": self._scoring()}
        objective = self.cfg.objective
        trains = work_of(objective).get("kind") == "train"
        return found | {"training": self._training(self.micro)} if trains else found

    @property
    def micro(self) -> Pass:
        """The widest micro-batch of training, as the config has it."""
        from dlma.cost.memory import largest_pass

        plain, most = self.sizes.contexts["plain"].most, self.sizes.answer.most
        return largest_pass(
            self.cfg.objective.token_budget, plain + self._answers * most, self._answers * most, self.pairs
        )

    @property
    def _answers(self) -> int:
        return work_of(self.cfg.objective)["answers"]

    @property
    def pairs(self) -> int:
        """Pairs of a step that one process has."""
        return max(1, -(-self.cfg.objective.batch_pairs // self.processes))

    def _sampling(self) -> Footprint:
        from dlma.cost import memory as memory_model
        from dlma.sampler.local import TILE

        rows, room = self._samples_at_once, max(c.most for c in self.sizes.contexts.values()) + self.sizes.answer.most
        settings = {name: getattr(self.cfg.sampler, name) for name in ("temperature", "top_k", "top_p")}
        tile = TILE if self.cfg.trainer.accelerator == "cpu" else rows
        return memory_model.sampling(
            self.cell.frozen, self.config, rows=max(rows, tile), tile=tile, room=room, **settings
        )

    def _scoring(self) -> Footprint:
        from dlma.cost import memory as memory_model

        contexts, most = self.sizes.contexts.values(), self.sizes.answer.most
        width = sum(c.most for c in contexts) + 2 * len(contexts) * most
        budget = self.cell.setting("scorer.token_budget", 8192)
        frozen = replace(self.cell.frozen, dtype=self.cell.score_dtype)
        size = memory_model.largest_pass(budget, width, 2 * len(contexts) * most, self.sizes.train)
        # an adapter is put on the base's own weights, which are those that score where the type is one
        one = self.cell.spec.lora is not None and frozen.dtype == self.cell.frozen.dtype
        models = 2 if self._trains and not one else 1
        return memory_model.scoring(frozen, self.config, size, models=models)

    def _training(self, size: Pass) -> Footprint:
        from dlma.cost import memory as memory_model

        objective = self.cfg.objective
        found = memory_model.training(
            self.cell.spec,
            self.config,
            size,
            optimizer=objective.optim.optimizer,
            passes=-(-self.pairs // size.rows),
            checkpointing=self.cell.setting("objective.checkpointing", False),
            processes=self.processes,
            spread=self.cfg.trainer.strategy == "fsdp",
        )
        if work_of(objective).get("reference"):
            return memory_model.with_reference(found)
        return found

    @cached_property
    def fitting(self) -> Pass | None:
        """The largest micro-batch whose training fits the device with the reserve left free; None: not even one row."""
        from dlma.cost.memory import fitting

        room = (1 - self.assumed.reserve) * self.device.memory
        return fitting(lambda size: self._training(size).total, self.micro, self.pairs, room)


def _this_machine(config, dtype: str, accelerator: str) -> Device:
    """This machine as a device, its rates measured: the best matrix product, and copying."""
    import torch

    from dlma.model.memory import device_bytes
    from dlma.model.meter import copying_rate, matmul_peak

    device = torch.device("cuda" if accelerator == "gpu" and torch.cuda.is_available() else "cpu")
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    rate = matmul_peak(512, config.hidden_size, inner, getattr(torch, dtype), device)
    return Device(HERE, device_bytes(device), rate, copying_rate(device), "measured now")
