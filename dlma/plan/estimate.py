"""What one config would cost: its stages, the load of each, memory by part, and the micro-batch that would fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from dlma.cost.flops import Device, ModelSize, Workload, work_of
from dlma.cost.wire import Cluster, Exchanged
from dlma.errors import no_room
from dlma.plan import loads, volume
from dlma.plan.device import named, this_machine
from dlma.plan.dry_run import HERE, DryRunContext, Sizes, planned_stages
from dlma.plan.volume import Volume
from dlma.store.stage import Stage

if TYPE_CHECKING:
    from dlma.cost.memory import Footprint, Pass


@dataclass(frozen=True)
class StagePlan:
    """A stage: what it is for, its key's stage, what it would compute (None: not known) and move.

    parts: hours by what they are bound by: compute, bandwidth (of a device's memory) or network
    """

    name: str
    stage: Stage
    load: Workload | None
    parts: dict[str, float]
    volume: Volume

    @property
    def hours(self) -> float | None:
        return None if self.load is None else sum(self.parts.values())


@dataclass(frozen=True)
class Assumptions:
    """What is assumed of the devices: mode.* of the same names.

    network, host_memory_gb: of a node, 1e9 bytes per second to the others and 1e9 bytes of memory
    """

    reserve: float
    compute_share: float
    bandwidth_share: float
    answer_tokens: int | None
    nodes: int
    network: float
    host_memory_gb: float | None


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
        shapes: dict[str, tuple[ModelSize, int, Exchanged]],
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
    def model_sizes(self) -> tuple[ModelSize, int, Exchanged]:
        """The model's sizes, bytes of a token's keys and values, and what is exchanged; drawn once for each model."""
        key = f"{self.cell.spec} {self._trains}"
        if key not in self._shapes:
            from dlma.cost.memory import exchanged_of, position_bytes, shape_of
            from dlma.cost.meta_model import drawn

            with drawn(self.cell.spec, self.config) as model:
                shape = shape_of(model, self.config, trains=self._trains)
                self._shapes[key] = shape, position_bytes(model), exchanged_of(model)
        return self._shapes[key]

    @cached_property
    def device(self) -> Device:
        """The device that the plan is for."""
        if self._chosen == HERE:
            found = this_machine(self.config, self.cell.spec.dtype, self.cfg.trainer.accelerator)
        else:
            found = named(self._devices, self._chosen, self.cell.spec.dtype)
        memory = found.memory if self._memory is None else self._memory * 1e9
        return replace(found, memory=memory)

    @cached_property
    def cluster(self) -> Cluster:
        """The devices, and the wires between them."""
        return Cluster(self.assumed.nodes, self.cfg.trainer.devices, self.device.link, self.assumed.network * 1e9)

    def require_room(self) -> None:
        """Raise UserError where a run would find that its longest rows outrun the model's context."""
        from dlma.model.language import context_of

        context = context_of(self.config.get_text_config())
        limit, answer = self.cfg.recipe.max_prompt_tokens, self.sizes.answer.most
        read = [side.most for side in self.sizes.contexts.values() if side.most < limit]  # others may be shorter
        longest = max(read, default=1)
        if context is not None and longest + answer > context:
            raise no_room(longest, answer, context, self.cell.spec.name)

    @property
    def processes(self) -> int:
        return self.assumed.nodes * self.cfg.trainer.devices

    @property
    def per_prompt(self) -> int:
        """Pairs made of a training prompt."""
        known = work_of(self.cfg.pairs)
        return known.get("per_prompt", 1)

    @property
    def spread(self) -> bool:
        """Whether training spreads the layers over the devices."""
        return self.cfg.trainer.strategy == "fsdp"

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
            moved = self._volume(name.split()[0])
            found.append(StagePlan(name, stage, load, {} if load is None else self._hours(name, load, moved), moved))
        return found

    def _hours(self, name: str, load: Workload, moved: Volume) -> dict[str, float]:
        """By what they are bound by. What is not done together is rank 0's alone."""
        shares = {"compute": self.assumed.compute_share, "bandwidth": self.assumed.bandwidth_share}
        width = self.sizes.contexts["plain"].mean + self.sizes.answer.mean / 2
        cache = width * self.model_sizes[1]
        one = load.seconds(self.shape, self.device, rows=self._samples_at_once, cache=cache, **shares)
        at_once = self.processes if name.split()[0] in volume.TOGETHER else 1
        found = {bound: seconds / 3600 / at_once for bound, seconds in one.items()}
        return found | ({"network": moved.sent / self.cluster.rate / 3600} if moved.sent else {})

    def _volume(self, name: str) -> Volume:
        """What a stage moves; a policy's weights and resume points are what its process, or all of them, write."""
        rows = volume.rows_of(name, self.sizes, self.per_prompt)
        written, held = volume.row_bytes(name, self.sizes)
        if name == "policy":
            return Volume(self._sent_training(), self._policy_bytes(), rows * held)
        if name not in volume.TOGETHER:
            return Volume(0.0, rows * written, rows * held)
        weights = self.cluster.sent(self.shape.bytes) * (self._models if name == "aligned" else 1)
        return Volume(weights, rows * written, rows * held, -(-rows // self.cfg.trainer.shard_rows))

    @property
    def _steps(self) -> int:
        """Optimizer steps of the policy's training, as StepLoader cuts them (training/rule.py)."""
        rows = self.sizes.train * loads.trained_per_prompt(self.cfg)
        return rows // min(self.batch_pairs, rows) * self.cfg.objective.epochs if self.batch_pairs and rows else 0

    def _sent_training(self) -> float:
        """Bytes that each device sends: the weights that DDP compares once, and what each step exchanges."""
        passes = -(-self.pairs // self.micro.rows) if self._steps else 0
        each = self.model_sizes[2].step(self.cluster, passes, spread=self.spread)
        return self._steps * each + (0.0 if self.spread else self.cluster.sent(self.shape.bytes))

    def _policy_bytes(self) -> float:
        """The trained weights, and at each resume point these and the optimizer's copies."""
        import torch

        from dlma.cost.memory import state_share

        if not self._steps:
            return 0.0
        trained = self.model_sizes[2].gradients  # as large as what they are the gradients of
        points = self._steps // self.cfg.trainer.checkpoint_steps
        frozen = self.shape.bytes - trained if self.spread else 0
        dtype = getattr(torch, self.cell.spec.dtype if "copies" in self.cell.spec.training_key else "float32")
        kept = state_share(self.cfg.objective.optim.optimizer, dtype)
        return trained + points * (trained * (1 + kept) + frozen)

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

        known = work_of(self.cfg.objective)
        sides = [side for own in known.get("under", [["plain"]]) for side in own]
        contexts = sum(self.sizes.contexts[side].most for side in sides)
        answers = len(sides) * self._answers * self.sizes.answer.most
        return largest_pass(self.cfg.objective.token_budget, contexts + answers, answers, self.pairs)

    @property
    def batch_pairs(self) -> int:
        """Pairs of a step of the policy's training; 0 where it is trained otherwise, or not at all."""
        node = self.cfg.objective
        return node.batch_pairs if work_of(node).get("kind") == "train" else 0

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

        rows = self._samples_at_once
        settings = {name: getattr(self.cfg.sampler, name) for name in ("temperature", "top_k", "top_p")}
        tile = TILE if self.cfg.trainer.accelerator == "cpu" else rows
        return memory_model.sampling(
            self.cell.frozen,
            self.config,
            rows=max(rows, tile),
            tile=tile,
            context=max(c.most for c in self.sizes.contexts.values()),
            answer=self.sizes.answer.most,
            models=self._models,
            **settings,
        )

    @property
    def _models(self) -> int:
        """Whole models that are held when the policy answers: an adapter is put on the base's own weights."""
        return 2 if self._trains and self.cell.spec.lora is None else 1

    def _scoring(self) -> Footprint:
        from dlma.cost import memory as memory_model

        contexts, most = self.sizes.contexts.values(), self.sizes.answer.most
        width = sum(c.most for c in contexts) + 2 * len(contexts) * most
        budget, rows = self.cell.setting("scorer.token_budget", 8192), self.sizes.train * self.per_prompt
        size = memory_model.largest_pass(budget, width, 2 * len(contexts) * most, rows)
        # the answers' log-probs are the model's and the base's; the pairs' are one model's, in a type of its own
        held = {self.cell.score_dtype: 1} | {self.cell.frozen.dtype: self._models}
        found = [
            memory_model.scoring(replace(self.cell.frozen, dtype=dtype), self.config, size, models=models)
            for dtype, models in held.items()
        ]
        return max(found, key=lambda one: one.total)

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
            spread=self.spread,
        )
        beside = self.cell.spec.lora is None or self.cfg.iterations > 1  # a fresh adapter is switched off for it
        if work_of(objective).get("reference") and beside:
            return memory_model.with_reference(found, whole=self.shape.bytes)
        return found

    @cached_property
    def fitting(self) -> Pass | None:
        """The largest micro-batch whose training fits the device with the reserve left free; None: not even one row."""
        from dlma.cost.memory import fitting

        room = (1 - self.assumed.reserve) * self.device.memory
        return fitting(lambda size: self._training(size).total, self.micro, self.pairs, room)
