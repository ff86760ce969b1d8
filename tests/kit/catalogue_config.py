"""The catalogue's part on the command line and the config."""

# ruff: noqa: E501 (a table, in which an input is part of a line)

import copy
import os
from unittest.mock import patch

from catalogue import CORPUS, Case, Entry, command, composed, config, configs, entry, override
from source_tree import ROOT

from dlma.config import check, compose, help

NAN, INF = float("nan"), float("inf")
LORA = {"rank": 8, "alpha": 16, "targets": ["q_proj"]}
COUNTS = "Give a number in the range; the far end is there so that a slip of the keyboard does not run for days."
RANGE = "Give a number in the range that the line names; nan and infinity are in none."
KIND = "Give a value of that kind; on a command line text that looks like a number is quoted: `key=\"'1'\"`."
ONE_OF = "Write one of the values that the line names."
GUARD = {"_target_": "dlma.model.guard.GuardSpec", "path": "g", "revision": "main", "dtype": "float32", "safe": ["no"],
         "unsafe": ["yes"], "options": {}}  # fmt: skip
SECRET = {"MY_TOKEN": "planted-secret-value-1"}


def with_secret(folder) -> None:
    cfg = copy.deepcopy(composed(()))
    cfg.prompts.answer = f"{SECRET['MY_TOKEN']}{{affix}}"
    with patch.dict(os.environ, SECRET):
        check.check(cfg)


def asked(group: str) -> Case:
    """What `--help GROUP` says."""
    return lambda _: help.group_text([ROOT / "conf"], group)


def one_of(key: str, values: str, *wrong: object, under: tuple[str, ...] = ()) -> Entry:
    return config(
        f"{key}: must be one of {values}, not <value>", ONE_OF, *((key, value) for value in wrong), under=under
    )


def number(words: str, advice: str, *changes: tuple[str, object], under: tuple[str, ...] = ()) -> Entry:
    return config(f"<key>: must be {words}, not <value>", advice, *changes, under=under)


NUMBERS = [
    number("an integer from 0 to 9,223,372,036,854,775,807", "A seed is an integer of at most 63 bits, not negative.",
           ("seed", -1), ("seed", 2**64), ("seed", 10**30), ("data.seed", -1), ("labels.seed", -5)),
    number("an integer from 1 to 1,000,000,000", COUNTS, ("recipe.batch_pairs", 0), ("recipe.max_new_tokens", 0),
           ("recipe.max_prompt_tokens", -1), ("recipe.sft.batch_pairs", 0), ("trainer.checkpoint_steps", 0)),
    number("an integer from 0 to 1,000,000,000", COUNTS, ("recipe.top_k", -1), ("recipe.top_k", -3),
           ("data.train", -1), ("data.test", 10**12), ("data.validation", -2)),
    number("an integer from 1 to 10,000", COUNTS, ("recipe.epochs", 0), ("iterations", 0), ("trainer.devices", 0),
           ("recipe.sft.epochs", 20_000), ("trainer.devices", -1)),
    number("an integer from 0 to 1,024", "0 leaves the number of threads to torch.", ("trainer.threads", -1),
           ("trainer.threads", 5000)),
    number("an integer from 0 to 1,000", "0 keeps no policies along the training.", ("intermediate", -1), ("intermediate", 1001)),
    number("an integer from 2 to 1,000,000,000 or null", "One prompt to train on and one to test on are the least.",
           ("data.max_prompts", 0), ("data.max_prompts", 1), under=CORPUS),
    number("an integer from 1 to 1,000,000,000 or null", "`null` is no limit.", ("labels.max_pairs", 0),
           ("labels.max_pairs", -1), ("endpoint.max_requests", 0)),
    number("a number above 0 and at most 1e+09", RANGE, ("recipe.beta", 0), ("recipe.beta", -1), ("recipe.beta", INF),
           ("recipe.optim.clip_norm", 0), ("recipe.optim.clip_norm", NAN)),
    number("a number from 0 to 1e+09", RANGE, ("recipe.margin_weight", -1), ("recipe.margin_weight", NAN),
           ("recipe.optim.weight_decay", -1), ("recipe.optim.warmup", -1), ("alerts.max_kl", -1)),
    number("a number from -1e+09 to 1e+09", RANGE, ("recipe.margin_low", NAN), ("recipe.margin_low", -1e10),
           ("recipe.margin_high", INF), ("recipe.margin_high", 1e300)),
    number("a number above 0 and at most 1", "A learning rate above 1 only runs off; a share of 0 keeps nothing.",
           ("recipe.lr", 0), ("recipe.lr", 10), ("recipe.lr", NAN), ("recipe.top_p", 0), ("sweep.margin", NAN)),
    number("a number from 0 to 1", RANGE, ("preflight.max_empty", -1), ("preflight.max_empty", 2),
           ("alerts.min_sign_agreement", NAN), ("alerts.max_identical", 5), ("preflight.max_trimmed", INF)),
    number("a number from 0 to 100", "0 takes the likeliest token; 1 is the model's own distribution.",
           ("recipe.temperature", -1), ("recipe.temperature", NAN), ("recipe.temperature", INF),
           ("recipe.temperature", 1000)),
    number("a number from 0 to 100 or null", "`null` sends none.", ("endpoint.temperature", -1), ("endpoint.temperature", NAN)),
    number("a number from -1 to 1", RANGE, ("alerts.min_rank_correlation", -2), ("alerts.min_rank_correlation", NAN)),
    number("a number at least 0 and below 1", RANGE, ("data.validation_share", 1), ("data.validation_share", -0.1),
           under=CORPUS),
    number("a number above 0 and below 1", "Something has to be left to train on, and something to test on.",
           ("data.test_share", 0), ("data.test_share", 1), under=CORPUS),
    number("a number at least 0 and below 0.5", "From a half on, labels say the opposite.",
           ("objective.loss.label_smoothing", 0.5), ("objective.loss.label_smoothing", -0.1),
           under=("objective=conservative",)),
    number("a number above 0 and at most 1e+09 or null", "`null` is no limit.", ("endpoint.max_cost", 0),
           ("endpoint.requests_per_minute", -1)),
    number("a number from 0 to 1e+09 or null", "`null` is none.", ("labels.min_margin", -1), ("labels.min_margin", NAN),
           ("endpoint.cost_in", -1), ("endpoint.cost_out", NAN)),
    number("a list, each item a number above 0 and at most 1e+09", "A list is written `[0.5,1.0]`.", ("sweep.kl_levels", [-1]),
           ("sweep.kl_levels", [0]), ("sweep.kl_levels", ["x"])),
    number("a list, each item a number above 0 and at most 1e+40 or null", "`null` chooses the budgets.",
           ("sweep.flops", [0]), ("sweep.flops", [-1e12])),
]  # fmt: skip

KINDS = [
    number("an integer", KIND, ("seed", "abc"), ("seed", 1.5), ("seed", True), ("seed", None), ("iterations", "two")),
    number("a number", KIND, ("recipe.beta", "high"), ("recipe.beta", None), ("recipe.lr", True), ("recipe.lr", "fast")),
    number("text", KIND, ("store.root", 3), ("recipe.name", 5), ("sweep.reference_method", None)),
    number("text or null", KIND, ("name", 3), ("runs", 5), ("sweep.baseline", 1)),
    number("true or false", "Write `true` or `false`.", ("store.link", "yes"), ("store.link", 1), ("recipe.exclusive", 0),
           ("sweep.pool_bases", "no")),
    number("a list, each item text or null", "A list is written `[a,b]`.", ("sweep.tested", "harmful"),
           ("sweep.tested", 5), ("sweep.curve_axis", "recipe.beta")),
    number("a list of at least 1, each item text or text", "Name modules, or write `all-linear`.",
           ("recipe.lora", {**LORA, "targets": []}), ("recipe.lora", {**LORA, "targets": [1]})),
    number("a Component", "Choose an option of the group instead: `judges=[oracle]`.", ("metrics.skills", 3),
           ("metrics.text", "x")),
    one_of("recipe.dtype", "float32, bfloat16, auto", "float23", 32),
    one_of("recipe.margin_unit", "nats, sd, quantile", "nat", None),
    one_of("recipe.optim.optimizer", "adamw, rmsprop", "adam", "sgd"),
    one_of("store.keep_policies", "all, best, adapter", "none", True),
    one_of("sweep.on_error", "continue, stop", "go", "stopp"),
    one_of("iteration.scorer", "current, frozen", "base", 1),
    one_of("trainer.accelerator", "cpu, gpu, mps", "tpux", "cuda"),
    one_of("trainer.strategy", "ddp, fsdp", "dp", None),
    one_of("labels.orientation", "scored, sign", "chosen"),
    one_of("labels.strength", "margin, none, shuffled, constant", "margins", 0),
    one_of("evaluation.split", "test, validation, untouched", "train", "dev"),
    one_of("prompts.format", "auto, template, chat", "chatml"),
    one_of("judges.reward.sign", "-1, 1", 0, 2, under=("judges=[reward]", "judges.reward.model.path=m")),
]  # fmt: skip

KEYS = [
    config("<key>: unknown key; did you mean <key>?", "Write the key as the line has it.", ("objective.betta", 3),
           ("recipe.lrr", 1), ("store.rot", "x"), ("sede", 1), ("judges.oracle_harmless.tye", 1)),
    config("<key>: unknown key", "See `python run.py mode=check`, which prints every key.", ("zzzzqq", 1),
           ("store.zzzzqq", 2)),
    config("<key>: is missing", "Give the whole node: a part of it replaces all of it.",
           ("recipe.lora", {"rank": 8, "alpha": 16}), ("recipe.lora", {"alpha": 1, "targets": ["x"]})),
    config("<key>: must be given: <key>=...", "Give it on the command line or in an experiment's file.",
           ("objective.beta", "???"), ("store.root", "???"), ("recipe.beta", "???")),
    config("<key>: Interpolation key '<key>' not found; did you mean <key>?", "Name a key that is there, from the root on.",
           ("objective.beta", "${recipe.betta}"), ("seed", "${data.sede}")),
    config("<key>: Interpolation key '<key>' not found", "Name a key that is there, from the root on.",
           ("objective.beta", "${zzzzqq}")),
    config("<key>: needs a _target_: the class or function that it configures", "Choose the option that has it first.",
           ("judges.mine", {"tie": 1}), ("metrics.mine", {"a": 1}), ("judges.mine", {"_target_": 3})),
    config("<key>: _target_ <target>: must name something inside `dlma.`", "Code of your own is put into the package.",
           ("scorer._target_", "os.system"), ("data._target_", "mine.Reader"), ("logger.csv._target_", "dlma")),
    config("<key>: _target_ <target>: there is no module <module>", "Mind the spelling of the module.",
           ("scorer._target_", "dlma.scorer.nothing.Self"), ("data._target_", "dlma.datta.lab.LabPrompts")),
    config("<key>: _target_ <target>: <module> has no <name>; it has <names>", "Write one of the names that it has.",
           ("scorer._target_", "dlma.scorer.self_reward.Self"), ("data._target_", "dlma.data.lab.Lab")),
    config("<key>: _target_ <target>: is no component: its parameter <name> stands neither before / nor after *",
           "Only what says which of its parameters are configuration is called.",
           ("labels._target_", "dlma.files.write_bytes"), ("data._target_", "dlma.files.write_json")),
    config("mode: _target_ <target>: is no mode", "Choose a mode: `mode=check`.", ("mode._target_", "dlma.data.lab.LabPrompts")),
    config("<key>: _target_ <target>: is a mode", "A mode is chosen by `mode=`.", ("scorer._target_", "dlma.modes.check.show"),
           ("data._target_", "dlma.pipeline.run")),
    config("<key>._target_: is null, and a run needs one: choose an option of the group", "Choose an option of the group.",
           ("mode._target_", None), ("scorer._target_", None), ("data._target_", None)),
    config("<key>: no component belongs here: nothing is built from its _target_; give plain values",
           "Values are data; only a component's own node names what is built.",
           ("recipe.lora", {**LORA, "_target_": "dlma.x.Y"}), ("sweep.kl_levels", [{"_target_": "dlma.x.Y"}])),
    config("<key>: an address with a credential in it; take it out, put it into an environment variable, such as "
           "MY_API_KEY, and name that: endpoint.key_variable, sampler.key_env",
           "A config is recorded; a secret is not.", ("endpoint.base_url", "https://me:pass@host/v1"), ("runs", "http://u:p@h/")),
    config("<key>: is no name of an environment variable; put it into an environment variable, such as MY_API_KEY, and "
           "name that: endpoint.key_variable, sampler.key_env", "Name the variable, not its value.",
           ("endpoint.key_variable", "sk-not-a-name"), ("endpoint.key_variable", "lower_case")),
    entry("prompts.answer: holds what a secret environment variable holds, and a model would read it; take it out",
          "Take it out of the prompt.", with_secret),
    config("adapter: is chosen by name, adapter=..., and has no keys of its own; did you mean <key>? (a file of "
           "conf/adapter begins with `# @package _global_`)", "The values of LoRA are `recipe.lora.rank` and its kin.",
           ("adapter", {"rank": 0}), ("adapter", {"alpha": 1})),
    config("experiment: is chosen by name, experiment=..., and has no keys of its own<hint> (a file of conf/experiment begins "
           "with `# @package _global_`)", "Begin your experiment's file with `# @package _global_`.",
           ("experiment", {"recipe": {"lr": 1e-4}}), ("experiment", {"seed": 1})),
    config("name: <name> names no folder; leave it out, or give a word", "`name=` is the run folder's name below outputs/.",
           ("name", " "), ("name", "."), ("name", "..")),
    config("name: <name> leads out of the outputs folder; give a plain name, or the whole folder as hydra.run.dir=...",
           "Give a plain name.", ("name", "../../x"), ("name", "/abs"), ("name", "C:\\x"), ("name", "a/../../b")),
    config("name: <name> has <number> bytes, and a folder's name at most 255; give a shorter one", "Shorten it.",
           ("name", "x" * 300), ("name", "漢" * 100)),
    config("name: <name> holds control characters; write it without", "Write it without them.", ("name", "a\nb"),
           ("name", "a\x00b"), ("name", "a\x1bb")),
]  # fmt: skip

SERVED = ("sampler=server", "sampler.urls=[http://localhost:1/v1]", "adapter=lora")
RELATIONS = [
    configs("model: is no language model to be aligned: a guard or reward model is one of judges= or metrics=",
            "Write `judges=[guard]` or `judges=[reward]`.", {"model": GUARD}),
    config("<key>.margin_low: <low> is above <key>.margin_high, <high>", "Give the clamp's lower end first.",
           ("recipe.margin_low", 5), ("recipe.margin_high", -5), ("objective.margin_low", 1e3)),
    config("objective.token_weights.reward_low: <low> is above objective.token_weights.reward_high, <high>",
           "Give the clamp's lower end first.", ("objective.token_weights.reward_low", 5),
           ("objective.token_weights.reward_high", -5), under=("objective=tis_dpo",)),
    config("recipe.ppo.batch: <batch> must divide recipe.ppo.rollout, <rollout>", "A rollout is cut into whole batches.",
           ("recipe.ppo.batch", 3), ("recipe.ppo.rollout", 100), under=("objective=ppo",)),
    configs("data.test_share: <share> and data.validation_share must together be below 1", "Leave something to train on.",
            {"data.test_share": 0.5, "data.validation_share": 0.5}, {"data.test_share": 0.99, "data.validation_share": 0.2},
            under=CORPUS),
    config("endpoint.max_cost: needs endpoint.cost_in and endpoint.cost_out, per million tokens", "Give both prices.",
           ("endpoint.max_cost", 1), ("endpoint.max_cost", 0.01)),
    config("objective.target_kl: <nats> cannot be reached: this method trains nothing; leave it out",
           "`base`, `prompted`, `best_of_n`, `contrastive_decoding` and `steering` take no steps.", ("objective.target_kl", 1.0), ("objective.target_kl", 0.1),
           under=("method=prompted",)),
    configs("objective.target_kl: <nats> is read along one training, from the base on: iterations=1",
            "Use `objective.target_kl=` or `iterations=`.", {"objective.target_kl": 1.0, "iterations": 2}),
    configs("objective.target_kl: <nats> is read on validation prompts, of which the data are to have none",
            "Raise `data.validation` or `data.validation_share`.", {"objective.target_kl": 1.0, "data.validation": 0}),
    configs("intermediate: objective.target_kl keeps policies of its own, kl_points of them: intermediate=0",
            "Use `objective.target_kl=` or `intermediate=`.", {"objective.target_kl": 1.0, "intermediate": 2}),
    config("objective.side: <side> has no other side to be contrasted with: objective.side=positive",
           "Contrastive decoding holds the positive prompt against the negative one.", ("objective.side", "plain"),
           under=("objective=contrastive_decoding",)),
    config("sampler: no server gives the logits under both prompts, which objective.contrast needs: sampler=local",
           "A server sends tokens, not the logits that are to be combined.",
           ("objective.contrast", {"_target_": "dlma.model.contrast.Contrast", "alpha": 1.0, "cutoff": 0.1}),
           under=("method=prompted", "sampler=server", "sampler.urls=[http://localhost:1/v1]")),
    config("sampler.urls: name at least one server: sampler.urls=[http://host:8000/v1], or sampler.start",
           "Give the servers' addresses, or the command that starts one.", ("sampler.urls", None), ("sampler.urls", []),
           under=SERVED),
    configs("sampler.urls: these servers do not hold the model that sft tunes: sampler.start, or sampler=local",
            "A running server has other weights than those that are tuned first.", {"sampler.start": None},
            under=(*SERVED, "sampler.start='serve {model} {port}'", "sft=alpaca", "sft.data.path=p")),
    config("sampler.policy: the policy will be a whole model, which no running server can be given: sampler.start, a command "
           "that starts one, sampler.policy=local, or adapter=lora", "Choose one of the three.", ("recipe.lora", None),
           under=SERVED),
    config("executor: the servers of sampler=server are the workers already: executor=local, or sampler=local",
           "Requests go to the servers from one process.",
           ("executor._target_", "dlma.executor.ray.RayExecutor"), under=SERVED),
    config("sampler.start: must hold <names>: where the weights lie, and where it is to listen",
           "`sampler.start=\"vllm serve {model} --port {port}\"`.", ("sampler.start", "vllm serve {model}"),
           ("sampler.start", "serve"), under=SERVED),
    config("sampler.start: is no command: no closing quotation", "Close the quotes.",
           ("sampler.start", "serve '{model} {port}"), under=SERVED),
    config("objective.sampler: a policy that changes between two rollouts is sampled by running servers (sampler.urls) and "
           "as an adapter (adapter=lora), or in process: leave it out", "Leave it out, or name running servers.",
           ("recipe.lora", None), under=(*SERVED, "sampler.policy=local", "objective=ppo", "objective.sampler=${sampler}")),
    config("iteration.later.<group>: is the same in every round; later rounds may have their own pairs, scorer, labels, "
           "objective", "Leave it out of `iteration.later`.", ("iteration.later", {"sampler": {"_target_": "dlma.sampler.local.LocalSampler",
           "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 8}})),
    config("scorer: is relative to the base, which the first round's policy is: iteration.later.scorer",
           "Take it for later rounds, as `method=dice` does.", ("scorer.beta", 0.5), under=("scorer=implicit_reward",)),
    configs("iteration.reference: objective=<name> keeps the model at the round's start as its reference: current",
            "It has no other reference.", {"iteration.reference": "frozen", "iterations": 2}, under=("objective=ppo",)),
    configs("iteration.consistency: the frozen scorer always agrees with itself: iteration.scorer=current",
            "Two rounds are told apart by their scorers.", {"iteration.consistency": True, "iteration.scorer": "frozen"},
            under=("iterations=2", "labels=sign")),
    config("iteration.consistency: softens the labels of pairs, which only DPO and its losses read: objective=dpo",
           "Take a preference loss.", ("iteration.consistency", True), under=("objective=sft", "iterations=2", "labels=sign")),
    config("iteration.consistency: mixes in the loss of the opposite label, which <loss> has not, as it reads the margin: "
           "objective=dpo", "ODPO's offset, soft labels and reward distillation take the label's strength from R itself.",
           ("iteration.consistency", True), under=("objective=soft_labels", "iterations=2", "labels=sign")),
    config("iteration.consistency: these labels are the same whoever scores, so that two rounds always agree: labels=sign or "
           "sign_none", "Labels by construction, by people or by a coin do not change with the model.",
           ("iteration.consistency", True), under=("iterations=2",)),
    config("iteration.consistency: holds what two rounds' scorers say of the same pairs against each other, and this one says "
           "how its own round changed the model: another scorer", "Before the first round there is nothing that it learnt.",
           ("iteration.consistency", True), under=("method=dice",)),
    config("iterations: <n> rounds, but what stands for answers by people would be drawn from each round's own policy: "
           "human=dataset, or iterations=1", "People's answers do not change from round to round.", ("iterations", 2),
           under=("method=spin",)),
    config("intermediate: <n> wants policies on the way, and trainer.strategy=fsdp keeps the last one only: trainer=ddp",
           "Train by `trainer=ddp`, where each process holds the model whole.", ("intermediate", 2),
           under=("trainer=fsdp", "trainer.devices=2")),
    config("objective.target_kl: <n> wants policies on the way, and trainer.strategy=fsdp keeps the last one only: trainer=ddp",
           "Train by `trainer=ddp`, where each process holds the model whole.", ("objective.target_kl", 2.0),
           under=("trainer=fsdp", "trainer.devices=2")),
    config("recipe.score_dtype: objective=self_steering takes its references under p+ and p- from the scorer, in the "
           "training's type: null", "Leave it out.", ("recipe.score_dtype", "bfloat16"), under=("method=sso",)),
    config("iteration.consistency: holds a round against the one before it, and there is one: iterations=2",
           "Ask for more rounds, or leave it out.", ("iteration.consistency", True), under=("labels=sign",)),
    configs("<key>: is empty: name a file or a folder, or leave it out", "An unset variable of the shell gives an empty path.",
            {"pairs.path": ""}, {"scored.path": " "}),
    config("endpoint.base_url: <address> must begin with http:// or https://", "Write the whole address.",
           ("endpoint.base_url", "myhost/v1"), ("endpoint.base_url", "localhost:8000")),
    configs("intermediate: <n> follows one training, from the base on: iterations=1", "Use `intermediate=` or `iterations=`.",
            {"intermediate": 2, "iterations": 2}),
    config("store.root: is empty; name a folder: store.root=...", "Name a folder of the store's own.", ("store.root", ""),
           ("store.root", "  ")),
    configs("recipe: lab does not suit this model; use recipe=small_full", "Use the recipe that the line names.",
            {"recipe.exclusive": True, "recipe.name": "lab"}, under=CORPUS),
]  # fmt: skip


def _command_of_a_file(folder):
    theirs = folder / "theirs" / "experiment" / "theirs.yaml"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("# @package _global_\nsampler: {start: 'serve {model} {port}'}\n")
    words = ["sampler=server", "experiment=theirs"]
    compose.plan(compose.search_path(ROOT / "conf", str(folder / "theirs")), words, False)


LINES = [
    entry("--help <word>: no such group; did you mean <group>? (there are <names>)", "`--help` alone lists the groups.",
          asked("metod"), asked("experiments")),
    entry("--help <word>: no such group (there are <names>)", "`--help` alone lists the groups; an option stands in its "
          "group's list.", asked("zzzz"), asked("seed")),
    override("<line>: not an override; write key=value, quoted where the value has spaces or commas; did you mean <key>=...?",
             "Write `key=value`.", "seed", "recipe.beta"),
    override("<line>: not an override; write key=value, quoted where the value has spaces or commas", "Mind brackets and "
             "quotes; in a shell the whole override is quoted once more.", "seed=[", "recipe.lora={a", "name='x", "=1"),
    override("<line>: not an override; a value with = in it is quoted: \"<line>\"", "Quote the value inside the override.",
             "model.path=/tmp/a=b", "data.path=x=y.jsonl", "runs=a=b"),
    override("<line>...: a number of thousands of digits; give a smaller one", "No setting is so large.",
             "seed=" + "9" * 5000, "recipe.beta=" + "1" * 4400, "labels.max_pairs=-" + "7" * 9000),
    override("seed=glob(*): glob is for the options of a group", "List the values: `seed=0,1,2`.", "seed=glob(*)"),
    override("<option>: no such option; did you mean <option>? (there are <names>)", "Choose one of the options.",
             "method=dlmaa", "trainer=gpuu", "mode=chek", "data=jsnl", "judges=[orakle]"),
    override("<option>: no such option (there are <names>)", "Choose one of the options.", "scorer=3", "method=zzzz",
             "prompts=lab_pairs/none"),
    override("<line>: leave <group> out, and it is what it is by default", "A group has no option `null` of that name.",
             "scorer=null", "data=null", "trainer=None"),
    entry("sampler.start: starts a program, so no config file may say it: give it on the command line, sampler.start=... [<file>]",
          "Take it out of the file; read it before you type it.", _command_of_a_file),
    command("seed=1,2: several values need -m (a sweep); a list is written seed=[a,b], a text with commas \"seed='a,b'\"",
            "Add `-m`.", ["seed=1,2"]),
    command("seed=1,1: 1 stands there twice", "Write each value once.", ["-m", "seed=1,1"]),
    command("sweep.margin=0.03,0.05: is the whole sweep's; give one value", "Start one sweep for each.",
            ["-m", "sweep.margin=0.03,0.05"]),
    command("hydra.sweep.dir: is the folder of a sweep (-m); a single run's is hydra.run.dir=..., or name=...",
            "Use the folder of the kind of run.", ["hydra.sweep.dir=x"]),
    command("hydra.run.dir: is empty; name a folder, or leave it out", "Name a folder.", ["hydra.run.dir=''"]),
    command("<line>: cannot be set; did you mean hydra.run.dir?", "Mind the spelling.", ["hydra.run.dr=x"]),
    command("scorer=judge: says nothing to the pairs of scored.path, which are made and scored",
            "Leave out `pairs` and `scorer` where the pairs come scored.", ["scored.path=s.parquet", "scorer=judge"]),
]  # fmt: skip

ROOMS: dict[str, list[Entry]] = {
    "The command line": LINES,
    "Keys and components": KEYS,
    "Numbers": NUMBERS,
    "Kinds of values": KINDS,
    "Values that go together": RELATIONS,
}
