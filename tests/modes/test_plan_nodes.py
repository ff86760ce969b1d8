"""mode=plan of several machines: what is moved, what it costs and what ends first, worked out by hand."""

import re

import pytest
from small_models import small_network, small_tokenizer

DEVICES, PROMPTS, BATCH = 6, 1000, 4
LINK, NETWORK = 300e9, 25e9  # of a100_80gb in conf/mode/plan.yaml, and as given


@pytest.fixture(scope="module")
def network():
    return small_network("llama", context=512)


@pytest.fixture
def plan(network, run_main, tmp_path, monkeypatch):
    """The plan of a small model on three nodes of two devices."""
    monkeypatch.setenv("COLUMNS", "200")
    network.config.save_pretrained(tmp_path / "shape")
    small_tokenizer().save_pretrained(tmp_path / "shape")
    sizes = [f"mode.prompts={PROMPTS}", "mode.held_out=10", "mode.answer_tokens=30", f"recipe.batch_pairs={BATCH}"]
    assumed = ["mode.nodes=3", "mode.network=25", "mode.host_memory_gb=0.02", "mode.price=4", "mode.device=a100_80gb"]
    words = ["model=hf", f"model.path={tmp_path}/shape", "data=jsonl", "data.path=absent.jsonl", "recipe.epochs=1"]
    ran = run_main("mode=plan", *words, *sizes, *assumed, "trainer=ddp", "trainer.devices=2", "trainer.shard_rows=100")
    assert ran.code == 0, ran.err
    return ran.out


def cells(text, title, name):
    """The numbers of a row of a table; empty cells are left out."""
    rows = text[text.index(title) :].splitlines()[1:]
    row = next(line.split() for line in rows if line.split()[:1] == [name])
    return [float(cell.replace(",", "")) for cell in row[1:] if re.fullmatch(r"[\d,.]+", cell)]


def test_what_is_sent_written_and_held_and_what_follows(plan, network):
    own = 4 * sum(p.numel() for p in network.parameters())
    weights = own + sum(b.nbytes for b in network.buffers())
    sent = (PROMPTS // BATCH) * 2 * 5 / 6 * own + 5 / 6 * weights  # each step's gradients, and the weights once
    written = own * (1 + 5 * 3)  # the policy, and at every 50th of 250 steps its weights and AdamW's two copies
    assert cells(plan, "moved, MB", "policy")[:2] == pytest.approx([sent / 1e6, written / 1e6], abs=0.006)
    assert cells(plan, "moved, MB", "pairs")[0] == pytest.approx(5 / 6 * weights / 1e6, abs=0.006)
    assert cells(plan, "moved, MB", "aligned")[0] == pytest.approx(2 * 5 / 6 * weights / 1e6, abs=0.006)
    assert cells(plan, "moved, MB", "pairs")[-1] == 10
    assert f"{DEVICES} x a100_80gb in 3 nodes" in plan and "25 GB/s on the slowest wire" in plan
    assert f"refused: a step's {BATCH} pairs cannot be shared out over {DEVICES} processes" in plan
    held = cells(plan, "moved, MB", "policy")[2]
    (most,) = re.findall(r"breaks first, and before 1,000: a node's 0 GB .* up to (\d+) prompts", plan)
    assert int(most) == pytest.approx(PROMPTS * 20 / (2 * held), rel=0.01)
    hours, spent = (re.search(pattern, plan) for pattern in (r"\n  all +\d+ +([\d.e-]+) s", r"cost: ([\d.]+) device"))
    assert float(spent[1]) == pytest.approx(float(hours[1]) * DEVICES / 3600, abs=0.06)
    shares = [int(share) for share in re.findall(r"(\d+)%", re.search(r"bottleneck: .*", plan)[0])]
    assert sum(shares) == pytest.approx(100, abs=2)
