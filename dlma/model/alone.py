"""Decoding of one row at a time by the network's own forward pass: for architectures that no tile can decode.

What a row gets follows from its own tokens, as in a tile, so its answer is the same in any company.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from dlma.model.language import LanguageModel

Way = Literal["own cache", "whole rows"]  # over the cache that the network makes itself, or over the row anew each time
_CACHES = ("past_key_values", "cache_params", "state")  # how networks call what they hand out and take again


class GrowingRow:
    """A growing row."""

    def __init__(self, model: LanguageModel, way: Way) -> None:
        self.model = model
        self.way = way
        self._read = 0
        self._kept: dict[str, object] = {}

    def after(self, ids: Sequence[int]) -> Tensor:
        """The logits after the row, (1, vocabulary); `ids` are those of the last call and what came since.

        raises: NotImplementedError where the network hands out no cache
        """
        if self.way == "whole rows":
            return self.model.own_pass(ids, 1).logits[:, -1]
        out = self.model.own_pass(ids[self._read :], 1, self._kept)
        self._kept = {name: getattr(out, name) for name in _CACHES if getattr(out, name, None) is not None}
        if not self._kept:
            raise NotImplementedError("the network keeps no cache")
        self._read = len(ids)
        return out.logits[:, -1]
