"""All pairs of a file as lists, with the account of its rows."""

from dlma.pairs.imported import FilePairs
from dlma.records import Account, Pair


def imported_pairs(path: str, tokenizer, wording, **limits) -> tuple[list[Pair], Account]:
    found = FilePairs(path, tokenizer, wording, with_margin=False, **limits)
    return list(found), found.account


def imported_margins(path: str, tokenizer, wording, **limits) -> tuple[list[tuple[Pair, float, str]], Account]:
    """Each pair with its margin and chosen side."""
    found = FilePairs(path, tokenizer, wording, with_margin=True, **limits)
    pairs = list(found)
    assert [label.id for label in found.labels] == [pair.id for pair in pairs]
    return [(pair, label.margin, label.chosen) for pair, label in zip(pairs, found.labels)], found.account
