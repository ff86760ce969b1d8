"""The frozen reference model, for objectives that need more of it than a column of log-probs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dlma.model.language import LanguageModel, twin


class Reference:
    """The frozen model beside the trained one: the adapter switched off under fresh LoRA, else what is trained, copied.

    network: the copy, to be moved to a device with its owner; None where nothing was copied
    """

    def __init__(self, model: LanguageModel) -> None:
        fresh = hasattr(model.network, "disable_adapter") and model.adapter_is_new
        self._adapted = model.network if fresh else None
        self.network: nn.Module | None = None
        self._model = model
        if self._adapted is None:
            frozen = [p for p in model.network.parameters() if not p.requires_grad]
            self.network = twin(model.network, sharing=frozen).requires_grad_(False)
            self._model = LanguageModel(self.network, model.tokenizer, model.name)

    @contextmanager
    def model(self) -> Iterator[LanguageModel]:
        """The reference, for the length of the block and without gradients; the trained model is not itself inside."""
        with torch.no_grad():
            if self._adapted is None:
                yield self._model
            else:
                with self._adapted.disable_adapter():
                    yield self._model
