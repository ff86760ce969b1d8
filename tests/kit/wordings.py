"""The shipped prompt wordings, as a run composes them."""

import functools

from omegaconf import OmegaConf

from dlma.config import compose
from dlma.config.build import build
from dlma.config.help import conf_dir
from dlma.prompts.wording import Wording

NAMES = sorted(path.stem for path in (conf_dir() / "prompts").glob("*.yaml"))


@functools.cache
def content(name: str) -> dict:
    """The composed node of `prompts=name`."""
    plan = compose.plan(compose.search_path(conf_dir(), None), [f"prompts={name}"], False)
    return OmegaConf.to_container(plan.cfg.prompts, resolve=True)


def shipped(name: str = "harmless_affix") -> Wording:
    """The wording of `prompts=name`; where the model decides the format, that of a model that is no chat model."""
    found = build(content(name))
    return found.spoken("template") if found.format == "auto" else found
