"""Ours: DPO, scoring and sampling through the package's public pieces, with the settings of its own conf/, timed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.clock import Clock
from dlma.records import Pair, ScoredPair

# Of both sides.
OPTIMIZER = {"lr": 1e-6, "optim.weight_decay": 0.0, "optim.clip_norm": 1.0, "beta": 0.1}
PLAIN_DPO = {
    **{"margin_weight": 0.0, "margin_unit": "nats", "epochs": 1},
    **{"optim.optimizer": "adamw", "optim.warmup": 0},
}
PLAIN_SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}


ADAPTER = {"rank": 16, "alpha": 32.0, "targets": "all-linear"}  # as in recipe=small_lora
ADAPTER_RATE = {"lr": 1e-4}  # high enough that a few steps move the loss


def load(model_folder: Path, shape_name: str, *, lora: bool = False, dtype: str = "float32"):
    """The model of a folder, through the package's own loader."""
    from dlma.model.load import Lora, ModelSpec

    return ModelSpec(shape_name, model_folder, dtype, lora=Lora(**ADAPTER) if lora else None).load()


def component(group: str, recipe: dict, *runtime: object):
    """A component as a run would build it: conf/ composed, with these values in its recipe."""
    from hydra import compose, initialize_config_dir

    from dlma import app
    from dlma.config.build import build

    overrides = [f"recipe.{key}={value}" for key, value in recipe.items()]
    with initialize_config_dir(str(app.conf_dir()), version_base="1.3"):
        cfg = compose("config", [*overrides, "seed=0"])
    return build(cfg[group], *runtime)


def train(
    model,
    pairs: Sequence[ScoredPair],
    clock: Clock,
    *,
    batch: int,
    lora: bool = False,
    accelerator: str = "cpu",
    saved: bool = True,
) -> dict:
    """The reference pass, then one epoch of DPO over the pairs; saved: the policy is written at the end."""
    from dlma.model.engine import Engine
    from dlma.model.trees import Completion as Branch
    from dlma.trainer.runtime import Runtime

    with tempfile.TemporaryDirectory() as scratch, clock.span("work"):
        with clock.span("reference"):
            groups = [[Branch(p.plain_context_ids, a) for a in (p.positive_ids, p.negative_ids)] for p in pairs]
            reference = Engine(model).score(groups)
        rows = [
            replace(p, positive_reference=chosen, negative_reference=rejected)
            for p, (chosen, rejected) in zip(pairs, reference, strict=True)
        ]
        rows = [row for _, row in sorted(zip(visits(len(pairs), batch), rows, strict=True), key=lambda pair: pair[0])]
        recipe = OPTIMIZER | PLAIN_DPO | {"batch_pairs": batch} | (ADAPTER_RATE if lora else {})
        rule = component("objective", recipe, model)
        if not saved:
            rule.save = lambda folder: None
        clock.mark()
        rule.fit(rows, Runtime(threads=0, accelerator=accelerator), Path(scratch), lambda row: clock.mark())
    return {"loss": sum(row["loss"] for row in rule.log_rows) / len(rule.log_rows)}


def visits(count: int, batch: int) -> list[int]:
    """Where our loader looks for its first, second, ... row: rows put there are trained on in the order given."""
    from dlma.training.rule import StepLoader

    class Echo:
        def micros(self, rows):
            return rows

    return [i for step in StepLoader(Echo(), range(count), batch=batch, epochs=1, seed=0) for i in step.micros]


def score(model, pairs: Sequence[Pair], clock: Clock) -> tuple[list[list[float]], int]:
    """Margin and reference log-probs of pairs; returns for each the margin and both references, and the operations."""
    from dlma.trainer.runtime import Shard

    scorer = component("scorer", {}, model)
    with clock.span("work"):
        scored = scorer.predict_step(Shard(0, list(pairs)), 0)
    values = [[p.margin, p.positive_reference, p.negative_reference] for p in scored]
    return values, scorer.engine.meter.flops


def sample(model, contexts: Sequence[Sequence[int]], clock: Clock, *, limit: int, lengths: Sequence[int] | None) -> int:
    """One answer to each context; returns how many tokens were drawn."""
    from dlma.functional.noise import row_key
    from dlma.sampler.local import Request

    sampler = component("sampler", PLAIN_SAMPLING | {"max_new_tokens": limit})
    wanted = lengths or [None] * len(contexts)
    requests = [
        Request(row_key(0, str(i), "plain", 0), ids, length)
        for i, (ids, length) in enumerate(zip(contexts, wanted, strict=True))
    ]
    with clock.span("work"):
        answers = sampler.sample(model, requests)
    return sum(len(answer.ids) for answer in answers)
