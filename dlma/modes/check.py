"""mode=check: the composed config, printed."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from dlma.config.build import resolved
from dlma.config.redact import redact


def show(cfg: DictConfig, /) -> dict:
    """mode=check: print the composed config; it has been checked before any mode is called."""
    print(OmegaConf.to_yaml(OmegaConf.create(redact(resolved(cfg)))).rstrip())
    print("config ok")
    return {}
