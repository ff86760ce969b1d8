"""`iterations=N`: each round begins with the last policy, shares what it can, and says how R drifts."""

import csv
import json
import math

import pyarrow.parquet as pq
import pytest
from small_models import byte_level_tokenizer, plain_logp, save_small

from dlma.app import main
from dlma.cost.spent import SIDES
from dlma.model.language import LanguageModel
from dlma.model.load import ModelSpec

LAB = ["data.train=24", "data.validation=4", "data.test=6", "recipe.max_new_tokens=32", "recipe.batch_pairs=8"]
LEARN = ["recipe.epochs=2", "recipe.lr=1e-3", "recipe.optim.warmup=1"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def run(tmp_path, monkeypatch, store):
    monkeypatch.chdir(tmp_path)

    def call(*overrides, code=0, name="here"):
        assert main([f"store.root={store}", f"name={name}", *LAB, *LEARN, *overrides]) == code
        return tmp_path / "outputs" / name

    return call


def by_hand(model, pair):
    """R of a pair by a plain loop, nats."""
    logp = [
        [plain_logp(model.network, pair[f"{side}_context_ids"], pair[f"{answer}_ids"]).item() for side in SIDES]
        for answer in SIDES
    ]
    return logp[0][0] - logp[0][1] - (logp[1][0] - logp[1][1])


def counts(folder):
    return json.loads((folder / "status.json").read_text())["result"]["counts"]


def rows(folder):
    return [{k: float(v) for k, v in row.items()} for row in csv.DictReader((folder / "rounds.csv").open())]


def test_two_rounds_share_the_first_with_a_run_of_one(run):
    one = run(name="one")
    assert not (one / "rounds.csv").exists()
    two = run("iterations=2", name="two")
    ran, reused = (counts(two)[kind] for kind in ("run", "reused"))
    assert (reused["pairs"], reused["scored"], reused["policy"]) == (1, 1, 1)
    assert (ran["pairs"], ran["scored"], ran["policy"]) == (1, 2, 1)  # scored: by the policy, and by the base
    assert "prompts" not in ran and "contexts" not in ran
    assert (one / "policy" / "model.safetensors").read_bytes() != (two / "policy" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_third_round_shares_the_first_two(run):
    two, three = run("iterations=2", name="two"), run("iterations=3", name="three")
    assert (counts(three)["run"]["policy"], counts(three)["reused"]["policy"]) == (1, 2)
    assert (two / "policy" / "model.safetensors").read_bytes() != (three / "policy" / "model.safetensors").read_bytes()


def test_a_second_round_samples_from_the_policy_with_noise_of_its_own(run):
    one, two = run(name="one"), run("iterations=2", name="two")
    first, second = (pq.read_table(folder / "pairs.parquet") for folder in (one, two))
    assert first["prompt_id"] == second["prompt_id"]
    assert sum(a == b for a, b in zip(first["positive_ids"], second["positive_ids"], strict=True)) < 3


@pytest.mark.slow
def test_every_round_is_charged(run):
    one, two = run(name="one"), run("iterations=2", name="two")
    first, both = (json.loads((folder / "costs.json").read_text()) for folder in (one, two))
    last = pq.read_table(two / "pairs.parquet").to_pylist()  # of the second round
    lengths = [len(row["positive_ids"]) + len(row["negative_ids"]) for row in last]
    assert both["tokens_sampled"] == first["tokens_sampled"] + sum(lengths)
    plain = sum(len(row["plain_context_ids"]) for row in last)
    assert both["tokens_reference"] == first["tokens_reference"] + plain + sum(lengths)
    assert both["tokens_trained"] == pytest.approx(first["tokens_trained"] + 2 * (plain + sum(lengths)))
    apart = run("iterations=2", "iteration.scorer=frozen", name="apart")  # the reference is computed on its own
    third = json.loads((apart / "costs.json").read_text())
    assert third["tokens_reference"] > both["tokens_reference"] and third["tokens_scored"] > 0


def test_the_drift_of_r_is_recorded_and_shown(run):
    folder = run("iterations=2")
    found = rows(folder)
    assert [row["round"] for row in found] == [1, 2]
    assert found[0]["mean_change"] == 0 and found[0]["current_mean"] == found[0]["frozen_mean"]
    assert found[1]["mean_change"] > 0 and found[1]["current_mean"] != found[1]["frozen_mean"]
    scored = pq.read_table(folder / "scored.parquet").column("margin").to_pylist()
    assert found[1]["current_mean"] == pytest.approx(sum(scored) / len(scored))
    page = (folder / "report.html").read_text()
    assert 'id="rounds"' in page and "Mean R of the round" in page


def test_the_frozen_scorer_is_the_base(run):
    current = run("iterations=2", name="current")
    frozen = run("iterations=2", "iteration.scorer=frozen", name="frozen")
    one, other = (pq.read_table(folder / "scored.parquet") for folder in (current, frozen))
    assert one["positive_ids"] == other["positive_ids"]
    assert one["margin"] != other["margin"]
    # the reference is the round's own policy in both, whichever model scored
    for name in ("positive_reference", "negative_reference"):
        assert other[name].to_pylist() == pytest.approx(one[name].to_pylist(), abs=1e-3)
    (_, by_current), (_, by_frozen) = rows(current), rows(frozen)
    assert by_current == by_frozen  # the drift compares the same two models
    scored = other["margin"].to_pylist()
    assert by_frozen["frozen_mean"] == pytest.approx(sum(scored) / len(scored))


@pytest.mark.slow
def test_the_base_can_stay_the_reference(run):
    current = run("iterations=2", name="current")
    frozen = run("iterations=2", "iteration.reference=frozen", name="frozen")
    one, other = (pq.read_table(folder / "scored.parquet") for folder in (current, frozen))
    assert one["margin"] == other["margin"]
    assert other["positive_reference"].to_pylist() != pytest.approx(one["positive_reference"].to_pylist(), abs=1e-3)
    first = next(csv.DictReader((frozen / "train.csv").open()))
    assert abs(float(first["reward_margin"])) > 1e-3  # the policy does not begin at its reference


@pytest.mark.slow
def test_a_live_reference_is_the_rounds_own(run, capsys):
    run(
        "method=cd",
        "objective=distill",
        "iterations=2",
        "iteration.reference=frozen",
        "recipe.sft.batch_pairs=8",
        code=2,
    )
    assert "keeps the model at the round's start as its reference: current" in capsys.readouterr().err
    run("method=cd", "objective=distill", "iterations=2", "recipe.sft.batch_pairs=8")


def test_what_trains_nothing_has_one_round(run):
    folder = run("method=base", "iterations=3")
    assert counts(folder)["run"]["policy"] == 1 and not (folder / "rounds.csv").exists()


@pytest.mark.parametrize(("override", "line"), [("iterations=0", "from 1 to"), ("pairs.path=p.jsonl", "iterations=1")])
def test_rounds_without_meaning_are_refused_before_any_work(run, capsys, override, line):
    run("iterations=2", override, code=2)
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1 and line in errors[0]


@pytest.mark.slow
def test_later_rounds_may_have_pairs_scorer_and_labels_of_their_own(run):
    folder = run("method=dice", "pairs.seed=0", name="dice")
    first = run("method=dice", "iterations=1", name="first")
    assert counts(first)["reused"]["policy"] == 1  # it is DLMA's own round, shared in the store
    scored = pq.read_table(folder / "scored.parquet")
    assert scored["id"].to_pylist()[:2] == [f"{scored['prompt_id'][0].as_py()}-{n}" for n in range(2)]
    gains = [
        a - b for a, b in zip(scored["positive_score"].to_pylist(), scored["negative_score"].to_pylist(), strict=True)
    ]
    assert scored["margin"].to_pylist() == pytest.approx(gains)
    assert len(set(scored["positive_score"].to_pylist())) > 4 and not (folder / "rounds.csv").exists()
    spent = [json.loads((one / "costs.json").read_text()) for one in (first, folder)]
    drawn = pq.read_table(folder / "pairs.parquet").to_pylist()
    lengths = [len(row["positive_ids"]) + len(row["negative_ids"]) for row in drawn]
    assert spent[1]["tokens_sampled"] == spent[0]["tokens_sampled"] + sum(lengths)
    plain = sum(len(row["plain_context_ids"]) for row in scored.to_pylist())
    assert spent[1]["tokens_scored"] == spent[0]["tokens_scored"] + plain + sum(lengths)  # once more, by the base
    policy = json.loads((folder / "manifest.json").read_text())["policy"]["notes"]
    assert policy["account"]["kept"] <= policy["account"]["read"] / 2


@pytest.mark.slow
def test_a_third_round_grades_by_what_the_second_training_has_taught(run):
    runs = [run("method=dice", "recipe.beta=0.5", f"iterations={n}", name=f"to{n}") for n in (1, 2, 3)]
    before, now = (LanguageModel.load(ModelSpec(one.name, one / "policy", "float32")).network for one in runs[:2])
    for pair in pq.read_table(runs[2] / "scored.parquet").to_pylist()[:6]:
        read = [plain_logp(one, pair["plain_context_ids"], pair["positive_ids"]).item() for one in (now, before)]
        assert pair["positive_score"] == pytest.approx(0.5 * (read[0] - read[1]), abs=1e-3)


@pytest.mark.slow
def test_labels_count_as_right_as_often_as_two_rounds_agree(run):
    """The third round's labels: R by the second policy and by the first one, which the second round began with."""
    sharp = run("iterations=3", "labels=sign", name="sharp")
    soft = run("iterations=3", "labels=sign", "iteration.consistency=true", name="soft")
    manifests = [json.loads((one / "manifest.json").read_text()) for one in (sharp, soft)]
    assert manifests[0]["policy"]["notes"]["agreement"] is None
    assert counts(soft)["reused"]["policy"] == 1  # the first round has no round before it
    pairs = pq.read_table(soft / "scored.parquet").to_pylist()
    first = LanguageModel.load(ModelSpec("first", run("labels=sign", name="first") / "policy", "float32"))
    signs = [(math.copysign(1, pair["margin"]), math.copysign(1, by_hand(first, pair))) for pair in pairs]
    agreement = manifests[1]["policy"]["notes"]["agreement"]
    assert agreement == pytest.approx(sum(now == then for now, then in signs) / len(pairs)) and agreement < 1
    spent = [json.loads((one / "costs.json").read_text())["tokens_scored"] for one in (sharp, soft)]
    assert spent[1] > 1.5 * spent[0]  # two of three rounds are scored twice


@pytest.mark.slow
def test_an_adapter_is_trained_further(run, tmp_path):
    lora = "recipe.lora={rank: 4, alpha: 8.0, targets: all-linear}"
    folder = run("iterations=2", lora)
    assert (folder / "policy" / "adapter_model.safetensors").is_file()
    first = next(csv.DictReader((folder / "train.csv").open()))
    assert abs(float(first["reward_margin"])) < 1e-3  # the second round begins at its reference, the first adapter
    assert rows(folder)[1]["mean_change"] > 0


def test_human_pairs_stay_and_the_policy_goes_on(tmp_path, run):
    texts = [f"how do i make a cake with {n} care today?" for n in range(24)]
    save_small(tmp_path / "model", tokenizer=byte_level_tokenizer([*texts, "with care", "no harm"], 400), context=2048)
    data = tmp_path / "prompts.jsonl"
    data.write_text(
        "".join(json.dumps({"prompt": t, "chosen": "with care", "rejected": "no harm"}) + "\n" for t in texts)
    )
    model = ["model=hf", f"model.path={tmp_path / 'model'}", "data=jsonl", f"data.path={data}", "method=rlhf"]
    overrides = [o for o in LEARN + LAB if o.startswith("recipe")]
    assert main([f"store.root={tmp_path / 'store'}", "name=human", *model, *overrides, "iterations=2"]) == 0
    assert pq.read_table(tmp_path / "outputs" / "human" / "scored.parquet").num_rows >= 8
