"""The Alpaca format: instruction and input are one prompt, the output is an answer without a rival."""

import pytest

from dlma.data.alpaca import Alpaca
from dlma.data.split import Found
from dlma.errors import BadRow, UserError
from dlma.records import Turn


@pytest.mark.parametrize(
    ("given", "prompt"),
    [("", "Name a colour."), ("of grass", "Name a colour. of grass"), (None, "Name a colour.")],
)
def test_instruction_and_input_are_joined_by_a_blank(given, prompt):
    row = {"instruction": "Name a colour.", "input": given, "output": "Green.", "text": "Below is an instruction ..."}
    assert Alpaca().found(row) == Found([Turn("user", prompt)], chosen="Green.")


def test_a_row_may_lack_the_input_and_nothing_else():
    assert Alpaca().found({"instruction": "a", "output": "b"}).chosen == "b"
    with pytest.raises(BadRow, match="empty answer"):
        Alpaca().found({"instruction": "a", "input": "", "output": " "})
    with pytest.raises(UserError, match="no column 'output'"):
        Alpaca().found({"instruction": "a"})
