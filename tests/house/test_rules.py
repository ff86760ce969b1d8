"""The house rules, held by reading the source: sizes, files, classes, and what is never written.

Each rule is run over the whole package, and over a small wrong source that it has to catch.
"""

import ast
import functools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping

import pytest
from source_tree import ROOT, is_package, modules, tree

FILE_WARNING, FILE_ERROR = 300, 450
FUNCTION_WARNING, FUNCTION_ERROR = 40, 70

METHODS = {path.stem for path in (ROOT / "conf" / "method").glob("*.yaml")}
ARMS = {"base", "prompted"}  # also names of arms of the evaluation, which may be compared
SOURCES = sorted([*modules().values(), *(ROOT / "tests").rglob("*.py"), *ROOT.glob("*.py")])


# Sizes


def functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for child in ast.walk(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return function.end_lineno - function.lineno + 1


def long_parts(texts: Mapping[str, str], limit_file: int, limit_function: int) -> list[str]:
    """The files, and the functions in them, that are longer than the limits; `texts` by file name."""
    found = []
    for name, text in texts.items():
        lines = len(text.splitlines())
        if lines > limit_file:
            found.append(f"{name}: {lines} lines")
        found += [
            f"{name}: {f.name} {length(f)} lines" for f in functions(ast.parse(text)) if length(f) > limit_function
        ]
    return found


def sources() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in SOURCES}


def test_no_file_or_function_is_far_too_long():
    assert long_parts(sources(), FILE_ERROR, FUNCTION_ERROR) == []


def test_long_files_and_functions_are_listed():
    if found := long_parts(sources(), FILE_WARNING, FUNCTION_WARNING):
        warnings.warn("longer than they should be: " + "; ".join(found), stacklevel=1)


def test_what_is_longer_than_its_limit_is_named_and_what_reaches_it_is_not():
    body = "    x = 1\n"
    text = f"def short():\n{body * 2}\n\ndef long():\n{body * 3}\n\nclass A:\n    def inner(self):\n    {body}"
    lines = len(text.splitlines())
    assert long_parts({"a.py": text}, lines, 3) == ["a.py: long 4 lines"]
    assert long_parts({"a.py": text, "b.py": "x = 1\n"}, lines - 1, 4) == [f"a.py: {lines} lines"]


def test_the_length_of_a_function_counts_all_its_lines():
    (function,) = functions(ast.parse("x = 1\ndef f():\n    a = (\n        1\n    )\n    return a\n"))
    assert length(function) == 5


# What is never written


def get_on_config(node: ast.AST) -> Iterator[str]:
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "get":
            name = ast.unparse(call.func.value)
            if "cfg" in name:
                yield f"line {call.lineno}: {name}.get(...): name the key, the schema holds it"


def silent_except(node: ast.AST) -> Iterator[str]:
    for handler in ast.walk(node):
        if isinstance(handler, ast.ExceptHandler) and all(isinstance(item, ast.Pass) for item in handler.body):
            kind = ast.unparse(handler.type) if handler.type else "BaseException"
            if kind in ("Exception", "BaseException"):
                yield f"line {handler.lineno}: every error is swallowed"


def open_constructor(node: ast.AST) -> Iterator[str]:
    for function in functions(node):
        if function.name == "__init__" and function.args.kwarg:
            yield f"line {function.lineno}: **{function.args.kwarg.arg} in a constructor hides its schema"


def method_name(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Compare):
            sides = [part.left, *part.comparators]
            about = any("method" in ast.unparse(side) for side in sides)
            texts = {c.value for side in sides for c in ast.walk(side) if isinstance(c, ast.Constant)}
        elif isinstance(part, ast.MatchValue | ast.Dict):
            about = False
            keys = [part.value] if isinstance(part, ast.MatchValue) else part.keys
            texts = {key.value for key in keys if isinstance(key, ast.Constant)}
        else:
            continue
        for name in sorted(texts & (METHODS if about else METHODS - ARMS), key=str):
            yield f"line {part.lineno}: the method {name!r} is asked for by name; make it a YAML"


TAGS = "a article b body br button code dd div dl dt h1 h2 h3 h4 head html i img input label li main nav ol option p"
TAGS += " pre script section select span style svg table tbody td th thead tr ul circle line path polyline rect text"
TAG = re.compile(rf"</?({'|'.join(TAGS.split())})(?=[\s>/]|$)")


def html_tag(node: ast.AST) -> Iterator[str]:
    docstrings = {
        part.body[0].value
        for part in ast.walk(node)
        if isinstance(part, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(part)
    }
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and part not in docstrings:
            for tag in TAG.finditer(part.value):
                yield f"line {part.lineno}: {tag[0]} in a string: pages are templates, which escape what they are given"


NUMERIC = ("numpy", "scipy")


def computation(node: ast.AST) -> Iterator[str]:
    """For the report, which shows what other rooms have computed."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in part.names}
            source = part.module or "" if isinstance(part, ast.ImportFrom) else ""
            whole = {f"{source}.{name}".strip(".") for name in names}
            known = {"dlma.statistics.format", "dlma.statistics.intervals.Estimate"}  # a number, and how it is said
            for name in sorted(whole):
                room = ".".join(name.split(".")[:2])
                if (room == "dlma.statistics" and not name.startswith(tuple(known))) or name.split(".")[0] in NUMERIC:
                    yield f"line {part.lineno}: {name}: the report shows; compute it in checks, metrics, sweep"


RULES = [get_on_config, silent_except, open_constructor, method_name, html_tag]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_nowhere_in_the_package(rule: Callable):
    assert [f"{module} {line}" for module in modules() for line in rule(tree(module))] == []


def test_the_report_computes_nothing():
    report = [module for module in modules() if module.startswith("dlma.report.")]
    assert [f"{module} {line}" for module in report for line in computation(tree(module))] == []


@pytest.mark.parametrize(
    ("rule", "source", "count"),
    [
        (get_on_config, "x = cfg.get('lr', 1)\ny = self.cfg.model.get('path')", 2),
        (get_on_config, "x = table.get('lr')", 0),
        (silent_except, "try:\n    f()\nexcept Exception:\n    pass", 1),
        (silent_except, "try:\n    f()\nexcept:\n    pass", 1),
        (silent_except, "try:\n    f()\nexcept KeyError:\n    pass", 0),
        (open_constructor, "class A:\n    def __init__(self, /, *, a, **rest): ...", 1),
        (open_constructor, "class A:\n    def call(self, **rest): ...", 0),
        (method_name, "if kind == 'dlma': pass", 1),
        (method_name, "if kind in ('rlcd', 'other'): pass", 1),
        (method_name, "match kind:\n    case 'rlcd': pass", 1),
        (method_name, "beta = {'dlma': 1, 'other': 2}[kind]", 1),
        (method_name, "if cfg.method == 'base': pass", 1),
        (method_name, "if arm == 'base': pass", 0),
        (method_name, "if kind == 'other': pass", 0),
        (computation, "import numpy as np\nfrom scipy.stats import norm\nfrom dlma.statistics import intervals", 3),
        (computation, "from dlma.statistics.intervals import Estimate, mean_interval", 1),
        (computation, "from dlma.statistics.format import number\nfrom statistics import fmean", 0),
        (html_tag, "x = f'<td class=\"{css}\">{value}</td>'", 2),
        (html_tag, "x = '<br>' + '<svg viewBox'", 2),
        (html_tag, "def f():\n    \"\"\"Writes <b>.\"\"\"\n    return '<s>' + '<bos>' + 'a < b'", 0),
    ],
)
def test_each_rule_catches_what_it_should(rule, source, count):
    assert len(list(rule(ast.parse(source)))) == count


def test_the_rule_on_method_names_knows_the_methods():
    assert {"dlma", "rlcd", "base"} <= METHODS


# Classes


def bases_of(nodes: dict[str, ast.AST]) -> dict[str, list[str]]:
    """Every class of the package with the names of its bases."""
    found: dict[str, list[str]] = {}
    for node in nodes.values():
        for part in ast.walk(node):
            if isinstance(part, ast.ClassDef):
                found.setdefault(part.name, []).extend(ast.unparse(base).split(".")[-1] for base in part.bases)
    return found


def depth(name: str, bases: dict[str, list[str]]) -> int:
    """How many own classes stand above a class."""
    return max((1 + depth(base, bases) for base in bases[name] if base in bases), default=0)


def test_own_classes_inherit_at_most_once():
    bases = bases_of({module: tree(module) for module in modules()})
    assert [name for name in bases if depth(name, bases) > 1] == []


def test_the_depth_of_a_class_counts_own_classes_only():
    source = "class A(pl.LightningModule): ...\nclass B(a.A): ...\nclass C(B, Generic[T]): ...\nclass D: ..."
    bases = bases_of({"m": ast.parse(source)})
    assert {name: depth(name, bases) for name in bases} == {"A": 0, "B": 1, "C": 2, "D": 0}


# Files


def test_every_package_has_an_init_that_is_a_docstring_and_nothing_else():
    folders = {path.parent for path in modules().values()}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []
    packages = [module for module in modules() if is_package(module)]
    assert [m for m in packages if len(tree(m).body) != 1 or not ast.get_docstring(tree(m))] == []


def test_every_module_says_what_it_is():
    assert [module for module in modules() if not ast.get_docstring(tree(module))] == []


def test_no_module_is_a_drawer_for_anything():
    assert [m for m in modules() if m.split(".")[-1] in ("utils", "util", "helpers", "common", "misc")] == []


# Names in text


def stale_files(text: str) -> list[str]:
    """The Python files that a text names and the project does not have; a name may begin at any folder."""
    named = set(re.findall(r"(?<![\w*/.{}])(?:[\w-]+/)*\w+\.py\b", text))
    return sorted(name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in FILES))


FILES = [
    str(path.relative_to(ROOT))
    for folder in ("dlma", "tests", "experiments", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
] + ["run.py"]
# Files of other projects.
FOREIGN = {"scripts/run_evaluation.py"}


def test_the_files_that_the_package_names_are_there():
    found = {module: stale_files(path.read_text(encoding="utf-8")) for module, path in modules().items()}
    assert {module: set(names) - FOREIGN for module, names in found.items() if set(names) - FOREIGN} == {}


def test_a_file_is_named_by_the_end_of_its_path():
    assert stale_files("see app.py, dlma/app.py and `model/engine.py`, but not gone.py or data/engine.py") == [
        "data/engine.py",
        "gone.py",
    ]


def stale_names(node: ast.AST) -> list[str]:
    """The strings that are a dotted name of the package and lead nowhere, as in `monkeypatch.setattr("dlma. ...")`."""
    texts = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return sorted(text for text in texts if re.fullmatch(r"dlma(\.\w+){2,}", text) and leads_nowhere(text))


def leads_nowhere(text: str) -> bool:
    parts = text.split(".")
    module = next(m for n in range(len(parts), 0, -1) if (m := ".".join(parts[:n])) in modules())
    rest = parts[module.count(".") + 1 :]
    return bool(rest) and rest[0] not in defined(module)


@functools.cache
def defined(module: str) -> set[str]:
    """The names that a module defines or imports, and those of its classes and functions."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


def test_names_of_the_package_in_strings_of_the_kit_and_the_experiments_lead_somewhere():
    folders = [ROOT / "dlma", ROOT / "tests" / "kit", ROOT / "experiments", ROOT / "benchmarks"]
    files = [path for f in folders for path in f.rglob("*.py") if not path.name.startswith("catalogue")]  # of bad input
    found = {path: stale_names(ast.parse(path.read_text("utf-8"))) for path in files}
    assert {str(path): names for path, names in found.items() if names} == {}


def patched(node: ast.AST) -> Iterator[str]:
    """The dotted names that a test hands to monkeypatch."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("monkeypatch.setattr", "monkeypatch.delattr"):
            yield from (arg.value for arg in call.args[:1] if isinstance(arg, ast.Constant))


def test_names_that_tests_patch_lead_somewhere():
    trees = {path: ast.parse(path.read_text("utf-8")) for path in (ROOT / "tests").rglob("*.py")}
    names = {str(path): [n for n in patched(node) if n.startswith("dlma.")] for path, node in trees.items()}
    assert {path: [n for n in found if leads_nowhere(n)] for path, found in names.items() if found} == {
        path: [] for path, found in names.items() if found
    }


def test_a_dotted_name_leads_to_a_module_or_to_what_it_defines():
    source = "a('dlma.files.write_json')\nb('dlma.files.gone')\nc('dlma.gone.files')\nd('dlma.store.store')"
    assert stale_names(ast.parse(source)) == ["dlma.files.gone", "dlma.gone.files"]
