"""The method, one statement per arrow: prompts -> pairs -> scores (-> reward model) -> policy -> answers -> table.

A model that was never tuned on instructions is so first, where `sft` says how (`instruction_tune`).
With `iterations` above 1 the middle of it is gone through again, from the last policy (`run_round`).
The only file that sees all components. Each function names a stage, what decides it, and how it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dlma import records
from dlma.checks.finding import print_findings
from dlma.config.build import build, scientific
from dlma.context import RunContext, open_run
from dlma.cost.flops import work_of
from dlma.evaluation import target_kl
from dlma.evaluation.context import EvaluationContext, answering, arms, on_the_way
from dlma.finish import present
from dlma.records import (
    Account,
    Answer,
    Context,
    EvalRow,
    Label,
    MetricValue,
    Pair,
    Prompt,
    ScoredPair,
    TokenRewards,
    Truth,
    Verdict,
)
from dlma.store import shards
from dlma.store.owned import LABELS, ROWS, TRAIN, TRUTH
from dlma.store.stage import Stage
from dlma.store.store import ENCODED


def run(cfg: DictConfig, /) -> dict:
    """All stages, then the run folder with its records, policy and report."""
    cell = open_run(cfg)
    with cell.tracking(), cell.executor.opened():
        found = stages(cell)
        return cell.ranks.first(lambda: present(cell, *found))


def stages(cell: RunContext) -> tuple[dict[str, Stage], list[dict[str, Stage]], dict[str, Stage], dict[str, Stage]]:
    """All stages of a run, as `present` takes them: of the last round, of every round, of judges, of metrics.

    A cell makes them; that of mode=plan only looks them up, so what decides the walk is asked of `cell.notes`.
    """
    tuned = instruction_tune(cell)
    prompts = read_prompts(cell)
    cell.require_metrics(prompts)
    contexts = render(cell, prompts, "train")
    held_out = render(cell, prompts, cell.cfg.evaluation.split)
    rounds = run_rounds(cell, prompts, contexts, held_out)
    policy, scored = rounds[-1]["policy"], rounds[-1]["scored"]
    answers = {arm: answer(cell, held_out, policy, arm, side) for arm, side in arms(cell.notes(policy))}
    evaluated = evaluate(cell, list(answers.values()), scored)
    seen: dict[str, Any] = dict(prompts=prompts, held_out=held_out, policy=policy, answers=answers)
    intermediate = evaluate_intermediate(cell, scored=scored, **seen)
    judged = {name: judge_arms(cell, name, node, **seen) for name, node in cell.cfg.judges.items()}
    measured = {name: measure(cell, name, node, **seen) for name, node in cell.cfg.metrics.items()}
    outside = dict(prompts=prompts, contexts=contexts, held_out=held_out)
    return tuned | outside | rounds[-1] | dict(evaluated=evaluated) | answers | intermediate, rounds, judged, measured


def run_rounds(cell: RunContext, prompts: Stage, contexts: Stage, held_out: Stage) -> list[dict[str, Stage]]:
    """The stages of each round; there is but one where nothing is trained."""
    rounds = [run_round(cell, prompts, contexts, held_out)]
    while len(rounds) < cell.cfg.iterations and cell.notes(rounds[-1]["policy"])["trained"]:
        cell = cell.next_round(rounds[-1]["policy"])
        rounds.append(run_round(cell, prompts, contexts, held_out))
    return rounds


def run_round(cell: RunContext, prompts: Stage, contexts: Stage, held_out: Stage) -> dict[str, Stage]:
    """From prompts to a policy, beginning with the model at the round's start."""
    by = cell.cfg.iteration.scorer
    pairs = make_pairs(cell, contexts, held_out)
    scored = reference(cell, score(cell, pairs, by))
    again = {f"scored_{how}": score(cell, pairs, model) for how, model in cell.scored_again().items()}
    tokens = read_tokens(cell, scored)
    checked = preflight(cell, prompts=prompts, contexts=contexts, held_out=held_out, pairs=pairs, scored=scored)
    reward = train_reward(cell, scored)
    policy = stop_at_kl(cell, prompts, train(cell, scored, reward, again.get("scored_before")))
    made = dict(pairs=pairs, scored=scored, **again, tokens=tokens, preflight=checked)
    return made | ({} if reward is None else dict(reward=reward)) | dict(policy=policy)


def instruction_tune(cell: RunContext) -> dict[str, Stage]:
    """The base model tuned on instructions: from then on it is the model of every arrow. Nothing with sft=none."""
    if cell.cfg.sft._target_ is None:
        return {}
    key = {**scientific(cell.cfg.sft), "content": build(cell.cfg.sft.data).fingerprint(), **cell.weights}

    def write(folder: Path) -> dict:
        rule = build(cell.cfg.sft, cell.trainee())
        account = rule.fit(cell.runtime, folder, cell.log_tuning)
        return {"account": asdict(account), "engine": rule.report()}

    stage = cell.make(cell.store.stage("tuned", {**key, **cell.spec.training_key}), write)
    cell.start_from(stage)
    return {"tuned": stage}


def read_prompts(cell: RunContext) -> Stage:
    """Prompts of all splits, as the data set gives them."""
    key = {**scientific(cell.cfg.data), "content": cell.data.fingerprint()}
    stage = cell.store.stage("prompts", key, libraries=())
    return cell.make(stage, lambda folder: _write(folder, Prompt, *cell.data.read()))


def render(cell: RunContext, prompts: Stage, split: str, sample: int | None = None, human: str = "train") -> Stage:
    """The prompts of a split (`Prompt.is_of`) as token ids, plain and under both sides; all, or the first `sample`.

    human: the split whose prompts keep their human pairs
    """
    limits = {"seed": cell.cfg.seed, "max_prompt_tokens": cell.cfg.recipe.max_prompt_tokens, **cell.strictness}
    key = {**scientific(cell.prompts), "split": split, **limits, "weights": cell.weights["weights"]}
    key |= {} if sample is None else {"sample": sample}
    key |= {} if human == "train" else {"human": human}

    def write(folder: Path) -> dict:
        from dlma.prompts.contexts import each_context

        rows = islice((row for row in prompts.rows(Prompt) if row.is_of(split)), sample)
        known = {"vocabulary": cell.frozen.vocabulary, "human": human, **limits}
        return _write(folder, Context, *each_context(rows, cell.frozen.tokenizer, cell.wording, **known))

    return cell.make(cell.store.stage("contexts", key, uses=[prompts], libraries=ENCODED), write)


def make_pairs(cell: RunContext, contexts: Stage, held_out: Stage) -> Stage:
    """Two answers to each prompt: sampled, or from the user's own file."""
    if cell.cfg.scored.path or cell.cfg.pairs.path:
        return import_pairs(cell, held_out)
    sampler, work = cell.sampler_key(trained=cell.start is not None), work_of(cell.cfg.pairs)
    key, draws = {**scientific(cell.cfg.pairs), "sampler": sampler, **cell.weights}, work.get("kind") != "none"

    def write(folder: Path) -> dict:
        with cell.sampling(cell.start) if draws else nullcontext() as sampler:
            rows, module = contexts.rows(Context), lambda here: build(here.cfg.pairs, here.current(), sampler)
            return {"engine": cell.predict(module, rows, Pair, folder, "pairs")}

    return cell.make(cell.store.stage("pairs", key, uses=[contexts, *cell.begun]), write, together=True)


def import_pairs(cell: RunContext, held_out: Stage) -> Stage:
    """The pairs of `scored.path` or `pairs.path`; those on held-out prompts are left out."""
    from dlma.pairs import imported

    scored, recipe = bool(cell.cfg.scored.path), cell.cfg.recipe
    path = cell.cfg.scored.path or cell.cfg.pairs.path
    lengths = {"max_prompt_tokens": recipe.max_prompt_tokens, "max_response_tokens": recipe.max_new_tokens}
    limits = {"seed": cell.cfg.seed, **lengths, **cell.strictness}
    content = {"content": imported.fingerprint(path), "weights": cell.weights["weights"], "kl": bool(cell.target_kl)}
    key = {**scientific(cell.prompts), **limits, "scored": scored, **content}

    def write(folder: Path) -> dict:
        avoid = imported.kept_apart(held_out, with_validation=cell.target_kl is not None)
        known = {"held_out": avoid, "vocabulary": cell.frozen.vocabulary, **limits}
        found = imported.FilePairs(path, cell.frozen.tokenizer, cell.wording, with_margin=scored, **known)
        account = _write(folder, Pair, found, found.account)
        shards.write_rows(folder / LABELS, Label, found.labels)
        return account

    return cell.make(cell.store.stage("pairs", key, uses=[held_out], libraries=ENCODED), write)


def score(cell: RunContext, pairs: Stage, by: str = "current") -> Stage:
    """Margin, label and reference log-probs of each usable pair, by the current model or the frozen base."""
    given = bool(cell.cfg.scored.path)
    key = {"given": True} if given else scientific(cell.cfg.scorer)

    def write(folder: Path) -> dict:
        from dlma.pairs.sampled import usable
        from dlma.scorer.construction import GivenMargins

        def module(here: RunContext):
            models = [here.scoring(which) for which in here.scorers(by)]
            return GivenMargins(models[0], labels) if given else build(here.cfg.scorer, *models)

        labels, (rows, account) = _read(pairs, Label, LABELS) if given else [], usable(pairs.rows(Pair))
        return {"account": asdict(account), "engine": cell.predict(module, rows, ScoredPair, folder, "scores")}

    uses = [pairs, *(stage for which in cell.scorers(by) for stage in cell.made_of(which))]
    return cell.make(cell.store.stage("scored", {**key, **cell.score_weights}, uses=uses), write, together=True)


def reference(cell: RunContext, scored: Stage) -> Stage:
    """The scored pairs; where scorer and reference are two models or types, with the reference's log-probs."""
    wanted = cell.cfg.iteration.reference
    one_model = cell.start is None or wanted == cell.cfg.iteration.scorer
    if one_model and cell.score_dtype == cell.frozen.dtype:
        return scored

    def write(folder: Path) -> dict:
        from dlma.scorer.reference_logp import Rereference

        rows, module = scored.rows(ScoredPair), lambda here: Rereference(here.at_start(wanted))
        return {"engine": cell.predict(module, rows, ScoredPair, folder, "reference")}

    uses = [scored, *cell.begun] if wanted == "current" else [scored]
    return cell.make(cell.store.stage("scored", {"reference": wanted, **cell.weights}, uses=uses), write, together=True)


def read_tokens(cell: RunContext, scored: Stage) -> Stage:
    """The self-reward of some pairs token by token, for the report; of none where R is not the margin's source."""
    panel = build(cell.cfg.panel)

    def write(folder: Path) -> dict:
        from dlma.scorer.token_rewards import TokenScorer

        scorer = cell.cfg.iteration.scorer
        rows, module = panel.chosen(scored.rows(ScoredPair)), lambda here: TokenScorer(here.scoring(scorer))
        return {"engine": cell.predict(module, rows, TokenRewards, folder, "tokens")}

    key = {"sample": panel.sample, **cell.score_weights}
    return cell.make(cell.store.stage("token_rewards", key, uses=[scored]), write, together=True)


def preflight(cell: RunContext, **stages: Stage) -> Stage:
    """Counts of what training takes for granted in the records; stops the run where it does not hold."""

    def write(folder: Path) -> dict:
        from dlma.checks.inspection import inspect, specials_of

        kinds = {"prompts": Prompt, "contexts": Context, "held_out": Context, "pairs": Pair, "scored": ScoredPair}
        specials = specials_of(cell.base(), cell.wording)
        return {"counts": inspect(specials, **{name: stage.rows(kinds[name]) for name, stage in stages.items()})}

    key = {"weights": cell.weights["weights"]}
    stage = cell.make(cell.store.stage("preflight", key, uses=list(stages.values()), libraries=ENCODED), write)
    if stage.done:
        print_findings("preflight", build(cell.cfg.preflight).judge(stage.notes["counts"]))
    return stage


def train_reward(cell: RunContext, scored: Stage) -> Stage | None:
    """The reward model, where `reward=` names one; nothing otherwise."""
    rule = scientific(cell.cfg.reward)
    if rule["_target_"] is None:
        return None

    def write(folder: Path) -> dict:
        pairs, account = build(cell.cfg.labels).apply(_read(scored, ScoredPair))
        trained = build(cell.cfg.reward, cell.trainee())
        clamp = trained.fit(pairs, cell.runtime, folder, lambda row: None)
        return {"clamp": clamp, "account": asdict(account), "engine": trained.report()}

    return cell.make(cell.store.stage("reward", {**rule, **cell.training}, uses=[scored]), write)


def train(cell: RunContext, scored: Stage, reward: Stage | None, before: Stage | None) -> Stage:
    """The policy, and the record of its training; before: the pairs scored as the round before did, if that counts."""

    def write(folder: Path) -> dict:
        from dlma.training.preference_pair import order_agreement
        from dlma.training.rule import Supplies

        every = _read(scored, ScoredPair)
        labels = build(cell.cfg.labels)
        pairs, account = labels.apply(every)
        rule = build(cell.cfg.objective, cell.trainee())
        rule.intermediate = kept
        read = None if reward is None else lambda: cell.reward_model(reward.path("reward"))
        moved = cell.start is not None and cell.cfg.iteration.reference == "frozen"
        again = None if before is None else labels.measured(_read(before, ScoredPair))
        agreement = None if again is None else order_agreement(labels.measured(every), again, labels.by_margin)
        rule.supply(Supplies(every, read, moved, agreement))
        bounds = rule.fit(pairs, cell.runtime, folder, cell.log_step)
        steps = sorted(path.name for path in folder.glob("intermediate/step-*"))
        found = {"trained": (folder / "policy").is_dir(), "intermediate": steps, "clamp": bounds}
        answers = {"side": rule.side, "samples": rule.samples, "contrast": rule.contrast, "engine": rule.report()}
        return found | {"account": asdict(account), "agreement": agreement, **answers}

    kept = cell.cfg.intermediate if cell.target_kl is None else cell.cfg.kl_points
    key = {**scientific(cell.cfg.objective), **cell.training, **({"intermediate": kept} if kept else {})}
    uses = [stage for stage in (scored, reward, before) if stage is not None]
    return cell.make(cell.store.stage("policy", key, uses=uses), write, together=True)


def stop_at_kl(cell: RunContext, prompts: Stage, trained: Stage) -> Stage:
    """The policy of the step whose KL is the nearest to `objective.target_kl`; the last one without a target."""
    if (target := cell.target_kl) is None:
        return trained
    asked = render(cell, prompts, "validation", cell.cfg.kl_prompts)
    key = {"target_kl": target, "seed": cell.cfg.seed, "sampler": cell.sampler_key(trained=True)}
    stage = cell.store.stage("policy", key, uses=[trained, asked])
    if not cell.makes_stages:
        return stage
    kept = target_kl.kept_at(trained.notes["intermediate"], trained.read(TRAIN))

    def answered(step: int) -> list[Answer]:
        return _read(answer(cell, asked, trained, kept[step], "plain"), Answer)

    curve = target_kl.search(list(kept), target, answered)
    return cell.make(stage, lambda folder: target_kl.leave(folder, trained, kept, curve, target))


def answer(cell: RunContext, held_out: Stage, policy: Stage, arm: str, side: str) -> Stage:
    """One arm's answers to the held-out prompts, with log-probs under the arm and under the base.

    arm: base, prompted, aligned, or the name of a policy that was kept on the way
    """
    known = cell.notes(policy)
    kept = arm in on_the_way(known)
    aligned = kept or arm == "aligned"
    how = answering(known) if aligned else {}
    own, place = aligned and known["trained"], f"intermediate/{arm}" if kept else "policy"
    key = {"arm": arm, "side": side, "seed": cell.cfg.seed, "sampler": cell.sampler_key(trained=own), **cell.weights}

    def write(folder: Path) -> dict:
        from dlma.evaluation.answers import Answers

        with cell.sampling(policy if own else None, place) as sampler:

            def module(here: RunContext):
                model = here.policy(policy, place) if own else here.base()
                return Answers(model, here.base(), sampler, arm=arm, side=side, seed=here.cfg.seed, **how)

            return {"engine": cell.predict(module, held_out.rows(Context), Answer, folder, arm)}

    uses = [held_out, policy] if aligned else [held_out]
    return cell.make(cell.store.stage("answers", key, uses=uses), write, together=True)


def evaluate_intermediate(
    cell: RunContext, *, prompts: Stage, held_out: Stage, policy: Stage, scored: Stage, answers: dict[str, Stage]
) -> dict[str, Stage]:
    """What evaluation and judges say of the policies that were kept on the way (`intermediate=K`), if there are any."""
    steps = {arm: answer(cell, held_out, policy, arm, "plain") for arm in on_the_way(cell.notes(policy))}
    if not steps:
        return {}

    def rows() -> list:
        from dlma.judges.base import matches

        asked, contexts, base = _read(prompts, Prompt), _read(held_out, Context), _read(answers["base"], Answer)
        each = {arm: {"aligned": _read(stage, Answer), "base": base} for arm, stage in steps.items()}
        found = {arm: matches(asked, contexts, both, cell.frozen.tokenizer) for arm, both in each.items()}
        return [replace(match, arm=arm) for arm, some in found.items() for match in some]

    uses, bench = [prompts, held_out, answers["base"], *steps.values()], cell.bench(policy, ["base"])
    judged = {
        f"intermediate {name}": judge(cell, name, node, bench, rows, uses) for name, node in cell.cfg.judges.items()
    }
    return {"intermediate": evaluate(cell, list(steps.values()), scored)} | judged


def evaluate(cell: RunContext, answers: list[Stage], scored: Stage) -> Stage:
    """What the evaluation says of every answer, and what it knows of the training pairs' truth."""

    evaluation = build(cell.cfg.evaluation)

    def write(folder: Path) -> dict:
        known = ((some, evaluation.truth(some)) for some in scored.rows(ScoredPair).parts())
        truth = (Truth(p.id, value) for some, values in known for p, value in zip(some, values, strict=True))
        shards.write_rows(folder / TRUTH, Truth, truth)
        rows = evaluation.rows([row for stage in answers for row in _read(stage, Answer)])
        shards.write_table(folder / ROWS, records.to_table(EvalRow, rows))
        return {}

    identity = evaluation.identity()
    key = scientific(cell.cfg.evaluation) | ({"identity": identity} if identity else {})
    return cell.make(cell.store.stage("evaluated", key, uses=[*answers, scored], libraries=()), write)


def judge_arms(
    cell: RunContext,
    name: str,
    node: DictConfig,
    *,
    prompts: Stage,
    held_out: Stage,
    policy: Stage,
    answers: dict[str, Stage],
) -> Stage:
    """One judge's verdicts on the aligned answers against those of every other arm."""

    def rows() -> list:
        from dlma.judges.base import matches

        answered = {arm: _read(stage, Answer) for arm, stage in answers.items()}
        return matches(_read(prompts, Prompt), _read(held_out, Context), answered, cell.frozen.tokenizer)

    return judge(cell, name, node, cell.bench(policy, answers), rows, [prompts, held_out, *answers.values()])


def judge(
    cell: RunContext, name: str, node: DictConfig, bench: EvaluationContext, rows: Callable[[], list], uses: list[Stage]
) -> Stage:
    """One judge's verdicts on matches that are made of the stages in `uses`."""
    made = build(node, bench)
    own = sorted(set(made.identity()) & set(cell.weights["weights"]))

    def write(folder: Path) -> dict:
        from dlma.judges.module import JudgeModule

        cell.runtime.predict(JudgeModule(made, name=name), rows(), Verdict, folder, name)
        said = {"criterion": made.criterion, "identity": made.identity(), "self_reported": bool(own)}
        return {"judge": said, "report": made.report()}

    key = {"name": name, "identity": made.identity(), **scientific(node)}
    return cell.make(cell.store.stage("verdicts", key, uses=uses), write)


def measure(
    cell: RunContext,
    name: str,
    node: DictConfig,
    *,
    prompts: Stage,
    held_out: Stage,
    policy: Stage,
    answers: dict[str, Stage],
) -> Stage:
    """One metric's scores of every arm."""
    metric = build(node, cell.bench(policy, answers))

    def write(folder: Path) -> dict:
        from dlma.metrics.base import scene

        answered = {arm: _read(stage, Answer) for arm, stage in answers.items()}
        found = scene(_read(prompts, Prompt), _read(held_out, Context), answered, cell.notes(policy)["trained"])
        shards.write_table(folder / ROWS, records.to_table(MetricValue, metric.scores(found)))
        columns = [asdict(column) for column in metric.columns]
        return {"columns": columns, "identity": metric.identity(), "report": metric.report()}

    key = {"name": name, "identity": metric.identity(), **scientific(node)}
    return cell.make(cell.store.stage("metrics", key, uses=[prompts, held_out, policy, *answers.values()]), write)


def _read(stage: Stage, record: type, file: str = ROWS) -> list:
    return records.from_table(record, stage.table(file))


def _write(folder: Path, record: type, rows: Iterable, account: Account) -> dict:
    shards.write_rows(folder / ROWS, record, rows)
    return {"account": asdict(account)}
