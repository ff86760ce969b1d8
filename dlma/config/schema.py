"""The config's root: every key that is not a component's, with its type; read by config.py, instantiated by nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class StoreNode:
    root: str
    link: bool
    keep_policies: Literal["all", "best", "adapter"]


@dataclass
class SweepNode:
    baseline: str | None
    tested: list[str] | None
    kl: list[float]
    curves_over: list[str] | None
    height: str | None
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
class TrainingNode:
    """A training besides the method's own: fine-tuning and distillation, or that of the reward model."""

    optim: Component
    lr: float
    epochs: int
    batch_pairs: int


@dataclass
class PPONode:
    """PPO on the reward model (conf/objective/ppo.yaml)."""

    optim: Component
    lr: float
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
    optim: Component
    lr: float
    epochs: int
    batch_pairs: int
    max_prompt_tokens: int
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    sft: TrainingNode
    reward: TrainingNode
    ppo: PPONode
    dtype: Literal["float32", "bfloat16"]
    lora: LoraNode | None


class Component:
    """Any node with a `_target_`."""


@dataclass
class Root:
    seed: int
    name: str | None
    intermediate: int
    iterations: int
    iteration: IterationNode
    store: StoreNode
    sweep: SweepNode
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
