"""What ships: pinned dependencies without traces of a machine, a wheel that carries its config, sound metadata."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(file: str) -> list[str]:
    return [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]


PINS, APART = pins("constraints.txt"), pins("constraints-cluster.txt")  # of extras that no set-up here installs


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_are_exact_pins_and_nothing_else():
    assert [
        line for line in PINS + APART if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+( ; [^@/]+)?", line)
    ] == []


def test_constraints_name_no_path_host_or_local_build():
    text = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"://|@ |file:|--|\+cpu|\+cu|(^|\s)/", text.replace("--extra", "").replace("--no-", ""))
    assert "torch==2.13.0" in PINS


def test_every_direct_dependency_is_pinned_within_its_bounds():
    from packaging.requirements import Requirement
    from packaging.version import Version

    pinned = {normal(line.split("==")[0]): line.split("==")[1].split(" ")[0] for line in PINS + APART}
    extras = [requirement for group in PROJECT["optional-dependencies"].values() for requirement in group]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        if requirement.name == PROJECT["name"]:  # an extra that is made of others
            continue
        assert Version(pinned[normal(requirement.name)]) in requirement.specifier, requirement


LOCK = (ROOT / "requirements.lock").read_text()


def locked(text: str) -> dict[str, list[str]]:
    """The pins of a lock, each with its hashes."""
    entries = re.findall(r"^(\S+==\S+)((?: \\\n {4}--hash=sha256:[0-9a-f]{64})+)$", text, flags=re.M)
    return {pin: re.findall(r"sha256:(\w+)", hashes) for pin, hashes in entries}


def test_the_lock_has_hashes_of_every_pin_but_torch_and_nothing_else():
    found = locked(LOCK)
    assert set(found) == {pin for pin in PINS if not pin.startswith("torch==")}
    assert [pin for pin, hashes in found.items() if len(set(hashes)) != len(hashes)] == []
    read = sum(1 + len(hashes) for hashes in found.values())
    assert read == sum(not line.startswith("#") for line in LOCK.splitlines())  # no line of another kind


def test_the_lock_holds_every_declared_dependency_but_torch_and_names_no_place():
    names = {normal(pin.split("==")[0]) for pin in locked(LOCK)}
    lines = [*PROJECT["dependencies"], *(line for group in PROJECT["optional-dependencies"].values() for line in group)]
    declared = {normal(re.match(r"[\w.-]+", line)[0]) for line in lines}
    apart = {normal(line.split("==")[0]) for line in APART}
    assert declared - names == {"torch", PROJECT["name"]} | apart
    assert not re.search(r"://|@ |file:|(^|\s)/|index|find-links", LOCK)


def test_the_lock_is_installed_first_and_its_reader_by_its_own_hash():
    recipe = (ROOT / "Makefile").read_text().partition("\n$(READY):")[2].partition("\n\n")[0].splitlines()
    steps = [
        next(i for i, line in enumerate(recipe) if part in line) for part in ("awk", "-m pip install", "$(UV)", "-e")
    ]
    assert steps == sorted(steps)
    assert all("--require-hashes --no-deps" in recipe[i] for i in steps[1:3])
    (script,) = re.findall(r"awk '(.*)' requirements.lock", recipe[steps[0]])
    taken = subprocess.run(["awk", script, "requirements.lock"], cwd=ROOT, capture_output=True, text=True, check=True)
    (pin,) = locked(taken.stdout)
    assert pin in PINS and pin.startswith("uv==")


STEPS = re.findall(r"^([A-Z]+) (.+)$", re.sub(r" *\\\\\n *", " ", (ROOT / "Dockerfile").read_text()), flags=re.M)


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A clean folder with what the Dockerfile copies into the image, and nothing else."""
    folder = tmp_path_factory.mktemp("image")
    for *names, target in (arguments.split() for word, arguments in STEPS if word == "COPY"):
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder / target)
    return folder


def built(source: Path, out: Path, *kinds: str) -> Path:
    """A folder with the distributions of a source tree."""
    build = [sys.executable, "-m", "uv", "build", *kinds, "--out-dir", str(out), "--offline", "-q", str(source)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=120)
    if done.returncode:  # the build back-end is fetched once; without network there is nothing to build with
        pytest.skip("the build back-end is not at hand: " + done.stderr.strip().splitlines()[-1])
    return out


@pytest.fixture(scope="module")
def wheel(copied, tmp_path_factory):
    """The wheel, built of what goes into the image."""
    return next(built(copied, tmp_path_factory.mktemp("wheel"), "--wheel").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel):
    """Call the command that pip made of the wheel, installed beside the checkout: `installed("--help", cwd=...)`."""
    prefix = wheel.parent / "prefix"
    install = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "-q", "--prefix", str(prefix)]
    subprocess.run([*install, str(wheel)], check=True, timeout=120)
    (library,) = prefix.glob("lib/python*/site-packages")
    (command,) = prefix.glob("bin/dlma")

    def call(*words, cwd):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = {**os.environ, "PYTHONPATH": str(library)}
        done = subprocess.run([command, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        done.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return done

    return call


def test_a_wheel_carries_config_lab_bases_and_pages_and_nothing_of_the_checkout(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = {str(path.relative_to(ROOT)) for path in (ROOT / "conf").rglob("*.yaml")}
    assert {f"dlma/{name}" for name in shipped} <= names
    bases = {str(path.relative_to(ROOT)) for path in (ROOT / "dlma" / "lab" / "bases").rglob("*") if path.is_file()}
    assert bases and bases <= names
    pages = {str(path.relative_to(ROOT)) for kind in ("html", "js") for path in (ROOT / "dlma").rglob(f"*.{kind}")}
    assert "dlma/report/templates/page.html" in pages and pages <= names
    assert not [name for name in names if name.startswith(("tests/", "conf/", "outputs/", "store/"))]


def test_the_installed_command_takes_the_same_overrides_from_any_folder(installed, tmp_path):
    words = ["mode=check", "method=rlcd", "recipe.beta=0.25", "model.base=long"]
    done = installed(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["config ok"]), done.stderr
    here = subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == here.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("method=dlmaa", 2), ("sed=1", 2)])
def test_help_and_a_typo_answer_within_two_seconds(installed, tmp_path, word, code):
    """Two seconds of the processor, so that other work on this machine does not count."""
    done = installed(word, cwd=tmp_path)
    assert done.returncode == code and done.cpu < 2, (done.cpu, done.stderr)
    said = done.stdout + done.stderr
    assert "run.py" not in said and ("did you mean" in said or "Usage: dlma [-m]" in said)


@pytest.mark.slow
def test_the_installed_command_runs_the_lab(installed, tmp_path):
    quick = ["data.train=24", "data.validation=4", "data.test=6", "recipe.max_new_tokens=16", "recipe.epochs=1"]
    done = installed(*quick, "name=here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "here" / "policy" / "model.safetensors").is_file()


def test_the_command_of_the_wheel_is_the_entry():
    assert PROJECT["scripts"] == {"dlma": "dlma.app:main"}


def test_licence_and_citation_agree_with_the_metadata():
    licence = (ROOT / "LICENSE").read_text()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence and len(licence) > 11_000
    assert PROJECT["license"] == citation["license"] == "Apache-2.0"
    assert PROJECT["version"] == citation["version"]
    assert citation["preferred-citation"]["url"].endswith("2402.11907")


def twine_accepts(*files: Path) -> None:
    """Holds metadata and description against what an index takes."""
    pytest.importorskip("twine", reason="twine is not at hand: make dist fetches it")
    check = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.count("PASSED") == len(files), done.stdout + done.stderr


def test_twine_accepts_the_wheel_whose_types_are_for_others_too(wheel):
    twine_accepts(wheel)
    with zipfile.ZipFile(wheel) as archive:
        assert "dlma/py.typed" in archive.namelist()


@pytest.mark.slow
def test_the_sdist_is_accepted_and_builds_the_same_wheel(wheel, tmp_path):
    (sdist,) = built(ROOT, tmp_path / "sdist", "--sdist").glob("*.tar.gz")
    twine_accepts(sdist)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    (again,) = built(source, tmp_path / "again", "--wheel").glob("*.whl")
    assert again.read_bytes() == wheel.read_bytes()


def test_classifiers_are_the_pythons_that_ci_runs_and_the_image_has_the_oldest():
    minor = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert minor == workflow()["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={minor[0]}"
    assert STEPS[0] == ("FROM", f"python:{minor[0]}-slim")


def workflow() -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())


TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), flags=re.M))


def test_workflow_hooks_and_contributing_call_targets_that_make_has():
    steps = [step["run"] for job in workflow()["jobs"].values() for step in job["steps"] if "run" in step]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    pages = "".join((ROOT / name).read_text() for name in ("CONTRIBUTING.md", "docs/install.md"))
    called = [*steps, *(hook["entry"] for hook in hooks), *re.findall(r"^make [^#\n]+", pages, flags=re.M)]
    words = {word for line in called for word in line.split()[1:] if "=" not in word}
    assert all(line.startswith("make ") for line in called)
    assert {"lint", "types", "docs", "test", "coverage", "dist", "setup"} <= words <= TARGETS


def test_the_rooms_whose_branches_are_all_to_be_taken_are_those_whose_tests_are_run_for_it():
    recipe = (ROOT / "Makefile").read_text().partition("\ncoverage: $(READY)")[2].partition("\n\n")[0]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    rooms = [package.removeprefix("dlma.") for package in settings["run"]["source_pkgs"]]
    assert re.findall(r"tests/(\w+)", recipe) == rooms
    assert settings["run"]["branch"] and settings["report"]["fail_under"] == 100


def test_every_extra_stands_on_the_page_and_every_extra_that_is_named_exists():
    extras = set(PROJECT["optional-dependencies"])
    page = (ROOT / "docs" / "install.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, flags=re.M)) == extras
    places = [*ROOT.glob("*.md"), *(path for room in ("docs", "dlma", "conf") for path in (ROOT / room).rglob("*.*"))]
    texts = [path.read_text() for path in places if path.suffix in (".md", ".py", ".yaml")]
    named = {name for text in texts for group in re.findall(r"dlma\[([\w,]+)\]", text) for name in group.split(",")}
    assert "real" in named and named - {"NAME"} <= extras


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda p: p.name)
def test_issue_forms_have_what_github_asks_of_them(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"] and form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[\w-]+", one) for one in ids)
    for field in form["body"]:
        assert field["type"] in ("input", "textarea", "dropdown") and field["attributes"]["label"]
        assert (field["type"] == "dropdown") == bool(field["attributes"].get("options"))
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_the_image_knows_every_step_that_it_is_made_of(copied):
    assert {word for word, _ in STEPS} == {"FROM", "WORKDIR", "COPY", "ARG", "RUN", "ENV", "ENTRYPOINT"}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_in == {path.name for path in copied.iterdir()}
    (entry,) = [json.loads(arguments) for word, arguments in STEPS if word == "ENTRYPOINT"]
    assert entry == list(PROJECT["scripts"])


@pytest.mark.slow
def test_the_steps_of_the_image_install_a_command_that_works(copied, tmp_path):
    """Every RUN in an environment of its own; wheels come from the package index, or from where pip is told to look."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "python"], check=True, timeout=120)
    path = f"{tmp_path / 'python' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    values = dict(arguments.split("=", 1) for word, arguments in STEPS if word in ("ARG", "ENV"))
    environment = {**{n: v for n, v in os.environ.items() if n != "PYTHONPATH"}, **values, "PATH": path}
    for word, arguments in STEPS:
        if word == "RUN":
            done = subprocess.run(
                ["sh", "-c", arguments], cwd=copied, env=environment, capture_output=True, text=True, timeout=1500
            )
            if done.returncode and "Could not find a version" in done.stderr:
                pytest.skip("no package index at hand")
            assert done.returncode == 0, done.stderr[-2000:]
    (tmp_path / "work").mkdir()
    words = ["mode=check", "method=rlcd"]
    done = subprocess.run(
        ["dlma", *words], cwd=tmp_path / "work", env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["config ok"]), done.stderr


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    assert script.read_text().splitlines()[-1] == "exec make test"


def test_no_store_and_no_run_is_tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {Path(name).name for name in listed.split("\0")}
    assert "pyproject.toml" in names
    assert names & {"dlma_store.json", "fingerprints.json", "status.json"} == set()
