"""The base class of training rules: accumulation, clipping, warm-up, the record of each step, exact resume, saving.

One loader item is one optimizer step: micro-batches that together hold a fixed number of pairs, whose
summed loss is divided by that number, so the update is the same for every layout and any number of processes:
each takes its share of the rows, and the gradients are summed once a step.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import ModelParallelStrategy

from dlma import files
from dlma.config.schema import Component
from dlma.errors import UserError
from dlma.model import memory
from dlma.model.engine import Engine, say_once
from dlma.model.language import LanguageModel
from dlma.model.meter import Meter
from dlma.model.reward_model import RewardModel
from dlma.model.saved import save
from dlma.records import ScoredPair
from dlma.store.owned import TRAIN
from dlma.store.shards import SCRATCH
from dlma.trainer import collectives, fsdp
from dlma.trainer.bar import progress
from dlma.trainer.runtime import Runtime, interruptible
from dlma.training import finite
from dlma.training.checkpoint import ResumePoint, newest_point
from dlma.training.intermediate import SaveIntermediate, evenly
from dlma.training.optim import Optim

Recorded = Mapping[str, float | torch.Tensor]  # numbers or scalar tensors


@dataclass(frozen=True)
class Supplies:
    """What a rule may need besides the labelled pairs.

    prompts: pairs of all training prompts, whatever became of their labels
    reward: reads the reward model, if there is one
    moved: the policy is not the pairs' reference when training begins (a later round with the base as reference)
    agreement: how often the round before would have put a pair's answers in the same order, where that is to count
    """

    prompts: Sequence[ScoredPair]
    reward: Callable[[], RewardModel] | None
    moved: bool = False
    agreement: float | None = None


class Step:
    """One optimizer step.

    micros: the micro-batches of this process; items: the rows they were made of
    rows: the rows of the step over all processes, which the summed loss is divided by
    idle: passes without rows, where every process must make equally many (trainer/fsdp.py)
    """

    def __init__(self, micros: list, rows: int, items: Sequence = (), idle: int = 0) -> None:
        self.micros = micros
        self.rows = rows
        self.items = items
        self.idle = idle

    @property
    def passes(self) -> list:
        """The micro-batches, and the first one again for each idle pass."""
        return [*self.micros, *self.micros[:1] * self.idle]


class StepLoader:
    """All steps of a training run, in an order that is a function of (seed, epoch) alone; resumable.

    Each epoch is a fresh permutation cut into steps of `batch` rows; rows that do not fill a step wait
    for the next epoch's permutation. Fewer rows than `batch` make one step an epoch. Of each step a process
    gets its share of the rows.
    """

    def __init__(self, rule: TrainingRule, rows: Sequence, *, batch: int, epochs: int, seed: int) -> None:
        self.rule = rule
        self.rows = rows
        self.batch = min(batch, len(rows))
        self.per_epoch = len(rows) // self.batch if rows else 0
        self.epochs = epochs
        self.seed = seed
        self.next_step = 0

    def __len__(self) -> int:
        return self.per_epoch * self.epochs

    def __iter__(self) -> Iterator[Step]:
        if self.batch < collectives.world():
            raise UserError(f"a step has only {self.batch} pairs to share out over {collectives.world()} processes")
        start = self.next_step % max(1, len(self))
        for number in range(start, len(self)):
            self.next_step = number + 1
            members = self._order(number // self.per_epoch)[number % self.per_epoch]
            mine = [self.rows[i] for i in members[collectives.rank() :: collectives.world()]]
            yield Step(self.rule.micros(mine), len(members), mine)

    def _order(self, epoch: int) -> list[list[int]]:
        draw = torch.Generator().manual_seed((self.seed << 20) + epoch)
        order = torch.randperm(len(self.rows), generator=draw).tolist()
        return [order[i * self.batch : (i + 1) * self.batch] for i in range(self.per_epoch)]

    def state_dict(self) -> dict:
        return {"next_step": self.next_step}

    def load_state_dict(self, state: dict) -> None:
        self.next_step = state["next_step"]


class TrainingRule(pl.LightningModule):
    """What every objective shares. A rule gives `micros` (rows to micro-batches) and `loss` (summed).

    side, samples, contrast: how the trained policy answers: under the plain prompt, one answer (see objective.none)
    intermediate: how many policies to save on the way (intermediate.py)
    target_kl: nats per answer from the base at which the policy is to be taken, of those saved; None: the last one
    shares_steps: several processes can share each step's rows
    sharded: the layers' weights are spread over the processes
    rate: the option that sets the learning rate
    """

    side = "plain"
    samples = 1
    contrast = None
    intermediate = 0
    shares_steps = True
    engine: Engine
    rate = "recipe.lr"

    def __init__(
        self,
        model: LanguageModel,
        *,
        optim: Component | Optim,
        epochs: int,
        batch: int,
        seed: int,
        target_kl: float | None = None,
    ) -> None:
        super().__init__()
        self.target_kl = target_kl
        self.steps = 0
        self.automatic_optimization = False
        self.strict_loading = False
        self.model = model
        self.network = model.network
        self.optim = optim
        self.epochs = epochs
        self.batch = batch
        self.seed = seed
        self.log_rows: list[dict[str, float]] = []
        self.moved = False
        self.sharded = False
        self.whole: dict[str, torch.Tensor] | None = None  # the trained state put together, where it was spread
        self._meter = Meter()

    def configure_model(self) -> None:
        """Spread the layers over the processes, if Lightning's strategy is to do that."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ModelParallelStrategy) and not self.sharded:
            fsdp.shard_layers(self.network, strategy.root_device)
            self.sharded = True

    def micros(self, rows: list) -> list:
        """The micro-batches of one step's rows."""
        raise NotImplementedError

    def loss(self, micro) -> tuple[torch.Tensor, Recorded]:
        """The loss summed over a micro-batch's rows, and sums of what is recorded."""
        raise NotImplementedError

    def check_first(self, step: Step, loss: float) -> None:
        """Compare the first loss with what theory says; raises UserError when they differ."""

    def supply(self, supplies: Supplies) -> None:
        """Take what the rule needs besides labelled pairs; called once, before `fit`."""
        self.moved = supplies.moved

    def refuse_moved(self, supplies: Supplies) -> None:
        """For a rule whose reference is the model as it begins: raises UserError where another one is wanted."""
        if supplies.moved:
            raise UserError(
                f"iteration.reference=frozen: {type(self).__name__} keeps the model at the round's start as its "
                "reference: iteration.reference=current"
            )

    def save(self, folder: Path) -> None:
        """Leave the trained model in the stage's folder."""
        save(self.model, folder / "policy", network=self.network, state=self.whole)

    def point_every(self, steps: int) -> int:
        """Steps between two resume points, where the runtime asks for `steps`."""
        return steps

    def training_step(self, step: Step, index: int) -> None:
        if self.sharded:
            step.idle = collectives.most(len(step.micros), self.device) - len(step.micros)
        with self.meter.timed():
            sums = self._accumulated(step)
            collectives.add_gradients(self.trained_weights())
            shared = dict(zip(sums, collectives.totals(sums.values(), self.device), strict=True))
            norm = self.clipped_norm()
            finite.require_step(self, step, {**shared, "gradient": norm})
            if self.global_step == 0 and not self.moved:
                own = Step(step.micros, len(step.items), step.items, step.idle)
                self.check_first(own, sums["loss"] / len(step.items))
            self.record(step, shared, norm)
            self.optimizer.step()
            finite.require_weights(self, step)
        self.meter.groups += len(step.items)

    def _accumulated(self, step: Step) -> dict[str, float]:
        """Gradients and sums of this process's micro-batches; when memory runs out, once more in smaller ones."""
        while True:
            self.optimizer.zero_grad()
            try:
                return self._backward(step)
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
            self.shrink(step)

    def _backward(self, step: Step) -> dict[str, float]:
        sums: dict[str, torch.Tensor | float] = {"loss": 0.0}
        alone = collectives.world() == 1 and not self.sharded  # no wrapper waits for each gradient
        with collectives.apart(self.trainer.strategy), self.model.adding_gradients(alone):
            for micro in step.passes[len(step.micros) :]:
                self.manual_backward(0.0 * self.loss(micro)[0])
            for micro in step.micros:
                loss, recorded = self.loss(micro)
                self.manual_backward(loss / step.rows)
                told: list[tuple[str, float | torch.Tensor]] = [("loss", _exact(loss)), *recorded.items()]
                for name, value in told:
                    sums[name] = sums.get(name, 0.0) + value
        return {name: float(value) for name, value in sums.items()}

    def shrink(self, step: Step) -> None:
        """Cut a step into more micro-batches by halving the token budget; the update stays the same."""
        if self.sharded:
            raise UserError("out of memory: with trainer.strategy=fsdp lower objective.token_budget, or add devices")
        owner: Any = getattr(self, "engine", self)
        before, budget = len(step.micros), owner.token_budget
        if before >= len(step.items):
            memory.halved(budget, budget, 1)
        while len(step.micros) <= before and budget > 1:
            budget = owner.token_budget = budget // 2
            step.micros = self.micros(list(step.items))
        memory.release()
        say_once(f"training: out of memory: going on with {budget} tokens a pass; the update is the same")

    def report(self) -> dict[str, object]:
        """What the engine chose and how fast training was; empty for a rule without an engine."""
        return self.engine.report() if hasattr(self, "engine") else {}

    @property
    def meter(self) -> Meter:
        """Where the steps' time and pairs are counted: the engine's meter, if the rule has one."""
        return self.engine.meter if hasattr(self, "engine") else self._meter

    @property
    def optimizer(self) -> LightningOptimizer:
        """The one optimizer, as Lightning hands it out."""
        found = self.optimizers()
        assert not isinstance(found, list)
        return found

    def trained_weights(self) -> list[torch.nn.Parameter]:
        """The weights that are trained."""
        return [p for p in self.parameters() if p.requires_grad]

    def clipped_norm(self) -> float:
        """Clip the gradient; the norm it had before."""
        if self.sharded:
            return fsdp.clip(self.trained_weights(), self.optim.clip_norm)
        return torch.nn.utils.clip_grad_norm_(self.trained_weights(), self.optim.clip_norm).item()

    def record(self, step: Step, sums: dict[str, float], norm: float) -> None:
        """Set this step's learning rate and keep its row for train.csv."""
        lr = self.optim.rate(self.global_step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        means = {name: value / step.rows for name, value in sums.items()}
        self.log_rows.append({"step": self.global_step + 1, **means, "grad_norm": norm, "lr": lr})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [{"params": group} for group in fsdp.apart(self.trained_weights())]
        return self.optim.build(groups, fused=self.device.type in ("cpu", "cuda") and not self.sharded)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        if not self.sharded:  # of spread weights a point is read into all of them
            trained = {name for name, p in self.named_parameters() if p.requires_grad}
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: value for name, value in state.items() if name in trained}
        checkpoint["log_rows"] = self.log_rows

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.log_rows = checkpoint["log_rows"]

    def train_on(
        self, rows: Sequence, runtime: Runtime, folder: Path, listen: Callable[[dict], None] = lambda row: None
    ) -> None:
        """Train on `rows` and leave `policy/` and `train.csv` in `folder`; goes on from a resume point there.

        listen: called with each step's row, as it is done; where training goes on, first with the rows of before
        """
        loader = StepLoader(self, rows, batch=self.batch, epochs=self.epochs, seed=self.seed)
        self.train_through(loader, runtime, folder, listen)

    def train_through(self, loader, runtime: Runtime, folder: Path, listen: Callable[[dict], None]) -> None:
        """`train_on` with the steps of a loader that has a length, `state_dict` and `load_state_dict`."""
        self.steps = len(loader)
        points = folder / SCRATCH / "points"
        every = self.point_every(runtime.checkpoint_steps)
        in_parts = runtime.strategy == "fsdp" and collectives.world() > 1
        start = collectives.same(None if collectives.rank() else newest_point(points, in_parts=in_parts))
        with progress("train", "tok") as bar:
            keep = SaveIntermediate(
                folder, evenly(self.intermediate, len(loader))
            )  # comes first: a resume point stands for it too
            trainer = runtime.trainer([keep, ResumePoint(points, every, bar, listen)], len(loader))
            interruptible(trainer.fit, self, train_dataloaders=loader, ckpt_path=start, weights_only=True)
        self.whole = fsdp.whole(self.network) if self.sharded else None
        if collectives.rank():
            return
        self.save(folder)
        write_log(folder / TRAIN, self.log_rows)


def _exact(loss: torch.Tensor) -> torch.Tensor:
    """The loss in float64, to be summed; on the CPU where the device has no float64."""
    return (loss.detach().cpu() if loss.device.type == "mps" else loss.detach()).double()


def write_log(path: Path, rows: list[dict[str, float]]) -> None:
    """The steps as CSV, one column per recorded quantity; no rows, no columns but `step`."""
    names = list(rows[0]) if rows else ["step"]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    writer.writerows(rows)
    files.write_bytes(path, out.getvalue().encode())
