"""An adapter taken into its base's weights; what is written is read again and held against the model it came from."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from dlma.errors import UserError
from dlma.model.engine import TOLERANCE
from dlma.model.language import LanguageModel, read_weights
from dlma.model.load import ModelSpec
from dlma.model.saved import save
from dlma.model.weights import ForeignModule

_PROBED = 128  # tokens of the row on which both models are compared


def check(model: LanguageModel) -> None:
    """Raises UserError where there is no sum of adapter and weights, or the weights are too coarse to hold it."""
    if getattr(model.causal, "quantization_method", None) is not None:
        raise UserError(f"{model.name}: an adapter cannot be merged into quantised weights; load the base in full")
    if not hasattr(model.network, "peft_config"):
        return  # there is no adapter to merge
    if not hasattr(model.network.base_model, "merge_and_unload"):
        kind = model.network.active_peft_config.peft_type.value
        raise UserError(f"{model.name}: an adapter of kind {kind} is no change of weights and cannot be merged")


def save_merged(model: LanguageModel, folder: Path) -> None:
    """Write base plus adapter as one whole model; the model's own weights are changed.

    raises: UserError, with nothing left in `folder`, where what was written does not compute what the model does
    """
    check(model)
    wanted = _logits(model.network, model)
    tied = _untie(model.causal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of tied weights: what they suspect is compared below
        merged = model.network.merge_and_unload()
    if tied:
        _tie_if_equal(merged)
    save(model, folder, network=merged)
    own_code = type(model.causal).__module__.startswith("transformers_modules.")
    spec = ModelSpec(model.name, folder, str(model.dtype).removeprefix("torch."), trust_remote_code=own_code)
    try:
        written: nn.Module = read_weights(spec)
        found = _logits(written.to(model.device), model)
    except BaseException:
        shutil.rmtree(folder)
        raise
    gap = ((found - wanted).norm() / wanted.norm()).item()
    if not gap <= TOLERANCE[model.dtype]:  # nan is too far too
        shutil.rmtree(folder)
        raise UserError(
            f"{model.name}: merged, the model's logits are off by a share of {gap:.1e} (at most "
            f"{TOLERANCE[model.dtype]:.0e}): hand out the adapter itself, without merging"
        )


@torch.no_grad()
def _logits(network: nn.Module, model: LanguageModel) -> Tensor:
    """Logits of a fixed row of ids, (tokens, vocabulary) float32, by the network's own forward."""
    ids = torch.randint(model.vocabulary, (min(_PROBED, model.context),), generator=torch.Generator().manual_seed(0))
    return network(input_ids=ids.unsqueeze(0).to(model.device)).logits[0].float()


def _ends(causal: ForeignModule) -> tuple[nn.Embedding, nn.Linear | None]:
    """Embedding and head, below the layers that an adapter puts around them."""
    embedding, head = causal.get_input_embeddings(), causal.get_output_embeddings()
    return getattr(embedding, "base_layer", embedding), getattr(head, "base_layer", head)


def _untie(causal: ForeignModule) -> bool:
    """Give a tied head weights of its own, as an adapter may change one of the two; whether it was tied."""
    embedding, head = _ends(causal)
    if head is None or head.weight is not embedding.weight:
        return False
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    return True


def _tie_if_equal(causal: ForeignModule) -> None:
    """Let a head that was tied share the embedding's weights again, if they are still the same; else say so."""
    embedding, head = _ends(causal)
    assert head is not None
    equal = torch.equal(head.weight, embedding.weight)
    if equal:
        head.weight = embedding.weight
    else:
        causal.all_tied_weights_keys = {}
    causal.config.tie_word_embeddings = causal.config.get_text_config().tie_word_embeddings = equal
