"""mode=chat: both arms answer one's own prompt as the run's own evaluation would, once or in a conversation."""

import builtins
import json

import pyarrow.parquet as pq
import pytest
from small_models import byte_level_tokenizer, save_small

from dlma.app import main
from dlma.evaluation.answers import Answers
from dlma.modes import chat
from dlma.records import Answer
from dlma.screen import Console

QUESTIONS = [f"how do i fix the {thing} number {i}?" for i, thing in enumerate(["lamp", "door", "cake", "boat"] * 10)]
QUICK = [f"recipe.{value}" for value in ("max_new_tokens=8", "batch_pairs=8", "lr=1e-2", "max_prompt_tokens=200")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder in which a run with all weights, one with adapters and one without a policy were made."""
    folder = tmp_path_factory.mktemp("runs")
    save_small(folder / "model", tokenizer=byte_level_tokenizer(QUESTIONS, 300), context=512)
    (folder / "p.jsonl").write_text("".join(json.dumps({"prompt": q}) + "\n" for q in QUESTIONS))
    base = ["model=hf", f"model.path={folder / 'model'}", "data=jsonl", f"data.path={folder / 'p.jsonl'}", *QUICK]
    base += [f"store.root={folder / 'store'}"]
    for name, more in {"plain": ["method=base"], "full": [], "lora": ["adapter=lora", "recipe.lr=1e-2"]}.items():
        assert main([*base, *more, f"name={name}", f"hydra.run.dir={folder}/outputs/{name}"]) == 0
    return folder


@pytest.fixture
def talk(runs, monkeypatch, run_main):
    """Run mode=chat in that folder."""
    monkeypatch.chdir(runs)
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *words: run_main("mode=chat", *words)


@pytest.mark.parametrize("name", ["full", "lora"])
def test_a_held_out_prompt_is_answered_as_in_the_runs_own_table(name, runs, talk, monkeypatch):
    """Same contexts, seed and weights: text and figures of both arms are those of answers.parquet."""
    shown = []
    monkeypatch.setattr(chat, "show", lambda console, answers: shown.append(answers))
    rows = {
        (r["question"], r["arm"]): r for r in pq.read_table(runs / "outputs" / name / "answers.parquet").to_pylist()
    }
    question = next(q for q, _ in rows)
    # in the run the noise of an answer is keyed by the prompt, so the same text gives the same answer
    assert talk(f"mode.run=outputs/{name}", f"mode.prompt='{question}'").code == 0
    ((base, aligned),) = shown
    for one in (base, aligned):
        row = rows[question, one.arm]
        assert one.text == row["answer"] and len(one.ids) == row["tokens"]
        assert one.reward == pytest.approx(row["reward"], abs=1e-4)
        assert one.logp == pytest.approx(row["logp"], abs=1e-4)
    assert base.logp == base.logp_base and aligned.logp != aligned.logp_base


def test_one_shot_shows_both_arms_with_their_self_rewards(talk):
    ran = talk("mode.run=outputs/full", "mode.prompt='is [bold]this[/bold] kind?'")
    assert ran.code == 0 and ran.err == ""
    assert "base" in ran.out and "aligned" in ran.out
    assert ran.out.count("self-reward ") == 2 and ran.out.count("log-ratio to the base") == 2


def test_an_answers_terminal_escapes_and_markup_are_text(capsys, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "planted-key")
    text = "\x1b[2J\x1b]52;c;eA==\x07\u202egnp\r[red]a[/red] [link=http://x]b[/link]\nsecond line planted-key"
    answers = [Answer("p", arm, "q", None, text, [1], True, -1.0, -1.0, 0.5) for arm in chat.ARMS]
    chat.show(Console(width=200, force_terminal=True, color_system="truecolor"), answers)
    out = capsys.readouterr().out
    assert out.count(r"\x1b[2J\x1b]52;c;eA==\x07\u202egnp\x0d[red]a[/red] [link=http://x]b[/link]") == 2
    assert out.count("second line <redacted>") == 2 and not any(one in out for one in "\x07\u202e\r")
    assert "\x1b[2J" not in out and "\x1b]" not in out and "planted" not in out


def typed(monkeypatch, *lines):
    left = list(lines)

    def read(prompt=""):
        if not left:
            raise EOFError
        return left.pop(0)

    monkeypatch.setattr(builtins, "input", read)


def test_a_conversation_goes_on_until_it_ends_and_survives_a_bad_prompt(talk, monkeypatch):
    typed(monkeypatch, "how are you?", "far too long " * 40, "how are you?", "/quit", "never asked")
    seen = []
    before = Answers.predict_step
    monkeypatch.setattr(Answers, "predict_step", lambda self, *rest: seen.append(self.seed) or before(self, *rest))
    ran = talk("mode.run=outputs/lora", "mode.max_new_tokens=5")
    assert ran.code == 0
    assert ran.out.count("self-reward ") == 4 and ran.out.count("error: ") == 1
    assert seen == [0, 0, 1, 1]  # the same prompt again draws anew
    assert "max_prompt_tokens" in ran.out


def test_the_input_may_just_end_and_the_newest_run_is_taken(talk, monkeypatch):
    typed(monkeypatch)
    ran = talk()
    assert ran.code == 0 and "outputs/lora" in ran.out


def test_temperature_0_takes_the_likeliest_answer_every_time(talk, monkeypatch):
    shown = []
    monkeypatch.setattr(chat, "show", lambda console, answers: shown.append([one.ids for one in answers]))
    typed(monkeypatch, "how are you?", "how are you?")
    assert talk("mode.run=outputs/full", "mode.temperature=0.0", "mode.max_new_tokens=3").code == 0
    assert shown[0] == shown[1] and all(len(ids) <= 3 for ids in shown[0])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["mode.run=outputs/nothing"], "mode.run=outputs/nothing: not the folder of a finished run"),
        (["mode.run=outputs/plain"], "mode.run=outputs/plain: it has no policy/"),
        (["mode.temprature=1"], "mode.temprature: unknown key; did you mean mode.temperature?"),
    ],
)
def test_a_mistake_is_one_line(talk, words, says):
    ran = talk(*words, "mode.prompt=hi")
    assert ran.code == 2 and ran.err.startswith(f"error: {says}") and ran.err.count("\n") == 1


def test_without_any_run_it_says_what_to_do(run_main):
    ran = run_main("mode=chat")
    assert ran.code == 2 and "mode.run: there is no run with a policy under outputs/" in ran.err
