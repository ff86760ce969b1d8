"""The check of the composed config, which finds every mistake at once before anything is imported.

The root and the recipe have dataclasses as schema (schema.py); every component's schema is the signature that its
`_target_` names (signatures.py), so a check imports nothing and loads nothing. Keys that begin and end with an
underscore speak about a node and are no part of it: `_target_`, `_recipe_` in a model preset, and `_needs_`, modules of
an extra.
"""

from __future__ import annotations

import ast
import difflib
import functools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlma import redaction
from dlma.config import relations, signatures
from dlma.config.signatures import Signature
from dlma.errors import UserError
from dlma.redaction import is_secret

NO_COMPONENT = "no component belongs here: nothing is built from its _target_; give plain values"
GROUPS = ("method", "adapter", "experiment", "human")  # groups of rows over the other nodes, which leave none
MODES = {("cfg",), ("_cfg",), ("cfgs",)}  # what only a mode is handed: the whole config, or that of every cell
OPTIONAL = ("sft", "reward")  # the components that may be none
COMPONENT = "Component"  # the annotation in schema.py of a node with a `_target_`
DANGLING = re.compile(r"Interpolation key '([\w.]+)' not found")
VARIABLE = re.compile(r"(^|[._])key_(variable|env)$")  # the keys that name an environment variable
NAMED = "put it into an environment variable, such as MY_API_KEY, and name that: endpoint.key_variable, sampler.key_env"
WORDED = ("prompts", "judge_prompt")  # the nodes whose text a model is given
INTERPOLATION = re.compile(r"\$\{([\w.]+)\}")
LONGEST = 200  # characters of a value in a message
SPECIAL = re.compile(r"_\w+_")
Known = Callable[[], list[str]]  # every key that the config could have


@dataclass(frozen=True)
class Problem:
    """One mistake: the dotted key and what is wrong with it (with what to do)."""

    key: str
    text: str

    def __str__(self) -> str:
        return redaction.text(f"{self.key}: {self.text}")


class _Unreadable:
    """Stands for a value that is missing or whose interpolation fails."""


UNREADABLE = _Unreadable()


def check(cfg: DictConfig) -> None:
    """Raise one UserError that lists every unknown, missing, mistyped or unresolvable key."""
    found = problems(cfg)
    if found:
        raise UserError(listing([str(problem) for problem in found]))


def listing(lines: list[str]) -> str:
    """The message for one or several mistakes in the config."""
    if len(lines) == 1:
        return lines[0]
    return f"{len(lines)} mistakes in the config\n" + "\n".join(f"  {line}" for line in lines)


def problems(cfg: DictConfig) -> list[Problem]:
    """Every mistake in a composed config, in the order of the schema."""
    found: list[Problem] = []
    tree = _plain(cfg, "", found)
    redaction.learn(tree)
    schema = signatures.signature("dlma.config.schema.Root")
    known = functools.cache(lambda: list(_known(tree, schema)))  # asked for where something is wrong
    found = [_with_suggestion(problem, known) for problem in found]
    found += _check_node(tree, schema, "", known)
    found += _exposed(tree)
    found = found or [Problem(key, text) for key, text in relations.broken(tree, components())]
    keys = {problem.key for problem in found}
    return [problem for problem in found if _source(cfg, problem.key) not in keys]


def _source(cfg: DictConfig, key: str) -> str | None:
    """The key from which a key has its value by `${key}`, if so: a mistake is reported where it was made."""
    parent, _, leaf = key.rpartition(".")
    holder = OmegaConf.select(cfg, parent, throw_on_resolution_failure=False) if parent else cfg
    if OmegaConf.is_dict(holder) and leaf in holder and OmegaConf.is_interpolation(holder, leaf):
        match = INTERPOLATION.fullmatch(str(cast(dict, OmegaConf.to_container(holder, resolve=False))[leaf]))
        return match[1] if match else None
    above = _source(cfg, parent) if parent else None
    return f"{above}.{leaf}" if above else None


def _plain(node: DictConfig | ListConfig, path: str, found: list[Problem]) -> Any:
    """The node as plain containers; what cannot be read becomes UNREADABLE and a problem."""
    keys: list[Any] = list(range(len(node)) if isinstance(node, ListConfig) else node.keys())
    values = {key: _value(node, key, f"{path}.{key}" if path else str(key), found) for key in keys}
    return list(values.values()) if isinstance(node, ListConfig) else values


def _value(node: Any, key: str | int, path: str, found: list[Problem]) -> object:
    if OmegaConf.is_missing(node, key):
        found.append(Problem(path, f"must be given: {path}=..."))
        return UNREADABLE
    try:
        value = node[key]
    except OmegaConfBaseException as reason:
        found.append(Problem(path, str(reason).strip().split("\n")[0]))
        return UNREADABLE
    return _plain(value, path, found) if OmegaConf.is_config(value) else value


def _with_suggestion(problem: Problem, known: Known) -> Problem:
    """A dangling `${...}` with the key that may have been meant; any other problem as it is."""
    match = DANGLING.fullmatch(problem.text)
    return Problem(problem.key, problem.text + suggestion(match[1], known())) if match else problem


def _schema(node: dict, path: str, found: list[Problem]) -> Signature | None:
    """The signature of a component node, or None where its target says nothing usable."""
    target = node.get("_target_")
    if target is UNREADABLE:
        return None
    if "_target_" not in node or not isinstance(target, str | None):
        found.append(Problem(path, "needs a _target_: the class or function that it configures"))
        return None
    if target is None and path in OPTIONAL:
        return Signature({})
    if target is None:
        found.append(Problem(f"{path}._target_", "is null, and a run needs one: choose an option of the group"))
        return None
    try:
        schema = signatures.signature(target)
    except UserError as reason:
        found.append(Problem(path, str(reason)))
        return None
    if (schema.runtime in MODES) != (path == "mode"):
        found.append(Problem(path, f"_target_ {target}: is {'no' if path == 'mode' else 'a'} mode"))
        return None
    return schema


def components() -> list[str]:
    """The keys of the root that hold one component each."""
    root = signatures.signature("dlma.config.schema.Root")
    return [name for name, field in root.fields.items() if is_component(field, root)]


def node_problems(node: dict, path: str) -> list[Problem]:
    """Every mistake in the values of one component, which stands at a dotted key; values are plain."""
    found: list[Problem] = []
    schema = _schema(node, path, found)
    return found + (_check_node(node, schema, f"{path}.", list) if schema is not None else [])


def is_component(field: signatures.Field, schema: Signature) -> bool:
    return any(getattr(m, "id", "") == COMPONENT for m in signatures.options(field.annotation, schema))


def are_components(field: signatures.Field, schema: Signature) -> bool:
    """Whether a field holds any number of components by name: `dict[str, Component]`."""
    members = signatures.options(field.annotation, schema)
    return [ast.unparse(member) for member in members if isinstance(member, ast.Subscript)] == [
        f"dict[str, {COMPONENT}]"
    ]


def _known(tree: dict, schema: Signature, path: str = "") -> Iterator[str]:
    """Every key that the schema knows, dotted, components as their present targets say."""
    for name, field in schema.fields.items():
        yield path + name
        value = tree.get(name)
        inner = signatures.nested(field.annotation, schema)
        if is_component(field, schema):
            inner = _schema(value, path + name, []) if isinstance(value, dict) else None
        if inner is not None:
            yield from _known(value if isinstance(value, dict) else {}, inner, f"{path}{name}.")
        if are_components(field, schema) and isinstance(value, dict):
            yield from _known(value, _named(value), f"{path}{name}.")
    if not path:
        yield from GROUPS


def _named(node: dict) -> Signature:
    """The schema of a node of components by name: each of its keys is one."""
    return Signature({str(name): signatures.Field(ast.Name(COMPONENT), ast.Constant(None)) for name in node})


def _check_node(node: dict, schema: Signature, path: str, known: Known) -> list[Problem]:
    """Unknown, missing and mistyped keys of one node and all below it."""
    found: list[Problem] = []
    for key in node:
        if not path and key in GROUPS:
            found.append(Problem(str(key), _no_node(str(key), node[key], known)))
        elif key not in schema.fields and not SPECIAL.fullmatch(str(key)):
            found.append(Problem(f"{path}{key}", "unknown key" + suggestion(f"{path}{key}", known())))
    for name, field in schema.fields.items():
        if name in node:
            found += _check_value(node[name], field, schema, path + name, known)
        elif field.required:
            found.append(Problem(path + name, "is missing"))
    return found


def _no_node(group: str, value: object, known: Known) -> str:
    """What to say of values below a group whose choice leaves no node."""
    leaf = next(iter(value), None) if isinstance(value, dict) else None
    near = [key for key in known() if key.rpartition(".")[2] == leaf]
    hint = f"; did you mean {' or '.join(near[:2])}?" if near else ""
    return (
        f"is chosen by name, {group}=..., and has no keys of its own{hint} (a file of conf/{group} begins with "
        "`# @package _global_`)"
    )


def _check_value(value: object, field: signatures.Field, schema: Signature, path: str, known: Known) -> list[Problem]:
    if value is UNREADABLE:
        return []
    if is_component(field, schema) and isinstance(value, dict):
        found: list[Problem] = []
        inner = _schema(value, path, found)
        return found + (_check_node(value, inner, f"{path}.", known) if inner is not None else [])
    if isinstance(value, dict) and are_components(field, schema):
        return _check_node(value, _named(value), f"{path}.", known)
    inner = signatures.nested(field.annotation, schema)
    if inner is not None and isinstance(value, dict) and not is_node(value):
        return _check_node(value, inner, f"{path}.", known)
    if (wrong := stray(value, path)) is not None:
        return [Problem(wrong, NO_COMPONENT)]
    each = signatures.by_name(field.annotation, schema)
    if each is not None and isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()):
        return [found for name, item in value.items() for found in _check_node(item, each, f"{path}.{name}.", known)]
    if _unreadable_inside(value) or signatures.accepts(value, field.annotation, schema):
        return []
    return [Problem(path, _mistyped(value, field, schema))]


def stray(value: object, path: str) -> str | None:
    """The key of the first node with a `_target_` at or below a value that is no component, if there is one."""
    if not isinstance(value, dict | list):
        return None
    if is_node(value):
        return path
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    return next((found for key, item in inside if (found := stray(item, f"{path}.{key}")) is not None), None)


def is_node(value: object) -> bool:
    """Whether a value names what it builds."""
    return isinstance(value, dict) and "_target_" in value


def _unreadable_inside(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(_unreadable_inside(v) for v in (value.values() if isinstance(value, dict) else value))
    return value is UNREADABLE


def _mistyped(value: object, field: signatures.Field, schema: Signature) -> str:
    wanted = signatures.describe(field.annotation, schema, ranged=_is_out_of_range(value, field, schema))
    choices = [
        str(item)
        for member in signatures.options(field.annotation, schema)
        for item in signatures.literals(member) or []
    ]
    near = difflib.get_close_matches(str(value), choices, n=1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"must be {wanted}, not {_shown(value)}{hint}"


def _is_out_of_range(value: object, field: signatures.Field, schema: Signature) -> bool:
    """Whether the value is of the wanted kind, so that what is wrong with it is the range."""
    if isinstance(value, list):
        return True
    plain = [signatures.bounds(member)[0] for member in signatures.options(field.annotation, schema)]
    return isinstance(value, int | float) and any(signatures.accepts(type(value)(0), p, schema) for p in plain)


def _shown(value: object) -> str:
    """A value for a message; of a long one its beginning."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "an integer of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text):,} characters)"


def suggestion(key: str, known: list[str]) -> str:
    """`; did you mean ...?` for an unknown dotted key: a sibling first, then any key of the tree."""
    parent, _, leaf = key.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == parent}
    near = [siblings[name] for name in difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.6)]
    near = near or [k for k in known if k.rpartition(".")[2] == leaf][:2]
    near = near or difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    leaves = {k.rpartition(".")[2]: k for k in known}
    near = near or [leaves[name] for name in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _exposed(value: object, path: str = "") -> list[Problem]:
    """Secrets where they would be passed on: in an address, in place of a variable's name, in text for a model."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, part in parts for found in _exposed(part, f"{path}.{key}" if path else str(key))]
    if not isinstance(value, str):
        return []
    if redaction.in_url(value):
        return [Problem(path, f"an address with a credential in it; take it out, {NAMED}")]
    if VARIABLE.search(path) and not _is_variable(value):
        redaction.learn({"key": value})
        return [Problem(path, f"is no name of an environment variable; {NAMED}")]
    if path.split(".")[0] in WORDED and redaction.from_environment(value):
        return [Problem(path, "holds what a secret environment variable holds, and a model would read it; take it out")]
    return []


def _is_variable(name: str) -> bool:
    """Whether it is set, or is written as the names of secrets are: a key put here by mistake is neither."""
    return name in os.environ or (re.fullmatch(r"[A-Z][A-Z0-9_]*", name) is not None and is_secret(name))
