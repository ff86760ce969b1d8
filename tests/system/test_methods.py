"""Every row of conf/method, and every variant, runs from prompts to the table and does what it is named for."""

import csv
import dataclasses
import gzip
import json

import pyarrow.parquet as pq
import pytest
from small_models import byte_level_tokenizer, save_small

from dlma.app import conf_dir, main
from dlma.lab import oracle
from dlma.runs.costs import costs_of
from dlma.runs.folder import RunFolder

METHODS = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))
LAB = ["data.train=24", "data.validation=4", "data.test=6", "recipe.max_new_tokens=48"]
QUICK = [f"recipe.{value}" for value in ("batch_pairs=8", "sft.batch_pairs=8", "epochs=1", "sft.epochs=1")]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for the whole file: methods share their stages, as in a sweep."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def run(tmp_path, monkeypatch, store):
    monkeypatch.chdir(tmp_path)

    def call(*overrides, code=0, name="here"):
        assert main([f"store.root={store}", f"name={name}", *QUICK, *overrides]) == code
        return tmp_path / "outputs" / name

    return call


def scored(folder):
    return pq.read_table(folder / "scored.parquet").to_pylist()


def arms(folder):
    rows = csv.DictReader((folder / "metrics.csv").open())
    return {row["metric"].split("/")[0] for row in rows}


def metric(folder, name):
    (row,) = [row for row in csv.DictReader((folder / "metrics.csv").open()) if row["metric"] == name]
    return float(row["mean"])


def counts(folder):
    return json.loads((folder / "status.json").read_text())["result"]["counts"]


def few_of(names, *kept):
    """All names; those not kept only with -m slow."""
    return [name if name in kept else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("method", few_of(METHODS, "dlma", "rlcd", "rlaif", "cd", "rlhf", "base"))
def test_every_method_runs_on_the_lab(run, method):
    folder = run(f"method={method}", *LAB)
    changes_nothing = method in {"base"}
    assert arms(folder) == {"base", "prompted"} | (set() if changes_nothing else {"aligned"})
    trains = method not in {"base", "prompted", "best_of_n", "contrastive_decoding"}
    assert (folder / "policy").is_dir() == trains
    spent = json.loads((folder / "costs.json").read_text())
    assert (spent["flops"] > 0) == trains
    (folder / "costs.json").unlink()  # a folder of before: counted from its records, which are those of the last round
    again = costs_of(RunFolder(folder))
    if method in {"cream", "dice"}:
        assert again is None
    else:
        assert dataclasses.asdict(again) == pytest.approx(spent)
    assert (len(scored(folder)) > 16) == trains


def test_rlaif_and_rlhf_label_the_same_pairs_on_the_lab(run):
    judged, annotated = run("method=rlaif", *LAB, name="a"), run("method=rlhf", *LAB, name="b")
    columns = ["id", "positive_ids", "negative_ids"]
    one, two = (pq.read_table(f / "scored.parquet").select(columns) for f in (judged, annotated))
    assert one.equals(two)
    assert counts(annotated)["reused"]["pairs"] == 1
    assert all(row["verdict_first"] is not None for row in scored(judged))


def test_the_upper_bound_is_labelled_by_the_truth(run):
    rows = scored(run("method=contrastive_oracle", *LAB))
    truth = [oracle.truth(row["question"], row["positive_text"], row["negative_text"]) for row in rows]
    agree = {(t > 0) == (row["chosen"] == "positive") for t, row in zip(truth, rows, strict=True) if t}
    assert agree == {True}


def test_the_prompted_method_is_the_prompted_base(run):
    folder = run("method=prompted", *LAB)
    assert metric(folder, "aligned/harmlessness") == metric(folder, "prompted/harmlessness")
    assert metric(folder, "aligned/kl") == metric(folder, "prompted/kl")


def test_best_of_n_takes_the_answer_with_the_largest_self_reward(run):
    folder = run("method=best_of_n", "objective.samples=4", *LAB)
    assert metric(folder, "aligned/self_reward") > metric(folder, "base/self_reward")
    assert metric(folder, "aligned/kl") == pytest.approx(1.386294 - 0.75, abs=1e-5)  # ln 4 - 3/4


@pytest.mark.slow
def test_contrastive_decoding_goes_further_than_the_prompt_by_its_weight(run):
    method = ["method=contrastive_decoding", *LAB]
    off = run(*method, "objective.contrast.alpha=1e-9", "objective.contrast.cutoff=0", name="off")
    assert metric(off, "aligned/kl") == pytest.approx(metric(off, "prompted/kl"), abs=1e-4)
    assert metric(off, "aligned/harmlessness") == metric(off, "prompted/harmlessness")
    on = run(*method, "objective.contrast.alpha=2.0", name="on")
    assert metric(on, "aligned/kl") > metric(on, "prompted/kl") + 0.5
    assert metric(on, "aligned/self_reward") > metric(on, "prompted/self_reward")


VARIANTS = [
    "labels=sign", "labels=filtered", "labels=shuffled", "labels=constant", "labels=none", "labels.per_token=true",
    "objective=ipo", "objective=conservative", "objective=soft_labels", "objective=reward_distillation",
    "objective=weighted", "objective.nll_weight=0.1", "objective.margin_weight=0.0",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained():
    """The weights' digests of the variants trained so far."""
    return {}


@pytest.mark.parametrize("variant", few_of(VARIANTS, "labels=sign", "labels.per_token=true", "objective=ipo"))
def test_every_variant_of_dlma_trains_a_policy_of_its_own_from_the_same_scores(run, trained, variant):
    folder = run(variant, *LAB)
    assert "scored" not in counts(folder)["run"] or not trained
    weights = (folder / "policy" / "model.safetensors").read_bytes()
    same = {"labels=none", "objective.margin_weight=0.0"}  # two names of plain DPO
    others = {name: bytes_ for name, bytes_ in trained.items() if not {name, variant} <= same}
    assert weights not in others.values()
    trained[variant] = weights


def test_context_distillation_by_divergence_runs(run):
    assert (run("method=cd", "objective=distill", *LAB) / "policy").is_dir()


PPO = [f"recipe.ppo.{value}" for value in ("rollouts=2", "rollout=8", "batch=4")]


@pytest.mark.slow
def test_a_preference_method_trains_by_reward_model_and_ppo(run):
    recipe = ["method=rlaif", "objective=ppo", *LAB, *PPO, "recipe.reward.batch_pairs=8"]
    folder = run(*recipe, name="ppo")
    assert "aligned" in arms(folder) and (folder / "policy" / "model.safetensors").is_file()
    steps = list(csv.DictReader((folder / "train.csv").open()))
    assert len(steps) == 8 and {"scores", "kl", "policy_loss", "value_loss", "clip_fraction"} <= set(steps[0])
    assert float(steps[0]["kl"]) == pytest.approx(0, abs=1e-3)
    first = next(csv.DictReader((folder / "reward.csv").open()))
    assert float(first["loss"]) == pytest.approx(0.693147, abs=1e-4)  # ln 2
    assert {"reward", "policy"} <= set(counts(folder)["run"])
    assert counts(run(*recipe, name="again"))["run"] == {}


@pytest.mark.slow
def test_ppo_trains_an_adapter_beside_the_base(run):
    lora = "recipe.lora={rank: 4, alpha: 8.0, targets: all-linear}"
    folder = run("method=rlcd", "objective=ppo", *LAB, *PPO, lora)
    assert (folder / "policy" / "adapter_model.safetensors").is_file()


def test_ppo_names_the_reward_model_that_it_lacks(run, capsys):
    run("method=rlcd", "objective=ppo", "reward=none", *LAB, *PPO, code=2)
    assert "reward=bradley_terry" in capsys.readouterr().err


def test_filtered_pairs_are_counted(run, capsys):
    run("labels.min_margin=1.0", *LAB)
    assert "|R| not above labels.min_margin" in capsys.readouterr().out


# --- a model and a data set in the formats of the hub


QUESTIONS = [f"how do i make a {thing} with {n} care today?" for thing in ("cake", "boat", "lamp") for n in range(11)]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Overrides for a tiny Hugging Face model and human pairs in the Anthropic format."""
    folder = tmp_path_factory.mktemp("real")
    texts = [*QUESTIONS, "USER: ASSISTANT: (law-abiding, ethical response) with care", "no harm"]
    tokenizer = byte_level_tokenizer(texts, 400)
    save_small(folder / "model", tokenizer=tokenizer, context=2048)
    pair = {"chosen": "with care", "rejected": "no harm"}
    rows = [{name: f"\n\nHuman: {q}\n\nAssistant: {answer}" for name, answer in pair.items()} for q in QUESTIONS]
    with gzip.open(folder / "hh.jsonl.gz", "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    paths = [f"model.path={folder / 'model'}", f"data.path={folder / 'hh.jsonl.gz'}"]
    return ["model=hf", "data=hh", *paths, "recipe.max_new_tokens=8"]


@pytest.mark.parametrize("method", ["rlhf", "sft"])
def test_human_pairs_come_from_the_data_set(run, real, method):
    rows = scored(run(f"method={method}", *real))
    assert len(rows) >= 8
    seen = {(row["positive_text"], row["negative_text"], row["chosen"]) for row in rows}
    assert seen == {("with care", "no harm", "positive")}


@pytest.mark.parametrize("method", ["rlaif", "rlcd_rescore", "random_labels", "best_of_n"])
def test_methods_that_need_no_truth_run_on_any_text(run, real, method):
    assert "aligned" in arms(run(f"method={method}", *real))


def test_an_annotator_of_the_lab_is_refused_elsewhere(run, real, capsys):
    run("method=contrastive_oracle", *real, code=2)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "use data=lab" in errors[0]


@pytest.mark.parametrize("group", ["method", "scorer", "labels", "objective", "judge"])
def test_the_docs_name_every_option(group):
    text = (conf_dir().parent / "docs" / "methods.md").read_text()
    names = {path.stem for path in (conf_dir() / group).glob("*.yaml")}
    assert [name for name in sorted(names) if f"`{name}`" not in text and not name.startswith("human_")] == []
