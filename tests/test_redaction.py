"""Secrets: which names say so, and that a value is hidden in every form in which it may be written."""

import html
import json
from urllib.parse import quote, quote_plus

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dlma import files, redaction
from dlma.redaction import HIDDEN, data, in_url, is_secret, learn, learn_words, redact, text


@pytest.fixture(autouse=True)
def forgotten():
    with redaction.session():
        yield


SECRET_NAMES = [
    *("api_key", "openai_apikey", "OPENAI_API_KEY", "HF_TOKEN", "hf_token", "AWS_SECRET_ACCESS_KEY", "clientSecret"),
    *("aws-access-key-id", "accessToken", "PGPASSWORD", "db.passwd", "Authorization", "X-Api-Key", "DATABASE_PASS"),
    *("GITHUB_PAT", "TOKEN_2", "key", "secrets"),
]
OTHER_NAMES = [
    *("max_new_tokens", "tokenizer", "TOKENIZERS_PARALLELISM", "key_variable", "key_env", "monkey", "keyboard"),
    *("author", "path", "tokens", "PASSWORD_STORE_DIR", "SSH_AUTH_SOCK", "secretary", "passes", "signatures"),
]


@pytest.mark.parametrize(("names", "secret"), [(SECRET_NAMES, True), (OTHER_NAMES, False)])
def test_a_name_says_whether_its_value_is_secret(names, secret):
    assert [name for name in names if is_secret(name) is not secret] == []


@pytest.mark.parametrize("value", ["short-7", "123456789", "1.5e10000", "-0.00000001", "False", "        ", "true"])
def test_a_short_value_a_number_or_a_switch_is_not_hidden_by_value(value, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", value)
    assert text(f"before {value} after") == f"before {value} after"


def test_eight_characters_are_hidden(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "eight-ch")
    assert text("an eight-ch b") == f"an {HIDDEN} b"


FORMS = {
    "json": json.dumps,
    "json, unicode": lambda value: json.dumps(value, ensure_ascii=False),
    "yaml": lambda value: yaml.safe_dump({"a": value}, width=10_000, allow_unicode=True),
    "html": html.escape,
    "url": lambda value: f"https://h/?x={quote(value, safe='')}",
    "form": quote_plus,
    "repr": repr,
    "page": lambda value: json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
    "itself": str,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "value", ["sk-planted+/=&1", 'planted\'<b>"q"', "planted [é] ü", "a\\planted%20x", "planted:b #c"]
)
def test_a_value_is_hidden_in_every_form_of_text(form, value, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", value)
    written = FORMS[form](value)
    for left in (text(f"x {written} y"), data(f"x {written} y".encode()).decode()):
        assert HIDDEN in left and "planted" not in left


def test_each_line_of_a_value_of_several_is_hidden(monkeypatch):
    monkeypatch.setenv("TLS_PRIVATE_KEY", "-----BEGIN-----\nplanted-line-1\nplanted-line-2\n")
    assert "planted" not in text("at planted-line-2") + json.dumps({"a": text("-----BEGIN-----\nplanted-line-1\n")})


@given(st.text(min_size=1), st.text(alphabet="abc/+-_%&<'\"[\\ é", min_size=8))
def test_nothing_else_is_changed_and_a_value_never_survives(other, value):
    with redaction.session(), pytest.MonkeyPatch.context() as patch:
        patch.delenv("SOME_TOKEN", raising=False)
        learn({"token": value})
        assert value.strip() not in text(f"{other}{value}") or len(value.strip()) < redaction.SHORTEST
    if not {"@", "=", "/"} & set(other):
        assert text(other) == other


def test_what_a_config_holds_under_secret_names_is_hidden_wherever_it_stands():
    learn({"sampler": {"extra": {"headers": {"Authorization": ["Bearer planted-1"]}, "api_key": "planted-2"}}})
    learn_words(["sampler.extra.token=planted-3", "+x={a: 1, password: 'planted-4'}", "u=http://me:planted-5@h/?a=1"])
    said = text("Bearer planted-1, planted-2, planted-3, planted-4, planted-5")
    assert "planted" not in said and said.count(HIDDEN) == 5


def test_an_address_with_what_the_environment_holds_has_a_credential(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "planted-word")
    assert in_url("https://h/planted-word/v1") and not in_url("https://h/v1 planted-word")


def test_a_secret_in_a_text_of_the_config_is_hidden_by_the_name_before_it_and_prose_stands():
    texts = ["Authorization: Bearer planted-1x", '{"api_key": "planted-2x"}', "the key: helpfulness; token: sentences"]
    learn({"extra": {"headers": texts[:2], "authorization": "Bearer planted-3x"}, "prompts": {"text": texts[2]}})
    said = text("planted-1x planted-2x planted-3x helpfulness sentences")
    assert said == f"{HIDDEN} {HIDDEN} {HIDDEN} helpfulness sentences"


@pytest.mark.parametrize(
    "told", ["--api-key planted-key-a --port 3", "--hf-token 'planted-key-a'", '--api_key "planted-key-a"']
)
def test_the_value_behind_a_secret_flag_of_a_command_is_hidden(told):
    with redaction.session():
        learn_words([f'sampler.start="vllm serve {{model}} {told}"'])
        assert "planted" not in text(f"vllm serve m {told}")
    with redaction.session():
        learn({"sampler": {"start": f"serve {told} --max-num-tokens generous-number"}})
        assert text(told).count(HIDDEN) == 1 and text("generous-number") == "generous-number"


def test_json_that_quotes_an_address_with_a_token_stays_json():
    reply = json.dumps({"reason": 'A links "http://x.y/?token=abcdefgh", B does not', "verdict": "B"})
    hidden = json.loads(redaction.text(reply))
    assert (
        hidden["verdict"] == "B" and "abcdefgh" not in hidden["reason"] and hidden["reason"].endswith('", B does not')
    )


def test_a_flag_that_another_follows_has_no_value():
    with redaction.session():
        learn_words(["serve --token --port-number eighty-eighty"])
        assert text("--port-number eighty-eighty") == "--port-number eighty-eighty"


def test_what_was_learned_is_forgotten_with_the_command():
    with redaction.session():
        learn({"token": "planted-1"})
        assert text("planted-1") == HIDDEN
    assert text("planted-1") == "planted-1"


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("https://user:pw@host/v1", True),
        ("http://token@host", True),
        ("see https://host/v1?api_key=abc, or not", True),
        ("https://host/#access_token=abc", True),
        ("https://host/v1?api-version=3&sig=abc", True),
        ("//user:pw-planted@host/v1", True),
        ("user:pw-planted@host:80", True),
        ("http://user:pw-pl/anted@host/v1", True),
        ("https://host:8000/v1?max_tokens=3", False),
        ("https://host:8000/@user/x", False),
        ("http://[::1]:8000/v1", False),
        ("mail me@host, a://", False),
        ("http://[broken", False),
    ],
)
def test_an_address_with_a_credential_is_known(line, has):
    assert in_url(line) is has
    learn(line)
    hidden = text(line)
    assert not any(part in hidden for part in ("abc", "user:pw", "token@", "anted"))
    assert has or hidden == line


def test_overrides_are_hidden_by_the_name_of_their_key_and_switches_stand():
    words = ["+sampler.extra.token=abc", "scorer.per_token=true", "recipe.beta=0.5", "a.api_key=null", "token="]
    assert redact(words) == [f"+sampler.extra.token={HIDDEN}", *words[1:]]


def test_keys_of_a_tree_are_text_too(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "planted-word")
    assert redact({"x planted-word": {3: "planted-word"}}) == {f"x {HIDDEN}": {3: HIDDEN}}


def test_a_text_file_is_written_without_secrets_and_records_byte_for_byte(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "planted-key")
    for name in ("a.json", "a.csv", "a.html", "a.yaml", "a.md", "a.tex", "a.jsonl", "a.parquet"):
        files.write_bytes(tmp_path / name, b"x\xff planted-key")
        assert (b"planted" in (tmp_path / name).read_bytes()) is name.endswith("parquet")
    assert (tmp_path / "a.csv").read_bytes() == b"x\xff <redacted>"
