"""What surrounds a run: it changes nothing, or is part of the key, or is said."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from small_models import byte_level_tokenizer, save_small

from dlma.app import conf_dir
from dlma.config import compose
from dlma.config.build import scientific
from dlma.context import RunContext
from dlma.model import today
from dlma.prompts.rendering import rendered
from dlma.prompts.wording import Wording
from dlma.records import Turn
from dlma.store.store import KEYED_LIBRARIES, Store

ROOT = Path(__file__).resolve().parents[2]
LINES = ["how do i mend the lamp?", "what is soup?", "where do beans grow?", "is a lamp warm?", "what is a day?"]


def composed(*words):
    return compose.plan(compose.search_path(conf_dir(), None), list(words), False).cfg


# --- the date

DATED = "{{ strftime_now('%d %b %Y, %A %B') }}|{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"


def wording(**options):
    known = dict(source="t", system="", user="{text}", assistant="{text}", answer="{affix}")
    pairs = [{"positive": {"affix": "good"}, "negative": {"affix": "bad"}}]
    chat = dict(format="chat", chat_affix="user", chat_join="{text} {affix}", chat_options=options)
    return Wording(**known, **chat, pairs=pairs)


def test_a_template_that_writes_the_date_writes_the_same_one_every_day(capsys):
    tok = byte_level_tokenizer(LINES, 300)
    tok.chat_template = DATED
    today._told.clear()
    text = rendered(tok, wording(), [Turn("user", "hi")], "plain", 0)
    assert text == "26 Jul 2024, Friday July|user: hi"
    rendered(tok, wording(), [Turn("user", "hi")], "plain", 0)
    said = capsys.readouterr().err
    assert said.count("pinned to 2024-07-26") == 1
    before = tok.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert str(datetime.now().year) in before  # outside it the clock goes on
    plain = "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ day }}"
    tok.chat_template = plain
    assert rendered(tok, wording(day="5 May"), [Turn("user", "hi")], "plain", 0) == "hi5 May"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d %b %Y", "%B %d, %Y", "%A", "%a %H:%M", "%p"])
def test_the_pinned_date_is_strftimes(form):
    assert today.PINNED.strftime(form) == format(today.PINNED, form) == datetime(2024, 7, 26).strftime(form)


# --- the key


def stage(tmp_path, *words, name="pairs", libraries=KEYED_LIBRARIES):
    return RunContext(composed(*words), tmp_path).store.stage(name, {}, libraries=libraries).key


def test_how_rows_are_put_together_is_part_of_the_key_of_what_torch_computes(tmp_path):
    default = stage(tmp_path)
    assert stage(tmp_path, "trainer.shard_rows=256") == default
    assert stage(tmp_path, "trainer.shard_rows=16") != default
    assert stage(tmp_path, "trainer.threads=1", "trainer.checkpoint_steps=7") == default
    exact = [stage(tmp_path, *words, libraries=()) for words in ([], ["trainer.shard_rows=16"])]
    assert exact[0] == exact[1]


def test_a_token_budget_is_part_of_its_components_key_where_it_is_not_the_default():
    default = scientific(composed().scorer)
    assert "token_budget" not in default
    assert scientific(composed("scorer.token_budget=8192").scorer) == default
    assert scientific(composed("scorer.token_budget=4096").scorer) == {**default, "token_budget": 4096}


@pytest.mark.parametrize("name", ["TZ", "LC_ALL", "OMP_NUM_THREADS", "PYTHONHASHSEED"])
def test_other_surroundings_are_no_part_of_it(tmp_path, monkeypatch, name):
    before = Store(tmp_path).stage("pairs", {}).key
    monkeypatch.setenv(name, "3")
    assert Store(tmp_path).stage("pairs", {}).key == before


# --- clock, zone, locale and hashes


@pytest.mark.slow
def test_clock_zone_locale_and_hash_seed_change_no_byte(tmp_path):
    model = save_small(tmp_path / "model", tokenizer=byte_level_tokenizer(LINES, 400), context=256)
    rows = [{"prompt": f"{line} {i}"} for i in range(3) for line in LINES]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = ["recipe.max_new_tokens=4", "recipe.epochs=1", "recipe.batch_pairs=4", "trainer.threads=1", "name=run"]
    data = ["model=hf", f"model.path={model}", "data=jsonl", f"data.path={tmp_path / 'p.jsonl'}"]
    surroundings = [
        {"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"},
        {"TZ": "America/Adak", "LC_ALL": "C", "PYTHONHASHSEED": "4242", "LANG": "de_DE.UTF-8"},
    ]
    found = []
    for i, extra in enumerate(surroundings):
        folder = tmp_path / str(i)
        folder.mkdir()
        command = [sys.executable, str(ROOT / "run.py"), *data, *small]
        env = {**os.environ, **extra, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
        run = folder / "outputs" / "run"
        names = ["pairs.parquet", "scored.parquet", "answers.parquet", "metrics.csv", "train.csv"]
        names.append("policy/model.safetensors")
        found.append({name: (run / name).read_bytes() for name in names})
    assert found[0] == found[1]
    assert pq.read_table(tmp_path / "0" / "outputs" / "run" / "pairs.parquet").num_rows > 5


def test_the_config_of_a_run_holds_no_surroundings():
    text = OmegaConf.to_yaml(composed(), resolve=False)
    assert "oc.env" not in text and "now:" not in text
