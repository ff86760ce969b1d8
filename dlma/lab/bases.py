"""The places of the lab's bases: shipped in the package, or built by one command."""

from __future__ import annotations

from pathlib import Path

import yaml

from dlma.errors import UserError

SHIPPED = Path(__file__).with_name("bases")
PRESETS = Path(__file__).with_name("bases.yaml")
BUILT = Path("outputs/lab_base")


def presets() -> dict[str, dict]:
    """The dials of each member of the family."""
    return yaml.safe_load(PRESETS.read_text())


def names() -> list[str]:
    """The bases at hand: shipped ones, and those built under outputs/lab_base."""
    folders = [*SHIPPED.glob("*/model.safetensors"), *BUILT.glob("*/model.safetensors")]
    return sorted({path.parent.name for path in folders})


def base_folder(name: str) -> Path:
    """The folder of a base; a shipped one goes before one built here under the same name."""
    for root in (SHIPPED, BUILT):
        if name and Path(name).name == name and (root / name / "model.safetensors").is_file():
            return root / name
    raise UserError(
        f"model.base={name}: the lab has no such base at hand (it has: {', '.join(names()) or 'none'}); "
        f"build it: python run.py mode=lab_base mode.name={name}"
    )
