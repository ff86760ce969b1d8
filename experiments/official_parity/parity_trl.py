"""TRL's DPOTrainer on the same token ids, in the same order, with the same optimizer and schedule."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from parity_case import Settings

from dlma.records import ScoredPair


def loss_curve(model_folder: Path, pairs: Sequence[ScoredPair], settings: Settings) -> list[float]:
    """The loss of each optimizer step: the mean over its micro-batches, which are of one size."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = [
        {"prompt_ids": p.plain_context_ids, "chosen_ids": p.positive_ids, "rejected_ids": p.negative_ids} for p in pairs
    ]
    policy = AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32")
    optimizer = torch.optim.RMSprop(policy.parameters(), lr=settings.lr)
    rise = settings.warmup + 1
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / rise))
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer_class()(
            policy,
            ref_model=AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32"),
            args=_settings(folder, settings),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(model_folder),
            optimizers=(optimizer, schedule),
        )
        trainer.train()
    each = settings.micro_batches
    return [sum(trainer.seen[i : i + each]) / each for i in range(0, len(trainer.seen), each)]


def _settings(folder: str, settings: Settings):
    from trl import DPOConfig

    return DPOConfig(
        output_dir=folder,
        per_device_train_batch_size=settings.batch // settings.micro_batches,
        gradient_accumulation_steps=settings.micro_batches,
        num_train_epochs=1,
        learning_rate=settings.lr,
        max_grad_norm=settings.clip_norm,
        beta=settings.beta,
        max_length=None,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        disable_dropout=True,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


def _trainer_class() -> type:
    from torch.utils.data import SequentialSampler
    from trl import DPOTrainer

    class InOrder(DPOTrainer):
        """Rows that are token ids already, in the order given; the loss of every micro-batch is kept."""

        def __init__(self, *rest, **named) -> None:
            self.seen: list[float] = []
            super().__init__(*rest, **named)

        def _prepare_dataset(self, dataset, *rest):
            return dataset

        def _get_train_sampler(self, *rest):
            return SequentialSampler(self.train_dataset)

        def compute_loss(self, *rest, **named):
            loss = super().compute_loss(*rest, **named)
            self.seen.append((loss[0] if isinstance(loss, tuple) else loss).item())
            return loss

    return InOrder
