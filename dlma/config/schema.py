"""The config's root: every key that is not a component's, with its type; read by config.py, instantiated by nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
    kl_levels: list[float]
    curve_axis: list[str] | None
    curves_against: str | None
    flops: list[float] | None
    margin: float
    known: str | None
    pool_bases: bool
    reference: str | None
    reference_method: str
    on_error: Literal["continue", "stop"]
    retry_failed: bool


@dataclass
class IterationNode:
    """Which model a later round takes: the one at its start, or the base."""

    scorer: Literal["current", "frozen"]
    reference: Literal["current", "frozen"]


@dataclass
class ScoredNode:
    path: str | None


@dataclass
class LoraNode:
    rank: int
    alpha: float
    targets: list[str] | str


@dataclass
class RewardNode:
    """Training of the reward model."""

    lr: float
    epochs: int
    batch: int
    warmup_steps: int


@dataclass
class PPONode:
    """PPO on the reward model (conf/objective/ppo.yaml)."""

    lr: float
    warmup_steps: int
    clip_norm: float
    rollouts: int
    rollout: int
    batch: int
    epochs: int
    kl_weight: float
    clip: float
    value_clip: float
    value_weight: float
    gamma: float
    lam: float


@dataclass
class Recipe:
    """The scientific values that several components read; `exclusive`: only for models that name it."""

    name: str
    exclusive: bool
    beta: float
    margin_weight: float
    margin_low: float
    margin_high: float
    margin_unit: Literal["nats", "sd", "quantile"]
    optimizer: Literal["adamw", "rmsprop"]
    lr: float
    weight_decay: float
    warmup_steps: int
    clip_norm: float
    epochs: int
    batch_pairs: int
    max_prompt_tokens: int
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    sft_lr: float
    sft_epochs: int
    sft_batch: int
    reward: RewardNode
    ppo: PPONode
    dtype: Literal["float32", "bfloat16"]
    lora: LoraNode | None


class Component:
    """Any node with a `_target_`."""


@dataclass
class Root:
    seed: int
    name: str | None
    along: int
    iterations: int
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
    logger: Component
    mode: Component
