"""mode=annotate: the page hides whose answer is whose; a person in a browser, and the figures from planted verdicts."""

import asyncio
import json

import chromium
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_runs import plant

from dlma.records import EvalRow

PAYLOAD = "</script><script>document.title = 'broken'</script><img src=x onerror=\"document.title='broken'\">"


def eval_row(prompt, arm, question="q", answer="a", reward=0.5):
    return EvalRow(prompt, arm, question, None, answer, 10, True, -9.0, -10.0, reward)


def planted_rows(prompts=12, arms=("base", "aligned")):
    """A run's answers: the reward of aligned is the prompt's number - 5.5, the base's 0."""
    return [
        eval_row(
            f"p{i:02}",
            arm,
            question=f"question {i}",
            answer=f"answer {i} {'kind' if arm == 'aligned' else 'plain'}",
            reward=i - 5.5 if arm == "aligned" else 0.0,
        )
        for i in range(prompts)
        for arm in arms
    ]


def page_data(folder):
    text = (folder / "annotate.html").read_text()
    return json.loads(text.split('<script type="application/json" id="page-data">')[1].split("</script>")[0])


def label_file(path, page, name, says):
    """What the page downloads for a person who says `says(item)` of each item; None for one left open."""
    verdicts = {item["id"]: said for item in page["items"] if (said := says(item)) is not None}
    path.write_text(json.dumps({"format": page["format"], "page": page["page"], "annotator": name, "labels": verdicts}))
    return path


def kind_side(item):
    return "left" if "kind" in item["left"] else "right"


def number(item):
    return int(item["question"].split()[1])


def other(side):
    return "right" if side == "left" else "left"


@pytest.fixture
def page(elsewhere, run_main):
    plant(elsewhere / "run", rows=planted_rows())
    assert run_main("mode=annotate", "mode.run=run").code == 0
    return page_data(elsewhere / "run")


def results(folder):
    return json.loads((folder / "run" / "annotations.json").read_text())


def test_the_page_names_no_method_and_mixes_the_sides(page, elsewhere):
    text = (elsewhere / "run" / "annotate.html").read_text()
    assert "aligned" not in text
    assert "p00" not in json.dumps(page["items"])
    sides = [kind_side(item) for item in page["items"]]
    assert len(sides) == 12 and 2 <= sides.count("left") <= 10
    assert [number(item) for item in page["items"]] != list(range(12))


def test_the_same_command_gives_the_same_page_and_another_seed_another(page, elsewhere, run_main):
    before = (elsewhere / "run" / "annotate.html").read_bytes()
    run_main("mode=annotate", "mode.run=run")
    assert (elsewhere / "run" / "annotate.html").read_bytes() == before
    run_main("mode=annotate", "mode.run=run", "mode.seed=1")
    assert page_data(elsewhere / "run")["page"] != page["page"]


def test_fewer_pairs_on_request_and_identical_answers_left_out(elsewhere, run_main):
    rows = planted_rows()
    same = [r if r.prompt_id != "p03" else eval_row("p03", r.arm, answer="both say this") for r in rows]
    plant(elsewhere / "run", rows=same)
    done = run_main("mode=annotate", "mode.run=run")
    assert "1 prompts with two identical answers" in done.out
    assert len(page_data(elsewhere / "run")["items"]) == 11
    run_main("mode=annotate", "mode.run=run", "mode.pairs=5", "mode.seed=2")
    assert len(page_data(elsewhere / "run")["items"]) in (4, 5)


def test_what_one_person_says_is_counted_from_the_arm_under_study(page, elsewhere, run_main):
    def says(item):  # 6 wins, 3 ties, 2 losses, 1 left open
        i = number(item)
        return kind_side(item) if i < 6 else "tie" if i < 9 else other(kind_side(item)) if i < 11 else None

    label_file(elsewhere / "anna.json", page, "Anna", says)
    assert run_main("mode=annotate", "mode.run=run", "mode.labels=[anna.json]").code == 0
    found = results(elsewhere)
    shares = {name: (one["value"], one["n"]) for name, one in found["people"]["Anna"].items()}
    assert shares == {"win": (6 / 11, 11), "tie": (3 / 11, 11), "lose": (2 / 11, 11)}
    assert found["kappa"] is None
    # R prefers the kind answer where i > 5.5; of the 8 decided pairs people agree with it on none of 0..5 and
    # none of 9 and 10
    assert (found["agreement"]["self-reward R"]["value"], found["agreement"]["self-reward R"]["n"]) == (0.0, 8)
    low, high = found["people"]["Anna"]["win"]["low"], found["people"]["Anna"]["win"]["high"]
    assert (low, high) == pytest.approx((0.280, 0.787), abs=1e-3)  # Wilson's interval of 6 of 11


def test_judges_of_the_run_are_compared_with_people(page, elsewhere, run_main):
    outcomes = ["win"] * 6 + ["lose"] * 2 + ["tie"] * 2 + ["unparsed"] * 2
    rows = [
        {"prompt_id": f"p{i:02}", "judge": "gpt", "arm": "aligned", "against": against, "outcome": outcome}
        for i, outcome in enumerate(outcomes)
        for against in ("base", "prompted")
    ]
    pq.write_table(pa.Table.from_pylist(rows), elsewhere / "run" / "verdicts.parquet")
    label_file(elsewhere / "anna.json", page, "Anna", kind_side)  # Anna prefers the aligned answer every time
    assert run_main("mode=annotate", "mode.run=run", "mode.labels=[anna.json]").code == 0
    found = results(elsewhere)["agreement"]["judge gpt"]
    assert (found["value"], found["n"]) == (6 / 8, 8)  # ties and unparsed verdicts decide nothing


def test_two_people_have_cohens_kappa_and_a_pair_counts_as_their_mean(page, elsewhere, run_main):
    kappa = pytest.importorskip("sklearn.metrics").cohen_kappa_score
    anna = {i: "win" if i < 8 else "tie" for i in range(12)}
    ben = {i: "win" if i % 2 else "lose" for i in range(12)}
    for name, said in (("anna", anna), ("ben", ben)):
        label_file(
            elsewhere / f"{name}.json",
            page,
            name,
            lambda item, said=said: {"win": kind_side(item), "lose": other(kind_side(item)), "tie": "tie"}[
                said[number(item)]
            ],
        )
    assert run_main("mode=annotate", "mode.run=run", "mode.labels=[anna.json,ben.json]").code == 0
    found = results(elsewhere)
    assert found["kappa"]["name"] == "Cohen's kappa"
    assert found["kappa"]["value"] == pytest.approx(kappa(list(anna.values()), list(ben.values())))
    assert found["all"]["win"]["value"] == pytest.approx((8 + 6) / 24)
    assert found["all"]["win"]["n"] == 12


def test_three_people_have_fleiss_kappa(page, elsewhere, run_main):
    for name in ("a", "b", "c"):
        label_file(elsewhere / f"{name}.json", page, name, lambda item: "left" if number(item) % 2 else "tie")
    out = run_main("mode=annotate", "mode.run=run", "mode.labels=[a.json,b.json,c.json]").out
    assert "Fleiss' kappa 1.000 over 12 pairs" in out


def test_two_runs_are_compared(elsewhere, run_main):
    plant(elsewhere / "one", rows=planted_rows())
    plant(elsewhere / "two", rows=[eval_row(f"p{i:02}", "aligned", answer=f"rival {i}") for i in range(3, 20)])
    line = ["mode=annotate", "mode.run=one", "mode.against=two", "mode.against_arm=aligned", "mode.out=both"]
    assert run_main(*line).code == 0
    items = page_data(elsewhere / "both")["items"]
    assert len(items) == 9  # prompts 3 to 11 are in both
    assert all(("rival" in item["left"]) != ("rival" in item["right"]) for item in items)


@pytest.mark.parametrize(("base", "alike"), [("lab-standard", True), ("lab-weak", False)])
def test_the_reward_of_two_bases_is_no_measure_of_both(elsewhere, run_main, base, alike):
    plant(elsewhere / "run", rows=planted_rows())
    plant(
        elsewhere / "two",
        rows=[eval_row(f"p{i:02}", "aligned", answer=f"rival {i}", reward=0.1) for i in range(12)],
        base=base,
    )
    line = ["mode=annotate", "mode.run=run", "mode.against=two", "mode.against_arm=aligned"]
    assert run_main(*line).code == 0
    label_file(elsewhere / "a.json", page_data(elsewhere / "run"), "a", lambda item: "left")
    done = run_main(*line, "mode.labels=[a.json]")
    assert ("two: model not as in run, so that R is no measure of both: left out" in done.out) == (not alike)
    assert ("self-reward R" in json.dumps(results(elsewhere))) == alike


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text[:-5], "not JSON"),
        (lambda text: "[]", "not a file of the annotation page"),
        (lambda text: text.replace('"page": "', '"page": "x'), "made on another page"),
        (lambda text: text.replace('"left"', '"up"'), "none of the page's"),
        (lambda text: json.dumps({**json.loads(text), "labels": {}}), "no annotator's labels"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(page, elsewhere, run_main, spoil, reason):
    path = label_file(elsewhere / "anna.json", page, "Anna", lambda item: "left")
    path.write_text(spoil(path.read_text()))
    done = run_main("mode=annotate", "mode.run=run", "mode.labels=[anna.json]")
    assert done.code == 2
    assert "anna.json" in done.err and reason in done.err


def test_mistakes_are_told_in_one_line(page, elsewhere, run_main):
    label_file(elsewhere / "anna.json", page, "Anna", lambda item: "left")
    for line, reason in [
        (["mode.run=nowhere"], "not the folder of a finished run"),
        (["mode.run=run", "mode.arm=alinged"], "there are base, aligned"),
        (["mode.run=run", "mode.labels=[gone.json]"], "No such file"),
        (["mode.run=run", "mode.labels=[anna.json,anna.json]"], "stands in two files"),
        ([], "mode.run"),
    ]:
        done = run_main("mode=annotate", *line)
        assert done.code == 2
        assert reason in done.err and "Traceback" not in done.err


@pytest.mark.skipif(chromium.BINARY is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_a_person_labels_in_a_browser_and_the_file_is_read_back(elsewhere, run_main):
    rows = planted_rows(prompts=4)
    plant(elsewhere / "run", rows=[*rows[:-1], eval_row("p03", "aligned", question="question 3", answer=PAYLOAD)])
    run_main("mode=annotate", "mode.run=run")
    asyncio.run(label_by_hand(elsewhere, elsewhere / "run" / "annotate.html"))
    (saved,) = (elsewhere / "downloads").glob("*.json")
    assert saved.name == "labels-A_B.json"
    said = json.loads(saved.read_text())
    assert said["annotator"] == "A B"
    items = page_data(elsewhere / "run")["items"]
    assert [said["labels"][item["id"]] for item in items] == ["right", "tie", "right", "left"]
    assert run_main("mode=annotate", "mode.run=run", f"mode.labels=[{saved}]").code == 0
    assert results(elsewhere)["people"]["A B"]["tie"]["value"] == 0.25


async def label_by_hand(folder, path):
    """The walk of a person: a name, the first pair by mouse, the rest by keys, a closed page in between."""
    where = "document.querySelector('#where').textContent"
    veiled = "document.querySelectorAll('.veiled').length"
    async with chromium.browser(folder) as page:
        await page.open(path)
        await begin(page)
        assert await page.value(veiled) == 3
        await page.press("ArrowLeft")  # nothing is said of a pair whose texts are hidden
        assert "pair 1 of 4" in await page.value(where)
        for text in ("#question", "#left", "#right"):
            await page.click(text)
        assert await page.value(veiled) == 0
        await page.click("#say-left")
        await page.press(" ")
        await page.press("ArrowDown")
        assert "pair 3 of 4" in await page.value(where)

        await page.open(path)  # the page is opened again: the progress is still there
        await page.until("localStorage.length === 2")  # Chromium hands it to the new page when it can
        await begin(page)
        assert "pair 3 of 4" in await page.value(where)
        await page.press("ArrowUp")
        await page.press("ArrowUp")
        assert "you said: left" in await page.value(where)
        await page.press("3")
        await page.press("ArrowDown")
        for verdict in ("ArrowRight", "1"):
            await page.press(" ")
            await page.press(verdict)
        await page.until("!document.querySelector('#end').hidden")
        assert await page.value("document.title") == "Which answer is better?"
        assert await page.value("document.images.length") == 0
        await page.click("#download")
        async with asyncio.timeout(chromium.PATIENCE):
            while not list((folder / "downloads").glob("*.json")):
                await asyncio.sleep(0.05)


async def begin(page):
    await page.value("document.querySelector('#name').value = ''")
    await page.click("#name")
    for letter in "A B":
        await page.press(letter)
    await page.until("document.querySelector('#name').value === 'A B'")
    await page.click("#go")
    await page.until("!document.querySelector('#work').hidden")
