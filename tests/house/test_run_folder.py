"""The run folder has one owner: the names of its files stand in runs/folder.py, those of the store in store/."""

import ast

import pytest
from source_tree import modules, tree

from dlma.runs import folder
from dlma.store import owned

FILES = {name for name in folder.NAMES if "." in name} | {owned.ROWS, owned.LABELS, owned.TRUTH}
OWNERS = ("dlma.runs.folder", "dlma.store.")
OTHERS = {("dlma.config.help", "config.yaml")}  # the primary config of conf/


def named(node: ast.AST) -> set[str]:
    """The files that a source names in code; pages that are part of the package are no run's."""
    assets = {id(arg) for call in ast.walk(node) if isinstance(call, ast.Call) for arg in call.args
              if isinstance(call.func, ast.Name) and call.func.id == "part"}  # fmt: skip
    texts = [part for part in ast.walk(node) if isinstance(part, ast.Constant) and id(part) not in assets]
    return {str(part.value) for part in texts} & FILES


@pytest.mark.parametrize("module", [name for name in modules() if not name.startswith(OWNERS)])
def test_no_other_module_names_a_file_of_a_run(module):
    assert {(module, name) for name in named(tree(module))} <= OTHERS


def test_the_rule_sees_names_in_code_and_not_in_prose():
    assert {"metrics.csv", "status.json", "rows.parquet", "config.yaml", "files.json"} <= FILES
    assert named(ast.parse('"""It reads metrics.csv."""\nx = folder / "metrics.csv"\n')) == {"metrics.csv"}
    assert named(ast.parse('page = part("report.html", "table")')) == set()
    assert named(ast.parse('x = f"{folder}/policy"')) == set()
