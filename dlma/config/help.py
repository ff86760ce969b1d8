"""`python run.py --help`: what dlma is, its groups and their options, and five useful commands.

Also where the YAML files lie, and what the program is called here.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf

MAIN = "config.yaml"  # the primary config, in conf/
PROGRAM = "dlma"  # the command that a wheel installs
GROUP = re.compile(r"^  - (\w+): (\w+|\[[\w, ]*\]) *(?:# (.*))?$", re.M)  # one option, or a list of several


def conf_dir() -> Path:
    """The YAML files: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "conf"
    return beside if (beside / MAIN).is_file() else package / "conf"


def command() -> list[str]:
    """How this program is called: by the package's name where it was installed, `python run.py` in a checkout."""
    return [PROGRAM] if Path(sys.argv[0]).stem == PROGRAM else ["python", "run.py"]


def started_by() -> tuple[list[str], str]:
    """How the present process was started, and its interpreter, as a shell in the present folder finds them."""
    python = _found(sys.executable, "python")
    script = Path(sys.argv[0])
    if script.stem == PROGRAM:
        return [_found(str(script.absolute()), PROGRAM)], python
    return [python, sys.argv[0] if script.name == "run.py" else "run.py"], python


def _found(path: str, name: str) -> str:
    """A program by its name, where the shell finds just that one under it; else by its path, from here on."""
    if shutil.which(name) == path:
        return name
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path


def text(folder: Path) -> str:
    """The help text; groups, defaults and explanations are read from the defaults list and its folders."""
    source = cast(dict, OmegaConf.to_container(OmegaConf.load(folder / "hydra" / "help" / "dlma.yaml"), resolve=False))
    groups = GROUP.findall((folder / MAIN).read_text(encoding="utf-8"))
    shown = "\n".join(_entry(folder, *group) for group in groups)
    page = source["template"].replace("${hydra.help.header}", source["header"]).replace("$GROUPS", shown).rstrip()
    return page.replace("python run.py", " ".join(command()))


def _entry(folder: Path, group: str, default: str, about: str) -> str:
    found = sorted(path.stem for path in (folder / group).glob("*.yaml"))
    chosen = re.findall(r"\w+", default)
    marked = ", ".join(f"[{name}]" if name in chosen else name for name in found) or "(none yet: your own)"
    lines = textwrap.wrap(marked, 96, initial_indent=" " * 14, subsequent_indent=" " * 14)
    return f"  {group:<11} {about}\n" + "\n".join(lines)
