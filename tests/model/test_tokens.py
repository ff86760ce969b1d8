"""Text to ids, on tokenizers of every shape: one BOS, answers that do not depend on what stands before, one EOS."""

import pytest
from toy_tokenizers import KINDS, SENTENCES, tokenizer

from dlma.errors import BadRow
from dlma.model.tokens import answer_ids, encode, pieces, with_eos


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_one_bos_stands_in_front_whatever_the_text_brings(kind):
    own = tokenizer(kind)
    bos = own.bos_token_id
    alone, brought = encode(own, ["how are you?", (own.bos_token or "") + "how are you?"])
    if bos is not None:
        assert all(ids[0] == bos and bos not in ids[1:] for ids in (alone, brought))
    if kind != "metaspace":  # it writes a space before a text that begins with a word, and none after a token
        assert alone == brought
    assert encode(own, []) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_pieces_of_a_text_are_the_text(kind):
    own = tokenizer(kind)
    ids = own(SENTENCES[0], add_special_tokens=False)["input_ids"]
    assert "".join(pieces(own, ids)) == own.decode(ids, skip_special_tokens=False)
    assert pieces(own, []) == []


def test_an_answer_is_what_follows_its_contexts():
    assert answer_ids([[1, 2], [1, 3, 4]], [[1, 2, 8, 9], [1, 3, 4, 8, 9]], 9) == [8, 9]


@pytest.mark.parametrize(
    ("contexts", "joined", "reason"),
    [
        ([[1, 2]], [[1, 7, 8]], "moved boundary"),  # the context's last token became another one
        ([[1], [2]], [[1, 8], [2, 7]], "moved boundary"),  # other ids after another context
        ([[1]], [[1, 9, 8]], "EOS inside the answer"),
        ([[1]], [[1]], "empty answer"),
        ([[1]], [[1, 9]], "empty answer"),
    ],
)
def test_an_answer_that_cannot_be_counted_says_why(contexts, joined, reason):
    with pytest.raises(BadRow, match=reason):
        answer_ids(contexts, joined, 9)


@pytest.mark.parametrize(
    ("ids", "finished", "eos", "expected"),
    [
        ([5], True, 1, ([5, 1], True)),
        ([5], False, 1, ([5], False)),
        ([5, 1], False, 1, ([5, 1], True)),
        ([5, 1], True, 1, ([5, 1], True)),
        ([5], True, None, ([5], False)),
    ],
)
def test_an_answer_ends_with_one_eos_at_most(ids, finished, eos, expected):
    assert with_eos(ids, finished, eos) == expected
