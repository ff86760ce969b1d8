"""What the site has beside the pages of docs/, as mkdocs asks for it: the README, experiments, a page for each column.

On the site the folder docs/ is the root, so links lead another way; the name of a page in backquotes becomes a link.
"""

import re
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File, Files

from dlma.metrics.summary import METRICS, OF_DRAWN, Metric

ROOT = Path(__file__).resolve().parents[2]
EXTRA = ("*/README.md", "*/*.svg")  # of experiments/
MENTION = re.compile(r"`(?:docs/(\w+\.md)|(experiments|benchmarks)/((?:\w+/)?)(?:README\.md)?)`(?!\]\()")

TABLES = re.compile(r"^## (Columns of [^\n]*)\n(.*?)(?=^## |\Z)", re.S | re.M)  # of the glossary
COLUMN = re.compile(r"^\| (`.*`) \| (.*) \|$", re.M)
MEASURED = {metric.name: metric for metric in (*METRICS, *OF_DRAWN)}
OVER_ANSWERS = {  # Metric.kind
    "mean": "the mean",
    "share": "the share, shown in percent",
    "ratio": "the sum, over the sum of their tokens or sentences",
    "exp_ratio": "the exponential of the sum, over the sum of their tokens",
}


def on_files(files: Files, config) -> Files:
    """Add the README as the first page, and what lies outside docs/, each under its path in the repository."""
    files.append(_page(config, "index.md", ROOT / "README.md"))
    others = [ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
    others += [path for pattern in EXTRA for path in sorted((ROOT / "experiments").glob(pattern))]
    for path in others:
        files.append(_page(config, path.relative_to(ROOT).as_posix(), path))
    for name, text in column_pages((ROOT / "docs" / "glossary.md").read_text("utf-8")).items():
        files.append(File.generated(config, f"columns/{name}.md", content=text))
    return files


def column_pages(glossary: str) -> dict[str, str]:
    """A page for each column that the glossary explains: beside what it says, how a metric is read off answers."""
    pages = {}
    for table, rows in TABLES.findall(glossary):
        for named, about in COLUMN.findall(rows):
            together = re.findall(r"`(\w+)`", named)
            for name in together:
                others = [f"[`{one}`]({one}.md)" for one in together if one != name]
                parts = [f"# `{name}`", f"{about[0].upper()}{about[1:]}.", *_read(MEASURED.get(name))]
                parts += [f"Explained together with {', '.join(others)}."] if others else []
                pages[name] = "\n\n".join([*parts, f"From: [{table}](../glossary.md)."]) + "\n"
    return pages


def _read(metric: Metric | None) -> list[str]:
    if metric is None:
        return []
    rows = [
        ("in tables", metric.label),
        ("unit", metric.unit or "none"),
        ("wanted", metric.better or "neither higher nor lower by itself"),
        ("over an arm's answers", OVER_ANSWERS[metric.kind]),
        ("where sampling was tempered or cut", metric.drawn or metric.label),
        ("in `metrics.csv`", f"`base/{metric.name}`, `prompted/{metric.name}`, `aligned/{metric.name}`"),
    ]
    return ["\n".join(["| | |", "|---|---|", *(f"| {what} | {is_} |" for what, is_ in rows)])]


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

    if page.file.src_uri == "glossary.md":
        text = TABLES.sub(lambda table: _to_columns(table[0]), text)
    parts = re.split(r"(^```.*?^```$|^ {4}[^\n]*$)", text, flags=re.S | re.M)  # code stays as it is
    return "".join(part if i % 2 else MENTION.sub(linked, part) for i, part in enumerate(parts))


def _to_columns(table: str) -> str:
    """A table of columns, in which each leads to its page."""

    def linked(row: re.Match) -> str:
        names = re.sub(r"`(\w+)`", r"[`\1`](columns/\1.md)", row[1])
        return f"| {names} | {row[2]} |"

    return COLUMN.sub(linked, table)
