"""mode=export: a finished run's policy as a Hugging Face model or adapter, or its scored pairs as a data set.

The export is a folder with a card; it is uploaded only if `mode.push` names a repository. Answers that were asked for
under a negative prompt leave only on request, and the card then warns of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from dlma import files
from dlma.errors import UserError
from dlma.modes import cards, preferences
from dlma.ranges import Positive
from dlma.runs.finished import FinishedRun
from dlma.runs.folder import CONFIG, METRICS
from dlma.store.owned import MANIFEST

NOTES = (MANIFEST, CONFIG, METRICS)
GB = 10**9


def run(
    cfg: DictConfig,
    /,
    *,
    run: str,
    what: Literal["policy", "pairs"],
    out: str | None,
    merge: bool,
    shard_gb: Positive | None,
    format: Literal["chat", "text"],
    negative: bool,
    push: str | None,
    private: bool,
    trust_remote_code: bool,
) -> dict:
    """Write the export and say where it lies; all but the word on foreign code comes from the run's own config."""
    if what == "pairs" and (shard_gb is not None or merge):
        option = "mode.merge" if shard_gb is None else "mode.shard_gb"
        raise UserError(f"{option}: is of the weights of a policy; with mode.what=pairs leave it out")
    if what == "policy" and (format != "chat" or negative):
        option = "mode.negative" if negative else "mode.format"
        raise UserError(f"{option}: is of a file of pairs; with mode.what=policy leave it out")
    finished = FinishedRun(Path(run).expanduser(), cfg, trust=trust_remote_code)
    target = Path(out).expanduser() if out else finished.folder / "export" / what
    with _new_folder(target) as folder:
        if what == "policy":
            _policy(finished, folder, merge=merge, shard_gb=shard_gb)
        else:
            _pairs(finished, folder, format=format, negative=negative)
        for name in NOTES:
            shutil.copyfile(finished.folder / name, folder / name)
    print(f"exported: {target}")
    if push is not None:
        print(f"uploaded: {_upload(target, push, kind='model' if what == 'policy' else 'dataset', private=private)}")
    return {"export": str(target)}


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Lends a draft that becomes `target` when all is written; an older export is not overwritten."""
    if target.exists():
        raise UserError(f"{target}: there is something already; remove it, or name another folder by mode.out")
    with files.guarded(target.parent, "mode.out"):
        target.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        draft = room / target.name
        try:
            draft.mkdir()
            yield draft
            draft.rename(target)
        finally:
            shutil.rmtree(room, ignore_errors=True)


def _policy(finished: FinishedRun, folder: Path, *, merge: bool, shard_gb: float | None) -> None:
    source = finished.policy
    adapter = (source / "adapter_config.json").is_file()
    if merge and not adapter:
        raise UserError(f"mode.merge=true: {source} is a whole model already; leave it out")
    if adapter and finished.tuned and not merge:
        raise UserError(
            "the adapter's base is this run's own instruction-tuned model, not one others have: mode.merge=true"
        )
    if adapter and not merge and shard_gb is not None:
        raise UserError("mode.shard_gb: an adapter is one small file; leave it out, or mode.merge=true")
    if merge:
        from dlma.model.merge import save_merged

        save_merged(finished.base.trained(source).load(), folder)
    else:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("README.md"))
    if shard_gb is not None:
        from dlma.model.saved import shard

        shard(folder, int(shard_gb * GB))
    card = cards.model_card(finished, adapter=adapter and not merge, merged=merge)
    files.write_bytes(folder / "README.md", card.encode())


def _pairs(finished: FinishedRun, folder: Path, *, format: Literal["chat", "text"], negative: bool) -> None:
    sides = finished.sides
    asked_for = sides is None or "negative" in sides
    if asked_for and not negative:
        raise UserError(
            "these pairs hold answers written under the negative prompt, which asks for harm: mode.negative=true "
            "exports them, with a warning in the card"
        )
    speech = preferences.Speech(finished.base.tokenizer, finished.wording, format=format)
    account, changed = preferences.write_pairs(
        *(folder, finished.scored(), finished.prompts(), speech),
        name=_dataset_name(finished),
        sided=sides in cards.SIDED,
    )
    card = cards.pairs_card(finished, account, changed, format=format, negative=asked_for)
    files.write_bytes(folder / "README.md", card.encode())


def _dataset_name(finished: FinishedRun) -> str:
    return "".join(c if c.isalnum() else "_" for c in finished.name)


def _upload(folder: Path, name: str, *, kind: str, private: bool) -> str:
    """Make the repository if it is not there, and put the folder into it; the address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi()
    try:
        address = api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, repo_type=kind, commit_message="Export by dlma")
    except (HTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled, OSError) as reason:
        said = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
        raise UserError(
            f"mode.push={name}: the upload failed ({said}); `hf auth login` first; the export lies in {folder}"
        ) from None
    return str(address)
