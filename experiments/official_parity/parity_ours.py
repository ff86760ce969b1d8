"""Our side: R by the scorer, and the loss curve by the DPO objective, both as a run uses them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from parity_case import Example, Settings

from dlma.config.build import build
from dlma.model.language import LanguageModel
from dlma.model.load import hf_model
from dlma.model.tokens import answer_ids, encode
from dlma.records import Pair, ScoredPair, Turn

WORDING = Path(__file__).resolve().parents[2] / "conf" / "prompts" / "harmless_affix.yaml"


def load(folder: Path) -> LanguageModel:
    return hf_model(path=str(folder), revision="main", dtype="float32", bits=None, lora=None).load()


def self_reward(model: LanguageModel, rows: Sequence[Example], *, eos: bool) -> list[float]:
    """R of each row, nats; `eos` counts an EOS at the end of both answers, which the official script never does."""
    from dlma.scorer.self_reward import SelfReward

    wording = build(OmegaConf.load(WORDING))
    pairs = [_pair(model.tokenizer, wording, row, eos) for row in rows]
    return [pair.margin for pair in SelfReward(model).score(pairs)]


def _pair(tokenizer, wording, row: Example, eos: bool) -> Pair:
    texts = [wording.render([Turn("user", row.prompt)], side, 0) for side in ("plain", "positive", "negative")]
    contexts = encode(tokenizer, texts)
    end = [tokenizer.eos_token_id] if eos else []
    answers = [
        answer_ids(contexts, encode(tokenizer, [text + answer for text in texts]), tokenizer.eos_token_id) + end
        for answer in (row.chosen, row.rejected)
    ]
    return Pair(
        row.prompt, row.prompt, row.prompt, wording.label(0), *contexts, *answers, eos, eos, row.chosen, row.rejected
    )


def bare_pairs(model: LanguageModel, rows: Sequence[Example], margins: Sequence[float]) -> list[ScoredPair]:
    """The pairs as the official trainer sees them: no BOS, prompt and answers tokenised apart, EOS always there."""
    from dlma.model.engine import Engine
    from dlma.model.trees import Completion as Scored

    def ids(text: str) -> list[int]:
        return model.tokenizer(text, add_special_tokens=False)["input_ids"]

    eos = [model.tokenizer.eos_token_id]
    tokens = [(ids(row.prompt), ids(row.chosen) + eos, ids(row.rejected) + eos) for row in rows]
    logp = Engine(model).score([[Scored(context, a) for a in answers] for context, *answers in tokens])
    pairs = []
    for row, (context, *answers), references, margin in zip(rows, tokens, logp, margins, strict=True):
        texts = (True, True, row.chosen, row.rejected)
        pairs.append(
            ScoredPair(
                row.prompt, row.prompt, row.prompt, "", context, context, context, *answers, *texts, *references,
                None, None, None, None, margin, "positive",
            )
        )  # fmt: skip
    return pairs


def ordered(pairs: Sequence[ScoredPair], settings: Settings) -> list[ScoredPair]:
    """The pairs in the order in which our loader of this seed trains on them; the other sides get them so."""
    from dlma.training.rule import StepLoader

    loader = StepLoader(None, pairs, batch=settings.batch, epochs=1, seed=settings.seed)
    return [pairs[i] for step in loader._order(0) for i in step]


def loss_curve(model: LanguageModel, pairs: Sequence[ScoredPair], settings: Settings, margin: bool) -> list[float]:
    """The loss of each optimizer step of our DPO, with the paper's margin or without."""
    from dlma.objective.dpo import DPO
    from dlma.objective.losses import Sigmoid
    from dlma.trainer.runtime import Runtime
    from dlma.training.optim import Optim

    rule = DPO(
        model,
        beta=settings.beta,
        margin_weight=settings.beta * settings.weight if margin else 0.0,
        margin_low=-settings.clamp,
        margin_high=settings.clamp,
        margin_unit="nats",
        loss=Sigmoid(),
        weighted=False,
        per_token=False,
        reference_free=False,
        token_weights=None,
        nll_weight=0.0,
        optim=Optim(
            optimizer="rmsprop",
            lr=settings.lr,
            weight_decay=0.0,
            warmup=settings.warmup + 1,  # ours rises as (step + 1) / warmup, theirs as (step + 1) / (warmup + 1)
            schedule="constant",
            clip_norm=settings.clip_norm,
        ),
        epochs=1,
        batch_pairs=settings.batch,
        seed=settings.seed,
    )
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        rule.fit(pairs, Runtime(), Path(folder), lambda row: losses.append(row["loss"]))
    return losses
