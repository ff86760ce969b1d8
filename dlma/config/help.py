"""`python run.py --help`: what a new user needs and the groups; `--help GROUP`: a group's options, a line for each.

Also where the YAML files lie, and what the program is called here.
"""

from __future__ import annotations

import difflib
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

from omegaconf import OmegaConf

from dlma.errors import UserError

MAIN = "config.yaml"  # the primary config, in conf/
PROGRAM = "dlma"  # the command that a wheel installs
GROUP = re.compile(r"^  - (\w+): (\w+|\[[\w, ]*\]) *(?:# (.*))?$", re.M)  # one option, or a list of several
PARTS = "base"  # a folder of what a group's files share: nothing in it is an option
LONGEST, LEAST = 120, 35  # characters of a meaning, and of what is left of one that is cut at a colon
USAGE = re.compile(r":\s+(?=(python run\.py|make) |[\w.]+=\S).*")  # an example, after what it is an example of
SENTENCE = re.compile(r".+?[.?](?=\s+[A-Z`]|$)")


class Group(NamedTuple):
    """A line of the defaults list: its name, the option or options it has by default, what it is."""

    name: str
    default: str
    about: str


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


def groups(folder: Path) -> list[Group]:
    """Every group, as the defaults list has it."""
    return [Group(*found) for found in GROUP.findall((folder / MAIN).read_text(encoding="utf-8"))]


def options(folders: Sequence[Path], group: str) -> dict[str, str]:
    """A group's options with what each means; of an option that lies in several folders that of the first."""
    found: dict[str, str] = {}
    for folder in [each / group for each in folders]:
        for path in sorted(folder.rglob("*.yaml")):
            name = path.relative_to(folder).with_suffix("")
            if PARTS not in name.parts[:-1]:
                found.setdefault(name.as_posix(), meaning(path.read_text(encoding="utf-8")))
    return found


def meaning(text: str) -> str:
    """What a YAML file is, in a line: the first sentence of its first comment, or as much of it as is whole."""
    comment: list[str] = []
    for line in text.splitlines():
        if line.startswith("# @package"):
            continue
        if not re.match("# [^ ]", line) or (comment and comment[-1].endswith((".", "?"))):  # an example is set in
            break
        comment.append(line[2:].partition("  # ")[0].rstrip())
    said = USAGE.sub("", " ".join(comment))
    sentence = SENTENCE.match(said)
    return _cut(sentence[0] if sentence else said).rstrip(".:")


def _cut(said: str) -> str:
    """A sentence that is too long, up to its last colon or semicolon; up to a comma where that leaves hardly a word."""
    if len(said) <= LONGEST:
        return said
    heads = [
        (mark, said[: found.start()]) for mark in ("[;:]", ",") for found in re.finditer(f"{mark} ", said[:LONGEST])
    ]
    whole = [(mark, head) for mark, head in heads if head.count("(") == head.count(")")]
    main = [head for mark, head in whole if mark != "," and len(head) >= LEAST]
    return max(main or [head for _, head in whole] or [said], key=len)


def text(folder: Path) -> str:
    """The page of `--help`; groups, defaults and explanations are read from the defaults list."""
    source = cast(dict, OmegaConf.to_container(OmegaConf.load(folder / "hydra" / "help" / "dlma.yaml"), resolve=False))
    shown = "\n".join(f"  {name:<13} {about}  [{default.strip('[]')}]" for name, default, about in groups(folder))
    page = source["template"].replace("${hydra.help.header}", source["header"]).replace("$GROUPS", shown).rstrip()
    return _called(page)


def group_text(folders: Sequence[Path], wanted: str) -> str:
    """The page of `--help GROUP`; raises UserError where there is no such group."""
    known = {group.name: group for group in groups(folders[0])}
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"--help {wanted}: no such group{hint} (there are {', '.join(known)})")
    group, found = known[wanted], options(folders, wanted)
    chosen = [name for name in re.findall(r"\w+", group.default) if name in found]
    head = f"{wanted}: {group.about}" + ("  (*: the default)" if chosen else "")
    width = max(map(len, found), default=0)
    listed = [_entry(name, about, width, "*" if name in chosen else " ") for name, about in found.items()]
    example = group.default.replace(" ", "") if chosen else next(iter(found), "YOURS")
    foot = f"The keys of one, in the whole config: python run.py --cfg job {wanted}={example}"
    return _called("\n".join([head, "", *(listed or ["  none yet: your own (--config-dir)"]), "", foot]))


def _entry(name: str, about: str, width: int, mark: str) -> str:
    return textwrap.fill(f"  {name:<{width}} {mark} {about}", 118, subsequent_indent=" " * (width + 5))


def _called(page: str) -> str:
    return page.replace("python run.py", " ".join(command()))
