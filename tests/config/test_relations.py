"""Values that have to do with each other: the first that breaks a relation is named, and what mends it passes."""

import pytest
from omegaconf import OmegaConf
from source_tree import ROOT

from dlma.config import check, compose, relations

CORPUS = ["data=jsonl", "data.path=p", "model=hf", "model.path=m"]
FOUND = [
    ([], {"recipe.margin_low": 5}, "recipe.margin_low: 5 is above recipe.margin_high, 4.0", {"recipe.margin_high": 5}),
    (
        ["objective=ppo"],
        {"recipe.ppo.batch": 3},
        "recipe.ppo.batch: 3 must divide recipe.ppo.rollout, 128",
        {"recipe.ppo.rollout": 129},
    ),
    (
        CORPUS,
        {"data.test_share": 0.5, "data.validation_share": 0.5},
        "data.test_share: 0.5 and data.validation_share must together be below 1",
        {"data.validation_share": 0.49},
    ),
    (
        [],
        {"endpoint.max_cost": 1, "endpoint.cost_in": 2},
        "endpoint.max_cost: needs endpoint.cost_in and endpoint.cost_out, per million tokens",
        {"endpoint.cost_out": 0},
    ),
    (
        [],
        {"iterations": 2, "pairs.path": "p.jsonl"},
        "iterations: 2 rounds, but the pairs of p.jsonl are the same in every round: iterations=1",
        {"iterations": 1},
    ),
    (
        [],
        {"iterations": 2, "intermediate": 3},
        "intermediate: 3 follows one training, from the base on: iterations=1",
        {"intermediate": 0},
    ),
    (
        ["metrics=sentiment"],
        {"evaluation._target_": "dlma.evaluation.sentiment.SentimentEvaluation"},
        "metrics.sentiment: evaluation=sentiment measures it already: leave it out of metrics=",
        {"metrics": {}},
    ),
    (
        ["evaluation=sentiment"],
        {"evaluation._needs_": {"no_such_module": "real"}},
        "evaluation: needs no_such_module: pip install 'dlma[real]'",
        {"evaluation._needs_": {"json": "real"}},
    ),
    (
        ["metrics=benchmarks"],
        {"metrics.benchmarks._needs_": {"no_such_module": "benchmarks"}},
        "metrics.benchmarks: needs no_such_module: pip install 'dlma[benchmarks]'",
        {"metrics": {}},
    ),
    (
        [],
        {"iterations": 2, "objective.target_kl": 0.5},
        "objective.target_kl: 0.5 is read along one training, from the base on: iterations=1",
        {"iterations": 1},
    ),
    (
        [],
        {"intermediate": 3, "objective.target_kl": 0.5},
        "intermediate: objective.target_kl keeps policies of its own, kl_points of them: intermediate=0",
        {"intermediate": 0},
    ),
    (
        [],
        {"data.validation": 0, "objective.target_kl": 0.5},
        "objective.target_kl: 0.5 is read on validation prompts, of which the data are to have none",
        {"data.validation": 2},
    ),
    (
        ["data=jsonl", "data.path=p.jsonl"],
        {"data.validation_share": 0.0, "objective.target_kl": 0.5},
        "objective.target_kl: 0.5 is read on validation prompts, of which the data are to have none",
        {"objective.target_kl": None},
    ),
    *(
        (
            [f"method={method}"],
            {"objective.target_kl": 1.0},
            "objective.target_kl: 1.0 cannot be reached: this method trains nothing; leave it out",
            {"objective.target_kl": None},
        )
        for method in ("best_of_n", "prompted", "base")
    ),
    (
        ["sampler=server", "sampler.urls=[http://h/v1]", "adapter=lora"],
        {"sampler.urls": None},
        "sampler.urls: name at least one server: sampler.urls=[http://host:8000/v1], or sampler.start",
        {"sampler.start": "serve {model} --port={port}"},
    ),
    *(
        (
            ["sampler=server", "sampler.urls=[http://h/v1]", "adapter=lora", "recipe.lora.rank=2"],
            change,
            "sampler.policy: the policy will be a whole model, which no running server can be given: sampler.start, a "
            "command that starts one, sampler.policy=local, or adapter=lora",
            {"sampler.policy": "local"},
        )
        for change in ({"recipe.lora": None}, {"objective._work_": {"kind": "steer"}})
    ),
    (
        [
            "sampler=server",
            "sampler.urls=[http://h/v1]",
            "sampler.start='a {model} {port}'",
            "sft=alpaca",
            "sft.data.path=p",
        ],
        {"sampler.start": None, "sampler.policy": "local"},
        "sampler.urls: these servers do not hold the model that sft tunes: sampler.start, or sampler=local",
        {"sampler.start": "serve {model} {port}"},
    ),
    (
        ["sampler=server", "sampler.start='serve {model} {port}'"],
        {"sampler.start": "serve {model}"},
        "sampler.start: must hold {port}: where the weights lie, and where it is to listen",
        {"sampler.start": "'serve me' {model} http://h:{port}"},
    ),
    (
        ["sampler=server", "sampler.start='serve {model} {port}'"],
        {"sampler.start": "serve '{model} {port}"},
        "sampler.start: is no command: no closing quotation",
        {"sampler.start": "serve {model} {port}"},
    ),
    (
        [
            "sampler=server",
            "sampler.urls=[http://h/v1]",
            "adapter=lora",
            "objective=ppo",
            "objective.sampler=${sampler}",
        ],
        {"recipe.lora": None, "sampler.start": "serve {model} {port}"},
        "objective.sampler: a policy that changes between two rollouts is sampled by running servers (sampler.urls) "
        "and as an adapter (adapter=lora), or in process: leave it out",
        {"recipe.lora": {"rank": 2, "alpha": 4.0, "targets": "all-linear"}},
    ),
    (
        [],
        {"evaluation.split": "untouched"},
        "evaluation.split: untouched prompts are wanted, and the data have none: data.untouched=1000",
        {"data.untouched": 10},
    ),
    (
        ["data=lab_by_row"],
        {"evaluation.split": "untouched"},
        "evaluation.split: untouched prompts are wanted, and the data have none: only data=lab has such prompts",
        {"evaluation.split": "test"},
    ),
    *(
        (
            [],
            {f"{key}.path": " "},
            f"{key}.path: is empty: name a file or a folder, or leave it out",
            {f"{key}.path": None},
        )
        for key in ("pairs", "scored")
    ),
    (
        [],
        {"endpoint.base_url": "myhost/v1"},
        "endpoint.base_url: myhost/v1 must begin with http:// or https://",
        {"endpoint.base_url": "http://myhost/v1"},
    ),
    (
        ["labels=sign"],
        {"iteration.consistency": True},
        "iteration.consistency: holds a round against the one before it, and there is one: iterations=2",
        {"iterations": 2},
    ),
    (
        ["iterations=2"],
        {"iteration.consistency": True},
        "iteration.consistency: these labels are the same whoever scores, so that two rounds always agree: "
        "labels=sign or sign_none",
        {"labels.orientation": "sign"},
    ),
    (
        ["method=random_labels", "iterations=2"],
        {"iteration.consistency": True},
        "iteration.consistency: these labels are the same whoever scores, so that two rounds always agree: "
        "labels=sign or sign_none",
        {"iteration.consistency": False},
    ),
    (
        ["method=dice"],
        {"iteration.consistency": True},
        "iteration.consistency: holds what two rounds' scorers say of the same pairs against each other, and this one "
        "says how its own round changed the model: another scorer",
        {"iteration.consistency": False},
    ),
    *(
        (
            ["trainer=fsdp", "trainer.devices=2"],
            {key: 2},
            f"{key}: 2 wants policies on the way, and trainer.strategy=fsdp keeps the last one only: trainer=ddp",
            {"trainer.strategy": "ddp"},
        )
        for key in ("intermediate", "objective.target_kl")
    ),
    (
        ["method=spin"],
        {"iterations": 2},
        "iterations: 2 rounds, but what stands for answers by people would be drawn from each round's own policy: "
        "human=dataset, or iterations=1",
        {"iterations": 1},
    ),
    (
        ["method=sso"],
        {"recipe.score_dtype": "bfloat16"},
        "recipe.score_dtype: objective=self_steering takes its references under p+ and p- from the scorer, in the "
        "training's type: null",
        {"recipe.score_dtype": "float32"},
    ),
    (
        ["iterations=2", "objective=odpo", "labels=sign_untied"],
        {"iteration.consistency": True},
        "iteration.consistency: mixes in the loss of the opposite label, which LogOffset has not, as it reads the "
        "margin: objective=dpo",
        {"objective.loss": {"_target_": "dlma.objective.losses.Sigmoid"}},
    ),
    ([], {"store.root": " "}, "store.root: is empty; name a folder: store.root=...", {"store.root": "s"}),
    (
        ["model=hf", "model.path=m"],
        {"recipe.exclusive": True, "recipe.name": "lab"},
        "recipe: lab does not suit this model; use recipe=small_full",
        {"recipe.exclusive": False},
    ),
]


@pytest.mark.parametrize(("overrides", "wrong", "said", "mended"), FOUND, ids=[said[:30] for _, _, said, _ in FOUND])
def test_a_broken_relation_is_one_line_and_what_mends_it_passes(overrides, wrong, said, mended):
    cfg = compose.plan(compose.search_path(ROOT / "conf", None), overrides, False).cfg
    for key, value in wrong.items():
        OmegaConf.update(cfg, key, value, merge=False)
    assert [str(problem) for problem in check.problems(cfg)] == [said]
    for key, value in mended.items():
        OmegaConf.update(cfg, key, value, merge=False)
    assert check.problems(cfg) == []


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["judges=[llm_harmless]"], "endpoint.model: name the model that judges for judges.llm_harmless"),
        (["scored.path=s.parquet", "method=rlcd"], "method: has a scorer of its own"),
        (["scored.path=s.parquet", "method=rlaif"], "method: has a scorer of its own"),
        (["judges=[llm_harmless]", "endpoint.model=m"], None),
        (["scored.path=s.parquet", "method=dlma_shuffled"], None),
        (["method=rlcd"], None),
    ],
)
def test_what_a_run_may_not_leave_open_is_said_before_anything_is_loaded(run_main, overrides, said):
    cfg = compose.plan(compose.search_path(ROOT / "conf", None), overrides, False).cfg
    tree = OmegaConf.to_container(cfg, resolve=True)
    assert [f"{key}: {what}".startswith(str(said)) for key, what in relations.broken_in_a_run(tree)] == [True][
        : said is not None
    ]
    if said is not None:
        ran = run_main(*overrides)
        assert ran.code == 2 and said in ran.err and not (ran.folder / "store").exists()
