"""The runtime: an adapter around `pl.Trainer`, and the shards that long stages are cut into."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BasePredictionWriter, Callback
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from dlma import cores, records
from dlma.errors import UserError, few
from dlma.model import memory
from dlma.model.engine import Engine
from dlma.model.work import work
from dlma.ranges import Count, Few, Threads
from dlma.store import shards
from dlma.trainer import collectives, cutting
from dlma.trainer.bar import counting
from dlma.trainer.cutting import Span
from dlma.trainer.devices import require


class Shard:
    """A numbered run of rows: the unit of work, of resume and of distribution over devices.

    whole: all rows of the stage, whatever part of them is still to do
    size: tokens of its rows (trainer/cutting.py)
    """

    def __init__(self, index: int, rows: Sequence, whole: Sequence | None = None, size: int = 0) -> None:
        self.index = index
        self.size = size
        self.rows = rows
        self.whole = rows if whole is None else whole


class ShardLoader:
    """This process's shards as Lightning wants to be handed them, each with its rows once it is its turn."""

    def __init__(self, rows: Sequence, spans: Sequence[Span]) -> None:
        self.rows = rows
        self.spans = spans[collectives.rank() :: collectives.world()]

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[Shard]:
        return (Shard(one.index, self.rows[one.start : one.stop], self.rows, one.size) for one in self.spans)


class ShardWriter(BasePredictionWriter):
    """Writes what `predict_step` returns for a shard, atomically.

    raises: UserError for a nan or an infinity, naming the rows; the shards before are kept
    label: the stage's name for people
    """

    def __init__(self, folder: Path, record: type, label: str) -> None:
        super().__init__("batch")
        self.label = label
        self.folder = folder
        self.record = record

    def write_on_batch_end(self, trainer, pl_module, prediction, batch_indices, batch, *_) -> None:
        shards.write_shard(self.folder, batch.index, shard_table(self.record, prediction, self.label))
        work().end_shard()


class OwnSignals(Callback):
    """Puts back the handler of SIGTERM that stood before Lightning's.

    Lightning's would let the whole fit or prediction run on, and among several processes broadcast from inside itself.
    """

    def setup(self, trainer, pl_module, stage) -> None:
        self.before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer, pl_module) -> None:
        self._put_back()

    def on_predict_start(self, trainer, pl_module) -> None:
        self._put_back()

    def _put_back(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.before)


class DirectFiles(TorchCheckpointIO):
    """Writes a checkpoint into the file that is asked for.

    Lightning's own way holds it in memory a second time and writes it to the system's temporary folder first.
    """

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: object = None) -> None:
        with open(path, "wb") as out:
            torch.save(checkpoint, out)


class Runtime:
    """How modules are run: device, number of processes, threads.

    accelerator: as Lightning's Trainer takes it
    devices: processes on this machine, each with a device of its own (launch.py starts them); 1 also where torchrun or
        srun has started them
    strategy: ddp: each process holds the whole model; fsdp: in training the layers' weights, gradients and optimizer
        states are spread over the processes (trainer/fsdp.py)
    threads: torch threads of this process; 0 leaves torch's own choice, within a container's quota
    shard_rows: rows of one shard, at most (trainer/cutting.py)
    checkpoint_steps: training steps between two resume points
    """

    def __init__(
        self,
        *,
        accelerator: Literal["cpu", "gpu", "mps"] = "cpu",
        devices: Few = 1,
        strategy: Literal["ddp", "fsdp"] = "ddp",
        threads: Threads = 0,
        shard_rows: Count = 256,
        checkpoint_steps: Count = 50,
    ) -> None:
        require(accelerator, devices)
        self.accelerator = accelerator
        self.devices = devices
        self.strategy = strategy
        self.shard_rows = shard_rows
        self.checkpoint_steps = checkpoint_steps
        use_threads(threads)
        memory.keep_freed_memory()

    @property
    def device(self) -> str:
        """Where this process computes, in torch's words."""
        return {"cpu": "cpu", "gpu": "cuda", "mps": "mps"}[self.accelerator]

    def trainer(self, callbacks: Sequence[Callback] = (), max_steps: int = -1) -> pl.Trainer:
        """A silent Trainer: no checkpoints, bars or loggers of its own; over all processes that work together.

        max_steps: of training; without them the trainer is for predictions, for which each process has a whole model
        """
        logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        machines = collectives.machines()
        return pl.Trainer(
            accelerator=self.accelerator,
            devices=machines["devices"],
            num_nodes=machines["num_nodes"],
            strategy=self._strategy(training=max_steps >= 0),
            plugins=[DirectFiles(), *machines["plugins"]],
            max_epochs=1,
            max_steps=max_steps,
            callbacks=[OwnSignals(), *callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,
            use_distributed_sampler=False,
        )

    def _strategy(self, training: bool) -> str | Strategy:
        if collectives.world() == 1:
            return "auto"
        if training and self.strategy == "fsdp":
            return ModelParallelStrategy(data_parallel_size=collectives.world(), tensor_parallel_size=1)
        return DDPStrategy()

    def predict(self, module: pl.LightningModule, rows: Sequence, record: type, folder: Path, label: str) -> dict:
        """Run `predict_step` over the shards of `rows` that `folder` lacks, and merge all into rows.parquet.

        returns: the report of each engine that the module used, by its name there
        """
        spans = self.cut(rows, *self.bounds(module))
        layout = cutting.layout(spans)
        missing = [] if collectives.rank() else shards.missing_shards(folder, len(spans), layout=layout)
        wanted = set(collectives.same(missing))
        todo = [span for span in spans if span.index in wanted]
        with counting(module, [span.size for span in self._mine(todo)], label):
            self._work_on(module, rows, todo, ShardWriter(folder, record, label))
        if not collectives.rank():
            shards.await_shards(folder, len(spans))
            shards.merge_shards(folder, len(spans), layout=layout)
        return engine_reports(module)

    def bounds(self, module: pl.LightningModule) -> tuple[int, int | None]:
        """What of a module decides where shards end: tokens that it draws for a context, and the most of a shard."""
        drawn = getattr(getattr(module, "sampler", None), "max_new_tokens", 0)
        return drawn, cutting.tokens_of_a_shard(getattr(module, "network", None), self.accelerator)

    def cut(self, rows: Sequence, drawn: int, most: int | None) -> list[Span]:
        """The shards of a stage's rows."""
        return cutting.spans([cutting.size(row, drawn) for row in rows], self.shard_rows, most)

    def _mine(self, todo: list[Span]) -> Sequence[Span]:
        """The shards that this process works on."""
        if len(todo) >= collectives.world():
            return todo[collectives.rank() :: collectives.world()]
        return [] if collectives.rank() else todo

    def _work_on(self, module: pl.LightningModule, rows: Sequence, todo: list[Span], writer: ShardWriter) -> None:
        """Whole shards to each process; fewer shards than processes are the first one's. All are done at the end."""
        if len(todo) >= collectives.world():
            self._predict(module, ShardLoader(rows, todo), writer)
        elif todo and not collectives.rank():
            with collectives.alone():
                self._predict(module, ShardLoader(rows, todo), writer)
        collectives.wait()

    def _predict(self, module: pl.LightningModule, loader: ShardLoader, writer: ShardWriter) -> None:
        trainer = self.trainer([writer])
        interruptible(trainer.predict, module, dataloaders=loader, return_predictions=False)


def use_threads(wanted: int) -> None:
    """Give torch its threads: as many as are wanted; for 0 as many as it has by itself, within a container's quota."""
    count, cores.said = cores.threads(wanted)
    if count:
        torch.set_num_threads(count if wanted else min(count, torch.get_num_threads()))


def shard_table(record: type, rows: Sequence, stage: str) -> pa.Table:
    """What `predict_step` made of a shard, as it is written; raises UserError for a nan or an infinity in it."""
    _require_finite(rows, stage)
    return records.to_table(record, rows)


def _require_finite(rows: Sequence, stage: str) -> None:
    bad = {row: columns for row in range(len(rows)) if (columns := records.not_finite(rows[row]))}
    if bad:
        named = ", ".join(sorted({name for names in bad.values() for name in names}))
        raise UserError(
            f"{stage}: {named} of {few([_name(rows[row]) for row in bad])} are no finite numbers: the weights of the "
            "model hold nan or have run off: take others; nothing of these rows is kept"
        )


def _name(row: object) -> str:
    return next(str(getattr(row, name)) for name in ("id", "prompt_id", "item") if hasattr(row, name))


def engine_reports(module: object) -> dict[str, dict]:
    """What the engines of a module chose and how fast they were, by name; only those that did anything.

    A sampler that reports (sampler/server.py) stands beside them.
    """
    found = {name: value for name, value in vars(module).items() if isinstance(value, Engine)}
    reports = {name: engine.report() for name, engine in found.items() if engine.meter.tokens}
    sampler = getattr(module, "sampler", None)
    return reports | ({"sampler": sampler.report()} if sampler is not None and hasattr(sampler, "report") else {})


def interruptible(run: Callable[..., object], *args: object, **named: object) -> None:
    """Call a Trainer method so that Ctrl-C stays KeyboardInterrupt: Lightning turns it into SystemExit."""
    try:
        run(*args, **named)
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
