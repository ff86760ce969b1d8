"""Checks before training, on the records: whether they hold what training takes for granted.

`inspect` (inspection.py) counts, over the records alone, and its counts are stored; `Preflight` holds them against its
limits. What would make the run worthless stops it; what is worth knowing is a warning. That the policy equals the
reference and the first loss its closed form is checked at step 0 (objective/dpo.py), where both are at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dlma.checks.finding import Finding
from dlma.checks.inspection import Faults
from dlma.errors import UserError
from dlma.ranges import Count, Share, Whole

Name = Literal[
    "bos",
    "eos",
    "boundary",
    "padding",
    "contamination",
    "unusable",
    "specials",
    "wording",
    "trimmed",
    "truncated",
    "duplicate_prompts",
    "duplicate_pairs",
    "identical_pairs",
    "empty_answers",
]


@dataclass(frozen=True)
class Check:
    """A check: what is counted, what to do, and the limit (a field of Preflight) or None where one fault stops."""

    counted: str
    advice: str
    limit: str | None = None


CHECKS: dict[Name, Check] = {
    "bos": Check(
        "contexts do not begin with exactly one BOS",
        "the tokenizer or the template adds none, or adds it twice",
    ),
    "eos": Check(
        "answers have an EOS that they did not end with, or none where they ended",
        "make the pairs again, or mend the *_finished columns of the file",
    ),
    "boundary": Check(
        "scored pairs do not have the token ids of the pair that was made",
        "the scorer must hand on a pair's ids as they are",
    ),
    "padding": Check(
        "answer tokens would be hidden by padding",
        "masks must follow from lengths, not from the pad id",
    ),
    "contamination": Check(
        "training prompts or pairs are on a prompt that is held out",
        "take them out of the training file or of the test file",
    ),
    "unusable": Check(
        "scored pairs have an empty answer, or a margin or log-prob that is not a finite number",
        "look at the model's dtype and at the pairs' file",
    ),
    "specials": Check(
        "contexts or answers have a BOS or pad token inside",
        "texts that spell special tokens out, padded ids in a file, or a model that samples them",
        "max_specials",
    ),
    "wording": Check(
        "pairs do not have the plain context that this run's wording gives their prompt",
        "training and evaluation then differ in the template: use the prompts= of the pairs",
        "max_reworded",
    ),
    "trimmed": Check("contexts lost their oldest turns", "raise recipe.max_prompt_tokens", "max_trimmed"),
    "truncated": Check("answers were cut at the length limit", "raise recipe.max_new_tokens", "max_truncated"),
    "duplicate_prompts": Check(
        "training prompts repeat another one, white space and case aside", "remove them", "max_duplicates"
    ),
    "duplicate_pairs": Check("pairs repeat another one", "remove them", "max_duplicates"),
    "identical_pairs": Check(
        "pairs have the same answer twice, from which nothing is learned",
        "a stronger prompt pair, or a higher temperature",
        "max_identical",
    ),
    "empty_answers": Check("pairs were dropped for an empty answer", "look at the template", "max_empty"),
}


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """The largest shares that give no warning.

    short_answers: a length limit (max_new_tokens) of at most so many tokens is a chosen length: being cut is the plan
    waived: checks that warn where they would stop the run, for experiments about the very fault
    """

    max_specials: Share
    max_reworded: Share
    max_trimmed: Share
    max_truncated: Share
    max_duplicates: Share
    max_identical: Share
    max_empty: Share
    max_new_tokens: Count
    short_answers: Whole
    waived: list[Name] = field(default_factory=list)

    def judge(self, counts: dict[str, dict]) -> list[Finding]:
        """What the counts say; raises UserError for the first fault that makes training worthless."""
        found = [self._finding(name, check, Faults(**counts[name])) for name, check in CHECKS.items()]
        stops = [one for one in found if one.state == "stop"]
        if stops:
            more = f" (and: {', '.join(one.name for one in stops[1:])})" if stops[1:] else ""
            raise UserError(f"preflight, {stops[0].line}{more}")
        return found

    def _finding(self, name: Name, check: Check, count: Faults) -> Finding:
        if count.of == 0:
            return Finding(name, "unknown", count.why)
        limit = getattr(self, check.limit) if check.limit else 0.0
        faulty = count.bad / count.of > limit
        share = f" ({100 * count.bad / count.of:.1f} %)" if count.bad else ""
        text = f"{count.bad:,} of {count.of:,} {check.counted}{share}"
        allowed = f"; at most {100 * limit:g} % pass without a word" if check.limit else ""
        if not faulty:
            return Finding(name, "ok", text + allowed)
        if name == "truncated" and self.max_new_tokens <= self.short_answers:
            planned = f"recipe.max_new_tokens={self.max_new_tokens} is at most preflight.short_answers"
            return Finding(name, "ok", f"{text}, as planned: {planned}={self.short_answers}")
        advice = f"; first: {count.first}; {check.advice}"
        passes = check.limit or name in self.waived
        return Finding(name, "warning" if passes else "stop", text + allowed + advice)
