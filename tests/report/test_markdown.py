"""Markdown: whatever a name or an answer holds, a reader of Markdown shows it as it is."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dlma.report import markdown
from dlma.screen import visible

HOSTILE = [
    "a|b", "a\\|b", "end\\", "**bold** *x* _y_ __init__ ~~z~~", "`code`", "``` x", "$x^2$", "[x](javascript:alert(1))",
    "![x](http://h/p.png)", "[x][y] [x]: http://h", "<script>alert(1)</script>", "<!-- x", "&lt;b&gt; &amp; &#60;",
    "# head", "- item", "1. item", "12) item", "> quote", "===", "---", "| a |", "+ x", "http://h/x www.h.de", "~~~",
    "a\nb\r\nc\x1b[2J\u202e", "dlma_shuffled,recipe.beta=0.5 [65.0, 75.0] ×1.02 -40.0", "<http://h>", "    indented",
]  # fmt: skip
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], [""]
        self.feed(READER.render(text))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.texts.append("")

    def handle_data(self, data):
        self.texts[-1] += data


def words(text):
    return " ".join(visible(text).split())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_in_its_cell_heading_and_line(text):
    cells = Page(markdown.table(["a", "b"], [[markdown.plain(text), "2"]]))
    assert cells.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    assert [words(one) for one in cells.texts if words(one)] == ["a", "b", words(text), "2"]
    head = Page(f"### {markdown.plain(text)}")
    assert head.tags == ["h3"] and words("".join(head.texts)) == words(text)
    line = Page(f"before\n\n{markdown.paragraph(text)}\n\nafter")
    assert line.tags == ["p", "p", "p"] and words(line.texts[2]) == words(text)
    item = Page(f"- {markdown.paragraph(text)}")
    assert set(item.tags) == {"ul", "li"} and words("".join(item.texts)) == words(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_code_ends_where_it_should(text):
    span = Page(f"x {markdown.code(text)} y")
    assert span.tags == ["p", "code"] and words(span.texts[2].rstrip().removesuffix(" y")) == words(text)
    block = Page(markdown.fenced(f"{text}\n```\n# no head", "yaml") + "\n\nafter")
    assert block.tags == ["pre", "code", "p"]


@given(st.text(alphabet="ab1 _*`[]()!<>&;#|\\~$=-+.:/\n\t", max_size=30))
def test_any_text_is_one_paragraph_and_reads_as_itself(text):
    page = Page(f"x {markdown.plain(text)}")
    assert page.tags == ["p"] and words("".join(page.texts)) == words(f"x {text}")


def test_ordinary_names_and_numbers_are_left_alone():
    for text in (
        "dlma_shuffled",
        "beta=1.2;lr=9e-05",
        "36.1 % [33.3, 39.2]",
        "< 0.0001"[2:],
        "p (Holm)",
        "×1.02 [1, 2]",
    ):
        assert markdown.plain(text) == text
