"""Mutants of `dlma/functional`: each is the module with one small fault, which the tests that mirror it must find.

    make mutants                      # all of them
    make mutants ARGS="noise margin"  # of some modules

A mutant has a comparison turned, an operator or a constant changed, a clamp taken away, two arguments swapped, a
condition negated. Those that no test finds stand in `tests/functional/survivors.yaml`, each with the reason why it is
no fault; one that is not listed, or is listed and found, ends this with exit code 1. Every mutant is tried in a process
of its own, by `tests/functional/test_<module>.py` alone.
"""

from __future__ import annotations

import ast
import copy
import gc
import importlib.util
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROOM = ROOT / "dlma" / "functional"
TESTS = ROOT / "tests" / "functional"
SURVIVORS = TESTS / "survivors.yaml"
SECONDS = 30  # of processor time; a mutant that runs longer is found, for the original takes 3

COMPARED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
COMPUTED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitXor: ast.BitOr,
}
JOINED = {ast.And: ast.Or, ast.Or: ast.And}
NAMED = {"max": "min", "min": "max", "maximum": "minimum", "minimum": "maximum", "any": "all", "all": "any"}
REMOVED = ("clamp", "clamp_min")


@dataclass(frozen=True)
class Place:
    """Where a node stands: in a function, in a field of another node, at an index where that is a list."""

    function: str
    parent: ast.AST
    field: str
    index: int | None

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def mutated(tree: ast.Module) -> Iterator[str]:
    """The name of each mutant of a module, which the tree is until the next one is asked for.

    A name says in which function which code becomes which, so that lines above and below it do not change it.
    """
    seen: Counter[str] = Counter()
    for place, node in list(_places(tree)):
        # A number says nothing alone: it is named by what it stands in.
        whole = _number(node) is not None and isinstance(place.parent, ast.expr)
        before = ast.unparse(place.parent if whole else node)
        for changed in _changed(node):
            place.put(changed)
            name = " ".join(f"{place.function}: {before} -> {ast.unparse(place.parent if whole else changed)}".split())
            seen[name] += 1
            yield name if seen[name] == 1 else f"{name} ({seen[name]})"
            place.put(node)


def _places(node: ast.AST, inside: str = "module") -> Iterator[tuple[Place, ast.AST]]:
    """What is computed, and where; annotations and the signs of numbers are not."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST):
                continue
            where = child.name if isinstance(child, ast.FunctionDef) else inside
            yield Place(where, node, name, index), child
            if _number(child) is None:
                yield from _places(child, where)


def _number(node: ast.AST) -> float | None:
    """The number that a node spells, its sign included."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    is_number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
    return node.value if is_number else None


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    if (number := _number(node)) is not None:
        yield ast.parse(repr(number + 1), mode="eval").body
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            yield _with(node, ops=[*node.ops[:i], COMPARED[type(op)](), *node.ops[i + 1 :]])
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in COMPUTED:
        yield _with(node, op=COMPUTED[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=JOINED[type(node.op)]())
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Call):
        yield from _called(node)
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and isinstance(node.test, ast.Name | ast.Call):
        yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))


def _called(node: ast.Call) -> Iterator[ast.AST]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in REMOVED and isinstance(node.func, ast.Attribute):
        yield node.args[0] if ast.unparse(node.func.value) == "torch" else node.func.value
    if name in NAMED:
        part = "attr" if isinstance(node.func, ast.Attribute) else "id"
        yield _with(node, func=_with(node.func, **{part: NAMED[name]}))
    if len(node.args) > 1 and not any(isinstance(arg, ast.Starred) for arg in node.args[:2]):
        first, second, *rest = node.args
        if ast.dump(first) != ast.dump(second):
            yield _with(node, args=[second, first, *rest])


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.deepcopy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


# Trying them


class Mutated:
    """The finder and loader of one module, whose source is another than on disk."""

    def __init__(self, module: str, source: str):
        self.module, self.source = module, source

    def find_spec(self, name: str, path: object = None, target: object = None):
        return importlib.util.spec_from_loader(name, self) if name == self.module else None

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module) -> None:
        exec(compile(self.source, self.module, "exec"), module.__dict__)


class NoShrinking:
    """A pytest plugin: an example that fails is enough, it need not be made small."""

    def pytest_collection(self) -> None:
        from hypothesis import Phase, settings

        settings.register_profile("mutants", settings.get_profile("same"), phases=[Phase.explicit, Phase.generate])
        settings.load_profile("mutants")


def survives(module: str, source: str) -> bool:
    """Whether the tests of a module pass with this source in its place; tried in a forked process."""
    child = os.fork()
    if not child:
        os._exit(_tried(module, source))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _tried(module: str, source: str) -> int:
    import pytest

    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    sys.meta_path.insert(0, Mutated(f"dlma.functional.{module}", source))
    words = ["-q", "-x", "-p", "no:cacheprovider", "-p", "pytest_timeout", str(TESTS / f"test_{module}.py")]
    return int(pytest.main(words, plugins=[NoShrinking()]))


def heavy_imports() -> None:
    """What tests import and mutants are not of: once, before the processes part."""
    import hypothesis.strategies
    import scipy.optimize
    import scipy.stats
    import torch.utils.checkpoint
    import transformers.optimization

    assert all((hypothesis.strategies, scipy.stats, scipy.optimize, torch.utils.checkpoint, transformers.optimization))
    assert not any(name.startswith("dlma.functional.") for name in sys.modules)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    gc.collect()
    gc.freeze()  # what is there by now is never looked through again, nor copied by a process that does


def listed() -> dict[str, dict[str, str]]:
    """The mutants that are no faults, by module, each with its reason."""
    return yaml.safe_load(SURVIVORS.read_text(encoding="utf-8"))


def main(*names: str) -> int:
    os.chdir(ROOT)
    heavy_imports()
    known, wrong = listed(), 0
    for path in sorted(ROOM.glob("[!_]*.py")):
        if names and path.stem not in names:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not survives(path.stem, ast.unparse(tree)):
            raise SystemExit(f"{path.stem}: its tests fail without any fault")
        tried = {name: survives(path.stem, ast.unparse(tree)) for name in mutated(tree)}
        alive, expected = {name for name in tried if tried[name]}, set(known.get(path.stem, {}))
        print(f"{path.stem}: {len(tried)} mutants, {len(tried) - len(alive)} found by the tests", flush=True)
        for name in sorted(alive ^ expected):
            wrong += 1
            print(f"  {'no test finds' if name in alive else 'listed, and yet found or not there:'} {name}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
