"""The pages of docs/: every command passes the check, every file that is named exists, and the site builds."""

import asyncio
import importlib.util
import re
import struct
import subprocess
import sys
from pathlib import Path

import chromium
import pytest
import yaml
from doc_pages import DOCS, README, run_words, shell_lines
from source_tree import ROOT

from dlma.config import compose
from dlma.metrics import lab_skills, profanity, refusal, sentiment, text_quality
from dlma.metrics.summary import BEYOND, METRICS
from dlma.sweep.costs import HEADS
from dlma.sweep.results import read_csv

PATH = compose.search_path(ROOT / "conf", None)
ELSEWHERE = {"real_models.md", "own_method.md"}  # run by a test of their own
LINES = {line: page.name for page in reversed(DOCS) if page.name not in ELSEWHERE for line in shell_lines(page)}
COMMANDS = [(page, line) for line, page in LINES.items() if run_words(line) is not None]
LARGE = re.compile(r"-m .*(experiment=|,\w+,\w+.*,\w+,\w+)")  # sweeps that take seconds to compose
OTHERS = re.compile(
    r"make (\w+)\b.*|(VLLM_ALLOW_RUNTIME_LORA_UPDATING=True )?vllm serve MODEL .*|export OPENAI_API_KEY=.*|"
    r"python -m llama_cpp\.server .*|transformers serve FOLDER .*|pip install .*|ray start --head.*|"
    r"docker build .*|eval \"\$\(python run\.py -sc .*\)\""
)
EXTRAS = {"executor=ray": "ray", "hydra/sweeper=optuna": "optuna", "hydra/launcher=ray": "ray"}  # of no set-up
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text("utf-8")


def test_the_lines_of_the_shell_blocks_are_our_commands_targets_of_make_or_a_server():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    others = [line for line in LINES if run_words(line) is None]
    assert [line for line in others if not OTHERS.fullmatch(line)] == []
    assert {line.split()[1] for line in others if line.startswith("make ")} <= targets
    assert len(COMMANDS) > 60


@pytest.mark.parametrize(
    ("page", "command"),
    [pytest.param(*one, marks=pytest.mark.slow) if LARGE.search(one[1]) else one for one in COMMANDS],
)
def test_each_command_passes_the_check(page, command, run_main):
    words = run_words(command)
    if "--help" in words or "--cfg" in words:  # which only show something
        assert run_main(*words).code == 0
        return
    for word in EXTRAS.keys() & set(words):
        pytest.importorskip(EXTRAS[word], reason=f"{word} needs an extra")
    plan = compose.plan(PATH, [word for word in words if word != "-m"], "-m" in words)
    assert (plan.cells > 1) == ("-m" in words)


@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)
def test_each_file_that_a_page_names_or_links_to_exists(page):
    text = page.read_text("utf-8")
    named = re.findall(r"`((?:tests|dlma|conf|experiments|docs)/[a-z\d_./-]+)(?:::\w+)?`", text)
    made = {"own_method.md": {"dlma/scorer/shorter.py", "conf/method/shorter.yaml"}}.get(page.name, set())
    assert {name for name in named if not (ROOT / name).exists()} == made
    linked = [path for found in re.findall(r"\]\(([^)#\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text) for path in found]
    paths = [path for path in linked if path and "://" not in path]
    assert [path for path in paths if not (page.parent / path).exists()] == []


def test_every_page_of_the_docs_is_in_the_sites_contents():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    listed = set(re.findall(r"'([\w/]+\.md)'", str(nav)))
    assert {page.name for page in DOCS} <= listed


@pytest.mark.slow  # .ci/run builds it too
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ROOT / "mkdocs.yml", "-d", tmp_path / "site"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-2000:]
    start = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert 'href="findings/"' in start and 'src="assets/report_light.png"' in start
    findings = (tmp_path / "site" / "findings" / "index.html").read_text("utf-8")
    assert 'href="../experiments/main_comparison/' in findings
    assert 'href="../lab/"' in (tmp_path / "site" / "glossary" / "index.html").read_text("utf-8")  # named in backquotes
    columns = GLOSSARY.split("## Statistics")[0].split("## Columns", 1)[1]
    named = re.findall(r"^\| (`.*?`) \|", columns, re.M)
    explained = {name for row in named for name in re.findall(r"`(\w+)`", row)}
    assert {path.parent.name for path in (tmp_path / "site" / "columns").glob("*/index.html")} == explained
    assert {metric.name for metric in METRICS} <= explained
    kl = (tmp_path / "site" / "columns" / "kl" / "index.html").read_text("utf-8")
    assert "KL to the base, nats per answer" in kl and "<td>nats/answer</td>" in kl
    reference = (tmp_path / "site" / "api" / "index.html").read_text("utf-8")
    assert 'id="dlma.api.self_reward"' in reference and 'id="dlma.functional.reward.self_reward_margin"' in reference


@pytest.mark.slow
@pytest.mark.skipif(chromium.BINARY is None, reason="no Chromium")
def test_the_pictures_of_a_report_are_taken_in_both_themes(tmp_path):
    """A page that is white in the light and black in the dark; the committed pictures have the same size."""
    spec = importlib.util.spec_from_file_location("report_picture", ROOT / "docs" / "assets" / "report_picture.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = tmp_path / "page.html"
    page.write_text(
        "<style>body {background: #fff} @media (prefers-color-scheme: dark) {body {background: #000}}</style>"
    )
    asyncio.run(script.take(page, tmp_path))
    light, dark = (tmp_path / f"report_{theme}.png" for theme in script.THEMES)
    assert size(light) == size(dark) == (script.WIDTH, script.HEIGHT) and light.read_bytes() != dark.read_bytes()
    for theme in script.THEMES:
        assert size(ROOT / "docs" / "assets" / f"report_{theme}.png") == (script.WIDTH, script.HEIGHT)


def size(png: Path) -> tuple[int, int]:
    """Width and height in pixels, as a PNG's header has them."""
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR"
    return struct.unpack(">II", data[16:24])


def columns() -> set[str]:
    """The metrics and statistics that any table may show."""
    found = {metric.name for metric in (*METRICS, BEYOND)} | set(HEADS)
    for module in (lab_skills, profanity, refusal, sentiment, text_quality):
        found |= set(re.findall(r"MetricColumn\(\"(\w+)\"", Path(module.__file__).read_text("utf-8")))
    results = [one for path in (ROOT / "experiments").glob("*/results.csv") for one in read_csv(path)]
    return found | {one.metric for one in results} | {one.statistic for one in results}


def test_the_glossary_has_every_column_of_a_table():
    said = {
        name
        for line in GLOSSARY.splitlines()
        if line.startswith("|")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert sorted(columns() - said) == []


def test_the_glossarys_words_stand_once_and_in_order_of_the_alphabet():
    rows = GLOSSARY.split("## Words")[1].split("\n## ")[0]
    words = [line.split("|")[1].strip() for line in rows.splitlines() if line.startswith("| ")][1:]
    assert words == sorted(set(words), key=str.lower) and len(words) > 40


def test_the_changelog_says_each_thing_once():
    entries = re.split(r"\n(?=- |### |\n)", (ROOT / "CHANGELOG.md").read_text("utf-8"))
    said = [entry for entry in entries if entry.startswith("- ")]
    assert len(said) > 50 and sorted(said) == sorted(set(said))
