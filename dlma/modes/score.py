"""mode=score: R of every pair of a person's preference file, written back into the same rows.

Added to each row, for the columns `chosen` and `rejected` (or `positive` and `negative`):
    margin                    R of the first over the second, nats: r(chosen) - r(rejected)
    <side>_reward             r(a) = log pi(a|p+,q) - log pi(a|p-,q), nats
    <side>_token_rewards      the same for each token; they sum to <side>_reward
    <side>_token_texts        the tokens
    <side>_tokens             their number, EOS included
With `mode.policy`: <side>_dpo_reward = beta (log policy - log reference) under the plain prompt, and dpo_margin.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig

from dlma import files, pipeline, records
from dlma.config.run_names import run_folder
from dlma.context import RunContext
from dlma.data import text
from dlma.data.corpus import Corpus
from dlma.data.hh import HH, in_columns
from dlma.data.jsonl import Columns
from dlma.errors import UserError
from dlma.model.load import ModelSpec, hf_model
from dlma.ranges import Count
from dlma.records import Account, Implicit, Pair, TokenRewards
from dlma.report.terminal import print_account
from dlma.statistics.format import bounded
from dlma.statistics.intervals import mean_interval, share_interval
from dlma.store.fingerprint import key_of
from dlma.store.stage import Stage

SIDES = ("positive", "negative")
ENDINGS = (*text.SUFFIXES, ".parquet")
PER_SIDE = ("reward", "tokens", "token_rewards", "token_texts")


@dataclass(frozen=True)
class File:
    """The rows of a preference file, each with its place, and the names of its two answer columns."""

    path: Path
    rows: list[tuple[str, dict]]
    names: tuple[str, str]


def run(
    cfg: DictConfig, /, *, out: str | None, policy: str | None, max_answer_tokens: Count | None, prefix: str
) -> dict:
    """Score the file, write it back with the columns added, and say in a few lines what they hold."""
    cell = RunContext(cfg, run_folder())
    pipeline.instruction_tune(cell)
    file = read(cell)
    target = Path(out).expanduser() if out else cell.folder / _name(file.path)
    nothing = dict.fromkeys(added_names(file.names, policy is not None, prefix))
    _refuse(file, target, list(nothing), named=bool(out))
    pairs, account = paired(cell, file, max_answer_tokens)
    pairs = named_apart(pairs)
    distinct = list({pair.id: pair for pair in pairs if pair is not None}.values())
    tokens = {row.id: row for row in _rows(TokenRewards, token_rewards(cell, distinct))}
    learnt = {} if policy is None else {row.id: row for row in _rows(Implicit, implicit(cell, distinct, policy))}
    found = {key: columns(cell, file.names, row, learnt, prefix) for key, row in tokens.items()}
    added = [nothing if pair is None else found[pair.id] for pair in pairs]
    with files.guarded(target.parent, "mode.out"):
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = [row | new for (_, row), new in zip(file.rows, added, strict=True)]
        files.write_bytes(target, encoded(target, rows), as_is=True)
    facts = said([row for row in added if row is not nothing], file.names, prefix)
    _print(account, facts, target)
    return {"counts": cell.store.counts, "facts": facts, "out": str(target)}


def named_apart(pairs: Sequence[Pair | None]) -> list[Pair | None]:
    """The pairs, those of other token ids under ids of their own: texts that differ in case or in an end are one id."""
    contents: dict[str, dict[tuple, int]] = {}
    found: list[Pair | None] = []
    for pair in pairs:
        if pair is not None:
            content = tuple(map(tuple, (pair.plain_context_ids, pair.positive_ids, pair.negative_ids)))
            same = contents.setdefault(pair.id, {})
            number = same.setdefault(content, len(same))
            pair = replace(pair, id=f"{pair.id}-{number}") if number else pair
        found.append(pair)
    return found


def read(cell: RunContext) -> File:
    """The rows of `data.path`, as they stand."""
    if not (isinstance(cell.data, Corpus) and isinstance(cell.data.format, Columns | HH)):
        raise UserError("mode=score reads a preference file: data=jsonl data.path=pairs.jsonl, or data=hh")
    if cell.cfg.data.max_prompts is not None:
        raise UserError("data.max_prompts: mode=score takes every row of the file: leave it out")
    path = Path(cell.data.source.path).expanduser()
    rows = list(cell.data.source.rows())
    if not rows:
        raise UserError(f"data.path={path}: it has no rows")
    return File(path, rows, SIDES if "positive" in rows[0][1] else ("chosen", "rejected"))


def paired(cell: RunContext, file: File, max_answer_tokens: int | None) -> tuple[list[Pair | None], Account]:
    """The token ids of each row's pair, None where it cannot be used."""
    from dlma.pairs.imported import aligned_pairs

    room = cell.base().context - cell.cfg.recipe.max_prompt_tokens
    if room < 1:
        raise UserError(f"recipe.max_prompt_tokens: leaves no room in the {cell.base().context} tokens of the model")
    return aligned_pairs(
        file.rows,
        cell.frozen.tokenizer,
        cell.wording,
        seed=cell.cfg.seed,
        max_prompt_tokens=cell.cfg.recipe.max_prompt_tokens,
        max_response_tokens=min(room, max_answer_tokens or room),
        vocabulary=cell.frozen.vocabulary,
        parse=in_columns if isinstance(cell.data.format, HH) else cell.data.format.in_columns,
        **cell.strictness,
    )


def token_rewards(cell: RunContext, pairs: Sequence[Pair]) -> Stage:
    """The self-reward of every token of the pairs."""

    def write(folder: Path) -> dict:
        from dlma.scorer.token_rewards import TokenScorer

        engine = cell.runtime.predict(TokenScorer(cell.scoring("frozen")), pairs, TokenRewards, folder, "scores")
        return {"engine": engine}

    return cell.make(cell.store.stage("token_rewards", {"pairs": _content(pairs), **cell.score_weights}), write)


def implicit(cell: RunContext, pairs: Sequence[Pair], policy: str) -> Stage:
    """What a policy and the model it came from make of the pairs."""
    spec = policy_spec(cell, policy)

    def write(folder: Path) -> dict:
        from dlma.scorer.implicit_reward import ImplicitReward

        module = ImplicitReward(cell.loaded(spec, keep=True), cell.base())
        return {"engine": cell.runtime.predict(module, pairs, Implicit, folder, "rewards")}

    weights = [cell.store.fingerprint(folder) for folder in spec.folders]
    key = {"pairs": _content(pairs), "policy": weights, **cell.weights}
    return cell.make(cell.store.stage("implicit", key), write)


def policy_spec(cell: RunContext, policy: str) -> ModelSpec:
    """The policy to be loaded: a folder of full weights or of an adapter on `model=`, or a name on the hub."""
    folder = Path(policy).expanduser()
    if (folder / "adapter_config.json").is_file():
        return cell.frozen.trained(folder.resolve())
    try:
        spec = hf_model(path=policy, revision="main", dtype=cell.frozen.dtype, bits=None, lora=None)
    except UserError as reason:
        raise UserError(str(reason).replace("model.path", "mode.policy")) from None
    if spec.tokenizer.get_vocab() != cell.frozen.tokenizer.get_vocab():
        raise UserError(f"mode.policy={policy}: its tokenizer is not that of the model; name its reference with model=")
    return spec


def added_names(names: tuple[str, str], with_policy: bool, prefix: str) -> list[str]:
    """The columns that a row gets, in order."""
    found = ["margin", *(f"{name}_{what}" for name in names for what in PER_SIDE)]
    found += [*(f"{name}_dpo_reward" for name in names), "dpo_margin"] if with_policy else []
    return [prefix + name for name in found]


def columns(
    cell: RunContext, names: tuple[str, str], tokens: TokenRewards, learnt: dict[str, Implicit], prefix: str
) -> dict[str, object]:
    """The added columns of a row that was scored."""
    rewards = [getattr(tokens, f"{side}_rewards") for side in SIDES]
    values: list[object] = [sum(rewards[0]) - sum(rewards[1])]
    for side, reward in zip(SIDES, rewards):
        values += [sum(reward), len(reward), reward, getattr(tokens, f"{side}_pieces")]
    if learnt:
        row, beta = learnt[tokens.id], cell.cfg.recipe.beta
        dpo = [beta * (getattr(row, f"{side}_policy") - getattr(row, f"{side}_reference")) for side in SIDES]
        values += [*dpo, dpo[0] - dpo[1]]
    return dict(zip(added_names(names, bool(learnt), prefix), values, strict=True))


def encoded(target: Path, rows: list[dict]) -> bytes:
    """Rows in the format that the file's name says: JSON lines, a JSON list, Parquet; packed or not."""
    if target.suffix == ".parquet":
        out = io.BytesIO()
        names = dict.fromkeys(name for row in rows for name in row)  # a row may have what the first one has not
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), out)
        return out.getvalue()
    ending = target.name.removesuffix(".gz").removesuffix(".xz")
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    body = "[\n" + ",\n".join(lines) + "\n]\n" if ending.endswith(".json") else "".join(f"{line}\n" for line in lines)
    if target.name.endswith(".xz"):
        return lzma.compress(body.encode())
    return gzip.compress(body.encode(), mtime=0) if target.name.endswith(".gz") else body.encode()


def said(rows: Sequence[dict], names: tuple[str, str], prefix: str) -> dict[str, str]:
    """What the added columns hold, each figure with its 95 % interval over the scored rows."""
    first, second = names
    margins = [row[f"{prefix}margin"] for row in rows]
    longer = [row[f"{prefix}{first}_tokens"] - row[f"{prefix}{second}_tokens"] for row in rows]
    facts = {
        "rows scored": f"{len(rows):,}",
        f"mean R of {first} over {second}, nats": _said(mean_interval(margins)),
        f"R agrees with {first}": _said(share_interval([value > 0 for value in margins]), "share"),
        f"{first} longer than {second} by, tokens": _said(mean_interval(longer)),
    }
    if f"{prefix}dpo_margin" in rows[0]:
        learnt = [row[f"{prefix}dpo_margin"] for row in rows]
        facts["mean DPO reward margin"] = _said(mean_interval(learnt))
        facts[f"DPO reward agrees with {first}"] = _said(share_interval([value > 0 for value in learnt]), "share")
    return facts


def _said(estimate, unit: str = "") -> str:
    return bounded(estimate, unit)


def _print(account: Account, facts: dict[str, str], target: Path) -> None:
    print_account({"pairs": account})
    for name, value in facts.items():
        print(f"{name}: {value}")
    print(f"written: {target}")


def _refuse(file: File, target: Path, names: Sequence[str], *, named: bool) -> None:
    """What cannot be written is said before anything is computed; named: the user named the target."""
    if not target.name.endswith(ENDINGS):
        raise UserError(f"mode.out={target}: must end in one of {', '.join(ENDINGS)}")
    if named and target.exists():
        raise UserError(f"mode.out={target}: there is something already; name another file")
    for name in dict.fromkeys(name for _, row in file.rows for name in row):
        try:
            encoded(target, [{name: row.get(name)} for _, row in file.rows])
        except (TypeError, ValueError, pa.ArrowException) as reason:
            said = str(reason).splitlines()[0]
            raise UserError(f"{file.path}: its column {name!r} cannot be written to {target.name} ({said})") from None
    taken = sorted({name for _, row in file.rows for name in names if name in row})
    if taken:
        raise UserError(f"{file.path}: has a column {taken[0]!r} already; add to the new names: mode.prefix=new_")


def _name(path: Path) -> str:
    """`pairs.jsonl.gz` becomes `pairs.scored.jsonl.gz`; a folder's rows go to one JSON lines file."""
    for ending in ENDINGS:
        if path.name.endswith(ending):
            return f"{path.name.removesuffix(ending)}.scored{ending}"
    return f"{path.name}.scored.jsonl"


def _content(pairs: Sequence[Pair]) -> str:
    """What of the pairs decides their scores and how these are found: token ids and names."""
    return key_of([[pair.id, *(v for name, v in vars(pair).items() if name.endswith("_ids"))] for pair in pairs])


def _rows(record: type, stage: Stage) -> list:
    return records.from_table(record, stage.table())
