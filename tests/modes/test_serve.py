"""mode=serve: what the page gets, that text stays text and files stay where they are; and a person in a browser."""

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import http.client
import os
import re
import signal
import socket
import threading
import time
import urllib.request
from html.parser import HTMLParser
from urllib.parse import quote, urlencode

import chromium
import pyarrow.parquet as pq
import pytest
from planted import eval_row, scored_pair
from planted_runs import plant
from source_tree import ROOT

from dlma.modes.serve import Server, is_loopback
from dlma.records import ScoredPair, TokenRewards, to_table
from dlma.runs.written import note

PAYLOADS = [
    "</script><script>document.title = 'broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "'\"><svg onload=alert(1)>&amp;",
    "漢 \u202e evil \u2066 ﷽ \u0301\u0301",
]
ARMS = ("base", "aligned")


def rows(prompts=12, **changes):
    found = [
        eval_row(
            f"p{i:02}",
            arm,
            question=f"question {i}",
            answer=f"answer {i} of {arm}" if i % 2 else f"answer {i}",
            category="risky" if i % 3 == 0 else "benign",
            harmful=i == 3 and arm == "base",
        )
        for i in range(prompts)
        for arm in ARMS
    ]
    return [dataclasses.replace(row, **changes) for row in found]


def with_training(folder, loss=0.5):
    """Curves and token rewards of a planted run."""
    (folder / "train.csv").write_text("step,loss\n" + "".join(f"{i},{loss - i / 100}\n" for i in range(1, 6)))
    pairs = [dataclasses.replace(scored_pair(i, float(i)), question=f"pair {i}") for i in range(6)]
    pq.write_table(to_table(ScoredPair, pairs), folder / "scored.parquet")
    read = [TokenRewards(f"x{i}", [float(i), 0.5], [-0.5], [f"good{i}", " b"], ["bad"], [True, False], [False])
            for i in range(6)]  # fmt: skip
    pq.write_table(to_table(TokenRewards, read), folder / "tokens.parquet")
    return folder


@contextlib.contextmanager
def listening(root):
    """A server of a folder, on a port of its own."""
    with Server(root, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(server, address, method="GET", **headers):
    """Status, headers and text of the answer."""
    link = http.client.HTTPConnection(*server.server_address, timeout=20)
    link.request(method, address, headers=headers)
    reply = link.getresponse()
    found = reply.status, dict(reply.getheaders()), reply.read().decode()
    link.close()
    return found


def part(server, name, runs=(), **settings):
    status, _, text = get(server, f"/{name}?{urlencode([*settings.items(), *(('run', run) for run in runs)])}")
    assert status == 200
    return text


def ids(server):
    return re.findall(r'name="run" value="(\w+)"', part(server, "runs"))


@pytest.fixture
def outputs(elsewhere):
    """Two runs, the second of which is the later one; the base's answers are the same in both."""
    folder = elsewhere / "outputs"
    late = {"started": 9.0, "result": {"alerts": ["length_drift"]}}
    with_training(plant(folder / "one", rows=rows()))
    changed = [dataclasses.replace(r, answer=r.answer + "!") if r.arm == "aligned" else r for r in rows(14)]
    with_training(plant(folder / "two", rows=changed, method="rlcd", status=late), loss=0.7)
    return folder


class Tags(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


# What the page gets


def test_the_page_asks_for_nothing_outside_and_runs_its_own_script_only(outputs):
    with listening(outputs) as server:
        status, headers, text = get(server, "/")
    tags = Tags(text).tags
    assert status == 200 and headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
    assert not [attrs for _, attrs in tags if {"src", "srcset"} & set(attrs)] and "url(" not in text
    assert "http://" not in text and "https://" not in text
    (policy,) = [attrs["content"] for _, attrs in tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ")[0] == "default-src 'none'" and f"script-src 'sha256-{digest}'" in policy
    assert policy.endswith("connect-src 'self'") and "'unsafe-inline'" not in policy.replace("style-src 'unsafe", "")
    assert set(re.findall(r'byId\("([a-z-]+)"\)', script)) <= {attrs.get("id") for _, attrs in tags}


def test_runs_are_listed_and_chosen_by_alert_and_by_text(outputs):
    with listening(outputs) as server:
        text = part(server, "runs")
        assert len(ids(server)) == 2 and "2 of 2 runs" in text and text.index(">two<") < text.index(">one<")
        assert "<option>length_drift</option>" in text
        chosen = part(server, "runs", alert="length_drift")
        assert ">two<" in chosen and ">one<" not in chosen and "<option selected>length_drift</option>" in chosen
        assert "1 of 2 runs" in part(server, "runs", find="RLCD") and "No run matches." in part(
            server, "runs", find="x9"
        )


def test_answers_of_runs_stand_side_by_side_and_shared_ones_once(outputs):
    with listening(outputs) as server:
        two, one = ids(server)
        text = part(server, "answers", [two, one])
        assert "1–10 of 14 prompts" in text and text.count('<article class="case">') == 10
        assert "aligned: two" in text and "aligned: one" in text and "base: " not in text
        later = part(server, "answers", [two, one], page=1)
        assert "11–14 of 14 prompts" in later and later.count("no answer") == 2  # one has 12 prompts
        same = part(server, "answers", [one, one], arms="all")
        assert "base: one and 1 more" in same and same.count('<div class="arm ') == 20
        assert "11–14 of 14" in part(server, "answers", [two], page=99)  # a page that is gone is the last one


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"category": "risky"}, 4),
        ({"which": "differ", "arms": "all"}, 6),
        ({"which": "harmful", "arms": "all"}, 1),
        ({"find": "answer 7"}, 1),
        ({"category": "nothing"}, 0),
    ],
)
def test_prompts_are_filtered(outputs, settings, count):
    with listening(outputs) as server:
        one = ids(server)[1]
        text = part(server, "answers", [one], **settings)
    assert text.count('<article class="case">') == count and f"{count} prompts" in text


def test_texts_are_blurred_but_where_no_harm_was_found(outputs, elsewhere):
    plant(elsewhere / "outputs" / "unjudged", rows=rows(harmful=None), status={"started": 99.0})
    with listening(outputs) as server:
        unjudged, _, one = ids(server)
        text = part(server, "answers", [one], arms="all", which="harmful")
        assert re.findall(r'<div class="text"( data-veil)?>([^<]*)<', text) == [
            *(("", "question 3"), (" data-veil", "answer 3 of base"), ("", "answer 3 of aligned"))
        ]
        assert part(server, "answers", [unjudged]).count("data-veil") == 20


def test_token_rewards_come_in_pages_of_the_first_run_that_has_them(outputs, elsewhere):
    plant(outputs / "bare", prompts=2, status={"started": 99.0})
    with listening(outputs) as server:
        bare, two, _ = ids(server)
        assert "None of these runs" in part(server, "tokens", [bare])
        text = part(server, "tokens", [bare, two])
        assert "1–4 of 6 pairs of two" in text and re.findall(r">(good\d)<", text) == [
            "good5",
            "good4",
            "good3",
            "good2",
        ]
        assert "pair 5" in text and 'data-tip="+5.000 nats"' in text
        assert re.findall(r">(good\d)<", part(server, "tokens", [two], page=1)) == ["good1", "good0"]


def test_curves_of_several_runs_lie_over_one_another(outputs):
    (outputs / "one" / "trajectory.csv").write_text(
        "step,n,parts,kl,kl_low,kl_high,harmful,harmful_low,harmful_high\n"
        "0,9,0,0,0,0,0.5,0.4,0.6\n5,9,0,1.5,1,2,0.2,0.1,0.3\n"
    )
    with listening(outputs) as server:
        two, one = ids(server)
        text = part(server, "curves", [two, one])
        assert text.count('class="line "') == 2 and "step 3: two 0.67, one 0.47" in text  # the loss of both
        assert "step 5: KL 1.500 [1.000, 2.000], 20.0 % [10.0, 30.0]" in text
        assert '<option value="harmful" selected>' in text
        assert '<option value="tokens" selected>' in part(server, "curves", [two], metric="tokens")
        assert "No run is ticked." in part(server, "curves")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_text_stays_text_wherever_it_comes_from(elsewhere, payload):
    folder = elsewhere / "outputs" / payload.replace("/", "∕")
    status = {"result": {"alerts": [payload]}, "started": 1.0}
    hostile = rows(question=payload, answer=payload, category=payload)
    with_training(plant(folder, rows=hostile, method=payload, base=payload, status=status))
    pair = dataclasses.replace(scored_pair(0, 1.0), question=payload)
    pq.write_table(to_table(ScoredPair, [pair]), folder / "scored.parquet")
    read = TokenRewards("x0", [1.0], [2.0], [payload], [payload], [True], [False])
    pq.write_table(to_table(TokenRewards, [read]), folder / "tokens.parquet")
    plant(elsewhere / "outputs" / f"broken {payload.replace('/', '∕')}", status={"status": payload})
    with listening(elsewhere / "outputs") as server:
        (run,) = ids(server)
        for name in ("runs", "answers", "tokens", "curves"):
            found = Tags(part(server, name, [run], arms="all", category=payload, alert=payload, metric=payload))
            assert not {"script", "img"} & {tag for tag, _ in found.tags}
            assert not [key for _, attrs in found.tags for key in attrs if key.startswith("on")]
            assert name == "curves" or payload.strip() in found.text


# What is refused


@pytest.mark.parametrize(
    "address",
    [
        *("/../../etc/passwd", "/..%2f..%2fsecret.txt", "//etc/passwd", "/outputs/one/config.yaml", "/one/report.html"),
        *("/answers/../../secret.txt", "/static/%2e%2e/secret.txt", "/answers%00", "/report.html", "/.", "/RUNS"),
    ],
)
def test_no_address_is_a_path(outputs, elsewhere, address):
    (elsewhere / "secret.txt").write_text("planted secret")
    with listening(outputs) as server:
        status, _, text = get(server, address)
    assert status == 404 and "planted" not in text


@pytest.mark.parametrize("run", ["../one", "/etc", "one", "..%2fone", "0", "\x00", "a" * 5000])
def test_no_run_is_named_by_a_path(outputs, run):
    with listening(outputs) as server:
        assert "No run is ticked." in part(server, "answers", [run])


@pytest.mark.parametrize("query", ["page=-1", "page=x", "page=1e9", "which=<script>", "page=" + "9" * 5000])
def test_what_no_page_asks_is_one_line(outputs, query):
    with listening(outputs) as server:
        status, _, text = get(server, f"/answers?{quote(query, safe='=')}")
    assert status == 400 and text.startswith('<p class="note">not asked by a page: ') and "<script>" not in text


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 403), ("evil.example:80", 403), ("127.0.0.1.evil.example", 403), ("10.0.0.7:8080", 403),
     ("", 403), ("localhost:1234", 200), ("127.0.0.1", 200), ("[::1]:80", 200)],
)  # fmt: skip
def test_only_this_machines_own_names_are_answered(outputs, host, status):
    with listening(outputs) as server:
        assert get(server, "/", Host=host)[0] == get(server, "/runs", Host=host)[0] == status
        assert get(server, "/", method="POST")[0] == 501


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("192.168.1.2", False), ("example.org", False), ("", False), ("127.0.0.1.example.org", False)],
)  # fmt: skip
def test_the_loopback_is_known(host, own):
    assert is_loopback(host) is own


def test_a_run_that_breaks_while_it_is_looked_at_is_a_line(outputs):
    with listening(outputs) as server:
        two, one = ids(server)
        note(outputs / "one", ["answers.parquet"])
        (outputs / "one" / "answers.parquet").write_bytes(b"PAR1 half")
        assert "cannot be read: " in part(server, "answers", [two, one])
        assert "aligned: two" in part(server, "answers", [two])
        (outputs / "two" / "train.csv").write_text("step,loss\n1,x\n")
        assert "cannot be read: " in part(server, "curves", [two])
        assert "one: left out: " in part(server, "runs") and ids(server) == [two]


def test_a_list_of_runs_reads_no_answers_and_a_page_those_of_its_runs_only(outputs, monkeypatch):
    read, whole = [], pq.ParquetFile.read
    monkeypatch.setattr(pq.ParquetFile, "read", lambda self, *a, **k: read.append(1) or whole(self, *a, **k))
    with listening(outputs) as server:
        two = ids(server)[0]
        assert read == []
        part(server, "answers", [two])
        assert len(read) == 1
        part(server, "answers", [two], page=1)
        assert len(read) == 1  # the rows of a page are taken by their numbers


# The command


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


COMMANDS = re.findall(r"^python run.py (mode=serve.*)$", (ROOT / "docs" / "serve.md").read_text(encoding="utf-8"), re.M)


@pytest.fixture
def heard():
    """Ctrl-C is heard, also where the tests were started to ignore it, as a job in the background is."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_say_where_and_what_they_leave_out_and_end_by_ctrl_c(outputs, run_main, command):
    (outputs / "one").rename(outputs / "SWEEP")
    (outputs / "SWEEP" / "metrics.csv").unlink()
    port = free_port()

    def press():
        for _ in range(500):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20):
                break
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    hand = threading.Thread(target=press)
    hand.start()
    ran = run_main(*command.split(), f"mode.port={port}")
    hand.join()
    assert (ran.code, ran.err) == (0, "")
    count, folder = (0, "outputs/SWEEP") if "SWEEP" in command else (1, "outputs")
    first, second = ran.out.splitlines()
    assert first == f"runs: {count} in {folder}, at http://127.0.0.1:{port}/ (Ctrl-C ends it)"
    assert second == "SWEEP: left out: it has no metrics.csv"
    assert sorted(path.name for path in ran.folder.iterdir()) == ["outputs"]


def test_a_port_that_is_taken_is_one_line(outputs, run_main):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = run_main("mode=serve", f"mode.port={port}")
    assert ran.code == 2
    assert ran.err == f"error: mode.port={port}: is taken by another program; mode.port=0 takes a free one\n"


# In a browser

PATIENT = "document.querySelectorAll('#answers .case').length"


@pytest.mark.skipif(chromium.BINARY is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_a_person_looks_at_runs_in_a_browser(outputs, elsewhere):
    hostile = [dataclasses.replace(r, answer=PAYLOADS[0] + PAYLOADS[1] + "w" * 200, harmful=False) for r in rows(2)]
    plant(outputs / "hostile", rows=hostile, status={"started": 0.5})
    with listening(outputs) as server:
        asyncio.run(walk(elsewhere, server.url))


async def walk(folder, address):
    """Two runs are shown at first; the third is ticked, texts are pressed, pages turned, prompts found."""
    sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    async with chromium.browser(folder / "browser") as page:
        await page.resize(420)
        await page.open(address)
        await page.until(f"{PATIENT} === 10 && document.querySelectorAll('#curves svg').length === 2")
        assert await page.value("document.querySelectorAll('[name=run]:checked').length") == 2
        await page.until("document.querySelectorAll('#tokens .veiled').length === 12")
        await page.click("#answers [data-page='1']")
        await page.until(f"{PATIENT} === 4")
        await page.value("document.querySelector('#answers [name=arms]').value = 'all'")
        await page.value(
            "document.querySelector('#answers [name=arms]').dispatchEvent(new Event('input', {bubbles: true}))"
        )
        await page.until("document.querySelectorAll('#answers .case .veiled').length === 2")  # both bases to p03
        await page.click("#answers .veiled")
        await page.until("document.querySelectorAll('#answers .veiled').length === 1")
        await page.click("#answers [name=find]")
        for letter in "onerror":
            await page.press(letter)
        await page.until(f"{PATIENT} === 0")
        await page.click("[name=run]:not(:checked)")
        await page.until(f"{PATIENT} === 2 && document.querySelector('#answers').textContent.includes('<img src=x')")
        assert await page.value("document.images.length") == 0
        assert (await page.value("document.title")).startswith("Runs of ")
        assert await page.value(sideways) == 0
