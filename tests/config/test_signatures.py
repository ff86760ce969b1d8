"""Signatures as schemas: what stands in the source decides, and nothing is imported."""

import pytest

from dlma.config import signatures
from dlma.config.build import scientific
from dlma.errors import UserError

SOURCE = """
from dataclasses import dataclass
from typing import Annotated, Literal, Optional
from annotated_types import Ge, Gt, Le, Lt, MinLen
from dlma.ranges import Share

Kind = Literal["a", "b"]

@dataclass
class Inner:
    rank: int
    alpha: float = 1.0

class Thing:
    def __init__(self, model, /, *, size: int, rate: float, kind: Kind, inner: Inner | None,
                 names: list[str], extra: "dict[str, int] | None" = None, limit: Optional[int] = None,
                 width: Annotated[float, Gt(0), Le(2)] | None = None, share: "Share" = 0.5,
                 low: Annotated[int, Ge(-3), Lt(4)] = 0, some: Annotated[list[Share], MinLen(1)] = ()) -> None:
        self.values = (model, size, rate, kind, inner, names, extra, limit, width, share, low, some)
"""


@pytest.fixture
def thing(tmp_path, monkeypatch):
    """A package `dlma` with one module, so that a target can be read from a source of our own."""
    (tmp_path / "dlma").mkdir()
    (tmp_path / "dlma" / "made.py").write_text(SOURCE)
    monkeypatch.setattr(signatures, "PACKAGE", tmp_path / "dlma")
    return signatures.signature("dlma.made.Thing")


@pytest.mark.parametrize(
    "name, value, fits",
    [
        ("size", 3, True),
        ("size", 3.0, False),
        ("size", True, False),
        ("size", None, False),
        ("rate", 3, True),
        ("rate", 3.5, True),
        ("rate", False, False),
        ("rate", "3", False),
        ("rate", float("inf"), False),
        ("rate", float("nan"), False),
        ("kind", "a", True),
        ("kind", "c", False),
        ("inner", None, True),
        ("inner", 3, False),
        ("names", ["x"], True),
        ("names", ["x", 1], False),
        ("names", "x", False),
        ("extra", {"k": 1}, True),
        ("extra", {"k": "v"}, False),
        ("extra", None, True),
        ("limit", None, True),
        ("limit", 2, True),
        ("limit", "2", False),
        ("size", 10**400, True),  # a bare int has no range: none in the package is bare (test_ranges.py)
        ("rate", 10**400, False),
        ("rate", float("nan"), False),
        ("rate", float("-inf"), False),
        ("width", 0, False),
        ("width", 5e-324, True),
        ("width", 2, True),
        ("width", 2.0000001, False),
        ("width", None, True),
        ("width", True, False),
        ("width", float("nan"), False),
        ("share", 0, True),
        ("share", 1.0, True),
        ("share", -0.0, True),
        ("share", -1e-9, False),
        ("low", -3, True),
        ("low", -4, False),
        ("low", 3, True),
        ("low", 4, False),
        ("low", 3.0, False),
        ("some", [], False),
        ("some", [0.5], True),
        ("some", [0.5, 2], False),
    ],
)
def test_a_value_fits_its_annotation_or_not(thing, name, value, fits):
    assert signatures.accepts(value, thing.fields[name].annotation, thing) is fits


def test_configuration_is_what_stands_after_the_star_and_scientific_what_has_no_default(thing):
    assert list(thing.fields)[:7] == ["size", "rate", "kind", "inner", "names", "extra", "limit"]
    assert [name for name, field in thing.fields.items() if field.required] == list(thing.fields)[:5]
    node = {"_target_": "dlma.made.Thing", "_recipe_": "r", "size": 1, "rate": 2.0, "kind": "a", "inner": None}
    node |= {"names": ["x"], "extra": {"k": 1}}
    wanted = {k: v for k, v in node.items() if k not in ("_recipe_", "extra")} | {"_target_": "Thing"}
    assert scientific(node) == wanted


def test_a_signature_is_read_without_importing_its_module(tmp_path, monkeypatch):
    (tmp_path / "dlma").mkdir()
    (tmp_path / "dlma" / "bomb.py").write_text("raise SystemExit('imported')\ndef f(cfg, /, *, a: int): ...\n")
    monkeypatch.setattr(signatures, "PACKAGE", tmp_path / "dlma")
    assert list(signatures.signature("dlma.bomb.f").fields) == ["a"]


@pytest.mark.parametrize(
    "name, words",
    [
        ("size", "an integer"),
        ("width", "a number above 0 and at most 2 or null"),
        ("share", "a number from 0 to 1"),
        ("low", "an integer at least -3 and below 4"),
        ("some", "a list of at least 1, each item a number from 0 to 1"),
        ("limit", "an integer or null"),
    ],
)
def test_a_range_is_said_in_words(thing, name, words):
    assert signatures.describe(thing.fields[name].annotation, thing) == words


def test_a_whole_number_is_keyed_as_a_number_where_the_range_is_one_of_numbers(thing):
    assert repr(signatures.cast(1, thing.fields["width"].annotation, thing)) == "1.0"
    assert repr(signatures.cast(1, thing.fields["low"].annotation, thing)) == "1"


@pytest.mark.parametrize("target", ["dlma.app._unexpected", "dlma.stopping._Watch", "dlma.app.none"])
def test_what_is_private_or_not_there_is_no_target(target):
    with pytest.raises(UserError, match=f"_target_ {target}: {target.split('.')[1]} has no "):
        signatures.signature(target)


@pytest.mark.parametrize("line", ["    pass", '    """Only words."""', "    def speak(self): ..."])
def test_a_class_without_a_constructor_takes_what_its_base_of_another_module_takes(thing, tmp_path, line):
    (tmp_path / "dlma" / "own.py").write_text(f"from dlma.made import Thing as Base\n\nclass Own(Base):\n{line}\n")
    assert signatures.signature("dlma.own.Own") == thing


def test_a_constructor_of_its_own_hides_the_base_and_a_base_from_elsewhere_gives_nothing(thing, tmp_path):
    own = "from dlma.made import Thing\n\nclass Own(Thing):\n    def __init__(self, /, *, depth: int): ...\n"
    (tmp_path / "dlma" / "own.py").write_text(own + "\nfrom torch.nn import Module\n\nclass Far(Module): ...\n")
    assert list(signatures.signature("dlma.own.Own").fields) == ["depth"]
    assert not signatures.signature("dlma.own.Far").fields
