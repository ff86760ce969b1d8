"""mode=check: the composed config, and what it would build."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from dlma.config.build import resolved
from dlma.redaction import redact


def show(cfg: DictConfig, /) -> dict:
    """mode=check: print the composed config, which was checked before any mode is called, and what it would build."""
    values = redact(resolved(cfg))
    print(OmegaConf.to_yaml(OmegaConf.create(values)).rstrip())
    print("what would be built:")
    for path, target in targets(values):
        print(f"  {path} -> {target}")
    print("config ok")
    return {}


def targets(values: dict, path: str = "") -> Iterator[tuple[str, str]]:
    """Every component of a checked config: its dotted key and its target, outer ones first."""
    for key, value in values.items():
        if isinstance(value, dict):
            if value.get("_target_") is not None:
                yield f"{path}{key}", value["_target_"]
            yield from targets(value, f"{path}{key}.")
