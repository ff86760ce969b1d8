"""DPO finds the policy that theory knows: under exact Bradley-Terry labels, pi_ref * exp(r / beta)."""

import dataclasses

from bandits import best, divergence, flat_model, pair, policy, rewards
from scored_examples import OPTIM

from dlma.objective.dpo import DPO
from dlma.objective.losses import SoftLabels
from dlma.trainer.runtime import Runtime


def test_on_a_bandit_dpo_converges_to_the_known_optimum(tmp_path):
    model, beta = flat_model(), 0.5
    table, before = rewards(model), policy(model)
    tokens = range(len(table))
    # each pair of answers once, its label right with the probability that Bradley and Terry give it
    pairs = [
        pair(f"{one}-{other}", one, other, logp=before.log(), margin=(table[one] - table[other]).item())
        for one in tokens
        for other in tokens
        if one < other
    ]
    rule = DPO(
        model, beta=beta, margin_weight=0.0, margin_low=-9.0, margin_high=9.0, margin_unit="nats",
        loss=SoftLabels(tau=1.0), weighted=False, per_token=False, reference_free=False, token_weights=None,
        nll_weight=0.0,
        optim=dataclasses.replace(OPTIM, lr=5e-3, warmup=1, clip_norm=10.0), epochs=150, batch_pairs=len(pairs), seed=0,
    )  # fmt: skip
    rule.fit(pairs, Runtime(checkpoint_steps=1000), tmp_path, lambda row: None)
    wanted = best(before, table, beta)
    assert divergence(wanted, before) > 0.3
    assert divergence(policy(model), wanted) < 1e-3
