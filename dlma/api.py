"""DLMA for a loop of one's own: functions on a loaded network, its tokenizer and rows of text; no run, no store.

What a run takes from YAML these take too: `options("recipe=small_lora", "prompts=harmless_affix")` is the config that
`python run.py` composes of the same words, checked as there. Nothing has a default here that stands there
(docs/python_api.md). Importing this imports no torch.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from dlma.errors import UserError

if TYPE_CHECKING:
    from dlma.model.language import LanguageModel
    from dlma.model.trees import Completion
    from dlma.objective.margin_dpo import MarginDPO, PairCollator
    from dlma.prompts.wording import Wording
    from dlma.records import Account, Context, ScoredPair
    from dlma.trainer.runtime import Runtime

log = logging.getLogger(__name__)

GIVEN = "given"  # stands for a path where the network and the prompts are handed over
GROUPS = ("adapter", "recipe", "prompts", "pairs", "sampler", "scorer", "labels", "objective", "method", "trainer")
READ = ("model", "model.chat", *GROUPS, "seed", "data.on_bad_row", "data.max_dropped")
UNSET = ("model.bits", "pairs.path", "recipe.score_dtype", "objective.target_kl")  # what only a run does


def options(*overrides: str, config_dir: str | None = None) -> DictConfig:
    """The config of `python run.py model=hf data=jsonl OVERRIDES`, composed and checked.

    overrides: as on the command line: `recipe=small_lora`, `recipe.beta=0.2`, `method=rlcd`, `model=PRESET`, which
        brings its recipe and says whether it is a chat model
    config_dir: a folder with YAML files of one's own, as --config-dir
    raises: UserError for a mistake in them, and for what only a run reads
    """
    from dlma.config import compose
    from dlma.config.help import conf_dir

    keys = {line: line.lstrip("+~").partition("=")[0] for line in overrides}
    unread = [line for line, key in keys.items() if key not in READ and key.partition(".")[0] not in GROUPS]
    if unread:
        raise UserError(f"{unread[0]}: says nothing here, where network and prompts are given: {', '.join(READ)} do")
    model = ["model=hf", f"model.path={GIVEN}"]
    chosen = [line for line in overrides if line.startswith("model=")]
    lines = ["data=jsonl", f"data.path={GIVEN}", *(model if chosen in ([], model[:1]) else []), *overrides]
    cfg = compose.plan(compose.search_path(conf_dir(), config_dir), lines, multirun=False).cfg
    only_runs = [key for key in UNSET if OmegaConf.select(cfg, key) is not None]
    if cfg.iterations > 1:
        raise UserError(
            f"iterations={cfg.iterations}: rounds are for a run (python run.py); leave them, or method=, out"
        )
    if cfg.trainer.devices > 1 or only_runs:
        raise UserError(f"{(only_runs or ['trainer.devices'])[0]}: only a run does that (python run.py); leave it out")
    return cfg


def self_reward(
    network: Any, tokenizer: Any, rows: Iterable[Mapping[str, str]], wording: Wording | DictConfig, /
) -> list[float]:
    """R of each row, nats: how much more the model ties `first` than `second` to the positive prompt.

    network: a causal language model of transformers (or PEFT); tokenizer: its tokenizer
    rows: mappings with the texts `prompt`, `first` and `second`; answers count as finished (EOS included)
    wording: the contrastive prompts, or `options(...)` that hold them; of several pairs, each prompt draws its own
    raises: BadRow when an answer is empty, holds an EOS inside, or its tokens change with the text before it
    """
    import torch

    from dlma.functional.reward import self_reward_margin
    from dlma.model.engine import Engine

    spoken = _spoken(network, tokenizer, wording)
    logp = Engine(_wrapped(network, tokenizer)).score([_group(tokenizer, row, spoken) for row in rows])
    columns = torch.tensor(logp).view(-1, 2, 2)  # side, answer
    (first_pos, second_pos), (first_neg, second_neg) = columns.permute(1, 2, 0)
    return self_reward_margin(first_pos, first_neg, second_pos, second_neg).tolist()


def contrastive_pairs(
    network: Any, tokenizer: Any, prompts: Iterable[str | Sequence[Mapping[str, str]]], options: DictConfig, /
) -> list[ScoredPair]:
    """Two answers to each prompt, sampled as `pairs=` says and scored as `scorer=` says: token ids, R, reference.

    prompts: texts, or chats of {role, content} that end with a user turn; equal ones count once
    returns: pairs as a run's scored.parquet holds them; what cannot be used is left out and counted in the log
    raises: UserError where more than data.max_dropped of the prompts cannot be used
    """
    from dlma.config.build import build
    from dlma.pairs.sampled import usable
    from dlma.records import Pair, ScoredPair

    model, runtime = _wrapped(network, tokenizer), _runtime(network, options)
    contexts = _contexts(model, _spoken(network, tokenizer, options), prompts, options)
    pairs = _predicted(runtime, build(options.pairs, model, build(options.sampler)), contexts, Pair)
    said, account = usable(pairs)
    _tell("pairs", account)
    return _predicted(runtime, build(options.scorer, model), said, ScoredPair)


def margin_dpo(options: DictConfig, /) -> MarginDPO:
    """The loss of `objective=`, for any loop: `loss(model, batch)` of a batch of `pair_collator`."""
    from dlma.config.build import build, resolved
    from dlma.objective.margin_dpo import MarginDPO

    node = resolved(options.objective)
    if node["_target_"] != "dlma.objective.dpo.DPO":
        raise UserError(f"objective: {node['_target_']} is no loss of pairs: objective=dpo, or one built on it")
    if node["token_weights"] is not None:
        raise UserError("objective.token_weights: only a run weighs tokens: set it to null, or use align()")
    names = set(signature(MarginDPO).parameters) - {"loss"}
    return MarginDPO(**{name: node[name] for name in names}, loss=build(node["loss"]))


def pair_collator(tokenizer: Any, /) -> PairCollator:
    """Puts `training_rows` together into a padded batch of token ids, masks and columns."""
    from dlma.objective.margin_dpo import PairCollator

    return PairCollator(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)


def training_rows(pairs: Sequence[ScoredPair], options: DictConfig, /) -> list[dict]:
    """All pairs to train on, labelled as `labels=` says, as plain rows for a data set of anybody's.

    returns: context_ids, answer_ids (chosen, rejected) and columns (what else the loss needs), beside the texts
        `prompt`, `chosen` and `rejected`, which nothing here reads: trainers of others ask for them
    """
    from dlma.config.build import build
    from dlma.training.preference_pair import sides

    kept, account = build(options.labels).apply(pairs)
    _tell("labels", account)
    rows = []
    for pair, columns in zip(kept, margin_dpo(options).rows(kept), strict=True):
        texts, ids = ([getattr(pair, f"{side}_{what}") for side in sides(pair)] for what in ("text", "ids"))
        named = {"prompt": pair.question, "chosen": texts[0], "rejected": texts[1]}
        rows.append({**named, "context_ids": pair.plain_context_ids, "answer_ids": ids, "columns": list(columns)})
    return rows


@dataclass(frozen=True)
class Aligned:
    """What `align` made.

    network: the policy: the network that was given, or with `recipe.lora` the PEFT model around it
    pairs: what was trained on, labels and margins as they were used
    steps: a row for each step, as in a run's train.csv
    """

    network: Any
    pairs: list[ScoredPair]
    steps: list[dict[str, float]]


def align(
    network: Any,
    tokenizer: Any,
    prompts: Iterable[str | Sequence[Mapping[str, str]]],
    options: DictConfig,
    /,
    out: str | Path | None = None,
    listen: Callable[[dict[str, float]], None] = lambda row: None,
) -> Aligned:
    """DLMA, or the method that the options name, from prompts to policy; the network is trained in place.

    prompts: all are trained on; no preflight, no evaluation: those are a run's
    out: an empty or new folder that gets policy/ and train.csv; None: nothing is kept on disk
    listen: called with each step's row, as it is done
    raises: UserError as a run does, and for a method that trains nothing or needs a reward model
    """
    from dlma.config.build import build

    folder = _empty_folder(out)
    if options.reward._target_ is not None or options.objective._work_.kind in ("none", "steer"):
        raise UserError("objective: align() trains on pairs alone: a reward model, or no training, is a run's affair")
    pairs = contrastive_pairs(network, tokenizer, prompts, options)
    kept, account = build(options.labels).apply(pairs)
    _tell("labels", account)
    trained = _with_lora(network, options)
    model = _wrapped(trained, tokenizer)
    model.adapter_is_new = trained is not network
    rule = build(options.objective, model)
    with tempfile.TemporaryDirectory() as scratch:
        rule.fit(kept, _runtime(network, options), folder or Path(scratch), listen)
    trained.zero_grad(set_to_none=True)
    return Aligned(trained.eval(), kept, rule.log_rows)


def _empty_folder(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    folder = Path(out).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"out={out}: holds something already; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _wrapped(network: Any, tokenizer: Any) -> LanguageModel:
    """The network as the engine knows it, without dropout."""
    from dlma.model.language import LanguageModel

    return LanguageModel(network.eval(), tokenizer, type(network).__name__)


def _with_lora(network: Any, options: DictConfig) -> Any:
    from dlma.config.build import resolved
    from dlma.model.language import with_lora
    from dlma.model.load import Lora

    if options.recipe.lora is None:
        return network
    if hasattr(network, "peft_config"):
        raise UserError("recipe.lora: the network has an adapter of its own, which is trained: recipe.lora=null")
    return with_lora(network, Lora(**resolved(options.recipe.lora)))


def _runtime(network: Any, options: DictConfig) -> Runtime:
    """The runtime, for a network that is in the type and on the device that the options name."""
    from dlma.config.build import build

    held, wanted = str(network.dtype).removeprefix("torch."), options.recipe.dtype
    if wanted not in ("auto", held):
        raise UserError(f"recipe.dtype={wanted}: the network is in {held}: from_pretrained(..., dtype=torch.{wanted})")
    kind, trainer = network.device.type, options.trainer.accelerator
    if kind != {"gpu": "cuda"}.get(trainer, trainer):
        raise UserError(f"trainer: the network is on {kind}, the trainer works on {trainer}: trainer=gpu, mps or cpu")
    return build(options.trainer)


def _spoken(network: Any, tokenizer: Any, wording: Wording | DictConfig) -> Wording:
    """The wording, its format settled as a run settles it."""
    from dlma.config.build import build
    from dlma.model.chat_model import CHAT, TEMPLATE, ids_of, told_by
    from dlma.prompts.wording import Wording

    chat = None if isinstance(wording, Wording) else wording.model.get("chat")
    found = wording if isinstance(wording, Wording) else build(wording.prompts)
    if found.format != "auto":
        return found
    if chat is not None:
        return found.spoken(CHAT if chat else TEMPLATE)
    causal = network.get_base_model() if hasattr(network, "peft_config") else network
    ends = getattr(causal.generation_config, "eos_token_id", None)
    return found.spoken(told_by(tokenizer, ids_of(ends))[0])


def _contexts(model: LanguageModel, wording: Wording, prompts: Iterable, options: DictConfig) -> list[Context]:
    from dlma.config.build import build
    from dlma.data.split import Prompts
    from dlma.data.text import Tally
    from dlma.prompts.contexts import render_contexts

    strictness = {name: options.data[name] for name in ("on_bad_row", "max_dropped")}
    texts = [prompt if isinstance(prompt, str) else list(prompt) for prompt in prompts]
    rows = [(f"prompt {number}", {"prompt": text}) for number, text in enumerate(texts)]
    tally = Tally(**strictness)
    parse = build(options.data.format).found  # all are trained on:
    shares: dict[str, Any] = {"validation_share": 0.0, "test_share": 0.0}
    kept = list(Prompts(lambda: rows, parse, tally, source="prompts", max_words=None, **shares))
    _tell("prompts", tally.account)
    limits = {"seed": options.seed, "max_prompt_tokens": options.recipe.max_prompt_tokens}
    known = {"vocabulary": model.vocabulary, **limits, **strictness}
    contexts, account = render_contexts(kept, model.tokenizer, wording, **known)
    _tell("contexts", account)
    return contexts


def _predicted(runtime: Runtime, module: Any, rows: Sequence, record: type) -> list:
    from dlma import records
    from dlma.store.owned import ROWS
    from dlma.store.shards import read_table

    with tempfile.TemporaryDirectory() as folder:
        runtime.predict(module, rows, record, Path(folder), record.__name__)
        return records.from_table(record, read_table(Path(folder) / ROWS))


def _tell(what: str, account: Account) -> None:
    """Say what was left out."""
    if account.dropped:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in account.dropped.items())
        log.warning("%s: %d of %d left out (%s)", what, account.read - account.kept, account.read, reasons)


def _group(tokenizer: Any, row: Mapping[str, str], wording: Wording) -> list[Completion]:
    """The four sequences of a row: both answers under the positive, then under the negative prompt."""
    from dlma.data.text import prompt_id
    from dlma.model.tokens import Characters, answer_ids, with_eos
    from dlma.model.trees import Completion
    from dlma.prompts.rendering import answer_end, rendered, rendered_ids
    from dlma.prompts.wording import SIDES
    from dlma.records import Turn

    characters, end = Characters(tokenizer), answer_end(tokenizer, wording)
    asked = [Turn("user", row["prompt"])]
    turns = characters.turns(asked)
    index = wording.choose(prompt_id(asked), 0)  # as a run with seed=0 does
    texts = [rendered(tokenizer, wording, turns, side, index) for side in SIDES[1:]]
    contexts = rendered_ids(tokenizer, wording, texts)
    answers = []
    for name in ("first", "second"):
        answer = characters.answer(row[name], end)
        joined = rendered_ids(tokenizer, wording, [text + answer for text in texts])
        answers.append(with_eos(answer_ids(contexts, joined, end), True, end)[0])
    return [Completion(context, answer) for context in contexts for answer in answers]
