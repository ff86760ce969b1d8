"""Numbers that are none stop the training at their step: the rows are named, the state of before stays, no policy."""

import dataclasses
import math
import tempfile

import pytest
import torch
from instruction_examples import prompt, tiny_model
from instruction_examples import rule as tuning
from scored_examples import OPTIONS, REWARD_OPTIONS, TRAINING, changed, prompted_pairs, scored_pairs
from small_models import small_model
from store_kit import no_larger_than

from dlma import files, records
from dlma.errors import UserError
from dlma.objective.distill import ContextDistillation
from dlma.objective.dpo import DPO
from dlma.objective.sft import SFT
from dlma.records import Pair, Reward
from dlma.reward import BradleyTerry
from dlma.scorer.self_reward import SelfReward
from dlma.trainer.runtime import Runtime, Shard
from dlma.training.checkpoint import newest_point
from dlma.training.finite import all_finite, require_columns

RULES = {
    "dpo": (lambda model, **o: DPO(model, **changed(OPTIONS, **o)), "recipe.lr"),
    "sft": (lambda model, **o: SFT(model, **changed(TRAINING, **o)), "recipe.sft.lr"),
    "distill": (
        lambda model, **o: ContextDistillation(model, **changed(TRAINING, direction="reverse", **o)),
        "recipe.sft.lr",
    ),
    "reward": (lambda model, **o: BradleyTerry(model, **changed(REWARD_OPTIONS, **o)), "recipe.reward.lr"),
}


def refused(rule, pairs, folder):
    with pytest.raises(UserError) as reason:
        rule.fit(pairs, Runtime(checkpoint_steps=1), folder, lambda row: None)
    assert "\n" not in str(reason.value)
    assert not (folder / "policy").exists() and not (folder / "reward").exists()
    assert not (folder / "train.csv").exists()
    return str(reason.value)


# The first update of 1e38 is ten times that, infinite; that of 1e30 is finite, and the next pass overflows.
@pytest.mark.parametrize(("lr", "step"), [(1e38, 1), (1e30, 2)])
@pytest.mark.parametrize("name", RULES)
def test_a_rate_that_makes_training_diverge_is_named_and_the_last_good_state_kept(tmp_path, name, lr, step):
    make, option = RULES[name]
    model = small_model()
    line = refused(make(model, lr=lr, warmup=0, epochs=4), prompted_pairs(model, n=8), tmp_path)
    assert line.startswith(f"training step {step}: ") and f"lower {option}" in line and "rows p" in line
    point = newest_point(tmp_path / "scratch" / "points")
    assert (point is not None) == (step > 1)
    if point is not None:
        state = torch.load(point, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("name", ["dpo", "sft"])
def test_a_row_whose_own_numbers_are_none_is_named_before_any_update(tmp_path, name):
    model = small_model()
    pairs = prompted_pairs(model, n=4)
    pairs[2] = dataclasses.replace(pairs[2], positive_reference=math.nan)
    before = [weight.detach().clone() for weight in model.network.parameters()]
    line = refused(RULES[name][0](model), pairs, tmp_path)
    assert line.startswith("training step 1: ") and "rows p2:" in line
    assert all(torch.equal(old, new) for old, new in zip(before, model.network.parameters(), strict=True))


def test_instruction_tuning_stops_too(tmp_path):
    model = tiny_model()
    rule = tuning(model, lr=1e38, warmup=0, max_tokens=100)
    examples, _ = rule.examples([dataclasses.replace(prompt(), id=f"q{i}") for i in range(4)])
    with pytest.raises(UserError, match=r"training step 1: .*rows q.*lower sft\.optim\.lr"):
        rule.train_on(rule.items(examples), Runtime(), tmp_path)
    assert not (tmp_path / "policy").exists()


class BreaksAtStep3(DPO):
    """Gives a loss of nan at its third step."""

    def loss(self, micro):
        total, recorded = super().loss(micro)
        return total * (math.nan if self.global_step == 2 else 1.0), recorded


def test_a_run_that_failed_goes_on_from_the_state_before_to_the_same_bits(tmp_path):
    options = {**OPTIONS, "epochs": 4}
    pairs = scored_pairs(small_model(), n=4)
    line = refused(BreaksAtStep3(small_model(), **options), pairs, tmp_path / "a")
    assert line.startswith("training step 3: loss nan, gradient nan; rows p")
    point = newest_point(tmp_path / "a" / "scratch" / "points")
    assert point is not None and point.endswith("step-00000002.ckpt")
    for place in ("a", "b"):
        DPO(small_model(), **options).fit(pairs, Runtime(checkpoint_steps=1), tmp_path / place, lambda row: None)
    files = [(tmp_path / place / "policy" / "model.safetensors").read_bytes() for place in ("a", "b")]
    assert files[0] == files[1]


def test_resume_points_do_not_pass_through_the_systems_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    refused(BreaksAtStep3(small_model(), **{**OPTIONS, "epochs": 4}), scored_pairs(small_model(), n=4), tmp_path / "a")
    assert newest_point(tmp_path / "a" / "scratch" / "points").endswith("step-00000002.ckpt")
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {f"step-0000000{n}.ckpt{end}" for n in (1, 2) for end in ("", ".sha256")}


def test_a_full_disk_in_mid_training_leaves_whole_points_alone(tmp_path):
    rule, pairs = DPO(small_model(), **{**OPTIONS, "epochs": 4}), scored_pairs(small_model(), n=4)
    with pytest.raises(OSError, match="File too large") as reason, no_larger_than(10_000):
        rule.fit(pairs, Runtime(checkpoint_steps=1), tmp_path, lambda row: None)
    assert "step-00000001.ckpt" in reason.value.filename
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_weight_is_enough(value, dtype):
    weights = [torch.ones(3, 4, dtype=dtype), torch.ones(5)]
    assert all_finite(weights, torch.device("cpu"))
    weights[0][2, 3] = value
    assert not all_finite(weights, torch.device("cpu"))
    assert all_finite([], torch.device("cpu"))


def test_a_process_may_hold_nothing_of_a_small_weight():
    """As of a LoRA matrix of rank 16 in 64 processes."""
    assert all_finite([torch.ones(0, 128), torch.ones(2)], torch.device("cpu"))
    assert all_finite([torch.ones(0, 128)], torch.device("cpu"))
    assert not all_finite([torch.ones(0, 128), torch.full((2,), math.nan)], torch.device("cpu"))


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_resume_point_of_the_other_form_is_left_alone_and_told(tmp_path, capsys, in_parts):
    one, other = tmp_path / "step-00000002.ckpt", tmp_path / "step-00000004.ckpt"
    one.write_bytes(b"whole")
    other.mkdir()
    (other / "part").write_bytes(b"part")
    for path in (one, other):
        files.seal(path)
    assert newest_point(tmp_path, in_parts=in_parts) == str(other if in_parts else one)
    assert capsys.readouterr().err == ""
    files.unseal(other if in_parts else one)
    assert newest_point(tmp_path, in_parts=in_parts) is None
    assert "this training begins anew" in capsys.readouterr().err


def test_the_rows_of_a_rollout_are_named():
    good = {"scores": torch.ones(3), "log-probs": [torch.ones(2)] * 3}
    require_columns(good, ["a", "b", "c"], "rollout 4")
    with pytest.raises(UserError, match="rollout 4: log-probs of b are no finite numbers"):
        require_columns({**good, "log-probs": [torch.ones(2), torch.tensor([1, torch.nan]), torch.ones(1)]},
                        ["a", "b", "c"], "rollout 4")  # fmt: skip


def test_scores_that_are_none_name_their_rows_and_keep_the_shards_before(tmp_path):
    model = small_model()
    pairs = scored_pairs(model, n=6)
    scorer = SelfReward(model)
    runtime = Runtime(shard_rows=2)
    pairs = [Pair(**{field.name: getattr(p, field.name) for field in dataclasses.fields(Pair)}) for p in pairs]
    scorer.predict_step(Shard(0, pairs[:1]), 0)  # the model's weights are looked at once, before the first pass
    model.network.model.embed_tokens.weight.data[39] = torch.nan
    sound = [p for p in pairs if 39 not in (*p.plain_context_ids, *p.positive_ids, *p.negative_ids)]
    bad = dataclasses.replace(sound[-1], id="bad", positive_ids=[39, 5])
    rows = [*sound[:2], bad]
    with pytest.raises(UserError) as reason:
        runtime.predict(scorer, rows, records.ScoredPair, tmp_path, "scored")
    assert (
        str(reason.value).startswith("scored: ")
        and "margin" in str(reason.value)
        and " of bad are" in str(reason.value)
    )
    assert len(list((tmp_path / "scratch").rglob("shard-00000.parquet"))) == 1
    assert not (tmp_path / "rows.parquet").exists()


def test_what_is_no_number_is_found_in_lists_too():
    assert records.not_finite(Reward("a", 1.0, math.inf)) == ["negative"]
    rewards = records.TokenRewards("a", [1.0, math.nan], [0.0], ["x", "y"], ["z"], [True, False], [False])
    assert records.not_finite(rewards) == ["positive_rewards"]
