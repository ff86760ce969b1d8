"""PPO: it finds the optimum that theory knows, resumes to the same bits, and stops when its first step is not right."""

import copy

import pytest
import torch
from bandits import CONTEXT, best, divergence, flat_model, pair, policy, rewards
from scipy.stats import chisquare
from scored_examples import OPTIM, changed
from small_models import plain_logp, small_model

from dlma.errors import UserError
from dlma.objective.ppo import PPO
from dlma.sampler.local import LocalSampler
from dlma.trainer.runtime import Runtime
from dlma.training.rule import Supplies

OPTIONS = dict(
    rollouts=3,
    rollout=8,
    batch=4,
    epochs=2,
    kl_weight=0.1,
    clip=0.2,
    value_clip=0.2,
    value_weight=0.1,
    gamma=1.0,
    lam=0.95,
    whiten_rewards=True,
    whiten_advantages=True,
    optim=OPTIM,
    seed=0,
)


def sampler(tokens):
    return LocalSampler(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=tokens)


class Table:
    """A reward that is a function of an answer's tokens: the sum of what a table says of them."""

    def __init__(self, values):
        self.values = values

    def score(self, groups):
        return [[float(self.values[list(s.response)].sum()) for s in group] for group in groups]


def prompts(n, context=None):
    """Pairs of which only id and context matter."""
    return [pair(f"p{i}", 3, 4, context=context or [0, 3 + i % 30]) for i in range(n)]


def train(folder, model, asked, reward, *, every=1, tokens=6, **changes):
    rule = PPO(model, sampler=sampler(tokens), **changed(OPTIONS, **changes))
    rule.supply(Supplies(asked, lambda: reward))
    rule.fit(asked, Runtime(checkpoint_steps=every), folder, lambda row: None)
    return rule


def test_on_a_bandit_ppo_converges_to_the_known_optimum(tmp_path):
    model = flat_model()
    table, before, beta, n = rewards(model), policy(model), 1.0, 256
    wanted = best(before, table, beta)
    assert divergence(wanted, before) > 0.3
    rule = train(
        tmp_path, model, prompts(n, CONTEXT), Table(table), every=1000, tokens=1,
        rollouts=40, rollout=n, batch=n, epochs=2, kl_weight=beta, lr=4e-3, warmup=1, value_weight=0.5,
        value_clip=10.0, whiten_rewards=False, whiten_advantages=False,
    )  # fmt: skip
    after = policy(model)
    assert divergence(after, wanted) < 0.01
    # a sample of the size of a rollout does not tell the policy from its optimum
    drawn = torch.multinomial(after, n, replacement=True, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=len(after)).double()
    common = wanted * n >= 5
    seen = torch.cat([counts[common], counts[~common].sum().view(1)])
    expected = torch.cat([wanted[common], wanted[~common].sum().view(1)]) * n
    assert chisquare(seen.numpy(), expected.numpy()).pvalue > 0.01
    assert rule.log_rows[-1]["scores"] > rule.log_rows[0]["scores"]


def test_the_weight_of_the_kl_decides_how_far_the_optimum_lies(tmp_path):
    found = {}
    for beta in (0.5, 2.0):
        model = flat_model()
        before = policy(model)
        train(
            tmp_path / str(beta), model, prompts(128, CONTEXT), Table(rewards(model)), every=1000, tokens=1,
            rollouts=15, rollout=128, batch=128, kl_weight=beta, lr=4e-3,
        )  # fmt: skip
        found[beta] = divergence(policy(model), before)
    assert found[0.5] > 2 * found[2.0]


class Killed(Exception):
    pass


def test_a_run_killed_at_any_step_and_resumed_ends_with_the_same_bits(tmp_path, monkeypatch):
    base, asked = small_model(), prompts(10)
    reward = Table(rewards(base))
    straight = copy.deepcopy(base)
    log = train(tmp_path / "straight", straight, asked, reward).log_rows
    assert [row["step"] for row in log] == list(range(1, 13))
    original = PPO.record
    for killed_at in (0, 3, 4, 6, 11):

        def dying(self, step, sums, norm, killed_at=killed_at):
            if self.global_step == killed_at and not self.resumed:
                raise Killed
            original(self, step, sums, norm)

        monkeypatch.setattr(PPO, "record", dying)
        folder = tmp_path / f"killed-{killed_at}"
        for resumed in (False, True):
            monkeypatch.setattr(PPO, "resumed", resumed, raising=False)
            model = copy.deepcopy(base)
            try:
                rows = train(folder, model, asked, reward).log_rows
            except Killed:
                assert not resumed
        assert rows == log
        same = zip(model.network.parameters(), straight.network.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in same)


def test_resume_points_lie_between_rollouts(tmp_path):
    rule = PPO(small_model(), sampler=sampler(4), **OPTIONS)  # 4 steps a rollout
    assert [rule.point_every(steps) for steps in (1, 4, 5, 50)] == [4, 4, 8, 52]


def test_each_rollout_comes_from_the_policy_of_its_moment(tmp_path):
    log = train(tmp_path, small_model(), prompts(10), Table(rewards(small_model())), lr=0.05).log_rows
    first = log[::4]  # before a rollout's first update nothing has moved
    assert [row["approx_kl"] for row in first] == pytest.approx([0.0] * 3, abs=1e-9)
    assert [row["ratio"] for row in first] == pytest.approx([1.0] * 3, abs=1e-5)
    assert all(row["approx_kl"] > 1e-6 for row in log[3::4])


def test_an_episode_holds_what_plain_passes_say(tmp_path):
    model, asked = small_model(), prompts(6)
    moved = copy.deepcopy(model)
    table = rewards(model)
    rule = PPO(moved, sampler=sampler(5), **{**OPTIONS, "whiten_rewards": False, "whiten_advantages": False})
    rule.supply(Supplies(asked, lambda: Table(table)))
    with torch.no_grad():
        for parameter in moved.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
        rule.value_head.weight.normal_(generator=torch.Generator().manual_seed(5))
    episodes = rule.roll_out(0)
    assert len({tuple(e.tree.ids) for e in episodes}) > 3
    for e in episodes:
        start = len(e.tree.ids) - len(e.logp)
        context, answer = e.tree.ids[:start], e.tree.ids[start:]
        with torch.no_grad():
            assert e.logp.sum().item() == pytest.approx(plain_logp(moved.network, context, answer).item(), abs=1e-4)
            before = plain_logp(model.network, context, answer).item()
            states = moved.causal.base_model(torch.tensor([e.tree.ids])).last_hidden_state[0]
            values = rule.value_head(states).squeeze(-1)[start - 1 : -1]
        assert e.reference.sum().item() == pytest.approx(before, abs=1e-4)
        assert torch.allclose(e.value, values, atol=1e-4)
        assert e.score == pytest.approx(table[answer].sum().item())
        assert e.kl == pytest.approx(e.logp.sum().item() - before, abs=1e-4)
        assert e.finished == (answer[-1] == 1)
        # the return of the last token is its reward: the score less the penalty of that token
        last = e.score - 0.1 * (e.logp[-1] - e.reference[-1]).item()
        assert e.target[-1].item() == pytest.approx(last, abs=1e-4)
        assert e.scale * sum(len(x.logp) for x in episodes) == pytest.approx(len(episodes))


def test_the_loss_is_the_formula_whatever_the_layout():
    model = small_model()
    rule = PPO(model, sampler=sampler(6), **OPTIONS)
    rule.supply(Supplies(prompts(8), lambda: Table(rewards(model))))
    episodes = rule.roll_out(0)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    total = 0.0
    for e in episodes:
        start = len(e.tree.ids) - len(e.logp)
        for t, token in enumerate(e.tree.ids[start:]):
            with torch.no_grad():
                logp = plain_logp(model.network, e.tree.ids[: start + t], [token])
            ratio = (logp - e.logp[t]).exp().item()
            gain = e.advantage[t].item()
            policy_loss = max(-gain * ratio, -gain * min(max(ratio, 0.8), 1.2))
            error = e.target[t].item() ** 2  # the value head is still 0
            total += e.scale * (policy_loss + 0.1 * 0.5 * error)
    for budget in (1, 100_000):
        rule.engine.token_budget = budget
        with torch.no_grad():
            ours = sum(rule.loss(micro)[0].item() for micro in rule.micros(episodes))
        assert ours == pytest.approx(total, rel=1e-4)


def test_only_policy_and_value_head_are_trained(tmp_path):
    model = small_model()
    frozen = copy.deepcopy(model)
    rule = train(tmp_path, model, prompts(8), Table(rewards(model)))
    assert rule.value_head.weight.abs().sum() > 0
    same = zip(rule.reference_network.parameters(), frozen.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    changed = zip(model.network.parameters(), frozen.network.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in changed)


def test_step_0_check_stops_a_policy_that_is_not_the_reference(tmp_path):
    model = small_model()
    rule = PPO(model, sampler=sampler(6), **OPTIONS)
    rule.supply(Supplies(prompts(8), lambda: Table(rewards(model))))
    with torch.no_grad():
        model.network.get_output_embeddings().weight.mul_(1.1)
    with pytest.raises(UserError, match="step-0 check"):
        rule.fit([], Runtime(), tmp_path, lambda row: None)
    assert not (tmp_path / "policy").exists()


def test_ppo_without_a_reward_model_names_one():
    rule = PPO(small_model(), sampler=sampler(4), **OPTIONS)
    with pytest.raises(UserError, match="reward=bradley_terry"):
        rule.supply(Supplies(prompts(2), None))
