"""What two or more values of a config have to do with each other; each is within its own range already."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Iterator

Finding = tuple[str, str]  # the dotted key, and what is wrong with it
SERVER = "dlma.sampler.server.ServerSampler"
LOCAL_EXECUTOR = "dlma.executor.local.LocalExecutor"
_OF_MARGINS = ("SoftLabels", "RewardDistillation", "LogOffset")  # losses whose label is the margin itself
_STEERED = "dlma.objective.self_steering.SelfSteering"
_OWN_REFERENCE = ("dlma.objective.ppo.PPO", "dlma.objective.distill.ContextDistillation", _STEERED)
LATER = ("pairs", "scorer", "labels", "objective")  # what a later round of `iterations` may have of its own


def broken(tree: dict, components: list[str]) -> Iterator[Finding]:
    """Every relation that does not hold in a config of plain values.

    components: the keys of the root that hold a component
    """
    yield from _language_model(tree["model"]["_target_"])
    yield from _recipe_of_model(tree)
    yield from _extras("", tree)
    yield from _rounds(tree)
    yield from _answers_by_people(tree)
    yield from _steered(tree)
    yield from _spread(tree)
    yield from _measured_twice(tree)
    yield from _untouched(tree)
    yield from _target_kl(tree)
    yield from _contrast(tree)
    yield from _served(tree)
    yield from _addressed(tree)
    for name in ("recipe", "scored", *components):
        yield from _within(name, tree[name])
    if not tree["store"]["root"].strip():
        yield "store.root", "is empty; name a folder: store.root=..."


def broken_in_a_run(tree: dict) -> Iterator[Finding]:
    """What a config may leave open, and a run may not: said before anything is loaded."""
    yield from _scored(tree)
    yield from _judged(tree)


def _language_model(target: str) -> Iterator[Finding]:
    """What only judges or measures stands in the group of models too."""
    if target.startswith("dlma.") and not target.startswith("dlma.model.load."):
        yield "model", "is no language model to be aligned: a guard or reward model is one of judges= or metrics="


def _recipe_of_model(tree: dict) -> Iterator[Finding]:
    """A recipe made for one kind of model is refused for any other, with the right one named."""
    recipe, own = tree["recipe"], tree["model"].get("_recipe_")
    if recipe["exclusive"] and own not in (None, recipe["name"]):
        yield "recipe", f"{recipe['name']} does not suit this model; use recipe={own}"


def _extras(path: str, node: dict) -> Iterator[Finding]:
    """What a component's `_needs_` names and this machine lacks: modules, each with the extra that brings it."""
    for module, extra in node.get("_needs_", {}).items():
        if importlib.util.find_spec(module) is None:
            yield path, f"needs {module}: pip install 'dlma[{extra}]'"
    for name, inner in node.items():
        if isinstance(inner, dict):
            yield from _extras(f"{path}.{name}" if path else str(name), inner)


def _rounds(tree: dict) -> Iterator[Finding]:
    """What is there once cannot be part of several rounds."""
    rounds, own = tree["iterations"], tree["scored"]["path"] or tree["pairs"].get("path")
    if rounds > 1 and own:
        yield "iterations", f"{rounds} rounds, but the pairs of {own} are the same in every round: iterations=1"
    for name in tree["iteration"]["later"]:
        if name not in LATER:
            yield (
                f"iteration.later.{name}",
                f"is the same in every round; later rounds may have their own {', '.join(LATER)}",
            )
    if (tree["scorer"].get("_work_") or {}).get("base"):
        yield "scorer", "is relative to the base, which the first round's policy is: iteration.later.scorer"
    if tree["iteration"]["consistency"]:
        yield from _consistency(tree)
    last = _later(tree, "objective")["_target_"]
    if last == _STEERED and rounds > 1 and tree["iteration"]["scorer"] == "frozen":
        yield "iteration.scorer", "objective=self_steering wants log-probs of the round's own model: current"
    if rounds > 1 and tree["iteration"]["reference"] == "frozen" and last in _OWN_REFERENCE:
        name = last.split(".")[2]
        yield "iteration.reference", f"objective={name} keeps the model at the round's start as its reference: current"
    if rounds > 1 and tree["intermediate"]:
        yield "intermediate", f"{tree['intermediate']} follows one training, from the base on: iterations=1"


def _answers_by_people(tree: dict) -> Iterator[Finding]:
    """They are the same in every round; what the lab draws in their place is not."""
    made, drawn = (_later(tree, name)["_target_"] for name in ("labels", "pairs"))
    if tree["iterations"] > 1 and (made, drawn) == ("dlma.labels.SelfMade", "dlma.pairs.several.SeveralPairs"):
        yield (
            "iterations",
            f"{tree['iterations']} rounds, but what stands for answers by people would be drawn from each round's own "
            "policy: human=dataset, or iterations=1",
        )


def _steered(tree: dict) -> Iterator[Finding]:
    """The scorer's log-probs are references of the loss, in one type with the policy."""
    steered = _STEERED in (_later(tree, "objective")["_target_"], tree["objective"]["_target_"])
    scored_in = tree["recipe"].get("score_dtype")
    if steered and scored_in not in (None, tree["recipe"]["dtype"]):
        yield (
            "recipe.score_dtype",
            "objective=self_steering takes its references under p+ and p- from the scorer, in the training's type: "
            "null",
        )


def _spread(tree: dict) -> Iterator[Finding]:
    """Weights that are spread over processes are put together once, at the end."""
    kept = tree["intermediate"] or tree["objective"].get("target_kl")
    if tree["trainer"].get("strategy") == "fsdp" and kept:
        key = "intermediate" if tree["intermediate"] else "objective.target_kl"
        yield key, f"{kept} wants policies on the way, and trainer.strategy=fsdp keeps the last one only: trainer=ddp"


def _later(tree: dict, name: str) -> dict:
    """The component of the rounds after the first one."""
    return tree["iteration"]["later"].get(name) or tree[name]


def _consistency(tree: dict) -> Iterator[Finding]:
    """Two rounds are held against each other by their scorers, and what comes of it is a property of labels."""
    if tree["iteration"]["scorer"] != "current":
        yield "iteration.consistency", "the frozen scorer always agrees with itself: iteration.scorer=current"
    scorer, labels = _later(tree, "scorer"), _later(tree, "labels")
    if (scorer.get("_work_") or {}).get("base"):
        yield (
            "iteration.consistency",
            "holds what two rounds' scorers say of the same pairs against each other, and this one says how its own "
            "round changed the model: another scorer",
        )
    elif not _by_margin(labels) and _gives_the_same_label(scorer):
        yield (
            "iteration.consistency",
            "these labels are the same whoever scores, so that two rounds always agree: labels=sign or sign_none",
        )
    last = _later(tree, "objective")
    if last["_target_"] != "dlma.objective.dpo.DPO":
        yield "iteration.consistency", "softens the labels of pairs, which only DPO and its losses read: objective=dpo"
    elif (loss := last["loss"]["_target_"].rpartition(".")[2]) in _OF_MARGINS:
        yield (
            "iteration.consistency",
            f"mixes in the loss of the opposite label, which {loss} has not, as it reads the margin: objective=dpo",
        )
    if tree["iterations"] == 1:
        yield "iteration.consistency", "holds a round against the one before it, and there is one: iterations=2"


def _by_margin(labels: dict) -> bool:
    """Whether the margin decides which answer is chosen."""
    return labels.get("orientation") == "sign" or labels["_target_"] == "dlma.labels.BestAndWorst"


def _gives_the_same_label(scorer: dict) -> bool:
    """Whether its choice is that of the pairs' order, of people or of a coin, which no round changes."""
    by_model = (scorer.get("_work_") or {}).get("labels") == "model"
    return not by_model or scorer["_target_"] == "dlma.scorer.random_labels.RandomLabels"


def _scored(tree: dict) -> Iterator[Finding]:
    """Pairs that come scored from a file have its labels and margins: no row with others is trained on them."""
    if tree["scored"]["path"] and tree["scorer"]["_target_"] != "dlma.scorer.self_reward.SelfReward":
        yield (
            "method",
            "has a scorer of its own, which says nothing to the pairs of scored.path: method=dlma or one of its "
            "controls, with labels= and objective= as wanted",
        )


def _judged(tree: dict) -> Iterator[Finding]:
    """A judge at an endpoint has a name there."""
    asking = [name for name, node in tree["judges"].items() if isinstance(node.get("endpoint"), dict)]
    if asking and tree["endpoint"]["model"] is None:
        yield "endpoint.model", f"name the model that judges for judges.{asking[0]}: endpoint.model=NAME"


def _addressed(tree: dict) -> Iterator[Finding]:
    """An endpoint is asked at an address of the web."""
    address = tree["endpoint"]["base_url"]
    if address is not None and not address.startswith(("http://", "https://")):
        yield "endpoint.base_url", f"{address} must begin with http:// or https://"


def _measured_twice(tree: dict) -> Iterator[Finding]:
    """What is the truth already is no further metric: both would be one row of the tables."""
    if tree["evaluation"]["_target_"] == "dlma.evaluation.sentiment.SentimentEvaluation":
        for name, node in tree["metrics"].items():
            if node.get("_target_") == "dlma.metrics.sentiment.Sentiment":
                yield f"metrics.{name}", "evaluation=sentiment measures it already: leave it out of metrics="


def _untouched(tree: dict) -> Iterator[Finding]:
    """Prompts that were kept for the last are there to be read."""
    if tree["evaluation"].get("split") == "untouched" and not tree["data"].get("untouched"):
        where = "data.untouched=1000" if "untouched" in tree["data"] else "only data=lab has such prompts"
        yield "evaluation.split", f"untouched prompts are wanted, and the data have none: {where}"


def _target_kl(tree: dict) -> Iterator[Finding]:
    """A KL is read along one training that has steps, on policies that are kept for it."""
    objective, rounds = tree["objective"], tree["iterations"]
    target = objective.get("target_kl")
    if target is None:
        return
    if (objective.get("_work_") or {}).get("kind") == "none":
        yield "objective.target_kl", f"{target} cannot be reached: this method trains nothing; leave it out"
    if rounds > 1:
        yield "objective.target_kl", f"{target} is read along one training, from the base on: iterations=1"
    data = tree["data"]
    if not data.get("validation", data.get("validation_share", 1)):
        yield "objective.target_kl", f"{target} is read on validation prompts, of which the data are to have none"
    if tree["intermediate"]:
        yield "intermediate", "objective.target_kl keeps policies of its own, kl_points of them: intermediate=0"


def _contrast(tree: dict) -> Iterator[Finding]:
    """A contrast is of the positive prompt with the negative one, and wants the logits of both."""
    objective = tree["objective"]
    if objective.get("contrast") is None:
        return
    if objective["side"] != "positive":
        yield "objective.side", f"{objective['side']} has no other side to be contrasted with: objective.side=positive"
    if tree["sampler"]["_target_"] != "dlma.sampler.local.LocalSampler":
        yield "sampler", "no server gives the logits under both prompts, which objective.contrast needs: sampler=local"


def _served(tree: dict) -> Iterator[Finding]:
    """Servers are named or started, and weights that a running server cannot be given have one that is started."""
    sampler, objective = tree["sampler"], tree["objective"]
    adapted = tree["model"].get("lora") is not None
    rollouts = objective.get("sampler") or {}
    if rollouts.get("_target_") == SERVER and not (rollouts.get("urls") and adapted):
        yield (
            "objective.sampler",
            "a policy that changes between two rollouts is sampled by running servers (sampler.urls) and as an adapter "
            "(adapter=lora), or in process: leave it out",
        )
    if sampler["_target_"] != SERVER:
        return
    if tree["executor"]["_target_"] != LOCAL_EXECUTOR:
        yield "executor", "the servers of sampler=server are the workers already: executor=local, or sampler=local"
        return
    urls, start = sampler.get("urls"), sampler.get("start")
    if not (urls or start):
        yield "sampler.urls", "name at least one server: sampler.urls=[http://host:8000/v1], or sampler.start"
        return
    if start is not None:
        yield from _command(start)
    elif tree["sft"].get("_target_"):
        yield "sampler.urls", "these servers do not hold the model that sft tunes: sampler.start, or sampler=local"
    kind = (objective.get("_work_") or {}).get("kind")
    whole = kind == "steer" or (kind != "none" and not adapted)
    if whole and start is None and sampler.get("policy", "server") == "server":
        yield (
            "sampler.policy",
            "the policy will be a whole model, which no running server can be given: sampler.start, a command that "
            "starts one, sampler.policy=local, or adapter=lora",
        )


def _command(start: str) -> Iterator[Finding]:
    """A command that starts a server."""
    try:
        words = shlex.split(start)
    except ValueError as reason:
        yield "sampler.start", f"is no command: {str(reason).lower()}"
        return
    if missing := [name for name in ("{model}", "{port}") if not any(name in word for word in words)]:
        yield "sampler.start", f"must hold {' and '.join(missing)}: where the weights lie, and where it is to listen"


def _within(path: str, node: dict) -> Iterator[Finding]:
    """Values of one node, and of the nodes inside it."""
    for name, inner in node.items():
        if isinstance(inner, dict):
            yield from _within(f"{path}.{name}", inner)
    if isinstance(node.get("path"), str) and not node["path"].strip():
        yield f"{path}.path", "is empty: name a file or a folder, or leave it out"
    for what in ("margin", "reward"):
        low, high = node.get(f"{what}_low"), node.get(f"{what}_high")
        if low is not None and high is not None and low > high:
            yield f"{path}.{what}_low", f"{low} is above {path}.{what}_high, {high}"
    if {"rollout", "batch"} <= node.keys() and node["rollout"] % node["batch"]:
        yield f"{path}.batch", f"{node['batch']} must divide {path}.rollout, {node['rollout']}"
    if "test_share" in node and node["test_share"] + node["validation_share"] >= 1:
        yield f"{path}.test_share", f"{node['test_share']} and {path}.validation_share must together be below 1"
    if node.get("max_cost") is not None and None in (node["cost_in"], node["cost_out"]):
        yield f"{path}.max_cost", f"needs {path}.cost_in and {path}.cost_out, per million tokens"
