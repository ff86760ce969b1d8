"""The peer in training: TRL's DPOTrainer on the same token ids, with the same optimizer and no logs or checkpoints.

`padding_free` is no variant: DPOTrainer of TRL 1.16 warns that it is unavailable and pads.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.clock import Clock
from benchmarks.ours import ADAPTER, ADAPTER_RATE, OPTIMIZER
from dlma.records import ScoredPair


def train(
    model_folder: Path,
    pairs: Sequence[ScoredPair],
    clock: Clock,
    *,
    batch: int,
    precompute: bool,
    checkpointing: bool,
    lora: bool = False,
    dtype: str = "float32",
    mixed: bool = False,
) -> dict:
    """One epoch of DPO over the pairs, in their order, on a folder's model; mixed: products in bfloat16 by autocast."""
    import datasets  # noqa: F401  (imports are no part of the work)
    import trl  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with clock.span("work"):
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype)
        settings = {"precompute": precompute, "checkpointing": checkpointing, "lora": lora, "mixed": mixed}
        return fit(model, AutoTokenizer.from_pretrained(model_folder), pairs, clock, batch=batch, **settings)


def fit(
    model,
    tokenizer,
    pairs: Sequence[ScoredPair],
    clock: Clock,
    *,
    batch: int,
    precompute: bool,
    checkpointing: bool,
    lora: bool,
    mixed: bool = False,
    gpu: bool = False,
) -> dict:
    """`train` on a model as it is."""
    os.environ["TQDM_DISABLE"] = "1"
    import transformers
    from datasets import Dataset

    trainer_class, mark = _classes(clock)
    rate = (OPTIMIZER | (ADAPTER_RATE if lora else {}))["lr"]
    transformers.utils.logging.set_verbosity_error()
    rows = [
        {"prompt_ids": p.plain_context_ids, "chosen_ids": p.positive_ids, "rejected_ids": p.negative_ids} for p in pairs
    ]
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trainer_class(
            model,
            args=_settings(scratch, batch, precompute, checkpointing, rate, mixed, gpu),
            peft_config=_adapter() if lora else None,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[mark],
        )
        trainer.train()
    return {"loss": float(trainer.state.log_history[-1]["train_loss"])}


def _adapter():
    """The adapter of ours; TRL seeds it as ours is seeded, so both begin with the same weights."""
    from peft import LoraConfig

    return LoraConfig(
        r=ADAPTER["rank"],
        lora_alpha=ADAPTER["alpha"],
        target_modules=ADAPTER["targets"],
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )


def _settings(scratch: str, batch: int, precompute: bool, checkpointing: bool, rate: float, mixed: bool, gpu: bool):
    from trl import DPOConfig

    return DPOConfig(
        output_dir=scratch,
        per_device_train_batch_size=batch,
        num_train_epochs=1,
        learning_rate=rate,
        lr_scheduler_type="constant",
        weight_decay=OPTIMIZER["optim.weight_decay"],
        max_grad_norm=OPTIMIZER["optim.clip_norm"],
        optim="adamw_torch",
        beta=OPTIMIZER["beta"],
        bf16=mixed,
        use_cpu=not gpu,
        gradient_checkpointing=checkpointing,
        precompute_ref_log_probs=precompute,
        max_length=None,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=0,
    )


def _classes(clock: Clock):
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback
    from trl import DPOTrainer

    class OnIds(DPOTrainer):
        """DPOTrainer on rows that are token ids already, in the order given."""

        def _prepare_dataset(self, dataset, *rest):
            return dataset

        def _get_train_sampler(self, *rest):
            return SequentialSampler(self.train_dataset)

    class Marks(TrainerCallback):
        """Marks the beginning of the first step and the end of each."""

        def on_train_begin(self, *rest, **named):
            clock.mark()

        def on_step_end(self, *rest, **named):
            clock.mark()

    return OnIds, Marks()
