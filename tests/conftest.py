"""Every test runs offline, in a folder of its own, and leaves nothing in the checkout."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ran
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of huggingface_hub: a wrong name then fails at once
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Laws are tried on the same examples each time, however slow the machine; a new one is found by hand, with `seed`.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


def pytest_collection_finish() -> None:
    """What is there by now stays to the end: collecting garbage is not to go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`outputs/` and `store/` are relative to the working folder: a fresh one for each test."""
    for name in ("HYDRA_FULL_ERROR", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run_main(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> Callable[..., Ran]:
    """Call the entry in this process, as `run_main("seed=1", "-m")`."""
    from dlma.app import main

    def run(*argv: str) -> Ran:
        capsys.readouterr()
        code = main(list(argv))
        streams = capsys.readouterr()
        return Ran(code, streams.out, streams.err, elsewhere)

    return run


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable], None]:
    """Let the mode be a function of the test: `mode(lambda cfg, /: {})`, run with MODE."""

    from dlma.modes import check

    return lambda function: monkeypatch.setattr(check, "show", function)
