"""The map of the project, held by reading the source: a room for every group of conf/, a test file for every module."""

import ast
import re
import sys
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from source_tree import ROOT, closure, imports, imports_of, is_package, modules, tree

# Groups whose components stand in a room of another name.
ALIASES = {"mode": "modes", "preflight": "checks", "alerts": "checks", "panel": "checks"}
# The pipeline itself is the mode; a recipe is numbers, and its one part belongs to the trainings that it is for.
APART = {("recipe", "dlma.training.optim.Optim")}

# What stands in dlma/ and is no group of conf/, with what it is.
FOUNDATIONS = {
    "app": "the entry",
    "context": "one run of one config",
    "pipeline": "the stages of a run",
    "finish": "the end of a run",
    "api": "the self-reward without a run",
    "records": "rows of every stage",
    "files": "atomic writes",
    "wheels": "files from the package index",
    "csv_text": "CSV that a spreadsheet reads as text",
    "screen": "the terminal",
    "redaction": "secrets",
    "ranges": "the ranges of configured numbers",
    "http_client": "JSON over HTTP",
    "stopping": "signals",
    "cores": "threads",
    "errors": "exceptions that mean something",
    "config": "the composed config",
    "store": "the stages on disk",
    "runs": "run folders",
    "functional": "the mathematics",
    "statistics": "intervals and tests",
    "training": "what the training rules share",
    "cost": "operations and memory",
    "plan": "mode=plan before a run",
    "sweep": "from runs to results",
    "report": "tables and pages",
    "lab": "the artificial world",
    **dict.fromkeys(ALIASES.values(), "rooms of the aliases"),
}
PACKAGE_LINES, PACKAGE_FILES = 2_000, 14


# Groups and rooms


def groups() -> set[str]:
    return {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}


def targets(node: object) -> Iterator[str]:
    """The outermost `_target_`s of a node of YAML; those inside a component are parts of it."""
    if isinstance(node, dict):
        if "_target_" in node:
            if node["_target_"] is not None:
                yield node["_target_"]
        else:
            for value in node.values():
                yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


CONFIGURED = {t for path in (ROOT / "conf").rglob("*.yaml") for t in targets(yaml.safe_load(path.read_text("utf-8")))}


def strays(group: str, node: object) -> list[str]:
    """The targets of a YAML of a group that do not stand in the group's room."""
    room = f"dlma.{ALIASES.get(group, group)}."
    return [t for t in targets(node) if not t.startswith(room) and (group, t) not in APART]


def test_a_groups_components_stand_in_the_room_of_its_name():
    found = {
        str(path.relative_to(ROOT)): strays(group, yaml.safe_load(path.read_text(encoding="utf-8")))
        for group in groups()
        for path in (ROOT / "conf" / group).rglob("*.yaml")
    }
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("group", "text", "wrong"),
    [
        ("judges", "llm: {_target_: dlma.judges.llm.LLMJudge, by: {_target_: dlma.model.load.hf_model}}", []),
        ("judges", "llm: {_target_: dlma.endpoint.Endpoint}", ["dlma.endpoint.Endpoint"]),
        ("labels", "_target_: dlma.labels.Labels", []),
        ("labels", "_target_: dlma.labelsmith.Labels", ["dlma.labelsmith.Labels"]),
        ("mode", "_target_: dlma.modes.run.run", []),
        ("mode", "_target_: dlma.lab.build.run", ["dlma.lab.build.run"]),
        ("alerts", "_target_: dlma.checks.alerts.Alerts", []),
        ("sft", "_target_: null", []),
        ("recipe", "{_target_: dlma.training.optim.Optim}", []),
        ("sft", "{_target_: dlma.training.optim.Optim}", ["dlma.training.optim.Optim"]),
        ("method", "[a, {_target_: dlma.sft.X}]", ["dlma.sft.X"]),
    ],
)
def test_the_rule_on_rooms_catches_what_it_should(group, text, wrong):
    assert strays(group, yaml.safe_load(text)) == wrong


def test_there_are_at_most_four_aliases_and_each_is_of_a_group():
    assert len(ALIASES) <= 4 and set(ALIASES) <= groups()
    assert [group for group in ALIASES if f"dlma.{group}" in modules()] == []


def test_everything_in_the_package_is_a_group_or_a_named_foundation():
    names = {name.split(".")[1] for name in modules() if name != "dlma"}
    assert names - groups() - set(FOUNDATIONS) == set()
    assert set(FOUNDATIONS) - names == set()  # none is left of what is gone
    assert set(FOUNDATIONS) & groups() == set()


# Classes


def class_doubles(nodes: Mapping[str, ast.AST]) -> dict[str, list[str]]:
    """The public classes whose name stands more than once, with their modules."""
    places: dict[str, list[str]] = {}
    for module, node in nodes.items():
        for part in ast.walk(node):
            if isinstance(part, ast.ClassDef) and not part.name.startswith("_"):
                places.setdefault(part.name, []).append(module)
    return {name: where for name, where in places.items() if len(where) > 1}


def test_no_two_public_classes_share_a_name():
    assert class_doubles({module: tree(module) for module in modules()}) == {}


def test_the_rule_on_class_names_looks_at_public_ones_only():
    one, two = ast.parse("class A: ...\nclass _B: ..."), ast.parse("class _B: ...\ndef f():\n    class A: ...")
    assert class_doubles({"m": one, "n": two}) == {"A": ["m", "n"]}


# Tests


def mirror(module: str) -> Path:
    """The test file of a module."""
    *rooms, name = module.split(".")[1:]
    return ROOT.joinpath("tests", *rooms, f"test_{name}.py")


# Modules whose laws stand in another test file, and why that is the better place.
TESTED_BY = yaml.safe_load((Path(__file__).with_name("tested_elsewhere.yaml")).read_text(encoding="utf-8"))


def reaches(path: Path, module: str) -> bool:
    """Whether a test file imports a module, itself, by way of others or of tests/kit; a run may reach any component."""
    if path.parent.name == "system":
        return True
    text = path.read_text(encoding="utf-8")
    kit = [file for file in (ROOT / "tests" / "kit").glob("*.py") if re.search(rf"\b{file.stem}\b", text)]
    texts = [text, *(file.read_text(encoding="utf-8") for file in kit)]
    named = {i.name for one in texts for i in imports_of("tests", ast.parse(one))}
    if "run_main" in text or "dlma.app" in named:
        named |= {target.rpartition(".")[0] for target in CONFIGURED}
    return module in closure(named & set(modules()), lazy=True)


def test_every_module_has_a_test_file_of_its_name_or_says_where_its_laws_stand():
    own = [module for module in modules() if not is_package(module)]
    assert [m for m in own if not mirror(m).is_file() and m not in TESTED_BY] == []


def test_what_is_tested_elsewhere_is_tested_there():
    assert [m for m in TESTED_BY if m not in modules() or mirror(m).is_file()] == []  # the list only holds what it must
    assert [m for m, (place, _) in TESTED_BY.items() if not (ROOT / place).is_file()] == []
    assert [m for m, (place, _) in TESTED_BY.items() if not reaches(ROOT / place, m)] == []
    assert [m for m, (_, reason) in TESTED_BY.items() if len(reason.split()) < 3] == []


def test_no_test_file_imports_another():
    files = (ROOT / "tests").rglob("*.py")
    found = {
        str(path.relative_to(ROOT)): [i.name for i in imports_of("tests", ast.parse(path.read_text(encoding="utf-8")))]
        for path in files
    }
    lent = {path: [n for n in names if n.split(".")[-1].startswith("test_")] for path, names in found.items()}
    assert {path: names for path, names in lent.items() if names} == {}  # what is shared stands in tests/kit


# Sizes


def large_packages(lines: Mapping[str, int]) -> list[str]:
    """The packages with too many lines or files; `lines`: of every module."""
    rooms: dict[str, list[int]] = {}
    for module, count in lines.items():
        if module.count(".") > 1:
            rooms.setdefault(module.rpartition(".")[0], []).append(count)
    return [
        f"{room}: {sum(counts)} lines in {len(counts)} files"
        for room, counts in rooms.items()
        if sum(counts) > PACKAGE_LINES or len(counts) > PACKAGE_FILES
    ]


def test_large_packages_are_listed():
    own = {name: path for name, path in modules().items() if not is_package(name)}
    if found := large_packages({name: len(path.read_bytes().splitlines()) for name, path in own.items()}):
        warnings.warn("larger than they should be: " + "; ".join(found), stacklevel=1)


def test_a_package_is_large_by_lines_or_by_files():
    assert large_packages({"dlma.a.x": 2_000, "dlma.app": 9_999}) == []
    assert large_packages({"dlma.a.x": 1_990, "dlma.a.y": 11}) == ["dlma.a: 2001 lines in 2 files"]
    files = {f"dlma.a.m{i}": 1 for i in range(15)}
    assert large_packages(files) == ["dlma.a: 15 lines in 15 files"]


# Dependencies

# Distributions whose module has another name.
MODULE_OF = {
    "hydra-joblib-launcher": "joblib",
    "hydra-optuna-sweeper": "optuna",
    "hydra-submitit-launcher": "submitit",
    **{
        "hydra-core": "hydra",
        "pyyaml": "yaml",
        "lm-eval": "lm_eval",
        "mlflow-skinny": "mlflow",
        "wandb-workspaces": "wandb_workspaces",
    },
    "mlflow-skinny": "mlflow",
    **{"vadersentiment": "vaderSentiment", "alt-profanity-check": "profanity_check"},
}
# Distributions that are asked for and never imported, with what takes them.
UNIMPORTED = {
    "bitsandbytes": "transformers quantises with it",
    **dict.fromkeys(("sqlalchemy", "alembic"), "Optuna's storage, in versions that the sweeper's Optuna works with"),
}


def declared(*extras: str) -> set[str]:
    """The modules of the dependencies in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    names = [re.match(r"[\w.-]+", line)[0].lower() for line in lines]
    return {MODULE_OF.get(name, name.replace("-", "_")) for name in names if name not in UNIMPORTED}


def test_what_the_package_imports_is_declared_and_what_is_declared_is_imported():
    used = {i.name.split(".")[0] for module in modules() for i in imports(module)}
    used -= set(sys.stdlib_module_names) | {"dlma", ""}
    assert used == declared(
        "benchmarks", "qlora", "dashboard", "real", "profanity", "loggers", "sweep", "ray", "optuna"
    )
