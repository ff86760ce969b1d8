"""The layers of the design, held by reading the source: who imports whom, who sees the truth, what is heavy."""

import ast
from fnmatch import fnmatch

import pytest
from source_tree import Import, closure, imports, imports_of, is_package, modules, tree

# From the bottom up. A line is a layer; its items are units, each given by its modules. A unit imports itself and
# the units of the layers below, never another unit of its own layer.
LAYERS = [
    ["dlma.errors", "dlma.ranges"],
    ["dlma.stopping", "dlma.redaction", "dlma.cores"],
    ["dlma.screen"],
    ["dlma.csv_text"],
    ["dlma.records", "dlma.functional.*"],
    [
        "dlma.statistics.*",
        "dlma.lab.lexicon dlma.lab.affixes dlma.lab.world dlma.lab.skills dlma.lab.oracle dlma.lab.bases",
    ],
    ["dlma.files", "dlma.http_client", "dlma.metrics.refusals", "dlma.store.machine"],
    ["dlma.config.*"],
    ["dlma.wheels"],
    ["dlma.store.*"],
    ["dlma.model.*", "dlma.data.*", "dlma.logger.*"],
    ["dlma.trainer.*"],
    ["dlma.executor.*"],
    ["dlma.prompts.*", "dlma.judge_prompt"],
    ["dlma.sampler.*"],
    ["dlma.pairs.*", "dlma.training.*", "dlma.endpoint"],
    ["dlma.scorer.*", "dlma.labels", "dlma.reward", "dlma.sft"],
    ["dlma.objective.*", "dlma.evaluation.*"],
    ["dlma.api"],
    ["dlma.judges.*", "dlma.metrics.*"],
    ["dlma.checks.*", "dlma.cost.*"],
    ["dlma.runs.*"],
    ["dlma.sweep.*"],
    ["dlma.report.*"],
    [
        "dlma.pipeline dlma.context dlma.finish",
        "dlma.lab.build dlma.lab.card dlma.lab.documents dlma.lab.measure dlma.lab.networks",
    ],
    ["dlma.plan.*"],
    ["dlma.modes.*"],
    ["dlma.app"],
]
# Imports that break the layers, each with its reason.
ALLOWED: dict[tuple[str, str], str] = {}

ORACLE = "dlma.lab.oracle"
SENTIMENT = "dlma.evaluation.sentiment"  # another truth, of any data
# The evaluation, its judge, the builder of bases, the simulated annotator. No label-free method may see the truth.
ANNOTATOR = "dlma.scorer.annotator"  # simulated human feedback: no label-free method
MAY_SEE_ORACLE = {
    "dlma.evaluation.lab",
    "dlma.judges.oracle",
    "dlma.lab.build",
    "dlma.lab.documents",
    "dlma.lab.measure",
    ANNOTATOR,
}
LABEL_FREE = tuple(
    f"dlma.{room}"
    for room in (
        *(
            "data.*",
            "model.*",
            "trainer.*",
            "executor.*",
            "prompts.*",
            "pairs.*",
            "sampler.*",
            "scorer.*",
            "training.*",
            "objective.*",
        ),
        *("labels", "reward", "sft", "judge_prompt", "endpoint", "api"),
    )
)

HEAVY = ("torch", "transformers", "pytorch_lightning", "lightning", "wandb", "datasets", "peft")
# Importing these imports nothing heavy, so that help, typos and a run with nothing to do answer at once.
LIGHT = (
    *("dlma.app", "dlma.config.*", "dlma.store.store", "dlma.records", "dlma.errors", "dlma.store.retention"),
    *("dlma.runs.publish", "dlma.store.shards", "dlma.lab.world", "dlma.lab.oracle", "dlma.lab.affixes", "dlma.data.*"),
    *("dlma.prompts.wording", "dlma.pipeline", "dlma.report.*", "dlma.sweep.*", "dlma.runs.*", "dlma.checks.*"),
    *("dlma.api", "dlma.executor.local", "dlma.executor.ray"),
)


# Layers


def place(module: str) -> tuple[int, str]:
    """The layer and the unit of a module."""
    for level, units in enumerate(LAYERS):
        for unit in units:
            if any(fnmatch(module, pattern) for pattern in unit.split()):
                return level, unit
    raise LookupError(f"{module} stands in no layer: name it in LAYERS of {__file__}")


def layer_complaint(found: Import) -> str:
    (level, unit), (other_level, other_unit) = place(found.importer), place(found.name)
    allowed = any(fnmatch(found.importer, a) and fnmatch(found.name, b) for a, b in ALLOWED)
    if unit == other_unit or other_level < level or allowed:
        return ""
    return f"{found.importer}:{found.line} imports {found.name}, which is not in a layer below"


def own(module: str) -> list[Import]:
    return [i for i in imports(module) if i.name in modules() and not is_package(i.name)]


@pytest.mark.parametrize("module", [name for name in modules() if not is_package(name)])
def test_a_module_imports_only_from_layers_below(module):
    place(module)
    assert [line for line in map(layer_complaint, own(module)) if line] == []


@pytest.mark.parametrize(
    ("importer", "source", "wrong"),
    [
        ("dlma.scorer.self_reward", "from dlma.objective import dpo", True),
        ("dlma.model.engine", "from dlma.scorer.self_reward import SelfReward", True),
        ("dlma.model.engine", "def f():\n    from dlma import pipeline", True),
        ("dlma.model.engine", "from dlma.data import text", True),
        ("dlma.functional.reward", "import dlma.records", True),
        ("dlma.pipeline", "from dlma.lab import build", True),
        ("dlma.scorer.self_reward", "from dlma.model.engine import Engine\nfrom dlma import records", False),
        ("dlma.pairs.sampled", "from dlma.prompts import contexts", False),
    ],
)
def test_the_layer_rule_catches_what_it_should(importer, source, wrong):
    found = [i for i in imports_of(importer, ast.parse(source)) if i.name != "dlma"]
    assert found
    assert any(layer_complaint(i) for i in found) is wrong


def test_every_exception_to_the_layers_is_still_needed():
    used = {(a, b) for m in modules() for i in own(m) for a, b in ALLOWED if fnmatch(m, a) and i.name == b}
    assert used == set(ALLOWED)


def test_only_the_evaluation_the_builder_of_bases_and_the_annotator_import_the_oracle():
    assert {i.importer for module in modules() for i in own(module) if i.name == ORACLE} <= MAY_SEE_ORACLE


def test_no_label_free_component_reaches_the_oracle_by_any_way():
    starts = [n for n in modules() if n != ANNOTATOR and any(fnmatch(n, pattern) for pattern in LABEL_FREE)]
    assert "dlma.scorer.self_reward" in starts
    assert ORACLE not in closure(starts, lazy=True)
    assert ORACLE in closure(["dlma.evaluation.lab"], lazy=True)
    assert ORACLE in closure([ANNOTATOR], lazy=True)


def test_sentiment_is_seen_by_the_evaluation_and_its_metric_alone():
    named = {i.importer for module in modules() for i in imports(module) if i.name.startswith("vaderSentiment")}
    assert named == {SENTIMENT}
    assert {i.importer for module in modules() for i in own(module) if i.name == SENTIMENT} == {
        "dlma.metrics.sentiment"
    }


def test_the_oracle_is_not_named_in_text_that_could_import_it():
    named = [
        f"{module}:{node.lineno}"
        for module in set(modules()) - MAY_SEE_ORACLE
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and node.value == ORACLE
    ]
    assert named == []


# Heavy imports


@pytest.mark.parametrize(
    "module", [n for n in modules() if any(fnmatch(n, pattern) for pattern in LIGHT) and not is_package(n)]
)
def test_importing_a_light_module_imports_nothing_heavy(module):
    found = [
        f"{i.importer}:{i.line} imports {i.name}"
        for name in sorted(closure([module], lazy=False))
        for i in imports(name)
        if not i.lazy and not i.typing and i.name.split(".")[0] in HEAVY
    ]
    assert found == []


def test_every_light_module_exists():
    assert [pattern for pattern in LIGHT if not any(fnmatch(name, pattern) for name in modules())] == []


def test_an_import_is_known_as_lazy_typing_or_neither():
    guarded = "if TYPE_CHECKING:\n    import wandb\n"
    tried = "try:\n    import datasets\nexcept E:\n    pass\n"
    source = "import torch\ndef f():\n    import peft\n" + guarded + tried
    found = {i.name: (i.lazy, i.typing) for i in imports_of("m", ast.parse(source))}
    assert found == {
        "torch": (False, False),
        "wandb": (False, True),
        "peft": (True, False),
        "datasets": (False, False),
    }
