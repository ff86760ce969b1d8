"""Healthy records from prompts to scored pairs, in which the tests of the preflight plant their faults."""

from dlma.records import Context, Pair, Prompt, ScoredPair, Turn, content_id

BOS, EOS, PAD = 0, 1, 2


def prompt(text: str, split: str) -> Prompt:
    return Prompt(content_id(text), [Turn("user", text)], split)


def context(row: Prompt, number: int) -> Context:
    ids = [BOS, 10, 100 + number, 11]
    return Context(row.id, row.turns[-1].content, None, "w", ids, [*ids, 20], [*ids, 21], 0)


def pair(row: Context, number: int) -> Pair:
    first, second = [30, 200 + number, EOS], [31, 300 + number, EOS]
    contexts = (row.plain_ids, row.positive_ids, row.negative_ids)
    texts = (f"yes {number}", f"no {number}")
    return Pair(row.prompt_id, row.prompt_id, row.question, "w", *contexts, first, second, True, True, *texts)


def score(row: Pair) -> ScoredPair:
    numbers = dict(positive_reference=-3.0, negative_reference=-4.0, margin=1.5)
    return ScoredPair(**vars(row), **dict.fromkeys(UNDER), **numbers, chosen="positive")


UNDER = (
    "positive_under_positive", "positive_under_negative", "negative_under_positive", "negative_under_negative",
)  # fmt: skip


def healthy() -> dict[str, list]:
    train = [prompt(f"how do i {i}?", "train") for i in range(40)]
    test = [prompt(f"what is {i}?", "test") for i in range(10)]
    contexts = [context(row, i) for i, row in enumerate(train)]
    held_out = [context(row, 50 + i) for i, row in enumerate(test)]
    pairs = [pair(row, i) for i, row in enumerate(contexts)]
    return dict(
        prompts=train + test, contexts=contexts, held_out=held_out, pairs=pairs, scored=[score(row) for row in pairs]
    )
