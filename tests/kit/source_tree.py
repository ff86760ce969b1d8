"""The package as source: its modules, what each imports and when, and a hash that formatting does not move."""

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Import:
    """`line` of `importer` imports `name`; `lazy` if inside a function; `typing` if under TYPE_CHECKING."""

    importer: str
    name: str
    line: int
    lazy: bool
    typing: bool


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; packages by the name of their folder."""
    found = {}
    for path in sorted((ROOT / "dlma").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_package(module: str) -> bool:
    return module in modules() and modules()[module].name == "__init__.py"


@functools.cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@functools.cache
def imports(module: str) -> tuple[Import, ...]:
    return tuple(imports_of(module, tree(module)))


def imports_of(module: str, node: ast.AST, lazy: bool = False, typing: bool = False) -> Iterator[Import]:
    """The imports below a node, in order; `from package import module` names the module."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, child.lineno, lazy, typing)
        elif isinstance(child, ast.ImportFrom):
            source = "." * child.level + (child.module or "")
            for alias in child.names:
                inner = f"{source}.{alias.name}"
                name = inner if inner in modules() else source
                yield Import(module, name, child.lineno, lazy, typing)
        else:
            inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            guarded = typing or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            yield from imports_of(module, child, inside, guarded)


def own_imports(module: str, *, lazy: bool) -> set[str]:
    """The package's modules that a module imports at run time; with `lazy`, also those inside functions."""
    found = {i.name for i in imports(module) if not i.typing and (lazy or not i.lazy)}
    return found & set(modules())


def closure(starts: Iterable[str], *, lazy: bool, stop: frozenset[str] = frozenset()) -> set[str]:
    """The starts and all modules they import, directly or not; those in `stop` are left out."""
    reached: set[str] = set()
    waiting = [name for name in starts if name not in stop]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [found for found in own_imports(name, lazy=lazy) if found not in stop]
    return reached


def matching(pattern: str) -> list[str]:
    """The modules that a pattern such as `dlma.data.*` names."""
    return [name for name in modules() if fnmatch(name, pattern)]


@functools.cache
def code_hash(node: ast.AST) -> str:
    """A hash of what the code does: comments, layout, docstrings and type-checking imports do not count."""
    return hashlib.sha256(repr(_plain(node)).encode()).hexdigest()


def _plain(value: object) -> object:
    """A node as nested tuples, without what differs between Python versions."""
    if isinstance(value, list):
        return [_plain(item) for item in value if not _is_silent(item)]
    if not isinstance(value, ast.AST):
        return value
    fields = {name: item for name, item in ast.iter_fields(value) if name not in ("type_comment", "kind")}
    filled = [(name, _plain(item)) for name, item in fields.items() if item is not None and item != []]
    return (type(value).__name__, *filled)


def _is_silent(node: object) -> bool:
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
