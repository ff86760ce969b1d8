"""What bfloat16 costs: R, the loss and the reference of real pairs in each type, against a plain loop in float64.

python experiments/bfloat16/measure.py MODEL PAIRS [PAIRS_WANTED] [TOKENS]

MODEL is a folder with a chat template; PAIRS a file of preference pairs as `pairs.path` takes it, of which the first
usable ones whose conversation and answers have at most so many tokens each are taken. The loop runs the network over
one sequence at a time, in float64 over the same weights. Written to costs.csv, one row for each type:
  r_sd, r_rms, r_largest   nats: the spread of R, and by how much it differs from the loop's
  signs                    pairs whose R has another sign
  loss, loss_error         margin DPO's first loss by this R (small_lora's recipe), and how far it is from the loop's
  step                     nats per token: the most by which a policy that is still its reference differs from it in
                           training, where rows are put together in another way; `allowed` is what a run tolerates
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from torch.nn.functional import log_softmax, softplus

from dlma.config import compose
from dlma.config.build import build
from dlma.config.help import conf_dir
from dlma.model.compute_dtype import TYPES
from dlma.model.engine import Engine
from dlma.model.language import LanguageModel
from dlma.model.load import Lora, ModelSpec
from dlma.model.original import TOLERANCE
from dlma.model.trees import Completion
from dlma.pairs.imported import FilePairs
from dlma.records import Pair, ScoredPair
from dlma.scorer.self_reward import SelfReward
from dlma.store.machine import instructions, machine

HERE = Path(__file__).resolve().parent
RECIPE = yaml.safe_load((HERE.parents[1] / "conf" / "recipe" / "small_lora.yaml").read_text())
PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16")  # what processors call their own products in bfloat16
LORA = Lora(rank=16, alpha=32.0, targets="all-linear")


def read_pairs(path: str, spec: ModelSpec, wanted: int, tokens: int) -> list[Pair]:
    """The first usable pairs under the harmless affixes in the model's chat format."""
    words = ["prompts=harmless_affix", "prompts.format=chat"]
    worded = build(compose.plan(compose.search_path(conf_dir(), None), words, False).cfg.prompts)
    limits = {"seed": 0, "max_prompt_tokens": tokens, "max_response_tokens": tokens, "max_dropped": 1.0}
    found = FilePairs(path, spec.tokenizer, worded, with_margin=False, vocabulary=spec.vocabulary, **limits)
    return list(found)[:wanted]


@torch.no_grad()
def logp(model: LanguageModel, context: Sequence[int], answer: Sequence[int]) -> float:
    """One sequence, one pass of the network as it is, one sum; nats."""
    ids = torch.tensor([[*context, *answer]])
    rows = log_softmax(model.causal(input_ids=ids, use_cache=False).logits[0, len(context) - 1 : -1], dim=-1)
    return rows.gather(1, ids[0, len(context) :, None]).sum().item()


def exact(spec: ModelSpec, pairs: Sequence[Pair]) -> torch.Tensor:
    """R of each pair by the loop in float64."""
    model = replace(spec, dtype="float32").load()
    model.network.double()
    found = []
    for pair in pairs:
        positive, negative = (
            logp(model, pair.positive_context_ids, ids) - logp(model, pair.negative_context_ids, ids)
            for ids in (pair.positive_ids, pair.negative_ids)
        )
        found.append(positive - negative)
    return torch.tensor(found, dtype=torch.float64)


def first_loss(r: torch.Tensor) -> float:
    """Margin DPO's loss where the policy is the reference: softplus(margin_weight * clamp(R)), the mean."""
    clamped = r.double().clamp(RECIPE["margin_low"], RECIPE["margin_high"])
    return softplus(RECIPE["margin_weight"] * clamped).mean().item()


def largest_step(spec: ModelSpec, scored: Sequence[ScoredPair]) -> float:
    """How far training's first log-probs are from the reference column, nats per token, at most."""
    engine = Engine(replace(spec, lora=LORA).load())
    groups = [[Completion(p.plain_context_ids, ids) for ids in (p.positive_ids, p.negative_ids)] for p in scored]
    trees = engine.plan(groups)
    found = []
    for tree, pair in zip(trees, scored, strict=True):
        policy = engine.response_logp(engine.collate([tree])).tolist()
        for ours, reference, ids in zip(
            policy,
            (pair.positive_reference, pair.negative_reference),
            (pair.positive_ids, pair.negative_ids),
            strict=True,
        ):
            found.append(abs(ours - reference) / len(ids))
    return max(found)


def cost(spec: ModelSpec, pairs: Sequence[Pair], true: torch.Tensor) -> dict[str, object]:
    """The row of a type."""
    scored = SelfReward(spec.load()).score(pairs)
    r = torch.tensor([pair.margin for pair in scored], dtype=torch.float64)
    error = r - true
    return {
        "dtype": spec.dtype,
        "pairs": len(pairs),
        "answer_tokens": sum(len(p.positive_ids) + len(p.negative_ids) for p in pairs),
        "r_sd": true.std().item(),
        "r_rms": error.square().mean().sqrt().item(),
        "r_largest": error.abs().max().item(),
        "signs": int((r.sign() != true.sign()).sum()),
        "loss": first_loss(r),
        "loss_error": abs(first_loss(r) - first_loss(true)),
        "step": largest_step(spec, scored),
        "allowed": TOLERANCE[getattr(torch, spec.dtype)],
    }


def main(model: str, pairs: str, wanted: str = "40", tokens: str = "192") -> None:
    """Measure, and write costs.csv."""
    spec = ModelSpec(Path(model).name, Path(model), TYPES[0])
    rows = read_pairs(pairs, spec, int(wanted), int(tokens))
    true = exact(spec, rows)
    here = machine(accelerator="cpu", devices=1, strategy="", threads=torch.get_num_threads())["processor"]
    own = [name for name in PRODUCTS if name in instructions().split()]
    facts = {"torch": torch.__version__, "processor": here, "own_products": " ".join(own) or "none"}
    with (HERE / "costs.csv").open("w", newline="", encoding="utf-8") as out:
        lines = [facts | cost(replace(spec, dtype=dtype), rows, true) for dtype in TYPES]
        writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
