"""One table in five forms: each says the same, and no text leaves its cell in any of them."""

import csv
import io
import math
import re
from html.parser import HTMLParser

import pytest
from markupsafe import Markup

from dlma.report.charts.run import forest
from dlma.report.table import Column, Table, Text, Value, html, latex, markdown, plain, print_table
from dlma.report.table import csv as csv_bytes
from dlma.screen import Console, visible
from dlma.statistics.intervals import Estimate

HARM, KL = Estimate(0.361, 0.333, 0.392, 1200), Estimate(0.25, math.nan, math.nan, 1)
HOSTILE = [
    "</td></tr></table><script>alert(1)</script>", '" onmouseover="x', "{{ 7 * 7 }}", "[bold]x[/bold]", "[/]",
    "a | b", "**x** `y` [z](http://e)", r"\input{x} & 50 % $y$ #1", "a\nb", "=1+1", "x\x1b[2J\u202ey",
]  # fmt: skip


def a_table(text="name", title="t"):
    columns = [Column(text, below=text, tip=text), Column("harm", "value", "share"), Column("n", "count")]
    columns += [Column("", "chart"), Column("key", "code")]
    dot = Text("", chart=forest([("c-base", HARM, text)]))
    first = Text(text, unit=text, below=(text,), link=text)
    return Table(
        title, columns, [[first, HARM, 1200, dot, text], [text, None, None, dot, Text(text, badge="bad")]], [text]
    )


def printed(table, **how):
    console = Console(file=io.StringIO(), width=400)
    print_table(table, console, **how)
    return console.file.getvalue()


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, sorted(name for name, _ in attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_every_form_says_the_value_with_its_interval_in_the_units_of_the_column():
    table = a_table()
    for form in (printed(table), markdown(table), latex(table).replace("\\", "")):
        assert re.search(r"36\.1 % *\[33\.3, 39\.2\]", form) and "1,200" in form and "–" in form.replace("--", "–")
    assert '<b>36.1 %</b><span class="bounds">[33.3, 39.2]</span>' in html(table)
    assert '<b>36.1 %</b><br><span class="bounds">' in html(table, stacked=True)


def test_a_value_may_have_a_unit_of_its_own_and_say_its_n():
    table = Table("", [Column("v", "value", "share")], [[Value(KL, "nats", counted=True)]])
    assert plain(table) == (["v"], [["0.250 [–, –] n 1"]])


def test_the_csv_is_exact_and_what_is_unknown_is_empty():
    table = Table("", [Column("name"), Column("m", "value"), Column("k", "count")], [["a", KL, 3], ["b", None, None]])
    lines = list(csv.reader(io.StringIO(csv_bytes(table).decode())))
    assert lines == [["name", "m", "m_low", "m_high", "k"], ["a", "0.25", "", "", "3"], ["b", "", "", "", ""]]


def test_a_chart_is_in_the_page_and_in_no_text():
    table = a_table()
    assert html(table).count("<svg") == 2
    for form in (printed(table), markdown(table), latex(table)):
        assert "svg" not in form and "c-base" not in form


def test_a_row_that_is_too_short_is_no_table():
    with pytest.raises(ValueError, match="zip"):
        html(Table("", [Column("a"), Column("b")], [["x"]]))


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text_in_html(text):
    hostile, tame = (Page(html(table)) for table in (a_table(text, text), a_table()))
    breaks = ("br", [])  # a line feed in a cell is one
    assert [tag for tag in hostile.tags if tag != breaks] == [tag for tag in tame.tags if tag != breaks]
    assert text.split("\n")[0] in "".join(hostile.text)
    assert isinstance(html(a_table(text)), Markup)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text_in_the_terminal_markdown_latex_and_csv(text):
    assert "\x1b" not in printed(a_table(text)) and visible(text).split("\n")[0] in printed(a_table(text))
    lines = [line for line in markdown(a_table(text)).splitlines() if line.startswith("|")]
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert set(bars) == {5} and "<script" not in markdown(a_table(text))
    ours, tame = latex(a_table(text, text)).splitlines(), latex(a_table()).splitlines()
    assert len(ours) == len(tame) and "\\input" not in latex(a_table(text))
    for line, other in zip(ours, tame):
        assert len(re.findall(r"(?<!\\)&", line)) == len(re.findall(r"(?<!\\)&", other))
    (_, first, _) = csv.reader(io.StringIO(csv_bytes(a_table(text)).decode()))
    assert first[0].lstrip("'") == visible(text)
