"""Every number of the schema has a range, and every value beyond it is one line that names the key.

The walk goes over every target that a shipped YAML names and over the root's own nodes, so a new key is in it; what may
be 0 or negative is written down here by hand, from what the key means.

`python tests/config/test_ranges.py` writes docs/settings.md, the ranges as a page.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if __name__ == "__main__":  # started by hand: the kit is on pytest's path only
    sys.path[:0] = [str(Path(__file__).parents[1] / "kit"), str(Path(__file__).parents[2])]

from omegaconf import DictConfig, OmegaConf
from source_tree import ROOT

from dlma.config import check, compose, signatures
from dlma.config.signatures import Field, Signature

INF = float("inf")
BEYOND = [INF, -INF, float("nan"), float("1e400"), 10**400, -(10**400), -1e300, 1e300]
ROOT_TARGET = "dlma.config.schema.Root"
PAGE = ROOT / "docs" / "settings.md"

MAY_BE_NEGATIVE = {
    "margin_low",
    "margin_high",
    "reward_low",
    "reward_high",
    "obedience",
    "confound",
    "min_rank_correlation",
    "sign",
}
# Rows that may be absent, switches by number, shares, and penalties that 0 turns off.
MAY_BE_ZERO = MAY_BE_NEGATIVE - {"sign"} | {
    *(
        "seed",
        "intermediate",
        "kl_points",
        "train",
        "validation",
        "test",
        "untouched",
        "top_k",
        "temperature",
        "threads",
        "parity_rows",
        "output",
        "port",
    ),
    *("warmup", "weight_decay", "margin_weight", "nll_weight", "kl_weight", "value_weight"),
    *(
        "label_smoothing",
        "flips",
        "tie",
        "gamma",
        "lam",
        "min_margin",
        "target_margin",
        "shots",
        "sizes",
        "reserve",
        *("older_than_days", "mu", "cutoff", "length_penalty", "weight"),
    ),
    *("validation_share", "max_dropped", "first_wait", "backoff_seconds", "cost_in", "cost_out"),
    *("spread", "mood", "judge", "help_obedience"),  # the dials of a lab base
    *("max_specials", "max_reworded", "max_trimmed", "max_truncated", "max_duplicates", "max_identical", "max_empty"),
    "short_answers",
    *("min_sign_agreement", "max_similarity", "min_reward_rise", "max_chosen_fall", "max_length_change", "max_kl"),
    *("max_refusal_rise", "max_help_fall", "max_perplexity_rise", "max_malformed_rise"),
}


def targets() -> list[str]:
    """Every target of a shipped YAML, and the dataclasses of the root."""
    files = (ROOT / "conf").rglob("*.yaml")
    named = {m for f in files for m in re.findall(r"_target_: (dlma\.[\w.]+)", f.read_text(encoding="utf-8"))}
    return [ROOT_TARGET, *sorted(named)]


def numbers(schema: Signature, above: str = "") -> Iterator[tuple[str, Field, Signature]]:
    """Every numeric field of a schema and of the classes inside it, by its dotted key."""
    for name, field in schema.fields.items():
        inner = signatures.nested(field.annotation, schema) or signatures.by_name(field.annotation, schema)
        if inner is not None:
            yield from numbers(inner, f"{above}{name}.")
        elif re.search(r"\b(number|integer)\b|one of -?\d", signatures.describe(field.annotation, schema)):
            yield f"{above}{name}", field, schema


EVERY = [
    (f"{target}:{key}", field, schema)
    for target in targets()
    for key, field, schema in numbers(signatures.signature(target))
]


def page() -> str:
    """docs/settings.md."""
    parts = [
        "# The numbers of the config\n\nEvery number with the range that the check holds it to, by what it belongs to; "
        "what each means stands in `conf/`, beside its\nvalue. nan and infinity are in none. A temperature of 0 takes "
        "the likeliest token. Made by\n`python tests/config/test_ranges.py` of the signatures themselves.\n"
    ]
    for target in targets():
        rows = [
            f"| `{name.split(':')[1]}` | {signatures.describe(field.annotation, schema)} |"
            for name, field, schema in EVERY
            if name.split(":")[0] == target
        ]
        if rows:
            title = "The root and the recipe" if target == ROOT_TARGET else f"`{target}`"
            parts.append(f"## {title}\n\n| key | value |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def put(value: object, field: Field) -> object:
    """The value as the key takes it: alone, or in a list."""
    return [value] if "list" in ast.unparse(field.annotation) else value


def is_accepted(value: object, field: Field, schema: Signature) -> bool:
    return signatures.accepts(put(value, field), field.annotation, schema)


def test_the_walk_meets_every_kind_of_component():
    names = {name.split(":")[0].split(".")[1] for name, _, _ in EVERY}
    assert {"config", "data", "endpoint", "judges", "labels", "model", "modes", "objective", "sampler", "sft"} <= names
    assert len(EVERY) > 200


@pytest.mark.parametrize("name, field, schema", EVERY, ids=[name for name, _, _ in EVERY])
def test_a_number_has_a_range_with_two_ends(name, field, schema):
    accepted = [value for value in BEYOND if is_accepted(value, field, schema)]
    assert accepted == []
    leaf = re.split(r"[.:]", name)[-1]
    assert is_accepted(-1, field, schema) == (leaf in MAY_BE_NEGATIVE)
    assert is_accepted(0, field, schema) == (leaf in MAY_BE_ZERO)
    assert is_accepted(2**64, field, schema) == (leaf == "flops")
    assert not is_accepted(True, field, schema) and not is_accepted("1", field, schema)


def composed(*overrides: str) -> DictConfig:
    return compose.plan(compose.search_path(ROOT / "conf", None), list(overrides), False).cfg


CONFIGS = {
    "servers": [
        "method=rlhf",
        "objective=ppo",
        "sampler=server",
        "sampler.urls=[http://localhost:8000]",
        "adapter=lora",
    ],
    "real": [
        *("mode=plan", "labels=filtered", "data=jsonl", "data.path=p", "model=hf", "model.path=m"),
        *("judges=[llm,reward]", "judges.reward.model.path=m"),
    ],
}


def leaves(node: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield path, node


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_number_beyond_its_range_is_one_line_that_names_its_key(kind):
    cfg = composed(*CONFIGS[kind])
    for number, (key, before) in enumerate(leaves(OmegaConf.to_container(cfg, resolve=False))):
        if "._" in key:  # what a preset says of itself
            continue
        OmegaConf.update(cfg, key, (-(10**30), float("nan"))[number % 2])
        found = check.problems(cfg)
        assert [problem.key for problem in found] == [key], found
        assert re.fullmatch(r"[\w.]+: must be .+, not (-10{30}|nan)", str(found[0])), found
        OmegaConf.update(cfg, key, before)
    assert check.problems(cfg) == []


def test_the_page_of_the_docs_has_the_ranges_of_the_signatures():
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: python tests/config/test_ranges.py"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
