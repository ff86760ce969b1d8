"""What the engine is held to: the best rate of products of a model's shapes, and the memory's of reading.

A float32 product is made by the faster of torch's two libraries, as the engine makes it.
"""

from __future__ import annotations

import time

from benchmarks.shapes import Shape

TOKENS = (512, 2048)


def products(shape: Shape, tokens: int, chunk: int = 512) -> list[tuple[int, int, int]]:
    """(rows, inner, columns) of every matrix product of a forward and backward pass over so many tokens."""
    widths = {
        (shape.hidden, shape.query_width),
        (shape.hidden, shape.kv_width),
        (shape.query_width, shape.hidden),
        (shape.hidden, shape.intermediate),
        (shape.intermediate, shape.hidden),
    }
    layers = [(tokens, inner, outer) for inner, outer in widths]
    layers.append((min(chunk, tokens), shape.hidden, shape.vocabulary))
    backward = [(rows, outer, inner) for rows, inner, outer in layers]
    weights = [(inner, rows, outer) for rows, inner, outer in layers]
    return sorted({*layers, *backward, *weights})


def best_rate(shape: Shape, *, seconds: float = 0.15, dtype: str = "float32") -> dict:
    """The highest rate, operations per second, and the product that reached it."""
    sizes = [product for tokens in TOKENS for product in products(shape, tokens)]
    rates = {product: rate(*product, seconds=seconds, dtype=dtype) for product in sizes}
    best = max(rates, key=rates.__getitem__)
    return {"rate": rates[best], "product": list(best)}


def rate(rows: int, inner: int, columns: int, *, seconds: float, dtype: str = "float32") -> float:
    """Operations per second of (rows, inner) @ (columns, inner).T: the best call within so many seconds."""
    import torch

    from dlma.functional.products import linear

    one, other = (torch.randn(*sizes).to(getattr(torch, dtype)) for sizes in ((rows, inner), (columns, inner)))
    linear(one, other)
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        linear(one, other)
        best = min(best, time.perf_counter() - started)
    return 2 * rows * inner * columns / best


def reading_rate(*, seconds: float = 0.5, size: int = 1 << 28) -> float:
    """Bytes per second at which `size` bytes, more than caches hold, are read: the best call within so many seconds."""
    import torch

    held = torch.ones(size // 4)
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        held.sum()
        best = min(best, time.perf_counter() - started)
    return size / best
