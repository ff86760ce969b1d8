"""What a finished run cost: as its folder says, or counted again from its records."""

from __future__ import annotations

from dlma import files
from dlma.cost import record
from dlma.cost.spent import Costs
from dlma.runs.folder import COSTS, PAIRS, REWARD_TRAIN, SCORED, TRAIN, RunFolder
from dlma.store.owned import MANIFEST

_NEEDED = (PAIRS, SCORED, TRAIN, MANIFEST)


def costs_of(run: RunFolder) -> Costs | None:
    """The costs of a finished run; None where its folder does not say.

    Without costs.json, and with one round, they are counted from its records.
    """
    if (run.path / COSTS).is_file():
        return Costs(**files.read_json(run.sound(COSTS)))
    if not all((run.path / name).is_file() for name in _NEEDED):
        return None
    manifest = run.manifest()
    trained = (TRAIN, REWARD_TRAIN) if "reward" in manifest else (TRAIN,)
    steps = {name: record.steps_of(run.sound(name).read_bytes()) for name in trained}
    return record.recounted(
        run.recorded,
        manifest,
        pairs=run.table(PAIRS),
        scored=run.table(SCORED),
        steps=steps[TRAIN],
        reward=steps.get(REWARD_TRAIN, []),
    )
