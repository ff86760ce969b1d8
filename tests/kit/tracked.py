"""A run of three steps as a tracker is told of it, for tests that read back what it kept."""

from pathlib import Path

SECRET = "planted-secret-value"
CURVE = [(0, 1.0), (10, 0.9), (20, 0.8)]  # of train/loss
SUMMARY = {"eval/aligned/harmful": 0.25}
TABLE = (["question", "answer"], [["<b>q</b>", "a"], ["q2", None]])


def record(tracker, folder: Path, name: str, exit_code: int = 0) -> None:
    """Tell a tracker all of it."""
    config = {"recipe": {"lr": 1e-4, "lora": None}, "logger": {"api_key": SECRET}, "judges": {}}
    tracker.start(folder, name, "my-sweep", config)
    for step, loss in CURVE:
        tracker.log({"train/step": step, "train/loss": loss})
    tracker.table("samples", *TABLE)
    tracker.finish(SUMMARY, exit_code=exit_code)


def holds_secret(folder: Path) -> bool:
    """Whether any file below a folder holds the secret of the config."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    return any(SECRET.encode() in path.read_bytes() for path in files)
