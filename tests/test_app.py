"""The entry: help at once, failures in one line, sweeps that go on, folders named as said, nothing leaked."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import MODE, statuses
from omegaconf import OmegaConf

from dlma import app, cores
from dlma.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


# --- before anything heavy is imported


def test_help_typos_and_check_answer_at_once_without_anything_heavy(tmp_path):
    heavy = ("torch", "transformers", "pytorch_lightning", "wandb", "datasets", "pyarrow", "numpy")
    commands = {"--help": 0, "--help experiment": 0, "mode=check": 0, "method=dlmaa": 2, "sed=1": 2}
    code = f"""
import sys, time
from dlma.app import main
for argv, wanted in {commands!r}.items():
    start = time.process_time()
    assert main(argv.split()) == wanted, argv
    print("took", time.process_time() - start)
print("heavy", [name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1] == "heavy []", done.stderr
    took = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("took")]
    assert len(took) == 5 and max(took) < 2  # 0.1 to 0.4 s of an idle core; others may have it too


def test_the_program_lets_threads_wait_briefly(monkeypatch):
    """Before torch is imported, and for the processes that it starts."""
    for name in cores.WAITING:
        monkeypatch.setenv(name, "put back after the test")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["run.py", "--help"])
    assert app.main(["--help"]) == 0 and "GOMP_SPINCOUNT" not in os.environ  # called by others it leaves theirs alone
    assert app.main() == 0 and os.environ["GOMP_SPINCOUNT"] == "30000"


def test_an_unknown_flag_is_refused(run_main):
    assert run_main("--sed=1").code == 2


def test_hydras_own_questions_are_answered(run_main):
    ran = run_main("--cfg", "job", "recipe.beta=0.125")
    assert ran.code == 0
    assert OmegaConf.create(ran.out).recipe.beta == 0.125
    for asked in (["--cfg", "job"], ["--info", "config"]):
        ran = run_main("--multirun", *asked, "method=dlma,rlcd")
        assert ran.code == 2 and "error: --multirun: what is only shown is one run's" in ran.err


# --- run folders


def test_run_folders_have_readable_deterministic_names(run_main, mode):
    mode(lambda cfg, /: {})
    for argv in ([MODE], [MODE, "seed=1"], [MODE, "recipe.beta=2", "method=rlcd"], [MODE, "name=trial"]):
        assert run_main(*argv).code == 0
    before = sorted(statuses(Path.cwd()))
    assert run_main("method=rlcd", MODE, "++recipe.beta=2").code == 0  # order and prefixes do not matter
    after = [name.replace(",mode._target_=dlma.modes.check.show", "") for name in sorted(statuses(Path.cwd()))]
    assert sorted(statuses(Path.cwd())) == before
    assert sorted(after) == ["dlma", "dlma,seed=1", "rlcd,recipe.beta=2", "trial"]


def test_secrets_stay_out_of_names_and_status(run_main, mode, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "planted-key-123")
    mode(lambda cfg, /: {"told": "planted-key-123", "api_key": "planted-too"})
    assert run_main(MODE, "store.root=planted-key-123").code == 0
    text = "".join(path.read_text() for path in Path("outputs").rglob("status.json"))
    assert "planted" not in text and "<redacted>" in text


def test_a_mode_that_only_looks_leaves_no_folder(run_main):
    ran = run_main("mode=check", "seed=3")
    assert ran.code == 0
    assert ran.out.endswith("config ok\n")
    assert list(ran.folder.iterdir()) == []


# --- what went wrong, in one line and in the status


def failing(reason: BaseException):
    def fail(cfg, /):
        raise reason

    return fail


def test_a_users_mistake_is_one_line_and_code_2(run_main, mode):
    mode(failing(UserError("data.path=x.jsonl: no such file")))
    ran = run_main(MODE)
    assert (ran.code, ran.err) == (2, "error: data.path=x.jsonl: no such file\n")
    (status,) = statuses(ran.folder).values()
    assert (status["status"], status["reason"]) == ("failed", "data.path=x.jsonl: no such file")


def test_an_unexpected_error_shows_its_traceback_and_code_1(run_main, mode):
    mode(failing(ZeroDivisionError("odd")))
    ran = run_main(MODE)
    assert ran.code == 1
    assert "Traceback" in ran.err and ran.err.endswith("error: ZeroDivisionError: odd\n")
    (status,) = statuses(ran.folder).values()
    assert status["status"] == "failed" and "in fail" in status["traceback"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1)], ids=["ctrl-c", "lightning's exit"])
def test_an_interrupt_says_how_to_go_on(stop, run_main, mode):
    mode(failing(stop))
    ran = run_main(MODE, "prompts=system", "name=a b")
    assert ran.code == 130
    assert ran.err == f"interrupted; to go on: python run.py {MODE} prompts=system 'name=a b'\n"
    (status,) = statuses(ran.folder).values()
    assert status["status"] == "interrupted"


def test_ctrl_c_ends_a_real_process_within_seconds(tmp_path):
    code = "import time; from dlma import app; from dlma.modes import check; "
    code += "check.show = lambda cfg, /: (print('in', flush=True), time.sleep(60)); "
    code += f"raise SystemExit(app.main([{MODE!r}]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs inherit it as ignored
    )  # fmt: skip
    assert process.stdout.readline() == "in\n"
    start = time.process_time()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert time.process_time() - start < 5
    assert (process.returncode, err) == (130, f"interrupted; to go on: python run.py {MODE}\n")


def test_an_output_folder_that_cannot_be_made_is_one_line(run_main, mode, tmp_path):
    mode(lambda cfg, /: {})
    (tmp_path / "outputs").write_text("a file in the way")
    ran = run_main(MODE)
    assert ran.code == 2
    assert ran.err.startswith("error: ") and ran.err.count("\n") == 1 and "hydra.run.dir" in ran.err


@pytest.mark.parametrize("words", [["hydra.run.dir=mine/a"], ["-m", "seed=0,1", "hydra.sweep.dir=mine"]], ids=" ".join)
def test_a_folder_of_others_is_one_line_and_stays_as_it_is(words, run_main, mode, elsewhere):
    mode(lambda cfg, /: {})
    names = ["a", "dlma,seed=0", "dlma,seed=1"]
    for name in names:
        (elsewhere / "mine" / name).mkdir(parents=True)
        (elsewhere / "mine" / name / "report.html").write_text("mine")
    ran = run_main(MODE, *words)
    lines = ran.err.splitlines()
    assert ran.code != 0 and len(lines) == (2 if "-m" in words else 1)
    assert all(line.startswith("error: ") and "report.html: stands where a run would write" in line for line in lines)
    assert {str(path.parent.name) for path in (elsewhere / "mine").glob("*/*")} == set(names)
    assert {path.read_text() for path in (elsewhere / "mine").glob("*/*")} == {"mine"}


@pytest.mark.parametrize("number", ["ENOSPC", "EROFS"])
def test_a_full_or_read_only_disk_is_one_line(number, run_main, mode):
    code = getattr(errno, number)
    mode(failing(OSError(code, os.strerror(code), "store/x.parquet")))
    ran = run_main(MODE)
    assert ran.code == 2
    assert ran.err.startswith(f"error: store/x.parquet: {os.strerror(code)}; free space")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("reason", [FileNotFoundError(2, "No such file", "p.jsonl"), UserError("no rows")], ids=str)
def test_an_input_that_goes_in_mid_run_is_one_line_that_names_it(reason, run_main, mode, tmp_path):
    (tmp_path / "p.jsonl").write_text("{}")

    def fail(cfg, /):
        Path(cfg.data.path).unlink()
        raise reason

    mode(fail)
    ran = run_main(MODE, "data=jsonl", f"data.path={tmp_path / 'p.jsonl'}")
    words = "is gone since the run began; put it back, then run the same command again"
    assert (ran.code, ran.err) == (2, f"error: {tmp_path / 'p.jsonl'}: {words}\n")
    (status,) = statuses(ran.folder).values()
    assert (status["status"], status["again"]) == ("failed", True)


def test_a_bug_is_no_vanished_input(run_main, mode, tmp_path):
    (tmp_path / "p.jsonl").write_text("{}")

    def fail(cfg, /):
        Path(cfg.data.path).unlink()
        raise ZeroDivisionError("odd")

    mode(fail)
    ran = run_main(MODE, "data=jsonl", f"data.path={tmp_path / 'p.jsonl'}")
    assert ran.code == 1 and "Traceback" in ran.err


def test_an_unwritable_status_is_one_line(run_main, mode, monkeypatch):
    def full(self, *args, **named):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    mode(lambda cfg, /: {})
    monkeypatch.setattr(Path, "write_bytes", full)
    ran = run_main(MODE)
    assert ran.code == 2
    assert ran.err.count("\n") == 1 and "No space left on device" in ran.err


# --- two commands in one process


def test_commands_in_one_process_do_not_leak_into_each_other(run_main, mode):
    from hydra.core.global_hydra import GlobalHydra

    seen = []
    mode(lambda cfg, /: seen.append((cfg.seed, cfg.recipe.beta, "hydra" in cfg)) or {})
    before = (sys.argv[:], logging.getLogger().handlers[:], logging.getLogger().level, dict(os.environ))
    for argv in (["seed=1"], ["recipe.beta=9", "-m", "seed=2,3"], ["nonsense=1"], []):
        run_main(MODE, *argv)
        assert not GlobalHydra.instance().is_initialized()
    assert seen == [(1, 1.0, False), (2, 9, False), (3, 9, False), (0, 1.0, False)]
    after = (sys.argv[:], logging.getLogger().handlers[:], logging.getLogger().level, dict(os.environ))
    assert after == before


def test_ctrl_c_is_handled_as_before_even_when_a_library_switched_it_off(run_main, mode):
    mode(lambda cfg, /: signal.signal(signal.SIGINT, signal.SIG_IGN) and {})
    before = signal.getsignal(signal.SIGINT)
    run_main(MODE)
    assert signal.getsignal(signal.SIGINT) is before
