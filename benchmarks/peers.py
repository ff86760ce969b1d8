"""The peers in scoring and sampling: two plain scorers, and transformers' `generate` and continuous batching.

`official` scores as the method's official code does: rows in the order given, padded, one prompt side after the
other, a float64 log-softmax over the whole [batch, length, vocabulary] block.
`fair` is what a careful person writes: float32, rows sorted by length, a token budget, the head on the last
positions only (`logits_to_keep`).
Both give the same six numbers per pair as ours: two answers under the positive, negative and plain prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.clock import Clock
from benchmarks.flops import OFFICIAL_ROWS, scoring_sequences
from dlma.records import Pair

TOKEN_BUDGET = 8192  # that of ours

Branch = tuple[Sequence[int], Sequence[int]]


def load(model_folder, dtype: str = "float32"):
    """The model as transformers loads it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype).eval()


def official(model, pairs: Sequence[Pair], clock: Clock) -> list[list[float]]:
    """Margin and reference log-probs, as the official code computes log-probs."""
    with clock.span("work"), torch.no_grad():
        sides = zip(*(scoring_sequences(pair) for pair in pairs), strict=True)
        columns = [
            [value for start in range(0, len(pairs), OFFICIAL_ROWS) for value in _full_softmax(model, rows, start)]
            for rows in sides
        ]
    return [_margin(values) for values in zip(*columns, strict=True)]


def _full_softmax(model, rows: Sequence[Branch], start: int) -> list[float]:
    part = rows[start : start + OFFICIAL_ROWS]
    ids, mask = _padded(part, left=False, device=model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].to(torch.float64)
    logp = logits.log_softmax(-1).gather(2, ids[:, 1:].unsqueeze(-1)).squeeze(-1)
    return [
        logp[i, len(context) - 1 : len(context) + len(answer) - 1].sum().item()
        for i, (context, answer) in enumerate(part)
    ]


def fair(model, pairs: Sequence[Pair], clock: Clock) -> list[list[float]]:
    """Margin and reference log-probs, without waste that a plain scorer can avoid."""
    with clock.span("work"), torch.no_grad():
        rows = [branch for pair in pairs for branch in scoring_sequences(pair)]
        values = [0.0] * len(rows)
        for members in _batches([len(c) + len(a) for c, a in rows], TOKEN_BUDGET):
            for place, value in zip(members, _last_positions(model, [rows[i] for i in members]), strict=True):
                values[place] = value
    return [_margin(values[i : i + 6]) for i in range(0, len(values), 6)]


def _last_positions(model, rows: Sequence[Branch]) -> list[float]:
    """Rows end together (padded on the left), so that all answers lie in the last positions."""
    ids, mask = _padded(rows, left=True, device=model.device)
    kept = max(len(answer) for _, answer in rows) + 1
    position = (mask.cumsum(1) - 1).clamp_min(0)
    logits = model(
        input_ids=ids, attention_mask=mask, position_ids=position, use_cache=False, logits_to_keep=kept
    ).logits[:, :-1]
    target = ids[:, 1 - kept :]
    logits = logits.float()
    logp = logits.gather(2, target.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
    return [logp[i, kept - 1 - len(answer) :].sum().item() for i, (_, answer) in enumerate(rows)]


def _padded(rows: Sequence[Branch], *, left: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    tokens = [[*context, *answer] for context, answer in rows]
    width = max(map(len, tokens))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for row, values in enumerate(tokens):
        span = slice(width - len(values), width) if left else slice(0, len(values))
        ids[row, span] = torch.tensor(values)
        mask[row, span] = 1
    return ids.to(device), mask.to(device)


def _batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Places, longest row first, in batches of at most `budget` padded tokens."""
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _margin(six: Sequence[float]) -> list[float]:
    """R and both references, from the answers under the positive, negative and plain prompt."""
    one_pos, other_pos, one_neg, other_neg, one_plain, other_plain = six
    return [(one_pos - one_neg) - (other_pos - other_neg), one_plain, other_plain]


@dataclass(frozen=True)
class Task:
    """Answers to be sampled. lengths: how long each is to be; None: until the model ends it, or to the limit."""

    contexts: Sequence[Sequence[int]]
    limit: int
    lengths: Sequence[int] | None


def generate(model, task: Task, clock: Clock, rows: int) -> int:
    """One answer to each context in batches of `rows`, of like prompt length; returns how many tokens were drawn."""
    with clock.span("work"):
        return sum(map(len, answers(model, task, rows)))


def answers(model, task: Task, rows: int) -> list[list[int]]:
    """The answers that `generate` draws, in the order of the contexts."""
    found: dict[int, list[int]] = {}
    order = sorted(range(len(task.contexts)), key=lambda i: len(task.contexts[i]))
    with torch.no_grad():
        for start in range(0, len(order), rows):
            members = order[start : start + rows]
            ids, mask = _padded([(task.contexts[i], ()) for i in members], left=True, device=model.device)
            wanted = None if task.lengths is None else [task.lengths[i] for i in members]
            stop = [] if wanted is None else [_at_length(ids.shape[1], wanted)]
            settings = _settings(model, task)
            out = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings, stopping_criteria=stop)
            drawn = out[:, ids.shape[1] :].tolist()
            lengths = wanted or [_length(row, _ends(model, task)) for row in drawn]
            found |= {i: row[:length] for i, row, length in zip(members, drawn, lengths, strict=True)}
    return [found[i] for i in range(len(order))]


def continuous(model, task: Task, clock: Clock, rows: int) -> int:
    """transformers' continuous batching with a cache sized by hand; returns how many tokens were drawn."""
    from transformers import ContinuousBatchingConfig

    longest = max(map(len, task.contexts)) + task.limit
    cache = ContinuousBatchingConfig(
        page_size=32, num_blocks=rows * (longest // 32 + 2), max_batch_tokens=max(512, 2 * rows)
    )
    settings, lengths = _settings(model, task), task.lengths or [task.limit] * len(task.contexts)
    drawn = 0
    with (
        clock.span("work"),
        torch.no_grad(),
        model.continuous_batching_context_manager(
            generation_config=settings, continuous_batching_config=cache
        ) as manager,
    ):
        for context, length in zip(task.contexts, lengths, strict=True):
            manager.add_request(list(context), max_new_tokens=length)
        for _ in task.contexts:
            answer = manager.get_result(timeout=120)
            if answer is None or answer.error:
                raise RuntimeError(f"continuous batching gave no answer: {answer and answer.error}")
            drawn += len(answer.generated_tokens)
    return drawn


def _at_length(width: int, lengths: Sequence[int]):
    """A rule that stops each row at its own length."""
    from transformers import StoppingCriteria

    class AtLength(StoppingCriteria):
        wanted = torch.tensor(lengths)

        def __call__(self, input_ids, scores, **rest):
            return (input_ids.shape[1] - width >= self.wanted).to(input_ids.device)

    return AtLength()


def _ends(model, task: Task) -> list[int]:
    return [model.config.eos_token_id] if task.lengths is None else [-1]


def _settings(model, task: Task):
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=task.limit,
        eos_token_id=_ends(model, task),
        pad_token_id=2,
        use_cache=True,
    )


def _length(row: Sequence[int], eos: Sequence[int]) -> int:
    """Tokens up to the first EOS, which counts."""
    ends = set(eos)
    return next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
