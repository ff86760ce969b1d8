"""Mutants of the mathematics: which there are of a source, and that those listed as no faults are there."""

import ast

import pytest
from mutants import ROOM, SURVIVORS, listed, mutated

SOURCE = """
def f(a: int, b, *, low: float = 0.5):
    'Text is left as it is: 1 < 2.'
    if not a or b >= -1:
        return torch.where(a, b, a).clamp(low, 2)
    while a:
        a -= max(a, b) * True
    return a
"""
WANTED = """
0.5 -> 1.5
not a or b >= -1 -> not a and b >= -1
not a -> a
b >= -1 -> b > -1
b >= -1 -> b >= 0
torch.where(a, b, a).clamp(low, 2) -> torch.where(a, b, a)
torch.where(a, b, a).clamp(low, 2) -> torch.where(a, b, a).clamp(2, low)
torch.where(a, b, a) -> torch.where(b, a, a)
torch.where(a, b, a).clamp(low, 2) -> torch.where(a, b, a).clamp(low, 3)
while a: a -= max(a, b) * True -> while not a: a -= max(a, b) * True
a -= max(a, b) * True -> a += max(a, b) * True
max(a, b) * True -> max(a, b) / True
max(a, b) -> min(a, b)
max(a, b) -> max(b, a)
True -> False
"""


def test_the_mutants_of_a_source_are_those_by_hand_and_each_is_another_source():
    tree = ast.parse(SOURCE)
    plain = ast.unparse(tree)
    texts = {name: ast.unparse(tree) for name in mutated(tree)}
    assert [name.removeprefix("f: ") for name in texts] == WANTED.strip().splitlines()
    assert len({plain, *texts.values()}) == len(texts) + 1 and ast.unparse(tree) == plain


@pytest.mark.parametrize("module", sorted(listed()))
def test_a_mutant_that_is_listed_as_no_fault_is_there_with_its_reason(module):
    there = set(mutated(ast.parse((ROOM / f"{module}.py").read_text())))
    assert set(listed()[module]) <= there, SURVIVORS
    assert all(len(reason.split()) > 2 for reason in listed()[module].values())
