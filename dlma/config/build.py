"""Building components: from a config node to the object that it names, and to its part in a stage's key."""

from __future__ import annotations

import ast
import importlib
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlma.config import signatures
from dlma.config.check import NO_COMPONENT, SPECIAL, are_components, is_component, is_node, stray
from dlma.config.signatures import Signature
from dlma.errors import UserError

LAYOUT = ("shard_rows", "token_budget", "batch_tokens")  # how rows are put together: float sums end in other digits


def build(node: DictConfig | dict, *runtime: object) -> Any:
    """Import a node's target and call it with the runtime objects and the node's values; None for a null target.

    A value for which the signature expects a component is built first, without runtime objects. Raises UserError for
    a `_target_` anywhere else: values are data.
    """
    values = _container(node)
    if values["_target_"] is None:
        return None
    schema = signatures.signature(values["_target_"])
    given = {name: _built(name, v, schema) for name, v in values.items() if not SPECIAL.fullmatch(name)}
    return target(values)(*runtime, **given)


def target(node: DictConfig | dict) -> Any:
    """The class or function that a node names, imported."""
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def _built(name: str, value: Any, schema: Signature) -> object:
    field = schema.fields[name] if name in schema.fields else signatures.Field(None, default=ast.Constant(None))
    if are_components(field, schema):  # their reader builds them, each with its own runtime objects
        return value
    if is_node(value) and is_component(field, schema):
        return build(value)
    if (wrong := stray(value, name)) is not None:
        raise UserError(f"{wrong}: {NO_COMPONENT}")
    return value


def scientific(node: DictConfig | dict) -> dict:
    """The node's part in a stage's key: what it builds and the values that have no default in the signature.

    A component is keyed by its class or function alone, so that its file may move. A number is keyed as its annotation
    says, so that `beta=1` and `beta=1.0` are one key. A mechanical value that moves last digits (LAYOUT) is part of it
    where it is not the default.
    """
    values = _container(node)
    if values["_target_"] is None:
        return {"_target_": None}
    schema = signatures.signature(values["_target_"])
    required = {name: field for name, field in schema.fields.items() if field.required}
    chosen = {
        name: scientific(values[name])
        if is_node(values[name])
        else signatures.cast(values[name], field.annotation, schema)
        for name, field in required.items()
    }
    return {"_target_": values["_target_"].rpartition(".")[2], **chosen, **layout(node)}


def layout(node: DictConfig | dict) -> dict:
    """The node's values of LAYOUT that are not the signature's default."""
    values = _container(node)
    fields = signatures.signature(values["_target_"]).fields
    known = {name: fields[name].default for name in LAYOUT if name in fields and name in values}
    return {
        name: values[name] for name, default in known.items() if default and values[name] != ast.literal_eval(default)
    }


def resolved(cfg: DictConfig) -> dict:
    """The config as plain containers, interpolations resolved."""
    return _container(cfg)


def _container(node: DictConfig | dict) -> dict:
    if isinstance(node, dict):
        return node
    try:
        return cast(dict, OmegaConf.to_container(node, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as reason:
        raise UserError(str(reason).strip().split("\n")[0]) from None
