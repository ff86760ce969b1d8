"""The config's root: every key that is not a component's, with its type; read by check.py, never instantiated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dlma.ranges import (
    Count,
    Dtype,
    DtypeOrAuto,
    Few,
    Flops,
    Names,
    NotNegative,
    Number,
    Positive,
    PositiveShare,
    Rate,
    Seed,
    Share,
    Stops,
    Temperature,
    TwoOrMore,
    Whole,
)


@dataclass
class StoreNode:
    root: str
    link: bool
    keep_policies: Literal["all", "best", "adapter"]


@dataclass(frozen=True)
class SweepOptions:
    """How the runs of a sweep are held against each other; said in conf/config.yaml, read as they are by dlma/sweep."""

    baseline: str | None
    tested: list[str] | None
    metric: str | None
    kl_levels: list[Positive]
    curve_axis: list[str] | None
    curves_against: str | None
    flops: list[Flops] | None
    margin: PositiveShare
    known: str | None
    pool_bases: bool
    reference: str | None
    reference_method: str
    objective: str
    kl_cap: Positive | None
    on_error: Literal["continue", "stop"]
    retry_failed: bool


@dataclass
class IterationNode:
    """Which model a later round takes: the one at its start, or the base; and what else it does otherwise."""

    scorer: Literal["current", "frozen"]
    reference: Literal["current", "frozen"]
    consistency: bool
    later: dict[str, Component]


@dataclass
class ScoredNode:
    path: str | None


@dataclass
class LoraNode:
    rank: Few
    alpha: Positive
    targets: Names | str


@dataclass
class TrainingNode:
    """A training besides the method's own: fine-tuning and distillation, or that of the reward model."""

    optim: Component
    lr: Rate
    epochs: Few
    batch_pairs: Count


@dataclass
class PPONode:
    """PPO on the reward model (conf/objective/ppo.yaml)."""

    optim: Component
    lr: Rate
    rollouts: Few
    rollout: Count
    batch: Count
    epochs: Few
    kl_weight: NotNegative
    clip: PositiveShare
    value_clip: Positive
    value_weight: NotNegative
    gamma: Share
    lam: Share


@dataclass
class Recipe:
    """The scientific values that several components read; `exclusive`: only for models that name it."""

    name: str
    exclusive: bool
    beta: Positive
    margin_weight: NotNegative
    margin_low: Number
    margin_high: Number
    margin_unit: Literal["nats", "sd", "quantile"]
    optim: Component
    lr: Rate
    epochs: Few
    batch_pairs: Count
    max_prompt_tokens: Count
    max_new_tokens: Count
    temperature: Temperature
    top_k: Whole
    top_p: PositiveShare
    sft: TrainingNode
    reward: TrainingNode
    ppo: PPONode
    dtype: DtypeOrAuto
    score_dtype: Dtype | None
    lora: LoraNode | None
    rows: Count
    checkpointing: bool


class Component:
    """Any node with a `_target_`; in a constructor, the object built of it, whose class the preset chooses."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __call__(self, *args: Any) -> Any: ...


@dataclass
class Root:
    seed: Seed
    name: str | None
    intermediate: Stops
    kl_points: Stops
    kl_prompts: TwoOrMore
    iterations: Few
    iteration: IterationNode
    store: StoreNode
    sweep: SweepOptions
    runs: str | None
    scored: ScoredNode
    recipe: Recipe
    model: Component
    sft: Component
    data: Component
    prompts: Component
    pairs: Component
    sampler: Component
    judge_prompt: Component
    scorer: Component
    labels: Component
    reward: Component
    objective: Component
    evaluation: Component
    endpoint: Component
    judges: dict[str, Component]
    metrics: dict[str, Component]
    preflight: Component
    alerts: Component
    panel: Component
    trainer: Component
    executor: Component
    logger: dict[str, Component]
    mode: Component
