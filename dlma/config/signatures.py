"""A component's schema, read by `ast` from the source that its `_target_` names, so nothing is imported.

Runtime objects stand before `/`, configuration after `*`. A keyword-only parameter without a default is
scientific (part of a stage's key); one with a default is mechanical. `accepts` holds a value against an
annotation; a class of the same file (dataclass or TypedDict) is a nested schema.
"""

from __future__ import annotations

import ast
import functools
import math
from dataclasses import dataclass, field
from pathlib import Path

from dlma.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
WORDS = {"int": "an integer", "float": "a finite number", "str": "text", "bool": "true or false", "None": "null"}
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
    """The schema of a target; raises UserError for one that does not exist or is private."""
    file, name = source(target)
    tree = _parse(file, file.stat().st_mtime_ns)
    defined = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    found = {n.name: n for n in defined if not n.name.startswith("_")}
    if name not in found:
        offer = ", ".join(sorted(found)) or "nothing to offer"
        raise UserError(f"_target_ {target}: {file.stem} has no {name}; it has {offer}")
    _refuse_plain_parameters(target, found[name])
    fields = _fields(found[name])
    classes = {n.name: Signature(_class_fields(n)) for n in tree.body if isinstance(n, ast.ClassDef)}
    aliases = {
        n.targets[0].id: n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and len(n.targets) == 1 and isinstance(n.targets[0], ast.Name)
    }
    return Signature(fields, classes, aliases, _runtime(found[name]))


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


def _class_fields(node: ast.ClassDef) -> dict[str, Field]:
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


def nested(annotation: ast.expr | None, schema: Signature) -> Signature | None:
    """The schema of a class of the same file that the annotation names, if it names one."""
    for member in options(annotation, schema):
        if _name(member) in schema.classes and isinstance(member, ast.Name):
            return Signature(schema.classes[member.id].fields, schema.classes, schema.aliases)
    return None


def accepts(value: object, annotation: ast.expr | None, schema: Signature) -> bool:
    """Whether a plain value (from YAML) fits the annotation."""
    members = options(annotation, schema)
    return not members or any(_fits(value, member, schema) for member in members)


def cast(value: object, annotation: ast.expr | None, schema: Signature) -> object:
    """A whole number as a float where the annotation asks for a float and not for an integer."""
    names = {_name(member) for member in options(annotation, schema)}
    wanted = isinstance(value, int) and not isinstance(value, bool) and "float" in names and "int" not in names
    return float(value) if wanted else value


def _fits(value: object, member: ast.expr, schema: Signature) -> bool:
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
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if name in PLAIN:
        return isinstance(value, PLAIN[name]) and not (name == "int" and isinstance(value, bool))
    return isinstance(value, dict)


def _fits_generic(value: object, member: ast.Subscript, schema: Signature) -> bool:
    inner = member.slice.elts if isinstance(member.slice, ast.Tuple) else [member.slice]
    if _name(member.value) in ("list", "List", "Sequence", "tuple"):
        return isinstance(value, list) and all(accepts(item, inner[0], schema) for item in value)
    if _name(member.value) in ("dict", "Dict", "Mapping"):
        return isinstance(value, dict) and all(accepts(item, inner[1], schema) for item in value.values())
    return False


def describe(annotation: ast.expr | None, schema: Signature) -> str:
    """The annotation in words, for a line to the user: `a number or null`."""
    return " or ".join(_words(member, schema) for member in options(annotation, schema))


def _words(member: ast.expr, schema: Signature) -> str:
    allowed = literals(member)
    if allowed is not None:
        return "one of " + ", ".join(str(item) for item in allowed)
    if isinstance(member, ast.Subscript):
        return ast.unparse(member)
    known = nested(member, schema)
    if known is not None:
        return "{" + ", ".join(known.fields) + "}"
    return WORDS.get(_name(member), f"a {_name(member)}")
