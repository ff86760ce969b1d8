"""One run of one config: its folder, its store, and the heavy things, each loaded when first needed.

A run whose stages are all in the store never imports torch.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dlma.config.build import build, layout, resolved, scientific, target
from dlma.config.run_names import run_folder
from dlma.config.schema import Component
from dlma.cost.flops import work_of
from dlma.errors import UserError, few
from dlma.evaluation.context import EvaluationContext
from dlma.logger.trackers import Trackers
from dlma.model import compute_dtype
from dlma.model.chat_model import format_of
from dlma.model.load import ModelSpec
from dlma.redaction import redact
from dlma.runs import sampling, settled
from dlma.sampler import choice
from dlma.store.fingerprint import key_of
from dlma.store.machine import machine, placed
from dlma.store.stage import Stage
from dlma.store.store import Store
from dlma.trainer import launch, ranks
from dlma.trainer.ranks import Ranks

if TYPE_CHECKING:
    from dlma.model.language import LanguageModel
    from dlma.model.reward_model import RewardModel
    from dlma.trainer.runtime import Runtime


SEEDS_APART = 1_000_000  # between the seeds of two rounds: a round draws its own noise and order


class RunContext:
    """What every stage of a run needs: config, store, run folder, model and runtime.

    tuned: the model to align where it was tuned on instructions first
    round, start: which round of `iterations` this is, and the policy that it begins with; None is the base
    before: the policy with which the round before began; None is the base
    ranks: the processes that walk through the run together
    makes_stages: stages are made, and not only looked up (dlma/plan/dry_run.py)
    """

    makes_stages = True

    def __init__(
        self, cfg: DictConfig, folder: Path, lender: RunContext | None = None, ranks: Ranks | None = None
    ) -> None:
        self.ranks = ranks or Ranks()
        self.cfg = cfg
        self.folder = folder
        self.lender = lender
        self.why_dtype = self._settle()
        self.store: Store = self._open_store() if lender is None else lender.store
        self.settings = redact(resolved(cfg))
        self.summary: dict[str, float] = {}
        self.round = 1
        self.start: Stage | None = None
        self.before: Stage | None = None
        self.tuned: Stage | None = None
        self._current: LanguageModel | None = None
        self._base: LanguageModel | None = None
        self._logged: set[float] = set()
        self._told = False

    def _settle(self) -> str:
        """Put the type that the machine wants into a config that leaves it open; why it was chosen."""
        what = key_of({"model": scientific(self.cfg.model), "accelerator": self.placed["accelerator"]})
        return settled.settle(self.cfg, self._choose_dtype, self.group_folder, what)

    def _choose_dtype(self) -> compute_dtype.Choice:
        here = {name: self.placed[name] for name in ("accelerator", "threads")}
        return compute_dtype.decide(build(self.cfg.model), **here)

    @property
    def placed(self) -> dict[str, Any]:
        """What the trainer says of where it computes."""
        return placed(self.cfg.trainer, self.ranks.count)

    def _open_store(self) -> Store:
        here = machine(**self.placed)
        return Store(self.cfg.store.root, layout=layout(self.cfg.trainer), machine=here, writes=not self.ranks.number)

    def next_round(self, policy: Stage) -> RunContext:
        """The same run one round on: it begins with a policy, under a seed of its own."""
        later = copy.copy(self)
        self._base = later._base = self._current = later._current = None
        later.cfg = copy.deepcopy(self.cfg)
        later.cfg.update(later.cfg.iteration.later)
        later.cfg.seed = self.cfg.seed + SEEDS_APART
        later.round, later.start, later.before = self.round + 1, policy, self.start
        return later

    @property
    def begun(self) -> list[Stage]:
        """What the model at the round's start is made of besides the base's weights: the last policy, if any."""
        return self.made_of("current")

    def made_of(self, which: str) -> list[Stage]:
        """What the "current" model, that of the round "before" or the "frozen" base is made of besides its weights."""
        stage = {"current": self.start, "before": self.before, "frozen": None}[which]
        return [] if stage is None else [stage]

    @cached_property
    def method(self) -> str:
        """The name of the row of conf/method, for people."""
        return HydraConfig.get().runtime.choices["method"]

    @property
    def group_folder(self) -> Path:
        """The sweep's folder, or the run's own where there is no sweep."""
        sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
        return self.folder.parent if sweep else self.folder

    @property
    def group(self) -> str:
        """The name of that folder."""
        return self.group_folder.name

    @cached_property
    def tracker(self):
        """The trackers that `logger=` names, as one."""
        return Trackers([build(node) for node in self.cfg.logger.values()])

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """A tracker's run around the block, by rank 0; it ends as failed if the block does not end well."""
        if self.ranks.number:
            yield
            return
        described = {**self.settings, "method": self.method}
        self.tracker.start(self.folder, self.folder.name, self.group, described)
        code = 1
        try:
            yield
            code = 0
        finally:
            self.tracker.finish(self.summary, exit_code=code)

    def log_step(self, row: dict[str, float]) -> None:
        """Hand a training step of the last round to the tracker, once."""
        last = self.round == self.cfg.iterations and not self.ranks.number
        if last and row["step"] not in self._logged:
            self._logged.add(row["step"])
            self.tracker.log({f"train/{name}": value for name, value in row.items()}, step_key="train/step")

    def log_tuning(self, row: dict[str, float]) -> None:
        """Hand a step of the instruction tuning to the tracker."""
        self.tracker.log({f"sft/{name}": value for name, value in row.items()}, step_key="sft/step")

    @cached_property
    def spec(self) -> ModelSpec:
        """The model to align, with fresh LoRA layers if the recipe has them."""
        if self.lender is not None:
            return self.lender.spec
        return dataclasses.replace(build(self.cfg.model), why=self.why_dtype)

    @cached_property
    def frozen(self) -> ModelSpec:
        """The same model as it stands: what samples, scores and is the reference."""
        return dataclasses.replace(self.spec, lora=None)

    @property
    def target_kl(self) -> float | None:
        """Nats per answer from the base at which training is to stop; None where it is not."""
        target = OmegaConf.select(self.cfg, "objective.target_kl")
        return None if target is None else float(target)

    @cached_property
    def data(self):
        """The reader of prompts."""
        return build(self.cfg.data)

    @property
    def strictness(self) -> dict:
        """What is done with a row that cannot be used, and how many may be lost: as the data set's reader has it."""
        return {"on_bad_row": self.data.on_bad_row, "max_dropped": self.data.max_dropped}

    @cached_property
    def format(self) -> str:
        """What `prompts.format=auto` is for the model: chat or template; a line says why."""
        if self.lender is not None:
            return self.lender.format
        found, line = format_of(self.spec)
        if line:
            print(line, file=sys.stderr)
        return found

    @property
    def prompts(self) -> dict:
        """The node of the wording, its format settled."""
        node = resolved(self.cfg.prompts)
        return {**node, "format": self.format} if node.get("format") == "auto" else node

    @cached_property
    def wording(self):
        """The prompt wording."""
        return build(self.prompts)

    def under(self, **nodes: DictConfig | Component) -> RunContext:
        """This cell with other nodes (prompts=, scorer=), the same store and loaded model; for reading only."""
        return RunContext(OmegaConf.create({**resolved(self.cfg), **nodes}), self.folder, lender=self)

    @cached_property
    def runtime(self) -> Runtime:
        """The Lightning runtime; raises UserError where several processes are wanted and this is one by itself."""
        if self.cfg.trainer.devices > 1 and self.ranks.count == 1:
            raise UserError(
                f"trainer.devices={self.cfg.trainer.devices}: this mode works in one process: trainer=gpu or cpu"
            )
        if launch.MARK not in self.cfg.mode and target(self.cfg.executor).one_process:
            raise UserError("executor: this mode works in one process: executor=local")
        return build(self.cfg.trainer)

    @cached_property
    def executor(self):
        """Who works on the shards of a stage."""
        return build(self.cfg.executor)

    def predict(
        self, make: Callable[[RunContext], Any], rows: Sequence, record: type, folder: Path, label: str
    ) -> dict:
        """What the module of `make(context)` predicts, written into the folder; it uses that context and no other."""
        return self.executor.predict(make, self, rows, record, folder, label)

    @cached_property
    def sampler(self):
        """The sampler."""
        return build(self.cfg.sampler)

    def sampler_key(self, *, trained: bool) -> dict:
        """The part in a stage's key of what draws the answers of the base, or of trained weights."""
        return choice.key(resolved(self.cfg.sampler), trained=trained)

    def sampling(self, policy: Stage | None, place: str = "policy") -> AbstractContextManager[Any]:
        """In the block a sampler of the model that the run aligns, or of what was trained of it."""
        return sampling.of_run(self, policy, place)

    @cached_property
    def weights(self) -> dict:
        """The model's part in a stage's key: what its weights and tokenizer are, and the compute dtype."""
        if self.lender is not None:
            return self.lender.weights
        own = ["its own code"] if self.frozen.trust_remote_code else []
        prints = [self.fingerprint(folder) for folder in self.frozen.folders] + own
        packed = {} if self.frozen.bits is None else {"bits": self.frozen.bits}
        return {"weights": prints, "dtype": self.frozen.dtype, **packed}

    def fingerprint(self, folder: Path) -> str:
        """The fingerprint of a folder of weights, as rank 0 finds it."""
        return self.ranks.same(lambda: self.store.fingerprint(folder))

    @property
    def score_dtype(self) -> str:
        """The type in which pairs are scored; that of the training where their margins are given."""
        return (not self.cfg.scored.path and self.cfg.recipe.score_dtype) or self.frozen.dtype

    @property
    def score_weights(self) -> dict:
        """`weights` of the model that scores."""
        return {**self.weights, "dtype": self.score_dtype}

    @cached_property
    def recorded(self) -> dict:
        """The settings as kept: a revision as its commit, the format of prompts settled, weights with their origin."""
        known = {"revision": self.spec.commit, "_origin_": self.spec.origin}
        model = {**self.settings["model"], **{name: value for name, value in known.items() if value is not None}}
        return {**self.settings, "model": model, "prompts": redact(self.prompts)}

    @property
    def training(self) -> dict:
        """What decides a trained model besides its rule: labels, weights, LoRA."""
        return {"labels": scientific(self.cfg.labels), **self.weights, **self.spec.training_key}

    def start_from(self, tuned: Stage) -> None:
        """From here on the model to align is the one that a stage leaves in `policy/`, known by the stage's key."""
        self.settings = self.recorded  # with the commit of what was tuned, and the format that suits it
        weights = {**self.weights, "weights": [*self.weights["weights"], f"{tuned}"]}
        folder = tuned.path("policy") if tuned.done else tuned.folder / "policy"
        spec = dataclasses.replace(self.spec.trained(folder), name=f"{self.spec.name}-sft", lora=self.spec.lora)
        self.tuned = tuned
        self._base = None  # a merged adapter has changed the weights that it shared
        self.__dict__.update(spec=spec, frozen=dataclasses.replace(spec, lora=None), weights=weights)

    def base(self) -> LanguageModel:
        """The frozen model, loaded once per run."""
        if self.lender is not None:
            return self.lender.base()
        if self._base is None:
            self._base = self.frozen.load()
            if not self._told:
                _tell_ends(self._base)
            self._told = True
        return self._base

    def current(self) -> LanguageModel:
        """The model at the round's start, frozen: the base, or the last round's policy."""
        if self.start is None:
            return self.base()
        if self._current is None:
            self._current = self.loaded(self.frozen.trained(self.start.path("policy")))
        return self._current

    def at_start(self, which: str) -> LanguageModel:
        """The "current" model at the round's start, that at the start of the round "before", or the "frozen" base."""
        if which == "before" and self.before is not None:
            return self.loaded(self.frozen.trained(self.before.path("policy")))
        return self.current() if which == "current" else self.base()

    def scoring(self, by: str) -> LanguageModel:
        """The model that scores a round's pairs, in the type that R is made in; the others are let go for it."""
        if self.score_dtype == self.frozen.dtype:
            return self.at_start(by)
        self._base = self._current = None
        spec = self.frozen
        for moved in self.made_of(by):
            spec = spec.trained(moved.path("policy"))
        return dataclasses.replace(spec, dtype=self.score_dtype, why="recipe.score_dtype").load()

    def scored_again(self) -> dict[str, str]:
        """The other models by which a later round's pairs are scored, by what for: R's drift, and `consistency`."""
        by = self.cfg.iteration.scorer
        if self.start is None:
            return {}
        otherwise = "frozen" if by == "current" else "current"
        drifts = {} if self._relative else {"otherwise": otherwise}
        return drifts | ({"before": "before"} if self.cfg.iteration.consistency else {})

    def scorers(self, by: str) -> list[str]:
        """The model that scores, and where the scorer's YAML says `base`, the reference of its training."""
        learnt_from = "before" if self.cfg.iteration.reference == "current" else "frozen"
        return [by, learnt_from] if self._relative else [by]

    @property
    def _relative(self) -> bool:
        """Whether the scorer holds a model against that which it was trained from (`base` in its YAML's `_work_`)."""
        return {"base": False, **work_of(self.cfg.scorer)}["base"]

    def trainee(self) -> LanguageModel:
        """The model to train; the frozen ones are let go first, so that its weights are held once."""
        self._current = None
        return self.loaded(self.spec if self.start is None else self.spec.continued(self.start.path("policy")))

    def policy(self, policy: Stage, place: str = "policy") -> LanguageModel:
        """The trained model, or one that was kept on the way to it."""
        return self.loaded(self.frozen.trained(policy.path(place)), keep=True)

    def loaded(self, spec: ModelSpec, *, keep: bool = False) -> LanguageModel:
        """A model of the run: an adapter on the base shares its weights; others have their own.

        keep: the base stays loaded beside such a one; never beside layers that are spread over processes
        """
        if spec.differs_by_adapter(self.frozen) and self.cfg.trainer.strategy != "fsdp":
            return spec.load(self.base())
        if not keep:
            self._base = None
        return spec.load()

    def notes(self, stage: Stage) -> dict:
        """What a stage's writer noted down."""
        return stage.notes

    def base_hashes(self) -> list[str]:
        """What the base's weights are, wherever they lie: an adapter fits no others."""
        return self.ranks.same(lambda: [self.store.weights_hash(folder) for folder in self.frozen.folders])

    def reward_model(self, folder: Path) -> RewardModel:
        """A reward model that was trained on this base, frozen; folder: where its trunk or adapter and its head lie."""
        from dlma.model.reward_model import RewardModel

        return RewardModel.load(self.frozen.trained(folder), folder)

    def bench(self, policy: Stage | None, arms: Iterable[str]) -> EvaluationContext:
        """What judges and metrics may use: the models behind the arms, and a folder that outlives the run."""
        own = policy if policy is not None and self.notes(policy)["trained"] else None
        load = {arm: partial(self.policy, own) if arm == "aligned" and own else self.base for arm in arms}
        cache, accelerator = self.store.root / "cache", self.cfg.trainer.accelerator
        prints = self.weights["weights"], self.fingerprint
        return EvaluationContext(load, *prints, cache, accelerator, self.base_hashes, self.reward_model)

    def require_metrics(self, prompts: Stage) -> None:
        """Raises UserError, before anything is computed, for a metric that cannot be had, or not for these prompts."""
        from dlma.data.text import prompt_id
        from dlma.metrics.base import Selective
        from dlma.records import Prompt

        used, nodes = ("train", self.cfg.evaluation.split), self.cfg.metrics.values()
        selective = [one for node in nodes if isinstance(one := build(node, self.bench(None, [])), Selective)]
        if selective and prompts.done:
            texts = {prompt_id(row.turns): row.split for row in prompts.rows(Prompt) if row.split in used}
            for metric in selective:
                metric.require(texts)

    def make(self, stage: Stage, write, *, together: bool = False) -> Stage:
        """Have the store compute a stage unless it is there.

        together: `write` shares its work over all processes of the run (dlma/trainer/ranks.py), where there are several
        """
        return self.ranks.make(self.store, stage, write, config=self.recorded, together=together)


def open_run(cfg: DictConfig) -> RunContext:
    """The context of a run, in which rank 0 settles what the config leaves open, and the other ranks hear of it."""
    ours, given, folder = ranks.here(), resolved(cfg), run_folder()
    if ours.number:
        return _as_rank_zero(ours, given, folder)
    cell = RunContext(cfg, folder, ranks=ours)
    if ours.count > 1:  # the others wait for the whole of it
        told = ours.first(lambda: (given, {**resolved(cell.cfg), "prompts": cell.prompts}, cell.weights))
        ours.same(lambda: told)
    return cell


def _as_rank_zero(ours: Ranks, given: dict, folder: Path) -> RunContext:
    """The context that rank 0 has; raises UserError where that one was given another config."""
    first, opened, weights = ours.same(tuple)
    if names := [name for name in given | first if given.get(name) != first.get(name)]:
        raise UserError(f"{few(names)}: not as in process 0: start all processes of a run with the same command")
    cell = RunContext(OmegaConf.create(opened), folder, ranks=ours)
    cell.__dict__.update(weights=weights)
    return cell


def _tell_ends(model: LanguageModel) -> None:
    """Says what is not to be expected of how answers end."""
    if not model.eos_ids:
        print(f"{model.name} has no EOS: every answer runs to recipe.max_new_tokens", file=sys.stderr)
    if model.added_end is not None:
        token = model.tokenizer.convert_ids_to_tokens(model.added_end)
        print(
            f"{model.name}: its chat template ends a turn with {token} (id {model.added_end}), which is no EOS of the "
            "model; here it ends an answer too",
            file=sys.stderr,
        )
