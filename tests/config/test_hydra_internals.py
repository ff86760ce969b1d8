"""What is private to Hydra is imported in one module, so that an upgrade of Hydra is read there."""

import ast
import os
from pathlib import Path

import pytest
import yaml
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from source_tree import modules, tree

from dlma.config import hydra_internals
from dlma.config.compose import PRIMARY, search_path
from dlma.config.hydra_internals import Loader, copied, create_config_search_path, read_yaml

CONF = Path(__file__).resolve().parents[2] / "conf"
WITH_DELETION = ["method=rlcd", "seed=7", "~intermediate", "++intermediate=3"]
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
    path = search_path(CONF, None)
    loader, plain = Loader(path), ConfigLoaderImpl(path)
    for choices in (["method=rlcd"], [], ["method=rlcd"]):
        wanted = plain.load_configuration(PRIMARY, choices, RunMode.RUN, validate_sweep_overrides=False)
        found = loader.compose(PRIMARY, choices)
        assert OmegaConf.to_container(found) == OmegaConf.to_container(wanted)
        found.seed = 77  # nobody else sees it
    entries = plain.compute_defaults_list(PRIMARY, ["method=rlcd"], RunMode.RUN).defaults
    assert [e.config_path for e in loader.chosen(PRIMARY, ["method=rlcd"])] == [e.config_path for e in entries]


def test_an_entry_that_names_anothers_choice_is_composed_as_hydra_alone_does(tmp_path, monkeypatch):
    """By the file, by the command line, within the name of a file; one that names nothing fails alike."""
    for name, text in {
        "main": "defaults: [_self_, {a: one}, {b: '${a}'}, 'b/${a}@third']",
        "broken": "defaults: [{a: one}, {b: '${nothing}'}]",
        **{f"{group}/{option}": f"is: {group} {option}" for group in "ab" for option in ("one", "two")},
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    path = create_config_search_path(str(tmp_path))
    lines = [[], ["a=two"], ["b=one", "a=two"]]
    found = [Loader(path).compose("main", each) for each in lines]
    with pytest.raises(ConfigCompositionException) as ours:
        Loader(path).compose("broken", [])
    monkeypatch.setattr(defaults_list, "_create_interpolation_map", hydra_internals._map_of_choices)
    plain = ConfigLoaderImpl(path)
    for ours_found, each in zip(found, lines, strict=True):
        wanted = plain.load_configuration("main", each, RunMode.RUN, False, False)
        assert {**ours_found, "hydra": None} == {**wanted, "hydra": None}
    assert [cfg.b["is"] for cfg in found] == ["b one", "b two", "b one"] and found[1].third["is"] == "b two"
    with pytest.raises(ConfigCompositionException) as theirs:
        plain.load_configuration("broken", [], RunMode.RUN, False, False)
    assert str(ours.value) == str(theirs.value)


LINES = ["method=rlcd", "seed=7", "recipe.beta=0.3", "+model.made={a: 1}", "hydra.job.env_copy=[HOME]", "mode=check"]


@pytest.mark.parametrize(
    "lines", [LINES, WITH_DELETION, ["hydra.run.dir=here", "name=x"], ["++recipe.lr=2.0", "recipe={lr: 1.0}"]]
)
def test_values_are_set_as_hydra_sets_them_and_all_that_it_notes_is_noted(lines, monkeypatch, tmp_path):
    path = search_path(CONF, None)
    loader, plain = Loader(path), ConfigLoaderImpl(path)
    loader.load_configuration(PRIMARY, ["method=rlcd", "seed=3"], RunMode.RUN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "elsewhere")
    found = loader.load_configuration(PRIMARY, lines, RunMode.RUN)
    assert found == plain.load_configuration(PRIMARY, lines, RunMode.RUN)
    with pytest.raises(ConfigCompositionException, match="unknown"):
        loader.load_configuration(PRIMARY, [*lines, "unknown.key=1"], RunMode.RUN)


def test_the_first_cell_of_a_sweep_is_composed_as_hydra_does():
    path, lines = search_path(CONF, None), ["method=rlcd,rlaif", "seed=0,1", "recipe.beta=0.3", "hydra.mode=MULTIRUN"]
    wanted = ConfigLoaderImpl(path).load_configuration(PRIMARY, lines, RunMode.MULTIRUN)
    assert Loader(path).load_configuration(PRIMARY, lines, RunMode.MULTIRUN) == wanted
    with pytest.raises(ConfigCompositionException, match="--multirun"):
        Loader(path).load_configuration(PRIMARY, lines, RunMode.RUN)


def test_a_file_that_was_changed_added_or_taken_away_is_seen_in_the_same_process(tmp_path):
    """Of the same length and at the same time: what counts is the text."""

    def value() -> object:
        return Loader(path).compose("main", ["+group=one"]).get("value")

    path = create_config_search_path(str(tmp_path))
    (tmp_path / "group").mkdir()
    (tmp_path / "main.yaml").write_text("defaults: [_self_, {optional group@_global_: other}]\nvalue: 0")
    one, other = tmp_path / "group" / "one.yaml", tmp_path / "group" / "other.yaml"
    for number in (1, 2):
        one.write_text(f"# @package _global_\nvalue: {number}")
        os.utime(one, (0, 0))
        assert value() == number
    one.write_text("a: 1")
    assert value() == 0
    other.write_text("value: 5")
    assert value() == 5
    other.unlink()
    assert value() == 0
    one.unlink()
    with pytest.raises(ConfigCompositionException):
        value()


def test_a_copy_is_whole_and_apart():
    cfg = Loader(search_path(CONF, None)).compose(PRIMARY, [])
    other = copied(cfg)
    assert other == cfg
    other.recipe.beta = 99.0
    assert cfg.recipe.beta != 99.0


def test_yaml_is_read_as_omegaconf_reads_it():
    texts = [file.read_text(encoding="utf-8") for file in CONF.rglob("*.yaml")]
    texts += [
        "",
        "a: 1e3\nb: 1_0\nc: .5\nd: 2020-01-01\ne: yes\nf: 0o7\ng: ~",
        "a: &x [1]\nb: *x",
        "<<: {a: 1}\nb: 2",
        "é: ü",
    ]
    for text in texts:
        wanted = yaml.load(text, get_yaml_loader())
        found = read_yaml(text)
        assert found == wanted and repr(found) == repr(wanted)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: [1", "a: b: c", "\ta: 1", "a: !!python/name:os.system x"])
def test_what_is_wrong_with_yaml_is_said_as_omegaconf_says_it(text):
    with pytest.raises(yaml.YAMLError) as wanted:
        yaml.load(text, get_yaml_loader())
    with pytest.raises(yaml.YAMLError) as found:
        read_yaml(text)
    assert str(found.value) == str(wanted.value)
