"""The type checker looks at every module of the package: no rule, comment or bare `ignore` takes one out."""

import re
import tomllib

from source_tree import ROOT, modules

MYPY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
LOOSE = ("exclude", "ignore_errors", "disable_error_code", "follow_imports")  # options that let errors pass


def test_the_whole_package_is_checked_untyped_functions_too():
    assert MYPY["files"] == ["dlma"] and MYPY["check_untyped_defs"] is True
    assert [option for option in LOOSE if option in MYPY] == []


def test_no_rule_takes_a_module_of_the_package_out():
    assert [rule["module"] for rule in MYPY["overrides"] if set(LOOSE) & rule.keys()] == []
    names = [name for rule in MYPY["overrides"] for name in rule["module"]]
    assert [name for name in names if name.split(".")[0] == "dlma"] == []


def test_no_file_and_no_line_is_ignored_but_by_the_code_of_its_error():
    bare = [
        f"{module}:{number}"
        for module, path in modules().items()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"#\s*mypy:|#\s*type:\s*ignore(?!\[)|@(typing\.)?no_type_check", line)
    ]
    assert bare == []
