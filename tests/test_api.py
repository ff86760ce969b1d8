"""The self-reward of rows of text, against a plain loop over the two prompts."""

import pytest
from small_models import byte_level_tokenizer, plain_logp, small_network
from toy_tokenizers import OWN_TEMPLATES

from dlma.api import self_reward
from dlma.errors import BadRow
from dlma.prompts.wording import Wording

TEXTS = ["how do i fix a lamp", "with care and ease", "smash it"]
WORDING = Wording(
    source="test", system="{system}", user="ask : {text}\n", assistant="reply : {text}\n", answer="reply{affix} :",
    pairs=[{"positive": {"affix": " ( kind )"}, "negative": {"affix": " ( cruel )"}}], **OWN_TEMPLATES,
)  # fmt: skip


def test_rows_of_text_are_scored_without_a_run():
    tokenizer = byte_level_tokenizer(TEXTS, 300)
    network = small_network(vocabulary=len(tokenizer))
    row = {"prompt": TEXTS[0], "first": " " + TEXTS[1], "second": " " + TEXTS[2]}
    swapped = {**row, "first": row["second"], "second": row["first"]}
    margins = self_reward(network, tokenizer, [row, swapped], WORDING)

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    contexts = [[0, *ids(f"ask : {TEXTS[0]}\nreply ( {word} ) :")] for word in ("kind", "cruel")]
    answers = [[*ids(row[name]), 1] for name in ("first", "second")]
    logp = [[plain_logp(network, c, a).item() for a in answers] for c in contexts]
    by_hand = (logp[0][0] - logp[1][0]) - (logp[0][1] - logp[1][1])
    assert margins == pytest.approx([by_hand, -by_hand], abs=1e-3)


def test_an_empty_answer_is_refused():
    tokenizer = byte_level_tokenizer(TEXTS, 300)
    network = small_network(vocabulary=len(tokenizer))
    with pytest.raises(BadRow, match="empty answer"):
        self_reward(network, tokenizer, [{"prompt": "a", "first": "", "second": " b"}], WORDING)
