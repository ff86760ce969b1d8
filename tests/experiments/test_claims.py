"""What the pages say in numbers is filled in from results, or is a constant of the design; nothing else is typed."""

import ast
import csv
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dlma.report import result_text
from dlma.statistics import intervals
from dlma.sweep.results import Result, write_csv
from experiments import pooled, tables, texts

ROOT = Path(__file__).resolve().parents[2]
OWN_TABLES = "benchmarks/README.md"  # its numbers are those of its tables (tests/benchmarks)
SHOWN = {ROOT / page for page in texts.PAGES.values() if page != OWN_TABLES}
PAGES = sorted({*SHOWN, *(ROOT / "experiments").glob("*/README.md")})
WORDS = {word: n for n, word in enumerate(texts.WORDS) if n > 2}
NUMBER = re.compile(
    rf"(?<![\w.])(?<![A-Za-z]-)(?<!\w\+)\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)|\b(?:{'|'.join(WORDS)})\b", re.I
)
UNITS = re.compile(r"\s*(%|points?\b|times\b|minutes?\b|hours?\b|seconds?\b)")
LEVELS = {f"{100 * result_text.MARGIN:g} points", f"{100 * intervals.LEVEL:g} %", "1 points"}
# Of pages on other things too, the sections that say what came out.
RESULTS = {
    "README.md": ("What was found",),
    "docs/how_it_is_built.md": ("Speed",),
    "docs/real_models.md": ("In which type it computes",),
}


def prose(text):
    """Without code, marks and links; of code its comments stay, of what is filled in the words that are typed there."""
    text = re.sub(r"^```.*?^```", lambda code: "\n".join(re.findall(r"(?<= )# .*", code[0])), text, flags=re.S | re.M)
    text = re.sub(r"^    .*?$|<!--.*?-->|\]\([^)]*\)|\{#.*?#\}", " ", text, flags=re.S | re.M)
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", lambda code: _words(code[0]), text, flags=re.S)
    return re.sub(r"`[^`\n]*`", " ", text)


def _words(code):
    """The strings of a template's code that are more than a name."""
    return " . ".join(text for text in re.findall(r"\"([^\"]*)\"", code) if " " in text) + " "


def said(page):
    """A page with its tables left out, and each of its texts as the template has it."""
    text = page.read_text()
    if (chosen := RESULTS.get(str(page.relative_to(ROOT)))) is not None:
        sections = [section for section in re.split(r"^## ", text, flags=re.M) if section.startswith(chosen)]
        assert len(sections) == len(chosen)
        text = "\n".join(sections)
    marks = {template.stem: template for template in texts.templates() if tables.page_of(template.parent.name) == page}
    return re.sub(
        r"<!-- (\w+):start -->(.*?)<!-- \w+:end -->",
        lambda block: marks[block[1]].read_text() if block[1] in marks else "",
        text,
        flags=re.S,
    )


def numbers_in(text):
    """(number, what is read as a number and its unit) of every number that stands in prose."""
    for match in NUMBER.finditer(text):
        word = match[0].lower()
        unit = UNITS.match(text, match.end())
        yield (
            float(WORDS.get(word) or word.rstrip(",").replace(",", "")),
            match[0].rstrip(",") + (unit[0] if unit else ""),
        )


def typed(text, design):
    """The numbers of a prose text that are neither a level of the tests nor, without a unit, of the design."""
    found = [(value, shown) for value, shown in numbers_in(prose(text)) if shown not in LEVELS]
    return [shown for value, shown in found if value not in design or UNITS.search(shown)]


def leaves(node):
    """The numbers in a YAML tree, in its strings too, and how many values a list has."""
    if isinstance(node, dict | list):
        parts = node.values() if isinstance(node, dict) else node
        yield from [float(len(node))] if isinstance(node, list) else []
        for part in parts:
            yield from leaves(part)
    elif isinstance(node, str):
        yield float(node.count(",") + 1)
        yield from (abs(float(n)) for n in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", node))
    elif node is not None:
        yield abs(float(node))


def design_of(name):
    """The constants of an experiment: of its plan and table, the configs that it runs, the lab's recipe and data, and
    its scripts; and the seeds, pairs and prompts that its results count."""
    folder, conf = ROOT / "experiments" / name, ROOT / "conf"
    table = folder / "table.yaml"
    run = {name, *re.findall(r"experiment=(\w+)", table.read_text() if table.exists() else "")}
    files = [path for each in run for path in conf.glob(f"experiment/{each}.yaml")]
    files += [*folder.glob("*.yaml"), conf / "recipe/lab.yaml", conf / "data/base/lab.yaml"]
    found = {number for path in files for number in leaves(yaml.safe_load(path.read_text()))}
    for script in folder.glob("*.py"):
        nodes = ast.walk(ast.parse(script.read_text()))
        found |= {float(n.value) for n in nodes if isinstance(n, ast.Constant) and type(n.value) in (int, float)}
    for path in folder.glob("*.csv"):
        for row in csv.DictReader(path.open()):
            found |= {float(row.get("n") or 0), (row.get("seed") or row.get("seeds") or "").count("+") + 1.0}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_number_of_a_page_is_typed_by_hand_unless_the_design_has_it(page):
    text = said(page)
    shown = {template.parent.name for template in texts.templates() if tables.page_of(template.parent.name) == page}
    read = {page.parent.name, *shown, *re.findall(r"(?:numbers|own)\(\"(\w+)\"\)", text)}
    assert typed(text, set().union(*map(design_of, read))) == []


@pytest.mark.parametrize("template", texts.templates(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_text_of_a_page_says_what_the_committed_results_say_byte_for_byte(template):
    page = tables.page_of(template.parent.name)
    assert tables.shown(page, template.stem) == texts.render(template, tables.own)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no difference above 1.4 points, every interval within 4", ["1.4 points", "4"]),
        ("17 to 31.9 % at 0.92 nats", ["17", "31.9 %", "0.92"]),
        ("on 2,000 pairs, 3 seeds, within 3 points, 95 % intervals", []),
        ("it takes 3 % off", ["3 %"]),  # 3 is of the design, a share of it is not
        ("seven of eight, from -0.003 to +0.004", ["seven", "eight", "0.003", "0.004"]),
        ("GPT-2, Qwen3, `beta=0.15` and [a link](https://arxiv.org/abs/2402.11907)", []),
        ("{{ mean('dlma', 'harmful') | percent(1) }} and {{ claim(true, \"ahead by 7 points\") }}", ["7 points"]),
        ("```bash\npython run.py seed=7    # 46 minutes\n```", ["46 minutes"]),
    ],
)
def test_a_number_that_is_typed_is_found(text, found):
    assert typed(text, {2000.0, 3.0}) == found


def result(value, low, high, p=1.0, **what):
    more = {"seeds": (0, 1, 2), "statistic": "difference", "versus": "base", **what}
    return Result("b", "m", "harmful", 1000, value, low, high, p, **more)


def test_no_difference_is_shown_only_by_an_interval_within_three_points():
    inside, out, edge = result(0.01, -0.01, 0.029), result(0.0, -0.035, 0.044), result(0.0, -0.03, 0.03)
    assert texts.within([inside, out, edge]) == [inside]
    assert result_text.MARGIN == 0.03


def test_what_the_results_do_not_bear_is_not_rendered():
    assert texts.claim(True, "none by Holm") == "none by Holm"
    with pytest.raises(ValueError, match="do not say so: none by Holm"):
        texts.claim(False, "none by Holm")


def test_a_text_that_the_results_do_not_bear_says_which_and_the_other_pages_are_written(tmp_path, monkeypatch, capsys):
    for module in (tables, texts):
        monkeypatch.setattr(module, "HERE", tmp_path / "experiments")
    monkeypatch.setattr(texts, "PAGES", {"bad": "BAD.md", "good": "GOOD.md"})
    for name, condition in (("bad", "false"), ("good", "true")):
        (tmp_path / "experiments" / name).mkdir(parents=True)
        (tmp_path / "experiments" / name / "said.md").write_text(f"{{{{ claim({condition}, 'so it is') }}}}")
        (tmp_path / f"{name.upper()}.md").write_text("<!-- said:start -->\nold\n<!-- said:end -->\n")
    texts._environment.cache_clear()
    try:
        assert tables.main(["render"]) == 2
    finally:
        texts._environment.cache_clear()
    assert capsys.readouterr().err == ("experiments/bad/said.md: the results do not say so: so it is; mend the text\n")
    assert "so it is" in (tmp_path / "GOOD.md").read_text() and "old" in (tmp_path / "BAD.md").read_text()


def test_numbers_are_rounded_once_and_keep_their_interval():
    one, other = result(0.0644, 0.0401, 0.0886), result(-0.0206, -0.035, -0.0042)
    assert texts.points(one, 1, bounds=True) == "6.4 points [4.0, 8.9]"
    assert texts.points(texts.less(other), 1, bounds=True) == "2.1 points [0.4, 3.5]"
    assert texts.points([one, other], 1, sign=True) == "-2.1 to +6.4 points"
    assert texts.percent(one, 0) == "6 %" and texts.percent([one, result(0.063, 0, 1)], 0) == "6 %"
    assert texts.number(0.9184) == "0.92" and texts.word(12) == "twelve" and texts.word(48) == "48"
    assert texts.p_words(result(0, 0, 0, 0.0506)) == "p 0.051" and texts.p_words(result(0, 0, 0, 1e-5)) == "p < 0.01"
    assert texts.clear([one, other, result(0.1, -0.1, 0.3)]) == [one, other]


def test_a_row_is_found_by_its_columns_and_nothing_else(tmp_path, monkeypatch):
    """The row of all seeds stands after those of each; what is there twice, or never, is no number."""
    monkeypatch.setattr(texts, "HERE", tmp_path)
    (tmp_path / "mine").mkdir()
    one, both, other = (
        Result(base, "dlma", "harmful", 10, value, seeds=seeds, settings=(("beta", "1.0"),))
        for base, value, seeds in (("lab", 0.2, (0,)), ("lab", 0.25, (0, 1)), ("other", 0.5, (0, 1)))
    )
    needed = replace(both, value=17.0, statistic="needed", versus="base")
    gap = replace(both, value=-0.4, statistic="difference", versus="base", axis="kl", at=0.5)
    (tmp_path / "mine" / "results.csv").write_bytes(write_csv([one, both, other, needed, gap]))
    mine = texts.Numbers("mine")
    assert mine.mean("dlma, beta=1.0", "harmful", base="lab").value == 0.25
    assert mine.pick(method="dlma", beta="1.0", metric="harmful", base="lab").value == 0.25
    assert mine.minus("dlma, beta=1.0", "harmful", "base", at="kl 0.5").value == -0.4
    assert mine.differences("harmful", ".*", at="kl .*") == [gap]  # and none of the prompts that it takes
    for keys in ({"method": "dlma", "metric": "harmful"}, {"method": "rlcd", "metric": "harmful"}):
        with pytest.raises(LookupError, match="mine/results"):
            mine.pick(**keys)


def test_the_least_p_of_an_interval_bounds_what_either_part_alone_would_give():
    """Two degrees of freedom (three seeds) have P(|T| > t) = 1 - t / root of (2 + t^2); 0 at the bound is p 0.05."""
    least, quantile = pooled.least_p, 4.302653
    assert least(result(0.02, 0.0, 0.04)) == pytest.approx(0.05)
    t = quantile / 2  # half as far from 0 as the interval is wide; over prompts alone p would be 0.33
    assert least(result(0.01, -0.01, 0.03)) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-6)


def test_the_registered_reading_stands_beside_the_amended_one():
    """plan.yaml: a line in KL at 1 nat, Holm over four; reported: in the root of KL, Holm over eight, and the fit."""
    page = tables.shown(tables.page_of("main_comparison"), "results")
    (head,) = [line for line in page.splitlines() if line.startswith("| method | registered")]
    assert "p, Holm over 4" in head and "p, Holm over 8" in head
    assert "lines in the root of KL" in head and "on the fit" in head
    plan = yaml.safe_load((ROOT / "experiments" / "main_comparison" / "plan.yaml").read_text())
    assert "linear.csv" in plan["amended_2026-11-29"]
    linear = list(csv.DictReader((ROOT / "experiments" / "main_comparison" / "linear.csv").open()))
    now = list(csv.DictReader((ROOT / "experiments" / "main_comparison" / "results.csv").open()))
    same = [name for name in linear[0] if name not in ("value", "low", "high", "p_holm")]
    key = lambda row: tuple(row[name] for name in same)  # noqa: E731
    assert {key(row) for row in linear} <= {key(row) for row in now}  # the same curves, seeds and prompts


def test_the_map_tells_apart_only_what_is_significant_and_says_at_which_kl():
    table = tables.own("phase_diagram")

    def row(method, metric, value, p=1.0, statistic="mean"):
        return Result("lab-o0.1j0.0", method, metric, 500, value, value, value, p, statistic=statistic)

    for p, said in ((0.04, "**`rlaif` told apart from `dlma`**"), (0.06, "not told apart")):
        found = [
            row("dlma", "harmful", 0.5),
            row("dlma", "kl", 1.0),
            row("rlaif", "harmful", 0.6),
            row("rlaif", "kl", 0.25),
        ]
        found.append(row("rlaif", "harmful", 0.1, p, "difference"))
        assert (
            table._outcome("lab-o0.1j0.0", table._cells(found)) == f"`dlma` 50.0 at 1.00, `rlaif` 60.0 at 0.25; {said}"
        )
