"""A base of the lab: tokenizer, a small network trained on the world's documents, and its card (mode=lab_base).

Same name, dials and seed, machine and libraries: same bytes. The saved fp16 weights are the canonical ones.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dlma import files
from dlma.errors import UserError
from dlma.lab import card, documents, measure
from dlma.lab.bases import base_folder
from dlma.lab.documents import Dials
from dlma.lab.networks import new_network

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SPECIALS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
CHUNK = 4096  # documents drawn, sorted by length and batched at a time
Row = list[tuple[str, list[int]]]  # the documents of one row: kind and ids
VERDICT_WEIGHT = 5.0  # loss weight of a judge document's verdict token, which is one token in eighty


@dataclass(frozen=True)
class BasePlan:
    """The size of a base and of its training."""

    tokens: int
    seed: int
    vocabulary: int = 1024
    hidden: int = 128
    feed_forward: int = 352
    layers: int = 4
    heads: int = 4
    context: int = 512
    row_tokens: int = 128
    batch_tokens: int = 2048
    learning_rate: float = 3e-3
    architecture: str = "llama"
    start: str | None = None  # a base whose tokenizer and weights are gone on from; null: from nothing
    warmup: float = 0.04
    weight_decay: float = 0.05


def train_tokenizer(dials: Dials, plan: BasePlan) -> PreTrainedTokenizerFast:
    """A byte-level BPE over the documents; any text encodes; BOS is put in front by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(f"tokenizer {plan.seed}")
    texts = [documents.draw(rng, dials).text for _ in range(20_000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = list(SPECIALS.values())
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocabulary, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos = SPECIALS["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=plan.context, clean_up_tokenization_spaces=False, **SPECIALS
    )
    _require_verdict_tokens(fast)
    return fast


def _require_verdict_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    for verdict in documents.JUDGE_VERDICTS:
        if len(tokenizer.encode(verdict, add_special_tokens=False)) != 1:
            raise UserError(f"mode=lab_base: {verdict!r} is not one token: ask for a larger vocabulary")


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """Each text as BOS, its tokens, EOS."""
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [[tokenizer.bos_token_id, *ids, tokenizer.eos_token_id] for ids in encoded]


def batches(tokenizer: PreTrainedTokenizerFast, dials: Dials, plan: BasePlan) -> Iterator[list[Row]]:
    """Endless batches of fresh documents, several in a row and never cut."""
    chunk = 0
    per_batch = max(1, plan.batch_tokens // plan.row_tokens)
    while True:
        rng = random.Random(f"documents {plan.seed} {chunk}")
        drawn = [documents.draw(rng, dials) for _ in range(CHUNK)]
        encoded = zip(drawn, encode(tokenizer, [document.text for document in drawn]))
        rows = pack([(document.kind, ids) for document, ids in encoded], plan.row_tokens)
        rng.shuffle(rows)
        for start in range(0, len(rows) - per_batch + 1, per_batch):
            yield rows[start : start + per_batch]
        chunk += 1


def pack(items: list[tuple[str, list[int]]], width: int, candidates: int = 24) -> list[Row]:
    """Fill rows of `width` tokens, each document into the first of the latest open rows that has room for it."""
    full: list[Row] = []
    open_rows: list[Row] = []
    for item in items:
        if len(item[1]) > width:
            raise UserError(f"mode=lab_base: a document of {len(item[1])} tokens outruns a row: fewer mode.sentences")
        fitting = (row for row in open_rows if sum(len(ids) for _, ids in row) + len(item[1]) <= width)
        row = next(fitting, None)
        if row is None:
            row = []
            open_rows.append(row)
        row.append(item)
        if len(open_rows) > candidates:
            full.append(open_rows.pop(0))
    return [*full, *open_rows]


def tensors(rows: list[Row], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded rows of documents that do not see each other.

    `ids`, `positions` (restarting at each document), `weights` (of an id as a target): (rows, width);
    `mask`: (rows, 1, width, width), added to the attention scores.
    """
    import torch

    width = max(sum(len(ids) for _, ids in row) for row in rows)
    ids, positions = torch.full((len(rows), width), pad), torch.zeros(len(rows), width, dtype=torch.long)
    weights, owner = torch.zeros(len(rows), width), torch.full((len(rows), width), -1)
    for i, row in enumerate(rows):
        start = 0
        for n, (kind, document) in enumerate(row):
            end = start + len(document)
            ids[i, start:end] = torch.tensor(document)
            positions[i, start:end] = torch.arange(len(document))
            weights[i, start + 1 : end] = 1.0
            if kind == "judge":
                weights[i, end - 2] = VERDICT_WEIGHT
            owner[i, start:end] = n
            start = end
    seen = (owner[:, :, None] == owner[:, None, :]) & torch.ones(width, width, dtype=torch.bool).tril()
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    return {"ids": ids, "positions": positions, "weights": weights, "mask": mask}


def loss_of(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Weighted mean cross-entropy, nats, over the weights' sum."""
    import torch.nn.functional as F

    logits = model(
        input_ids=batch["ids"], attention_mask=batch["mask"], position_ids=batch["positions"], use_cache=False
    ).logits[:, :-1]
    weights = batch["weights"][:, 1:].flatten()
    losses = F.cross_entropy(logits.flatten(0, 1), batch["ids"][:, 1:].flatten(), reduction="none")
    return (losses * weights).sum() / weights.sum()


def rate_at(plan: BasePlan, seen: int) -> float:
    """The learning rate after `seen` tokens: linear warm-up, then a cosine down to a fiftieth."""
    share = min(1.0, seen / plan.tokens)
    if share < plan.warmup:
        return plan.learning_rate * (share + 1e-3) / plan.warmup
    turn = (share - plan.warmup) / (1 - plan.warmup)
    return plan.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * turn)))


def train(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, dials: Dials, plan: BasePlan) -> list[float]:
    """Train in place on one thread, as a rebuild must; returns the loss of every step."""
    import torch
    from tqdm import tqdm

    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=plan.weight_decay, fused=True
    )
    model.train()
    seen = 0
    losses: list[float] = []
    with tqdm(total=plan.tokens, unit="tok", unit_scale=True, desc="base", mininterval=5) as bar:
        for rows in batches(tokenizer, dials, plan):
            loss = loss_of(model, tensors(rows, tokenizer.pad_token_id))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.param_groups[0]["lr"] = rate_at(plan, seen)
            optimizer.step()
            step = sum(len(ids) for row in rows for _, ids in row)
            seen, losses = seen + step, [*losses[-199:], loss.item()]
            bar.update(step)
            bar.set_postfix_str(f"loss {sum(losses) / len(losses):.3f}", refresh=False)
            if seen >= plan.tokens:
                return losses
    raise AssertionError("the documents never end")


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write weights as fp16, config and tokenizer."""

    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)


def begin(dials: Dials, plan: BasePlan) -> tuple[PreTrainedTokenizerFast, PreTrainedModel]:
    """A tokenizer and a model to train: new ones, or those of the base that the plan starts from, in fp32."""
    if plan.start is None:
        tokenizer = train_tokenizer(dials, plan)
        return tokenizer, new_network(plan, tokenizer)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dlma.model.weights import read_network

    folder = base_folder(plan.start)
    found = AutoTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=plan.context)
    model = read_network(AutoModelForCausalLM, folder, str(folder)).float()
    model.config.max_position_embeddings = plan.context
    return cast("PreTrainedTokenizerFast", found), model


def build_base(out: Path, *, name: str, dials: Dials, plan: BasePlan, prompts: int) -> dict:
    """Train, save, load again as it will be used, measure, and write the card; returns the figures."""
    tokenizer, model = begin(dials, plan)
    train(model, tokenizer, dials, plan)
    with files.atomic_folder(out) as draft:
        save(model, tokenizer, draft)
        return measure_base(draft, name=name, dials=dials, plan=plan, prompts=prompts)


def measure_base(folder: Path, *, name: str, dials: Dials, plan: BasePlan, prompts: int) -> dict:
    """Measure a saved base and write its card."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dlma.model.weights import read_network

    model = read_network(AutoModelForCausalLM, folder, str(folder))
    tokenizer = cast("PreTrainedTokenizerFast", AutoTokenizer.from_pretrained(folder, local_files_only=True))
    probe = measure.Probe(model, tokenizer, plan.seed)
    limit = 14 * dials.sentences[1]
    figures = measure.figures(probe, dials, n=prompts, limit=limit, seed=plan.seed)
    card.write(
        folder,
        name=name,
        seed=plan.seed,
        dials=dials,
        plan=dataclasses.asdict(plan),
        parameters=model.num_parameters(),
        figures=figures,
    )
    return figures


def sized(plan: BasePlan, dials: Dials) -> BasePlan:
    """The plan with rows, batches and a context that hold the longest documents of these dials."""
    row = max(plan.row_tokens, 21 * dials.sentences[1])
    return dataclasses.replace(
        plan, row_tokens=row, batch_tokens=max(plan.batch_tokens, 3 * row), context=max(plan.context, row)
    )
