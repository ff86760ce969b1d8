"""What tests of command lines share: a mode without heavy imports, what one command did, what its runs say."""

import json
from dataclasses import dataclass
from pathlib import Path

MODE = "mode._target_=dlma.modes.check.show"  # a target without heavy imports, for which a test puts its own function


@dataclass(frozen=True)
class Ran:
    """What one command line did: exit code, both streams, and the folder that it ran in."""

    code: int
    out: str
    err: str
    folder: Path


def statuses(folder: Path) -> dict[str, dict]:
    """Every status.json under `outputs/`, by the run folder's path in it."""
    found = sorted(folder.glob("outputs/**/status.json"))
    return {str(path.parent.relative_to(folder / "outputs")): json.loads(path.read_text()) for path in found}
