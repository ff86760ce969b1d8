"""A run's config.yaml, read as data: a run folder may come from anybody.

A reader asks for single values and single components. A component is built only from a target that a preset of its
group names, or that the present command line chose itself, and only from plain values that fit its schema. Code that
comes with a model is run by the present command line's word, never by the folder's.
"""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

import yaml

from dlma.config import check, signatures
from dlma.config.help import PARTS, conf_dir
from dlma.config.signatures import Signature
from dlma.errors import UserError

REMOTE = "trust_remote_code"
LOCAL = "dlma.sampler.local.LocalSampler"


class Recorded:
    """The config that a run left in its folder. Raises UserError for what is none, here and in every method."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            values = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as reason:
            raise UserError(f"{self.path}: cannot be read: {(str(reason).splitlines() or ['?'])[0]}") from None
        if not isinstance(values, dict):
            raise UserError(f"{self.path}: not a run's config: it holds no keys")
        self.values: dict = values
        self._check_nodes()

    def _check_nodes(self) -> None:
        """What the schema has as a node is one, its target a text or null; nothing is said of its other values."""
        above = {name for name, f in self._root.fields.items() if signatures.nested(f.annotation, self._root)}
        for name in (above | set(check.components())) & self.values.keys():
            node = self.values[name]
            if not (isinstance(node, dict) and isinstance(node.get("_target_"), str | None)):
                raise UserError(f"{self.path}: {name} is no node of a run's config: {_short(node)}")

    @cached_property
    def _root(self) -> Signature:
        return signatures.signature("dlma.config.schema.Root")

    def value(self, key: str) -> Any:
        """A value that is no component's, by its dotted key, of the type that the schema has for it."""
        node: Any = self.values
        schema = self._root
        *above, leaf = key.split(".")
        for name in above:
            node, schema = node.get(name), cast(Signature, signatures.nested(schema.fields[name].annotation, schema))
            if not isinstance(node, dict):
                raise UserError(f"{self.path}: has no {key}")
        if leaf not in node:
            raise UserError(f"{self.path}: has no {key}")
        annotation = schema.fields[leaf].annotation
        if not signatures.accepts(node[leaf], annotation, schema):
            said = signatures.describe(annotation, schema)
            raise UserError(f"{self.path}: {key} must be {said}, not {_short(node[leaf])}")
        return node[leaf]

    def need(self, *names: str) -> None:
        """Raise UserError unless these top-level keys are there, those of components with a target."""
        missing = [name for name in names if name not in self.values]
        missing += [
            f"{n}._target_" for n in check.components() if n in names and "_target_" not in self.values.get(n, {})
        ]
        if missing:
            raise UserError(f"{self.path}: not a run's config: it has no {missing[0]}")

    def component(self, key: str, group: str, *, chosen: str | None = None, **changes: object) -> dict:
        """The values of a component, checked, ready to be built.

        key: dotted; group: of conf/, whose presets say which targets may stand there
        chosen: one more, which the present command line names itself
        changes: values in place of the run's
        """
        node: Any = self.values
        for name in key.split("."):
            node = node[name] if isinstance(node, dict) and name in node else None
        known = {*targets(group), *([chosen] if chosen else [])}
        target = node.get("_target_") if isinstance(node, dict) else None
        if not isinstance(target, str) or target not in known:
            raise UserError(
                f"{self.path}: {key}._target_ is {_short(target)}, which no preset of conf/{group} names; a run "
                f"folder is data: a component of your own is named by this command line, {key}._target_=..."
            )
        node = {**node, **changes}
        for name, value in node.items():
            if check.is_node(value) and value["_target_"] in parts(group):
                continue
            if (wrong := check.stray(value, f"{key}.{name}")) is not None:
                raise UserError(f"{self.path}: {wrong}: {check.NO_COMPONENT}")
        if found := check.node_problems(node, key):
            raise UserError(f"{self.path}: {found[0]}")
        return node

    def model(self, *, trust: bool, chosen: str | None = None, **changes: object) -> dict:
        """The values of the model that was aligned; trust: the present command line lets its own code run."""
        node = self.component("model", "model", chosen=chosen, **changes)
        if REMOTE not in signatures.signature(node["_target_"]).fields:
            return node
        if node.get(REMOTE) and not trust:
            raise UserError(
                f"{self.path}: model.{REMOTE}: the model brings code of its own, which runs by your word only, not "
                f"this folder's: read that code, then mode.{REMOTE}=true"
            )
        return {**node, REMOTE: trust}

    def sampling(self) -> dict:
        """How answers were sampled: temperature, top_k, top_p and max_new_tokens, whatever drew them."""
        node = self.values.get("sampler") or {}
        schema = signatures.signature(LOCAL)
        names = [name for name, field in schema.fields.items() if field.required]
        found = {"_target_": LOCAL, **{name: node[name] for name in names if name in node}}
        if problems := check.node_problems(found, "sampler"):
            raise UserError(f"{self.path}: {problems[0]}")
        return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@cache
def parts(group: str) -> frozenset[str]:
    """What the presets of a group of conf/ name as a part of their component, such as the wheel that it lies in."""
    inner = [value for node in _presets(group) if "_target_" in node for value in node.values() if check.is_node(value)]
    return frozenset(value["_target_"] for value in inner)


@cache
def targets(group: str) -> frozenset[str]:
    """What the presets of a group of conf/ name as its component."""
    return frozenset(node["_target_"] for node in _presets(group) if isinstance(node.get("_target_"), str))


def _presets(group: str) -> list[dict]:
    """The options of a group and what they share; other folders are options of other nodes, such as a judge's guard."""
    folder = conf_dir() / group
    paths = [path for place in (folder, folder / PARTS) for path in place.glob("*.yaml")]
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]
