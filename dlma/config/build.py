"""From a config node to the object that it names, and to its part in a stage's key."""

from __future__ import annotations

import importlib
import re

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlma.config import signatures
from dlma.errors import UserError


def build(node: DictConfig | dict, *runtime: object) -> object:
    """Import a node's target and call it with the runtime objects and the node's values; None for a null target.

    A value that is itself a node with a `_target_` is built first, without runtime objects.
    """
    values = {name: build(value) if _is_node(value) else value for name, value in _container(node).items()}
    if values["_target_"] is None:
        return None
    signatures.source(values["_target_"])
    module, _, name = values["_target_"].rpartition(".")
    target = getattr(importlib.import_module(module), name)
    return target(*runtime, **{k: v for k, v in values.items() if not re.fullmatch(r"_\w+_", k)})


def scientific(node: DictConfig | dict) -> dict:
    """The node's part in a stage's key: what it builds and the values that have no default in the signature.

    A component is keyed by its class or function alone, so that its file may move.
    A number is keyed as its annotation says, so that `beta=1` and `beta=1.0` are one key.
    """
    values = _container(node)
    if values["_target_"] is None:
        return {"_target_": None}
    schema = signatures.signature(values["_target_"])
    required = {name: field for name, field in schema.fields.items() if field.required}
    chosen = {
        name: scientific(values[name])
        if _is_node(values[name])
        else signatures.cast(values[name], field.annotation, schema)
        for name, field in required.items()
    }
    return {"_target_": values["_target_"].rpartition(".")[2], **chosen}


def _is_node(value: object) -> bool:
    return isinstance(value, dict) and "_target_" in value


def resolved(cfg: DictConfig) -> dict:
    """The config as plain containers, interpolations resolved."""
    return _container(cfg)


def _container(node: DictConfig | dict) -> dict:
    if isinstance(node, dict):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as reason:
        raise UserError(str(reason).strip().split("\n")[0]) from None
