"""mode=pin: writes the present commits of hub models into the presets of conf/model."""

from __future__ import annotations

import re
from pathlib import Path

from omegaconf import DictConfig

from dlma import files
from dlma.config.help import conf_dir
from dlma.errors import UserError

BRANCH = "main"
_PATH = re.compile(r"^path: *([\w.-]+/[\w.-]+) *(?:#.*)?$", re.M)
_REVISION = re.compile(r"^(revision: *)([\w./-]+)", re.M)


def pin(cfg: DictConfig, /, *, presets: list[str] | None = None) -> dict:
    """Rewrite `revision:` in conf/model, and nothing else; all commits are asked for before a file is touched."""
    found = hub_presets(conf_dir() / "model")
    unknown = [name for name in presets or [] if name not in found]
    if unknown:
        raise UserError(f"mode.presets: {', '.join(unknown)}: no preset of a hub model; there are {', '.join(found)}")
    chosen = {name: found[name] for name in presets or found}
    commits = {name: resolved(_model(path)) for name, path in chosen.items()}
    for name, commit in commits.items():
        text = chosen[name].read_text(encoding="utf-8")
        with files.guarded(chosen[name].parent, "--config-path"):
            files.write_bytes(chosen[name], _REVISION.sub(rf"\g<1>{commit}", text, count=1).encode())
        print(f"{name}: {commit}")
    return commits


def hub_presets(folder: Path) -> dict[str, Path]:
    """The presets that name a model on the hub and a revision of it."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml"))}
    return {path.stem: path for path, text in texts.items() if _PATH.search(text) and _REVISION.search(text)}


def _model(preset: Path) -> str:
    found = _PATH.search(preset.read_text(encoding="utf-8"))
    assert found is not None  # as `hub_presets` has it
    return found[1]


def resolved(name: str) -> str:
    """The commit that the main branch of a hub model is now."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    try:
        commit = HfApi().model_info(name, revision=BRANCH).sha
    except (HTTPError, OfflineModeIsEnabled, OSError) as reason:
        line = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
        raise UserError(f"{name}: its commit could not be had from the hub ({line}); nothing was changed") from None
    if commit is None:
        raise UserError(f"{name}: the hub names no commit of it; nothing was changed")
    return commit
