"""The profile of the missed targets: what is timed is put back, and its words are its parts."""

import torch

from benchmarks import profile


class Worker:
    def work(self, times):
        return [None] * times


def test_calls_are_timed_in_the_block_only_and_give_what_they_gave():
    plain = Worker.work
    with profile._timed(Worker, "work") as found:
        assert len(Worker().work(3)) == 3
        Worker().work(1)
    assert len(found) == 2 and min(found) >= 0
    assert Worker.work is plain
    Worker().work(1)
    assert len(found) == 2


def test_a_part_that_is_none_is_refused(capsys):
    assert profile.main(["sampler"]) == 2
    assert "sampling, scoring, vocabulary, real" in capsys.readouterr().err


def test_the_scoring_table_holds_imports_weights_and_the_pass(monkeypatch):
    monkeypatch.setattr(profile, "_imports", lambda side: {"ours": 500_000_000, "theirs": 400_000_000}[side])
    rows = [line.split("|")[1:3] for line in profile.scoring().splitlines()[2:]]
    found = {name.strip(): int(value) for name, value in rows}
    weights = 4 * (32000 * 512 + 8 * (4 * 512 * 512 + 3 * 512 * 1376 + 2 * 512) + 512) / 1e6
    assert found["weights, float32"] == round(weights)
    assert found["process of ours with its imports"] == 500
    # at least the widest layer's three blocks of a pass, and the smaller pass takes less
    assert found["a pass of 8192 tokens, ours"] > 3 * 8192 * 1376 * 4 / 1e6 > found["a pass of 2048 tokens, ours"] / 2


def test_seconds_are_those_of_products_of_attention_and_of_all_else():
    one, heads = torch.ones(400, 400), torch.ones(1, 2, 64, 16)
    kinds = {
        "products": lambda: one @ one,
        "attention": lambda: torch.nn.functional.scaled_dot_product_attention(heads, heads, heads),
        "all else": one.exp,
    }
    for kind, work in kinds.items():
        found = profile._shares(work)
        assert found[kind] > 0
        assert {part for part, seconds in found.items() if seconds > 0} <= {kind, "all else"}


def test_without_the_real_model_its_part_says_what_it_takes(monkeypatch):
    monkeypatch.delenv("DLMA_BENCH_MODEL", raising=False)
    assert profile.real() == "real: it takes DLMA_BENCH_MODEL and HH's pairs (DLMA_HH_FILE)"
