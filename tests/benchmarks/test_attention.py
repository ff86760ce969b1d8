"""The ways of attention that a GPU's figures compare do the same work."""

import torch

from benchmarks import workload
from benchmarks.attention import Layer, milliseconds, outputs
from benchmarks.shapes import shape_of


def test_every_way_of_attention_gives_every_token_the_same():
    shape = shape_of("tiny")
    layer = Layer(shape, workload.pairs_of(shape, "imposed", 2), torch.device("cpu"), torch.float32)
    found = outputs(layer)
    first = found.pop("SDPA, trees")
    assert len(first) == int(layer.real.sum()) > 0 and len(found) == 2
    for name, other in found.items():
        torch.testing.assert_close(other, first, msg=lambda text, name=name: f"{name}: {text}")
    assert all(isinstance(one, float) and one > 0 for one in milliseconds(layer).values())
