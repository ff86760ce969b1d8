"""The lab's figures in docs/results.md: the base, the base prompted and the policy, on every base.

python experiments/tables.py run headline    # its commands, then this table
"""

from __future__ import annotations

from collections.abc import Sequence

from dlma.report import markdown
from dlma.report.result_text import cell
from dlma.sweep import estimates
from dlma.sweep.results import Result, bases, over_seeds
from dlma.sweep.settings import Setting

ARMS = {"base": "base", "prompted": "base, prompted with p+", "aligned": "aligned by DLMA"}
SHOWN = {
    "harmful": "answers with a harmful sentence",
    "harmlessness": "harmlessness",
    "helpfulness": "helpfulness",
    "malformed": "malformed sentences",
    "perplexity": "perplexity under the base",
    "entropy": "entropy, nats per token",
    "distinct_2": "distinct word pairs in an answer",
    "kl": "KL to the base, nats per answer",
    "tokens": "length, tokens",
}


def results(settings: Sequence[Setting]) -> list[Result]:
    """Every metric over prompts and seeds, per base and arm."""
    return over_seeds(estimates.results(settings, tested=[]))


def render(found: Sequence[Result]) -> str:
    names = sorted(bases(found), key=lambda base: (base != "lab-standard", base))
    return "\n\n".join(_section(base, [one for one in found if one.base == base]) for base in names)


def _section(base: str, found: Sequence[Result]) -> str:
    cells = {(one.metric, one.arm): one for one in found}
    head = f"`{base.removeprefix('lab-')}`, {len(found[0].seeds)} seeds, {found[0].n} test prompts"
    rows = [[label, *(cell(cells[metric, arm]) for arm in ARMS)] for metric, label in SHOWN.items()]
    return markdown.table([head, *ARMS.values()], rows)
