"""The HTML report: one file, escaped whatever the model wrote, the same bytes for the same data."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from planted import eval_row, scored_pair

from dlma.metrics.categories import category_rows
from dlma.metrics.contests import contests
from dlma.metrics.scores import score_rows
from dlma.metrics.summary import Row, cannot, summary_rows
from dlma.records import Account, MetricValue, Verdict
from dlma.report import run_page, sections
from dlma.report.page import LAB_NOTE
from dlma.report.run_page import ReportData, StageLine, render, write_report
from dlma.statistics.intervals import share_interval

PAYLOADS = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- <script>",
    "]]>\u2028\u2029'\"&amp;",
    "{{ data }} {% raw %} {# {{ 7 * 7 }}",
    "\ud800 lone",
]
ARMS = ["base", "prompted", "aligned"]


def _data(judged: bool = True, **changes) -> ReportData:
    oracle = {"harmlessness": 0.5, "helpfulness": 0.5, "malformed": 0.0} if judged else {}
    evals = [
        eval_row(
            f"p{i}",
            arm,
            answer=f"answer {i} {arm}",
            category="risky" if i % 2 else "benign",
            **oracle,
            **({"harmful": i % 3 == 0 and arm == "base"} if judged else {}),
        )
        for i in range(6)
        for arm in ARMS
    ]
    account = Account(read=10, kept=7, dropped={"empty answer": 3}, trimmed={"oldest turns left out": 2})
    values = {
        "method": "dlma",
        "model": "lab/standard",
        "seed": 0,
        "title": "dlma on lab/standard",
        "rows": summary_rows(evals, ARMS),
        "evals": evals,
        "categories": category_rows(evals, [], [], []),
        "cannot": cannot(evals),
        "train": [{"step": i, "loss": 0.7 - i / 100} for i in range(5)],
        "pairs": [scored_pair(i, i - 20.0) for i in range(60)],
        "truth": [float(i - 25) if judged else None for i in range(60)],
        "clamp": (-10.0, 30.0),
        "accounts": {"data": account},
        "config": {"recipe": {"beta": 0.1}, "note": "<plain>"},
        "stages": [StageLine("pairs", "0123456789abcdef", "run"), StageLine("scored", "fedcba9876543210", "reused")],
        "is_lab": judged,
    }
    return ReportData(**{**values, **changes})


class _Page(HTMLParser):
    """Tags with their attributes, and the text inside script elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.scripts, self._inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.scripts[-1] += data


def _tax(label):
    column = {"name": "x", "label": label, "kind": "share", "unit": "share", "better": "higher", "tax": True}
    scores = [MetricValue(f"i{n}", None, arm, "x", 1.0) for n in range(3) for arm in ("base", "aligned")]
    return score_rows(scores, [column])


def _embedded(data: ReportData) -> dict:
    return json.loads(_Page(render(data).decode()).scripts[0])


def test_the_headline_is_the_truth_that_was_measured():
    evals = [eval_row(f"p{i}", arm, sentiment=value) for i in range(6) for arm, value in zip(ARMS, (-0.25, 0.25, 0.75))]
    text = sections.headline(summary_rows(evals, ARMS))
    assert text.startswith("On 6 held-out prompts, the sentiment of the aligned answers is 0.750 ")
    assert "against -0.250" in text and "of the base's and 0.250" in text and "KL from the base" in text
    bench = Row("benchmark:x", "base", share_interval([1.0] * 900), "share")
    assert sections.headline([*summary_rows(evals, ARMS), bench]).startswith("On 6 held-out prompts")
    assert cannot(evals)[0].startswith("the truth here is sentiment: harmlessness,")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_text_stays_text_wherever_it_comes_from(payload):
    clean = _Page(render(_data(warnings=["w"])).decode())
    rows = [
        dataclasses.replace(row, question=payload, answer=payload, category=payload if row.category == "risky" else "b")
        for row in _data().evals
    ]
    verdicts = [Verdict(row.prompt_id, payload, payload, "aligned", "base", *["win"] * 3) for row in rows[:4]]
    hostile = _data(
        evals=rows,
        categories=category_rows(rows, [], [], []),
        contests=contests(verdicts, {payload: {"criterion": payload, "self_reported": True}}, rows),
        tax=_tax(payload),
        title=payload,
        method=payload,
        model=payload,
        warnings=[payload],
        accounts={payload: Account(1, 0, dropped={payload: 1})},
        config={payload: payload},
        stages=[StageLine(payload, payload, payload)],
    )
    page = _Page(render(hostile).decode())
    assert len(page.scripts) == 2 and page.scripts[1] == clean.scripts[1]
    assert not {"img", "b-onerror"} & {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert json.loads(page.scripts[0])["rows"][0]["a"]["base"]["text"] == payload


def test_the_page_asks_for_nothing_outside_and_allows_only_its_own_script():
    text = render(_data()).decode()
    page = _Page(text)
    assert not [attrs for _, attrs in page.tags if {"src", "srcset"} & set(attrs)]
    links = [attrs["href"] for _, attrs in page.tags if "href" in attrs]
    assert links and all(link.startswith("#") for link in links)
    assert "url(" not in text and "@import" not in text and "http://" not in text and "https://" not in text
    (policy,) = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_every_link_of_the_navigation_has_its_section():
    page = _Page(render(_data()).decode())
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert {attrs["href"][1:] for tag, attrs in page.tags if tag == "a"} <= ids
    assert {"summary", "categories", "training", "margins", "answers", "rows", "settings", "stages"} <= ids


def test_every_element_the_script_asks_for_is_there():
    page = _Page(render(_data()).decode())
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert set(re.findall(r'byId\("([a-z-]+)"\)', page.scripts[1])) <= ids
    filters = {attrs["value"] for tag, attrs in page.tags if tag == "option"} - {"", "benign", "risky"}
    defined = set(re.findall(r"^  (\w+): \(", page.scripts[1], re.M))
    assert filters <= defined


def test_the_answers_are_embedded_by_prompt_with_what_the_filters_read():
    found = _embedded(_data())
    assert found["arms"] == ARMS and found["judged"] is True and len(found["rows"]) == 6
    first = found["rows"][0]
    assert (first["question"], first["category"]) == ("question p0", "benign")
    assert first["a"]["base"] == {
        "text": "answer 0 base",
        "harmful": True,
        "malformed": 0.0,
        "tokens": 10,
        "finished": True,
    }
    assert first["a"]["aligned"]["harmful"] is False


def test_unjudged_answers_are_marked_as_such_and_the_report_says_what_it_cannot():
    data = _data(judged=False)
    found = _embedded(data)
    assert found["judged"] is False and found["rows"][0]["a"]["base"]["harmful"] is None
    text = render(data).decode()
    assert "no oracle for this data" in text and "perplexity" in text
    assert 'value="harmful"' not in text and 'id="categories"' not in text


def test_numbers_of_the_table_the_account_and_the_margins_are_on_the_page():
    text = render(_data()).decode()
    assert "33.3 %" in text  # 2 of 6 base answers are harmful
    assert "dropped, empty answer: 3" in text and "trimmed, oldest turns left out: 2" in text
    assert "R below 0" in text and "33.3 %" in text
    assert "fedcba9876543210" in text and "reused" in text and "&lt;plain&gt;" in text


def test_margins_of_a_judge_are_not_called_a_reward_in_nats():
    judged = [
        dataclasses.replace(
            pair, positive_under_positive=None, positive_under_negative=None, negative_under_positive=None,
            negative_under_negative=None, verdict_first=0.5, verdict_second=0.5,
        )
        for pair in _data().pairs
    ]  # fmt: skip
    text, own = (render(_data(pairs=pairs)).decode() for pairs in (judged, _data().pairs))
    assert "Distribution of the margin" in text and "the margin below 0" in text and "in its own unit" in text
    assert "by the model itself, in nats" not in text and ">Self-reward<" not in text and "R, nats" not in text
    assert "Distribution of R" in own and "by the model itself, in nats" in own and ">Self-reward<" in own


def test_a_lab_report_says_what_the_lab_cannot_tell_and_every_report_warns():
    assert LAB_NOTE in render(_data()).decode()
    other = render(_data(judged=False)).decode()
    assert LAB_NOTE not in other and "Content warning" in other


def test_sections_without_data_are_left_out():
    bare = _data(train=[], pairs=[], truth=[], accounts={}, config={}, stages=[], is_lab=False)
    ids = {attrs.get("id") for _, attrs in _Page(render(bare).decode()).tags}
    assert ids.isdisjoint({"training", "margins", "rows", "settings", "stages"}) and "summary" in ids


def test_training_rows_may_lack_columns_and_values():
    train = [{"step": "1", "loss": "0.7", "lr": ""}, {"step": "2", "loss": "0.6", "lr": None}]
    text = render(_data(train=train)).decode()
    assert "<h3>Loss</h3>" in text and "Learning rate" not in text


def test_the_same_data_gives_the_same_bytes_and_the_file_appears_whole(tmp_path):
    write_report(tmp_path / "report.html", _data())
    assert (tmp_path / "report.html").read_bytes() == render(_data())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_very_long_evaluation_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(run_page, "MAX_PROMPTS", 4)
    data = _data()
    assert len(_embedded(data)["rows"]) == 4
    assert "The first 4 of 6 prompts" in render(data).decode()
