"""A component's schema, read by `ast` from the source that its `_target_` names, so nothing is imported.

Runtime objects stand before `/`, configuration after `*`. A keyword-only parameter without a default is
scientific (part of a stage's key); one with a default is mechanical. `accepts` holds a value against an
annotation; a class of the same file (dataclass or TypedDict) is a nested schema. A range is declared as
`Annotated[float, Gt(0)]`, most often by a name of dlma/ranges.py that the file imports.
"""

from __future__ import annotations

import ast
import functools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import annotated_types
from annotated_types import Ge, Gt, Le, Lt, MinLen

from dlma import ranges
from dlma.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
RANGES = Path(ranges.__file__)
WORDS = {"int": "an integer", "float": "a number", "str": "text", "bool": "true or false", "None": "null"}
PLAIN = {"int": int, "str": str, "bool": bool, "dict": dict, "list": list, "Path": str}


@dataclass(frozen=True)
class Field:
    """One configuration key: its annotation (None: anything goes) and its default, None where it must be given."""

    annotation: ast.expr | None
    default: ast.expr | None = None

    @property
    def required(self) -> bool:
        return self.default is None


@dataclass(frozen=True)
class Signature:
    """What a target takes from the config, and the source file that says so.

    runtime: the names of the objects that are handed to it besides
    """

    fields: dict[str, Field]
    classes: dict[str, Signature] = field(default_factory=dict)
    aliases: dict[str, ast.expr] = field(default_factory=dict)
    runtime: tuple[str, ...] = ()


def source(target: str) -> tuple[Path, str]:
    """The file and the name inside it that a target such as `dlma.scorer.self_reward.SelfReward` means."""
    parts = target.split(".")
    if parts[0] != PACKAGE.name or len(parts) < 3:
        raise UserError(f"_target_ {target}: must name something inside `{PACKAGE.name}.`")
    base = PACKAGE.joinpath(*parts[1:-1])
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return file, parts[-1]
    raise UserError(f"_target_ {target}: there is no module {'.'.join(parts[:-1])}")


@functools.lru_cache(maxsize=256)
def _parse(file: Path, changed: int) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def signature(target: str) -> Signature:
    """The schema of a target; raises UserError for one that does not exist or is private.

    A class that says nothing of its own takes what its base in this package takes.
    """
    file, name = source(target)
    base = _base(_parse(file, file.stat().st_mtime_ns), name)
    return signature(base) if base else _signature(target, name, file, file.stat().st_mtime_ns)


def _base(tree: ast.Module, name: str) -> str | None:
    """The target, of another module of the package, whose constructor a class without fields of its own takes."""
    node = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if node is None or name.startswith("_") or _fields(node) or _constructor(node) or not node.bases:
        return None
    imports = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module]
    named = {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    base = named.get(_name(node.bases[0]))
    return base if base and base.startswith(f"{PACKAGE.name}.") else None


@functools.lru_cache(maxsize=512)
def _signature(target: str, name: str, file: Path, changed: int) -> Signature:
    tree = _parse(file, changed)
    defined = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    found = {n.name: n for n in defined if not n.name.startswith("_")}
    if name not in found:
        offer = ", ".join(sorted(found)) or "nothing to offer"
        raise UserError(f"_target_ {target}: {file.stem} has no {name}; it has {offer}")
    _refuse_plain_parameters(target, found[name])
    fields = _fields(found[name])
    classes = {n.name: Signature(_class_fields(n)) for n in tree.body if isinstance(n, ast.ClassDef)}
    return Signature(fields, classes, _imported_ranges(tree) | _aliases(tree), _runtime(found[name]))


def _aliases(tree: ast.Module) -> dict[str, ast.expr]:
    return {
        n.targets[0].id: n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and len(n.targets) == 1 and isinstance(n.targets[0], ast.Name)
    }


def _imported_ranges(tree: ast.Module) -> dict[str, ast.expr]:
    """The ranges that a file imports by name."""
    imports = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == ranges.__name__]
    known = _aliases(_parse(RANGES, RANGES.stat().st_mtime_ns)) if imports else {}
    return {alias.name: known[alias.name] for node in imports for alias in node.names if alias.name in known}


def _runtime(node: ast.ClassDef | ast.FunctionDef) -> tuple[str, ...]:
    function = _constructor(node)
    names = () if function is None else tuple(arg.arg for arg in function.args.posonlyargs)
    return names[1:] if isinstance(node, ast.ClassDef) else names


def _refuse_plain_parameters(target: str, node: ast.ClassDef | ast.FunctionDef) -> None:
    """Only what says which of its parameters are configuration is a component: any other function is not called."""
    function = _constructor(node)
    if function is None:
        return
    args = function.args
    plain = [arg.arg for arg in args.args if not (arg.arg == "self" and isinstance(node, ast.ClassDef))]
    plain += [arg.arg for arg in (args.vararg, args.kwarg) if arg is not None]
    if plain:
        raise UserError(
            f"_target_ {target}: is no component: its parameter {plain[0]} stands neither before / nor after *"
        )


def _constructor(node: ast.ClassDef | ast.FunctionDef) -> ast.FunctionDef | None:
    """The function that takes the configuration; None for a class whose annotated attributes are taken."""
    if isinstance(node, ast.FunctionDef):
        return node
    return next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)


def _fields(node: ast.ClassDef | ast.FunctionDef) -> dict[str, Field]:
    function = _constructor(node)
    return _class_fields(node) if function is None else _keywords(function)


def _keywords(function: ast.FunctionDef) -> dict[str, Field]:
    args = function.args
    return {arg.arg: Field(arg.annotation, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults)}


def _class_fields(node: ast.ClassDef | ast.FunctionDef) -> dict[str, Field]:
    """The annotated attributes of a dataclass or TypedDict."""
    return {
        item.target.id: Field(item.annotation, item.value)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


def options(annotation: ast.expr | None, schema: Signature) -> list[ast.expr]:
    """The members of a union, with aliases and quotes opened; a plain annotation is a union of one."""
    if annotation is None:
        return []
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return options(ast.parse(annotation.value, mode="eval").body, schema)
    if isinstance(annotation, ast.BinOp):
        return options(annotation.left, schema) + options(annotation.right, schema)
    if isinstance(annotation, ast.Name) and annotation.id in schema.aliases:
        return options(schema.aliases[annotation.id], schema)
    if isinstance(annotation, ast.Subscript) and _name(annotation.value) in ("Optional", "Union"):
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        members = [member for part in inner for member in options(part, schema)]
        return members + ([ast.Constant(None)] if _name(annotation.value) == "Optional" else [])
    return [annotation]


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def literals(annotation: ast.expr) -> list[object] | None:
    """The values of `Literal[...]`, or None when the annotation is something else."""
    if not (isinstance(annotation, ast.Subscript) and _name(annotation.value) == "Literal"):
        return None
    inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    return [ast.literal_eval(item) for item in inner]


def bounds(member: ast.expr) -> tuple[ast.expr, list[annotated_types.BaseMetadata]]:
    """A member of a union without its range, and the range: the constraints of `Annotated`, none for another."""
    if not (isinstance(member, ast.Subscript) and _name(member.value) == "Annotated"):
        return member, []
    assert isinstance(member.slice, ast.Tuple)
    plain, *calls = member.slice.elts
    limits = [(_name(call.func), ast.literal_eval(call.args[0])) for call in calls if isinstance(call, ast.Call)]
    return plain, [getattr(annotated_types, name)(limit) for name, limit in limits]


def nested(annotation: ast.expr | None, schema: Signature) -> Signature | None:
    """The schema of a class of the same file that the annotation names, if it names one."""
    for member in options(annotation, schema):
        if _name(member) in schema.classes and isinstance(member, ast.Name):
            return Signature(schema.classes[member.id].fields, schema.classes, schema.aliases)
    return None


def by_name(annotation: ast.expr | None, schema: Signature) -> Signature | None:
    """The schema of `dict[str, Class]`, where the class stands in the same file: that of each value."""
    for member in options(annotation, schema):
        if isinstance(member, ast.Subscript) and _name(member.value) == "dict" and isinstance(member.slice, ast.Tuple):
            return nested(member.slice.elts[1], schema)
    return None


def accepts(value: object, annotation: ast.expr | None, schema: Signature) -> bool:
    """Whether a plain value (from YAML) fits the annotation."""
    members = options(annotation, schema)
    return not members or any(_fits(value, member, schema) for member in members)


def cast(value: Any, annotation: ast.expr | None, schema: Signature) -> object:
    """A whole number as a float where the annotation asks for a float and not for an integer."""
    names = {_name(bounds(member)[0]) for member in options(annotation, schema)}
    wanted = isinstance(value, int) and not isinstance(value, bool) and "float" in names and "int" not in names
    return float(value) if wanted else value


def _fits(value: Any, member: ast.expr, schema: Signature) -> bool:
    plain, limits = bounds(member)
    if limits:
        return _fits(value, plain, schema) and all(_within(value, limit) for limit in limits)
    allowed = literals(member)
    if allowed is not None:
        return any(value == item and type(value) is type(item) for item in allowed)
    if isinstance(member, ast.Subscript):
        return _fits_generic(value, member, schema)
    name = _name(member)
    if name in ("Any", "object"):
        return True
    if name == "None":
        return value is None
    if name == "float":
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    if name in PLAIN:
        return isinstance(value, PLAIN[name]) and not (name == "int" and isinstance(value, bool))
    return isinstance(value, dict)


def _is_finite(value: float) -> bool:
    return abs(value) <= sys.float_info.max  # false for nan, and no conversion of an integer that is too large for one


def _within(value: Any, limit: annotated_types.BaseMetadata) -> bool:
    match limit:
        case Ge(bound):
            return value >= bound
        case Gt(bound):
            return value > bound
        case Le(bound):
            return value <= bound
        case Lt(bound):
            return value < bound
        case MinLen(least):
            return len(value) >= least
    raise TypeError(f"{limit}: no constraint that is checked")


def _fits_generic(value: object, member: ast.Subscript, schema: Signature) -> bool:
    inner = member.slice.elts if isinstance(member.slice, ast.Tuple) else [member.slice]
    if _name(member.value) in ("list", "List", "Sequence", "tuple"):
        return isinstance(value, list) and all(accepts(item, inner[0], schema) for item in value)
    if _name(member.value) in ("dict", "Dict", "Mapping"):
        return isinstance(value, dict) and all(accepts(item, inner[1], schema) for item in value.values())
    return False


def describe(annotation: ast.expr | None, schema: Signature, *, ranged: bool = True) -> str:
    """The annotation in words, for a line to the user: `a number from 0 to 1 or null`; ranged: with its range."""
    return " or ".join(_words(member, schema, ranged) for member in options(annotation, schema))


def _words(member: ast.expr, schema: Signature, ranged: bool) -> str:
    member, limits = bounds(member)
    allowed = literals(member)
    if allowed is not None:
        return "one of " + ", ".join(str(item) for item in allowed)
    if isinstance(member, ast.Subscript):
        return _words_of_generic(member, limits, schema, ranged)
    else:
        known = nested(member, schema)
        words = WORDS.get(_name(member), f"a {_name(member)}") if known is None else f"{{{', '.join(known.fields)}}}"
    return words + (_range_words(limits) if ranged else "")


def _words_of_generic(
    member: ast.Subscript, limits: list[annotated_types.BaseMetadata], schema: Signature, ranged: bool
) -> str:
    inner = member.slice.elts if isinstance(member.slice, ast.Tuple) else [member.slice]
    if _name(member.value) != "list":
        return ast.unparse(member)
    least = "".join(f" of at least {limit.min_length}" for limit in limits if isinstance(limit, MinLen))
    return f"a list{least}, each item {describe(inner[0], schema, ranged=ranged)}"


def _range_words(limits: list[annotated_types.BaseMetadata]) -> str:
    """` from 0 to 1`, ` above 0 and at most 1`; every range has two ends."""
    lower = next((limit for limit in limits if isinstance(limit, Ge | Gt)), None)
    upper = next((limit for limit in limits if isinstance(limit, Le | Lt)), None)
    if lower is None or upper is None:
        return ""
    if isinstance(lower, Ge) and isinstance(upper, Le):
        return f" from {_figure(lower.ge)} to {_figure(upper.le)}"
    low = f"at least {_figure(lower.ge)}" if isinstance(lower, Ge) else f"above {_figure(lower.gt)}"
    high = f"at most {_figure(upper.le)}" if isinstance(upper, Le) else f"below {_figure(upper.lt)}"
    return f" {low} and {high}"


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
