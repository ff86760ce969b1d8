"""What the site has beside the pages of docs/, as mkdocs asks for it: the README, and the pages of experiments.

On the site the folder docs/ is the root, so links lead another way; the name of a page in backquotes becomes a link.
"""

import re
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
EXTRA = ("*/README.md", "*/*.svg")  # of experiments/
MENTION = re.compile(r"`(?:docs/(\w+\.md)|(experiments|benchmarks)/((?:\w+/)?)(?:README\.md)?)`(?!\]\()")


def on_files(files: Files, config) -> Files:
    """Add the README as the first page, and what lies outside docs/, each under its path in the repository."""
    files.append(_page(config, "index.md", ROOT / "README.md"))
    others = [ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
    others += [path for pattern in EXTRA for path in sorted((ROOT / "experiments").glob(pattern))]
    for path in others:
        files.append(_page(config, path.relative_to(ROOT).as_posix(), path))
    return files


def _page(config, uri: str, path: Path) -> File:
    return File.generated(config, uri, abs_src_path=str(path))


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """The page with its links as they are on the site."""
    here = PurePosixPath(page.file.src_uri).parent
    up = "../" * len(here.parts)
    text = re.sub(r'(\]\(|src="|srcset=")docs/', r"\1", markdown)  # from the root of the repository
    text = re.sub(r"(\]\()\.\./(experiments|benchmarks)/", rf"\1{up}\2/", text)  # from docs/

    def linked(match: re.Match) -> str:
        target = match[1] or f"{match[2]}/{match[3]}README.md"
        return f"[{match[0]}]({up}{target})" if files.get_file_from_path(target) else match[0]

    parts = re.split(r"(^```.*?^```$|^ {4}[^\n]*$)", text, flags=re.S | re.M)  # code stays as it is
    return "".join(part if i % 2 else MENTION.sub(linked, part) for i, part in enumerate(parts))
