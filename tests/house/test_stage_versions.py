"""A stage's code cannot change unnoticed: its VERSION is raised, or the change is confirmed to be harmless.

`stage_versions.json` holds, for each stage, its VERSION and a hash of all code that decides what it writes. After
a change of that code: raise the stage's VERSION in dlma/store/store.py if the bytes it writes change, and in either
case run `python tests/house/test_stage_versions.py --confirm`, which records the new hashes.
"""

import ast
import hashlib
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # for --confirm, however it is run
sys.path.insert(0, str(Path(__file__).parents[1] / "kit"))

from source_tree import closure, code_hash, imports_of, matching, modules, tree

from dlma.store.store import VERSION

RECORD = Path(__file__).with_name("stage_versions.json")

# Where each stage's code begins: modules (a pattern), or one function of a module. All that these import counts.
ROOTS = {
    "tuned": ["dlma.sft", "dlma.data.*", "dlma.pipeline:instruction_tune"],
    "prompts": ["dlma.data.*", "dlma.pipeline:read_prompts"],
    "contexts": ["dlma.prompts.contexts", "dlma.prompts.wording", "dlma.pipeline:render"],
    "pairs": [
        "dlma.prompts.*",
        "dlma.pairs.*",
        "dlma.sampler.*",
        "dlma.pipeline:make_pairs",
        "dlma.pipeline:import_pairs",
    ],
    "scored": ["dlma.scorer.*", "dlma.pipeline:score"],
    "token_rewards": ["dlma.scorer.token_rewards", "dlma.modes.score:token_rewards", "dlma.pipeline:read_tokens"],
    "implicit": ["dlma.scorer.implicit_reward", "dlma.modes.score:implicit"],
    "preflight": ["dlma.checks.preflight", "dlma.pipeline:preflight"],
    "reward": ["dlma.reward", "dlma.labels", "dlma.pipeline:train_reward", "dlma.modes.reward:learn"],
    "rewarded": ["dlma.scorer.reward_model", "dlma.modes.agreement:reward_pairs"],
    "reward_model": ["dlma.modes.reward:keep", "dlma.modes.reward:card", "dlma.modes.cards:page"],
    "policy": [
        "dlma.objective.*",
        "dlma.training.*",
        "dlma.labels",
        "dlma.evaluation.target_kl",
        "dlma.pipeline:train",
        "dlma.pipeline:stop_at_kl",
    ],
    "answers": ["dlma.evaluation.answers", "dlma.sampler.local", "dlma.pipeline:answer"],
    "evaluated": ["dlma.evaluation.text", "dlma.evaluation.lab", "dlma.pipeline:evaluate"],
    "verdicts": ["dlma.judges.*", "dlma.pipeline:judge_arms", "dlma.pipeline:judge"],
    "metrics": ["dlma.metrics.*", "dlma.pipeline:measure"],
}
# Code that cannot change what a stage holds: it finds, names, locks and verifies.
NEUTRAL = frozenset(
    name
    for name in modules()
    if name in ("dlma.errors", "dlma.files") or name.split(".")[1:2] in (["config"], ["store"])
) - {"dlma.store.shards", "dlma.store.rows", "dlma.config.schema"}
# Component modules that write no stage; they are computed anew in every run.
UNSTORED = {"dlma.metrics.summary"}
COMPONENTS = (
    "data",
    "prompts",
    "pairs",
    "sampler",
    "scorer",
    "objective",
    "training",
    "evaluation",
    "judges",
    "metrics",
)


def function(root: str) -> ast.FunctionDef:
    """The function that `module:name` names."""
    module, name = root.split(":")
    (found,) = [node for node in tree(module).body if getattr(node, "name", None) == name]
    return found


def reach(stage: str) -> set[str]:
    """All modules whose code decides what a stage writes."""
    starts: set[str] = set()
    for root in ROOTS[stage]:
        if ":" in root:
            module = root.split(":")[0]
            found = {i.name for i in imports_of(module, function(root))}
            starts |= found & set(modules())
        else:
            starts.update(matching(root))
    return closure(starts, lazy=True, stop=NEUTRAL)


def stage_hash(stage: str) -> str:
    parts = [[name, code_hash(tree(name))] for name in sorted(reach(stage))]
    parts += [[root, code_hash(function(root))] for root in ROOTS[stage] if ":" in root]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def current() -> dict[str, dict]:
    return {stage: {"version": VERSION[stage], "hash": stage_hash(stage)} for stage in VERSION}


def verdict(stage: str, now: dict, recorded: dict | None) -> str:
    """What there is to do about a stage; nothing if its code is as recorded."""
    if now == recorded:
        return ""
    confirm = "python tests/house/test_stage_versions.py --confirm"
    if recorded is None or now["version"] != recorded["version"]:
        return f"{stage}: VERSION is {now['version']} now; record it: {confirm}"
    return (
        f"{stage}: the code that decides what it writes has changed. If its bytes change, raise "
        f"VERSION[{stage!r}] in dlma/store/store.py; then, in either case: {confirm}"
    )


def confirm() -> None:
    RECORD.write_text(json.dumps(current(), indent=2) + "\n")
    print(f"{RECORD.name}: {len(VERSION)} stages recorded")


@pytest.mark.parametrize("stage", VERSION)
def test_the_code_of_each_stage_is_the_one_recorded_for_its_version(stage):
    recorded = json.loads(RECORD.read_text())
    assert verdict(stage, current()[stage], recorded.get(stage)) == ""


def test_every_stage_has_roots_and_every_root_exists():
    assert set(ROOTS) == set(VERSION) == set(json.loads(RECORD.read_text()))
    for stage in ROOTS:
        for root in ROOTS[stage]:
            assert function(root) if ":" in root else matching(root), f"{stage}: {root} names nothing"


def test_every_component_module_decides_some_stage_or_is_named_as_unstored():
    staged = set().union(*(reach(stage) for stage in ROOTS))
    own = {name for name in modules() if name.split(".")[1:2] and name.split(".")[1] in COMPONENTS}
    packages = {f"dlma.{name}" for name in COMPONENTS}
    assert own - staged - UNSTORED - packages == set()


def test_a_change_of_code_asks_for_a_version_and_a_new_version_for_a_record():
    old = {"version": 1, "hash": "a"}
    assert verdict("pairs", old, old) == ""
    assert "raise VERSION['pairs']" in verdict("pairs", {"version": 1, "hash": "b"}, old)
    assert "record it" in verdict("pairs", {"version": 2, "hash": "b"}, old)
    assert "record it" in verdict("pairs", old, None)


BEFORE = '''
"""About."""
import math


def area(r):
    """The area."""
    return math.pi * r**2  # of a circle
'''


@pytest.mark.parametrize(
    ("after", "same"),
    [
        (BEFORE.replace("About", "Other").replace("The area.", "An area."), True),
        (BEFORE.replace("  # of a circle", "").replace("math.pi * r**2", "(\n        math.pi * (r**2)\n    )"), True),
        (BEFORE.replace("import math", "import math\nif TYPE_CHECKING:\n    import torch"), True),
        (BEFORE.replace("r**2", "r**3"), False),
        (BEFORE.replace("(r)", "(r=1)"), False),
        (BEFORE.replace("math.pi *", "math.pi +"), False),
        (BEFORE + "\nx = 'text'\n", False),
    ],
)
def test_the_hash_follows_the_code_and_not_its_dress(after, same):
    assert (code_hash(ast.parse(after)) == code_hash(ast.parse(BEFORE))) is same


def test_the_reach_of_a_stage_goes_through_imports_inside_functions():
    assert {"dlma.prompts.contexts", "dlma.prompts.wording", "dlma.records"} <= reach("contexts")
    assert "dlma.functional.preference" in reach("policy")
    assert "dlma.functional.preference" not in reach("pairs")
    assert "dlma.lab.oracle" in reach("evaluated")
    assert "dlma.lab.oracle" not in reach("policy")


if __name__ == "__main__":
    confirm() if sys.argv[1:] == ["--confirm"] else sys.exit(__doc__)
