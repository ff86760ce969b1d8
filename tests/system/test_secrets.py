"""No secret is written: not by a run, a failed cell, an interrupted command, a refusal, wherever it was put.

Every value holds the same mark, so that a search for the mark finds it in any form, compressed records included.
"""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chat_server import serving, shorter
from command_line import MODE

from dlma.objective.dpo import DPO

MARK = "Zq7planted"
LAB = ["data.train=8", "data.validation=4", "data.test=4", "recipe.max_new_tokens=16", "recipe.batch_pairs=8"]
QUICK = [*LAB, "recipe.epochs=1", "metrics=[]"]
PLANTED = {
    "CLOUD_API_KEY": f"sk-{MARK}/a+b=&c",
    "HF_TOKEN": f"hf_{MARK}",
    "TLS_PRIVATE_KEY": f"-----BEGIN {MARK}-----\n{MARK}-second-line\n",
    "DB_PASSWORD": f'{MARK}\'<i>"é"',
}


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)


def leaks(folder, *streams):
    """Where the mark stands: files by name or content, rows of records, printed text."""
    found = [text for text in streams if MARK.lower() in text.lower()]
    for path in (path for path in folder.rglob("*") if path.is_file()):
        rows = json.dumps(pq.read_table(path).to_pylist(), default=str) if path.suffix == ".parquet" else ""
        if MARK.encode() in path.read_bytes() or MARK in rows or MARK in str(path.relative_to(folder)):
            found.append(str(path.relative_to(folder)))
    return found


def telling(body, number):
    """A judge that knows the key it was asked with, and says it."""
    return json.dumps({**json.loads(shorter(body)), "reason": f"my key is {PLANTED['CLOUD_API_KEY']}"})


@pytest.fixture
def lab(run_main):
    """Run a small real run of the lab."""
    return lambda *words: run_main(*QUICK, *words)


def test_a_run_a_failing_cell_and_an_interrupted_command_leave_no_secret(lab, elsewhere, monkeypatch):
    def broken(self, *rest):
        raise RuntimeError(f"no answer for {PLANTED['DB_PASSWORD']}, {PLANTED['TLS_PRIVATE_KEY']}")

    def interrupted(self, *rest):
        raise KeyboardInterrupt

    with serving(telling) as server:
        asked = ["judges=[llm]", "endpoint.model=${oc.env:HF_TOKEN}", f"endpoint.base_url={server.url}"]
        words = [*asked, "endpoint.key_variable=CLOUD_API_KEY"]
        ran = lab(*words, "logger=wandb", "logger.wandb.tags=['${oc.env:HF_TOKEN}']", f"name=x {PLANTED['HF_TOKEN']}")
        assert ran.code == 0, ran.err
        assert any(f"Bearer {PLANTED['CLOUD_API_KEY']}" in header.values() for header in server.headers)
        assert leaks(elsewhere, ran.out, ran.err) == []
        assert list(elsewhere.glob("outputs/*/wandb/**/*.wandb")) and list(elsewhere.glob("store/cache/chat/*/*.json"))

        monkeypatch.setattr(DPO, "training_step", broken)
        swept = lab("-m", *words, "recipe.beta=1.0,3.0")
        assert swept.code == 1 and swept.err.count("Traceback") == 1 and "<redacted>" in swept.err
        assert leaks(elsewhere, swept.out, swept.err) == []
        assert len(list(elsewhere.glob("outputs/*/report.tex"))) == 1

        monkeypatch.setattr(DPO, "training_step", interrupted)
        stopped = lab(*words, "recipe.beta=3.0", f"name='{PLANTED['CLOUD_API_KEY']}'")
    assert stopped.code == 130 and "interrupted; to go on: " in stopped.err
    assert leaks(elsewhere, stopped.out, stopped.err) == []


def test_a_literal_key_is_hidden_by_its_name_and_then_wherever_it_stands(lab, elsewhere):
    """A server that is not there, asked with keys in its extra fields."""
    extra = [f"+sampler.extra.api_key={MARK}-literal", "+sampler.extra.note='${oc.env:DB_PASSWORD}'"]
    extra += [f"+sampler.extra.{MARK}=1", f"+sampler.extra.headers={{Authorization: {MARK}-bearer}}"]
    server = ["sampler=server", "sampler.urls=[http://127.0.0.1:9/v1]", "sampler.tries=1", "sampler.policy=local"]
    ran = lab(*server, *extra[:2], extra[3], f"name={MARK}-literal")
    assert ran.code == 2 and "error: sampler.urls: the servers do not say" in ran.err
    assert leaks(elsewhere, ran.out, ran.err) == []
    checked = lab("mode=check", *server, *extra[:2], extra[3])
    assert checked.code == 0 and "api_key: <redacted>" in checked.out and leaks(elsewhere, checked.out, "") == []


def test_the_line_that_resumes_hides_short_secrets_by_the_name_of_their_key(run_main, mode):
    def stop(cfg, /):
        raise KeyboardInterrupt

    mode(stop)
    words = ["sampler=server", "sampler.urls=[http://h/v1]", "sampler.policy=local", "+sampler.extra.password=pw9x"]
    ran = run_main(MODE, *words)
    assert ran.code == 130 and ran.err.endswith("'+sampler.extra.password=<redacted>'\n")
    bad = run_main(MODE, *words[:3], "sampler.extra.password=pw9x!(")
    assert bad.code == 2 and bad.err.startswith("error: sampler.extra.password=<redacted>: not an override")
    assert not any("pw9x" in path.read_text() for path in ran.folder.rglob("*.*") if path.is_file())


REFUSED = {
    f"endpoint.base_url=https://h/v1?api_key={MARK}": "endpoint.base_url: an address with a credential",
    f"endpoint.base_url=https://me:{MARK}@h/v1": "endpoint.base_url: an address with a credential",
    f"endpoint.key_variable=sk-{MARK}": "endpoint.key_variable: is no name of an environment variable",
    f"endpoint.key_variable={MARK.upper()}AKIA": "endpoint.key_variable: is no name of an environment variable",
    "endpoint.key_variable=${oc.env:HF_TOKEN}": "endpoint.key_variable: is no name of an environment variable",
    "prompts.template='{question} ${oc.env:HF_TOKEN}'": "holds what a secret environment variable holds",
}
SERVED = {
    f"sampler.urls=[https://me:{MARK}@h/v1]": "sampler.urls.0: an address with a credential",
    f"sampler.urls=https://me:{MARK}@h/v1": "sampler.urls: ",
    f"sampler.key_env={MARK}x": "sampler.key_env: is no name of an environment variable",
    f"sampler.tries={MARK}": "",
}


@pytest.mark.parametrize("verb", ["mode=run", "mode=check", "-m"])
@pytest.mark.parametrize("word", [*REFUSED, *list(SERVED)[:3]])
def test_a_secret_in_the_wrong_place_is_refused_and_not_shown(word, verb, run_main):
    base = ["sampler=server"] if word in SERVED else []
    base += ["sampler.urls=[http://h/v1]"] if word.startswith("sampler.key_env") else []
    ran = run_main(verb, *base, f'{word.split("=")[0]}="{word.partition("=")[2]}"' if "?" in word else word)
    assert ran.code == 2 and {**REFUSED, **SERVED}[word] in ran.err
    assert leaks(ran.folder, ran.out, ran.err) == []


@pytest.mark.parametrize("word", [f"nonsense.api_key={MARK}", f"recipe.token={MARK}-x", f"seed={PLANTED['HF_TOKEN']}"])
def test_a_mistake_on_the_command_line_is_told_without_its_secret(word, run_main):
    ran = run_main(word)
    assert ran.code == 2 and ran.err and leaks(ran.folder, ran.out, ran.err) == []


def test_hydras_copy_of_a_sweeps_config_is_never_on_the_disk(run_main, mode):
    seen = []
    mode(lambda cfg, /: seen.extend(p.read_bytes() for p in ran_in.rglob("multirun.yaml")) or {})
    ran_in = Path.cwd()
    served = [
        "sampler=server",
        "sampler.urls=[http://h/v1]",
        "sampler.policy=local",
        f"+sampler.extra.api_key={MARK}-literal",
    ]
    ran = run_main("-m", MODE, *served, "seed=0,1")
    assert ran.code == 0 and seen == [b"", b""]
    assert leaks(ran.folder, ran.out, ran.err) == [] and not list(ran.folder.rglob("multirun.yaml"))


@pytest.mark.parametrize("question", ["job", "all"])
def test_hydras_own_answers_hide_secrets(question, run_main):
    served = [
        "sampler=server",
        "sampler.urls=[http://h/v1]",
        "sampler.policy=local",
        f"+sampler.extra.api_key={MARK}-literal",
    ]
    ran = run_main("--cfg", question, *served, "+sampler.extra.note='${oc.env:HF_TOKEN}'", "--resolve")
    assert leaks(ran.folder, ran.out, ran.err) == []


def test_an_unexpected_error_of_the_entry_itself_is_shown_without_secrets(run_main, monkeypatch):
    from dlma.config import compose

    def broken(*rest):
        raise ValueError(f"odd {PLANTED['HF_TOKEN']} \x1b[2J")

    monkeypatch.setattr(compose, "plan", broken)
    ran = run_main()
    assert ran.code == 1 and "ValueError: odd <redacted> \\x1b[2J" in ran.err
