"""What is private to Hydra is imported in one module, so that an upgrade of Hydra is read there."""

import ast

from source_tree import modules, tree

OWNER = "dlma.config.hydra_internals"


def private(node: ast.AST) -> list[str]:
    """The modules of Hydra's own that a source imports."""
    found = [part.module or "" for part in ast.walk(node) if isinstance(part, ast.ImportFrom)]
    found += [name.name for part in ast.walk(node) if isinstance(part, ast.Import) for name in part.names]
    return [name for name in found if name.startswith("hydra._internal")]


def test_one_module_imports_what_is_private_to_hydra():
    assert [module for module in modules() if private(tree(module))] == [OWNER]


def test_the_rule_sees_both_forms_of_an_import():
    assert private(ast.parse("def f():\n    from hydra._internal.hydra import Hydra\n    import hydra._internal.utils"))
    assert not private(ast.parse("from hydra.core.utils import setup_globals\nimport hydra"))
