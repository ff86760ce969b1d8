"""The engine equals a plain loop, in value and gradient, whatever the layout, batch or architecture."""

import itertools

import pytest
import torch
from small_models import FOUR_SHAPES, plain_logp, small_model

from dlma import cores
from dlma.model import engine as engine_module
from dlma.model import layout_check
from dlma.model.engine import Engine
from dlma.model.trees import Completion
from dlma.trainer.runtime import use_threads

CONTEXT = [0, 5, 6, 7, 8, 9]
GROUP = [
    Completion([*CONTEXT, 10, 11], [12, 13, 14, 1]),
    Completion([*CONTEXT, 10, 11], [12, 15, 2]),
    Completion([*CONTEXT, 20], [12, 13, 14, 1]),
    Completion([*CONTEXT, 20], [12, 15, 2]),
    Completion(CONTEXT, [12, 13, 14, 1]),
    Completion(CONTEXT, [12, 15, 2]),
]


def relative(one, other):
    return ((one - other).norm() / other.norm()).item()


def gradients(model, logp):
    model.network.zero_grad()
    weights = torch.arange(1.0, logp.numel() + 1)
    (logp * weights).sum().backward()
    return {n: p.grad.clone() for n, p in model.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", [*FOUR_SHAPES, "qwen3", "mistral", "gemma2"])
def test_tree_rows_equal_a_plain_loop_in_value_and_gradient(kind):
    model = small_model(kind)
    engine = Engine(model, layout="auto")
    rows = engine.collate(engine.plan([GROUP, GROUP[:2]]))
    assert engine.layout == "tree"
    ours = engine.response_logp(rows)
    plain = torch.stack([plain_logp(model.network, s.context, s.response) for s in [*GROUP, *GROUP[:2]]])
    assert relative(ours.double(), plain) < 1e-5
    ours_gradient = gradients(model, ours)
    for name, wanted in gradients(model, plain.float()).items():
        assert relative(ours_gradient[name], wanted) < 1e-4, name


def test_a_model_whose_mask_is_not_ours_falls_back_and_stays_right():
    model = small_model("bloom")
    lines = []
    engine = Engine(model, notice=lines.append)
    logp = engine.score([GROUP])[0]
    plain = [plain_logp(model.network, s.context, s.response).item() for s in GROUP]
    assert logp == pytest.approx(plain, rel=1e-4)
    assert engine.layout == "dense"
    assert len(lines) == 1 and "prefix sharing off" in lines[0]


def test_a_wrong_tree_is_found_out(monkeypatch):
    """Every node sees its siblings: the self-check must refuse, and the answers stay those of the dense path."""
    model = small_model()
    wanted = Engine(model, layout="dense").score([GROUP])[0]
    monkeypatch.setattr(engine_module, "ancestors", lambda end: torch.ones(*end.shape, end.shape[1]).tril().bool())
    engine = Engine(model, notice=lambda line: None)
    assert engine.score([GROUP])[0] == pytest.approx(wanted, rel=1e-6)
    assert engine.layout == "dense"


def test_a_longer_row_is_checked_anew(monkeypatch):
    checked = []
    monkeypatch.setattr(
        layout_check, "reason_against_sharing", lambda engine, longest, tolerance: checked.append(longest)
    )
    engine = Engine(small_model(), notice=lambda line: None)
    for length in (20, 30, 200, 40):
        engine.plan([[Completion(list(range(length)), [1])]])
    assert checked == [128, 256]


def test_what_was_chosen_is_said_once_and_reported():
    lines = []
    engine = Engine(small_model(), notice=lines.append)
    engine.score([GROUP])
    engine.score([GROUP[:2]])
    assert len(lines) == 1 and "prefix sharing on" in lines[0] and "float32" in lines[0]
    report = engine.report()
    assert report["layout"] == "tree" and report["halvings"] == 0
    assert report["tokens"] > 0 and report["peak_memory_bytes"] > 1 << 20
    assert 0 <= report["padding_share"] < 1 and report["matmul_share"] > 0


def test_autocast_serves_head_and_body_and_stays_close():
    model = small_model(spread=0.05)
    exact = Engine(model, layout="tree").score([GROUP])[0]
    model.autocast = torch.bfloat16
    rounded = Engine(model, layout="tree").score([GROUP])[0]
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=2e-2)
    assert Engine(model).report()["dtype"] == "bfloat16"


def test_batch_size_and_padding_do_not_matter():
    model = small_model()
    groups = [GROUP[i : i + n] for i, n in itertools.product(range(4), (1, 2))]
    wide = Engine(model, token_budget=100_000).score(groups)
    single = Engine(model, token_budget=1).score(groups)
    for a, b in zip(wide, single, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_a_pad_id_that_equals_eos_hides_nothing():
    model = small_model()
    before = Engine(model).score([GROUP])
    model.pad_id = 1
    assert Engine(model).score([GROUP])[0] == pytest.approx(before[0], rel=1e-6)


def test_probabilities_of_all_sequences_sum_to_one():
    """Every answer of up to three tokens over a vocabulary of 4, with token 1 as the end."""
    model = small_model(vocabulary=4, spread=0.5)
    answers = [
        a
        for n in (1, 2, 3)
        for a in itertools.product(range(4), repeat=n)
        if all(t != 1 for t in a[:-1]) and (a[-1] == 1 or n == 3)
    ]
    logp = Engine(model).score([[Completion([0, 3], list(a)) for a in answers]])[0]
    assert torch.tensor(logp, dtype=torch.float64).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_the_chunked_head_equals_one_piece():
    model = small_model()
    whole = Engine(model, layout="tree")
    rows = whole.collate(whole.plan([GROUP]))
    small = Engine(model, layout="tree", chunk=2)
    one, other = whole.response_logp(rows), small.response_logp(rows)
    assert torch.allclose(one, other, rtol=1e-6)
    first = gradients(model, one)
    for name, gradient in gradients(model, other).items():
        assert relative(gradient, first[name]) < 1e-5, name


def test_an_empty_response_has_log_probability_zero():
    assert Engine(small_model(), layout="tree").score([[Completion([0, 4], []), Completion([0, 4], [5])]])[0][0] == 0


def test_the_self_check_keeps_nothing_of_the_layers_before_the_one_it_watches():
    model = small_model()
    first, last = model.causal.model.layers
    frozen = first.mlp.up_proj.weight.requires_grad_(False)
    followed = {first: [], last: []}
    for layer, seen in followed.items():
        layer.register_forward_hook(lambda layer, args, out, seen=seen: seen.append(out.requires_grad))
    assert layout_check.reason_against_sharing(Engine(model, notice=lambda line: None), 64, 1e-4) == ""
    assert not any(followed[first])
    assert sum(followed[last]) == 2
    assert [p is frozen for p in model.network.parameters() if not p.requires_grad] == [True]


def test_the_line_says_how_many_threads_there_are_and_why(monkeypatch):
    for name in cores.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cores, "allowed", lambda: 2)
    monkeypatch.setattr(cores, "quota", lambda: 1.0)
    monkeypatch.setattr(cores, "said", "")
    engine, before = Engine(small_model("llama"), layout="dense"), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert engine.describe().endswith(" tokens a pass, 2 threads")
        for wanted, said in [(0, "1 thread: 1 of 8 cores by the container's quota"), (2, "2 threads: trainer.threads")]:
            use_threads(wanted)
            assert engine.describe().endswith(f" tokens a pass, {said}")
    finally:
        torch.set_num_threads(before)
