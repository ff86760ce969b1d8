"""Names of run folders: readable, safe, and different for different runs."""

import pytest

from dlma.config import run_names


@pytest.mark.parametrize(
    "method, overrides, expected",
    [
        ("dlma", [], "dlma"),
        ("dlma", [("seed", "1"), ("x.y", "a-b_c.d")], "dlma,seed=1,x.y=a-b_c.d"),
        ("dlma,base", [("seed", "0,1,2")], "dlma+base,seed=0+1+2"),
    ],
)
def test_names_show_method_and_overrides(method, overrides, expected):
    assert run_names.join(method, overrides) == expected


def test_names_are_safe_short_and_tell_apart_what_they_do_not_show():
    values = ["/a/model", "/b/model", "../../etc", "a b", "a:b", "a*b", "x" * 300, "x" * 299 + "y", ".", "ü"]
    made = [run_names.join("dlma", [("model.path", value)]) for value in values]
    assert len(set(made)) == len(values)
    for name in made:
        assert len(name) <= 80 and not name.startswith(".")
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=,+-")
    assert made[0].startswith("dlma,model.path=model-")
    assert run_names.safe("a" * 80) == "a" * 80
