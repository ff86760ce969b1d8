"""What is private to Hydra is imported in one module, so that an upgrade of Hydra is read there."""

import ast
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode
from omegaconf import OmegaConf
from source_tree import modules, tree

from dlma.config.compose import PRIMARY, search_path
from dlma.config.hydra_internals import Loader

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


def test_a_choice_of_files_is_composed_as_hydra_does_and_each_time_for_the_caller_to_change():
    path = search_path(Path(__file__).resolve().parents[2] / "conf", None)
    loader, plain = Loader(path), ConfigLoaderImpl(path)
    for choices in (["method=rlcd"], [], ["method=rlcd"]):
        wanted = plain.load_configuration(PRIMARY, choices, RunMode.RUN, validate_sweep_overrides=False)
        found = loader.compose(PRIMARY, choices)
        assert OmegaConf.to_container(found) == OmegaConf.to_container(wanted)
        found.seed = 77  # nobody else sees it
    entries = plain.compute_defaults_list(PRIMARY, ["method=rlcd"], RunMode.RUN).defaults
    assert [e.config_path for e in loader.chosen(PRIMARY, ["method=rlcd"])] == [e.config_path for e in entries]
