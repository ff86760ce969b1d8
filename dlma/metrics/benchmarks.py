"""Benchmarks of lm-eval before and after alignment: what alignment costs in reasoning, mathematics and knowledge.

The tasks run in process on the models as they are loaded; each question is an item, so that base and policy are
compared on the same questions. A metric that is no number per question (a corpus perplexity) is left out and named.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dlma.errors import UserError
from dlma.evaluation.context import EvaluationContext
from dlma.metrics.base import MetricColumn, MetricInput
from dlma.ranges import Count, Seed, Whole
from dlma.records import MetricValue

if TYPE_CHECKING:
    from dlma.model.language import LanguageModel


class Benchmarks:
    """lm-eval tasks for the base and for a trained policy.

    tasks: names of tasks or groups, lm-eval's own or those in `folder`
    folder: a folder of task files of your own; None for lm-eval's alone
    shots: examples before each question; None is the task's own number
    limit: questions of each task; None is all
    chat: whether questions are put through the model's chat template
    """

    def __init__(
        self,
        bench: EvaluationContext,
        /,
        *,
        tasks: list[str],
        folder: str | None,
        shots: Whole | None,
        limit: Count | None,
        chat: bool,
        seed: Seed,
        batch_size: Count = 16,
    ) -> None:
        if not tasks:
            raise UserError("metrics.benchmarks.tasks: name at least one task, such as [arc_easy,gsm8k]")
        self.bench = bench
        self.tasks = tasks
        self.folder = None if folder is None else Path(folder).expanduser()
        if self.folder is not None and not self.folder.is_dir():
            raise UserError(f"metrics.benchmarks.folder={folder}: no such folder")
        self.options = {"num_fewshot": shots, "limit": limit, "apply_chat_template": chat}
        self.seed = seed
        self.batch_size = batch_size
        self.columns: list[MetricColumn] = []
        self.left_out: set[str] = set()
        self.higher: dict[str, bool] = {}  # by metric, whether more is better, as its task says

    def identity(self) -> list[str]:
        """The library's version, the base's weights, and the task files of your own."""
        from importlib.metadata import version

        from dlma.files import sha256_file

        own = [] if self.folder is None else sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [f"lm-eval {version('lm-eval')}", *self.bench.weights, *map(sha256_file, own)]

    def report(self) -> dict:
        """The metrics that are no number per question."""
        return {"left_out": sorted(self.left_out)}

    def scores(self, scene: MetricInput) -> list[MetricValue]:
        """Every number that a task gives a question, for each arm with weights of its own."""
        found = [score for arm in scene.models for score in self._arm(arm, self.bench.load[arm]())]
        names = dict.fromkeys(score.metric for score in found)
        self.columns = [self._column(name, [s.value for s in found if s.metric == name]) for name in names]
        return found

    def _column(self, name: str, values: list[float]) -> MetricColumn:
        is_share = all(0 <= value <= 1 for value in values)
        kind: Literal["share", "mean"] = "share" if is_share else "mean"
        unit = "share" if is_share else ""
        return MetricColumn(name, name, kind, unit, "higher" if self.higher[name] else "lower", tax=True)

    def _arm(self, arm: str, model: LanguageModel) -> list[MetricValue]:
        import lm_eval

        self.bench.place(model.network)
        manager = self._manager()
        wrapped = self.wrapped(model)
        seeds = dict.fromkeys(
            ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed"), self.seed
        )
        found = lm_eval.simple_evaluate(
            model=wrapped, tasks=list(self.tasks), task_manager=manager, bootstrap_iters=0, **self.options, **seeds
        )
        return [
            score
            for task, samples in found["samples"].items()
            for sample in samples
            for score in self._sample(arm, task, sample, found["higher_is_better"].get(task, {}))
        ]

    def wrapped(self, model: LanguageModel):
        """The model as lm-eval takes it; its BOS as everywhere here: the tokenizer's, in a chat the template's."""
        from lm_eval.models.huggingface import HFLM

        front = {"add_bos_token": False} if self.options["apply_chat_template"] else {}
        return HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=self.batch_size, **front)

    def _manager(self):
        """lm-eval's index of tasks; its own thousands are read only where the folder does not hold all."""
        from lm_eval.tasks import TaskManager

        for defaults in (False, True) if self.folder is not None else (True,):
            manager = TaskManager(include_path=self.folder and str(self.folder), include_defaults=defaults)
            unknown = [name for name in self.tasks if name not in manager.all_tasks]
            if not unknown:
                return manager
        raise UserError(f"metrics.benchmarks.tasks: lm-eval knows no {', '.join(unknown)}")

    def _sample(self, arm: str, task: str, sample: dict, higher: dict[str, bool]) -> list[MetricValue]:
        scores, key = [], sample["filter"]
        suffix = "" if key == "none" else f" ({key})"
        for name in sample["metrics"]:
            value, metric = sample[name], f"{task} {name}{suffix}"
            if isinstance(value, int | float):
                self.higher[metric] = higher.get(name, True)
                scores.append(MetricValue(f"{task}:{sample['doc_id']}", task, arm, metric, float(value)))
            else:
                self.left_out.add(metric)
        return scores
