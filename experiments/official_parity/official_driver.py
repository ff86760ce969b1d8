"""Runs the official BasicTrainer on CPU; nothing of the clone is changed:  official_driver.py CLONE MODEL

Works in the current folder: reads generated_data/parity/*.jsonl and settings.json, writes losses.json.
What is put in its way from outside, and why:
- modules that it imports and does not use here (tensor_parallel, bs4) are empty ones where they are not installed;
- a batch goes to the CPU: the trainer names the GPU of its rank;
- rows come in the order of the file: the trainer shuffles them by a seed that is 71 whatever is set;
- policy and reference have one dtype, float32: its configs have the reference in float16.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path


def main(clone: Path, model: str) -> None:
    sys.path.insert(0, str(clone))
    _stand_in("tensor_parallel")
    _stand_in("bs4", "BeautifulSoup", "NavigableString")
    import trainers
    from transformers import AutoModelForCausalLM

    slice_for, iterate = trainers.slice_and_move_batch_for_device, trainers.get_batch_iterator
    trainers.slice_and_move_batch_for_device = lambda batch, rank, world, device: slice_for(batch, rank, world, "cpu")
    trainers.get_batch_iterator = lambda **options: iterate(**{**options, "shuffle": False})
    policy, reference = (AutoModelForCausalLM.from_pretrained(model, dtype="float32") for _ in range(2))
    trainer = trainers.BasicTrainer(policy, _config(clone, model), 0, "run", reference_model=reference)
    losses = _watched(trainer)
    trainer.train()
    each = trainer.config.gradient_accumulation_steps
    steps = [sum(losses[i : i + each]) / each for i in range(0, len(losses), each)]
    Path("losses.json").write_text(json.dumps(steps))


def _stand_in(name: str, *members: str) -> None:
    if importlib.util.find_spec(name) is None:
        sys.modules[name] = types.ModuleType(name)
        for member in members:
            setattr(sys.modules[name], member, type(member, (), {}))


def _config(clone: Path, model: str):
    """The clone's own configs, with the run's settings."""
    from omegaconf import OmegaConf

    load = OmegaConf.load
    settings = json.loads(Path("settings.json").read_text())
    config = load(clone / "config" / "config.yaml")
    config.loss = load(clone / "config" / "loss" / "dpo.yaml")
    config.model = load(clone / "config" / "model" / "tinyllama.yaml")
    ours = {
        "datasets": ["parity"],
        "batch_size": settings["batch"],
        "gradient_accumulation_steps": settings["micro_batches"],
        "lr": settings["lr"],
        "warmup_steps": settings["warmup"],
        "max_grad_norm": settings["clip_norm"],
        "do_first_eval": False,
        "n_eval_examples": 2,
        "eval_batch_size": 2,
        "local_dirs": ["cache"],
        "wandb": {"enabled": False},
        "model": {"name_or_path": model},
        "loss": {
            "beta": settings["beta"],
            "use_weighted_loss": True,
            "margin_loss_weight": settings["weight"],
            "min_range": -settings["clamp"],
            "max_range": settings["clamp"],
        },
    }
    return OmegaConf.merge(config, ours)


def _watched(trainer) -> list[float]:
    """A list that will hold the mean loss of every micro-batch."""
    losses: list[float] = []
    measure = trainer.get_batch_metrics

    def watched(*rest, **named):
        loss, metrics = measure(*rest, **named)
        losses.append(loss.item())
        return loss, metrics

    trainer.get_batch_metrics = watched
    return losses


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
