"""What a plan counts of the answers that a method draws, against counting by hand."""

import pytest

from dlma.config.compose import plan, search_path
from dlma.config.help import conf_dir
from dlma.cost.flops import work_of
from dlma.plan.dry_run import Length, Sizes
from dlma.plan.loads import _pairs

SIZES = Sizes(10, 1, dict.fromkeys(("plain", "positive", "negative"), Length(7, 9)), Length(5, 6), "by hand")
DRAWN = {  # answers of the model to each prompt
    ("method=dlma",): 2,
    ("method=self_rewarding",): 4,
    ("method=sso",): 3,
    ("method=spin", "human=dataset"): 2,
    ("method=self_contrast", "human=dataset"): 6,
    ("method=self_contrast", "human=dataset", "pairs.per_prompt=8"): 14,
    ("method=rlhf", "human=dataset"): 0,
}


@pytest.mark.parametrize("words", DRAWN, ids=" ".join)
def test_the_tokens_of_pairs_are_those_of_the_answers_that_the_model_draws(words):
    cfg = plan(search_path(conf_dir(), None), [*words, "data=jsonl", "data.path=x.jsonl"], False).cfg
    known = work_of(cfg.pairs)
    load = _pairs(10, known, cfg, cfg.pairs, SIZES) if known["kind"] == "sample" else None
    assert (load.drawn if load else 0) == 10 * DRAWN[words] * 5
