"""What draws the answers of a run's models: the configured sampler, with servers where it has to have some."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from dlma.config.build import resolved
from dlma.cost.flops import work_of
from dlma.runs.folder import SERVER_LOG
from dlma.sampler import choice

if TYPE_CHECKING:
    from dlma.store.stage import Stage


def of_run(cell: Any, policy: Stage | None, place: str) -> AbstractContextManager[Any]:
    """In the block a sampler of the model that a run aligns, or of what was trained of it.

    cell: dlma.context.RunContext; place: the policy's folder in its stage
    """
    trained, work = policy is not None, work_of(cell.cfg.objective)
    spec = cell.frozen if policy is None else cell.frozen.trained(policy.path(place))
    return choice.sampling(
        *(cell.sampler, resolved(cell.cfg.sampler), spec, cell.folder / SERVER_LOG, cell.ranks),
        held=spec.folder == cell.frozen.folder and cell.tuned is None,
        trained=trained,
        to_come=not trained and cell.spec.lora is not None and work.get("kind") != "none",
    )
