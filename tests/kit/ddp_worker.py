"""Trains in one process and in two, for tests/objective/test_ddp.py: `ddp_worker.py folder port case...`.

Each process is forked from this one, which has imported all that takes long and computed nothing.
"""

import os
import signal
import sys
import traceback
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from scored_examples import OPTIONS, changed, scored_pairs
from small_models import small_model
from torch.distributed.tensor import DTensor

from dlma.model.language import LanguageModel
from dlma.objective.dpo import DPO
from dlma.trainer import collectives
from dlma.trainer.place import Place
from dlma.trainer.runtime import Runtime


class Watched(DPO):
    """Keeps the first step's gradient, as it is before clipping."""

    def clipped_norm(self):
        if self.global_step == 0:
            named = self.network.named_parameters()
            self.first = {name: whole(p.grad).clone() for name, p in named if p.requires_grad}
        return super().clipped_norm()


def adapted(model):
    """LoRA on two matrices, away from zero."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    network = get_peft_model(model.network, config).eval()
    return LanguageModel(network, model.tokenizer, model.name)


def whole(tensor):
    """A tensor that may be spread over the processes, put together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


SPREAD = {"token_budget": 64, "clip_norm": 0.05}  # several passes, not as many in each process
CASES = {
    "full": ("ddp", {}),
    "lora": ("ddp", {"checkpointing": True, "token_budget": 1}),
    "spread": ("fsdp", SPREAD),
    "resumed": ("fsdp", SPREAD),
    "rounded": ("fsdp", SPREAD),
    "rounded, resumed": ("fsdp", SPREAD),
}


def stopped_at_the_last_step(rule, pairs, runtime, folder):
    """Training that ends in mid-run, in all processes, after a resume point."""

    def listen(row):
        if row["step"] == 3:
            raise ZeroDivisionError

    try:
        rule.fit(pairs, runtime, folder, listen)
    except ZeroDivisionError:
        return
    raise AssertionError("training did not stop")


def made(case):
    """The model of a case: in bfloat16 where weights are rounded, with float32 copies in the optimizer."""
    model = small_model(spread=0.15)
    if "rounded" in case:
        model.network.to(torch.bfloat16)
    return model


def train(folder, processes, rank, port, cases):
    if processes > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        place = Place(rank, processes, rank, processes)
        collectives.join(collectives.meet(place)[0], place, gpu=False)
    for case in cases:
        strategy, options = CASES[case]
        model = made(case)
        pairs = scored_pairs(model, n=15)
        model = adapted(model) if case == "lora" else model
        given = {"lr": 1e-4, "batch_pairs": 5, "epochs": 1, **options}
        rule = Watched(model, **changed(OPTIONS, **given))
        runtime = Runtime(devices=processes, strategy=strategy, checkpoint_steps=2)
        if "resumed" in case:
            stopped_at_the_last_step(rule, pairs, runtime, folder / case)
            rule = Watched(made(case), **changed(OPTIONS, **given))
        rule.fit(pairs, runtime, folder / case, lambda row: None)
        weights = {name: whole(p.detach()) for name, p in rule.network.named_parameters() if p.requires_grad}
        suffix = f".rank{collectives.rank()}" if collectives.rank() else ""
        held = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in rule.network.parameters())
        found = {"log": rule.log_rows, "gradient": getattr(rule, "first", {}), "weights": weights, "held": held}
        torch.save(found, folder / f"{case}{suffix}.pt")
    if processes > 1:
        collectives.leave()


def forked(*words):
    """The number of a process that trains; it ends with 0, or says why not."""
    if child := os.fork():
        return child
    code = 1
    try:
        train(*words)
        code = 0
    except BaseException:  # printed, and told by the exit code
        traceback.print_exc()
    finally:
        os._exit(code)


def main(place, port, *cases):
    for name, processes in {"one": 1, "two": 2}.items():
        (place / name).mkdir(parents=True)
        running = {forked(place / name, processes, rank, port, cases) for rank in range(processes)}
        while running:
            child, status = os.wait()
            running.remove(child)
            if status:
                for other in running:  # which waits for the one that is gone
                    os.kill(other, signal.SIGKILL)
                sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
