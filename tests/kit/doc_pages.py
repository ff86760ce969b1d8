"""The pages of the documentation: their code blocks, and the commands in these."""

import re
import shlex
from pathlib import Path

from source_tree import ROOT

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
SHELLS = ("bash", "sh", "shell", "console")


def blocks(page: Path, *kinds: str) -> list[str]:
    """The fenced blocks of these languages."""
    return [block for kind, block in re.findall(r"```(\w+)\n(.*?)```", page.read_text("utf-8"), re.S) if kind in kinds]


def shell_lines(page: Path) -> list[str]:
    """Every line of a page's shell blocks without its comment, and every indented line that starts our program."""
    fenced = [line.split(" #")[0].strip() for block in blocks(page, *SHELLS) for line in block.splitlines()]
    indented = re.findall(r"^ {4}(python run\.py .*)$", page.read_text("utf-8"), re.M)
    return [line for line in [*fenced, *indented] if line]


LAUNCHERS = (
    r"python run\.py|torchrun(?: --[\w=:.-]+)+ run\.py|srun(?: --[\w=:.-]+)+ python run\.py|docker run .* dlma(?= \w+=)"
)


def run_words(line: str) -> list[str] | None:
    """The words after `python run.py`, whoever starts it; None for another command."""
    started = re.match(rf"(?:{LAUNCHERS})(?= |$)", line)
    return shlex.split(line[started.end() :]) if started else None
