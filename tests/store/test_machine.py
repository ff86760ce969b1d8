"""What of a machine is part of a stage's key, what stands in its manifest, and when a difference is said."""

import platform

import pytest

from dlma.store import machine
from dlma.store.store import ENCODED, KEYED_LIBRARIES, Store

CPU = dict(accelerator="cpu", devices=1, strategy="ddp", threads=2)


@pytest.mark.parametrize("name", machine.ARITHMETIC)
def test_a_variable_that_changes_the_arithmetic_is_part_of_the_key(tmp_path, monkeypatch, name):
    def keys():
        return [Store(tmp_path).stage("pairs", {}, libraries=libraries).key for libraries in (KEYED_LIBRARIES, ENCODED)]

    monkeypatch.delenv(name, raising=False)
    before = keys()
    monkeypatch.setenv(name, "1")
    after = keys()
    assert after[0] != before[0] and after[1] == before[1]


def test_threads_and_processor_stand_in_the_manifest_and_another_machine_is_said_once(tmp_path):
    here = machine.machine(accelerator="cpu", devices=1, strategy="ddp", threads=3)
    assert here["threads"] == "3" and here["processor"]

    def made(threads, said, name="pairs", key=0, **options):
        store = Store(tmp_path, notify=said.append, machine={**here, "threads": threads})
        found = store.stage(name, {"key": key}, **options)
        return store.make(found, lambda folder: (folder / "rows").write_text("x") and {})

    said = []
    first = made("3", said)
    assert first.manifest["machine"] == here
    made("3", said)
    assert said == []
    made("1", said)
    assert said == [
        f"{first} was computed elsewhere (threads: 3 then, 1 here): computed here its last digits may differ"
    ]
    exact = made("3", said, name="prompts", libraries=())
    assert "machine" not in exact.manifest
    made("1", said, name="prompts", libraries=())
    assert len(said) == 1


def test_one_difference_is_said_once_for_all_stages(tmp_path):
    said = []
    for threads in ("3", "1"):
        store = Store(tmp_path, notify=said.append, machine={"threads": threads})
        for key in range(3):
            store.make(store.stage("pairs", {"key": key}), lambda folder: (folder / "rows").write_text("x") and {})
    assert len(said) == 1


@pytest.mark.parametrize(
    ("variables", "wanted", "threads"),
    [
        ({}, 4, "4"),
        ({"OMP_NUM_THREADS": "2"}, 0, "2"),
        ({"MKL_NUM_THREADS": "5"}, 0, "5"),
        ({}, 0, "torch's choice of"),
    ],
)
def test_threads_are_the_configs_else_a_variables_else_torchs(monkeypatch, variables, wanted, threads):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert machine.machine(accelerator="cpu", devices=1, strategy="ddp", threads=wanted)["threads"].startswith(threads)


@pytest.fixture
def another_machine(tmp_path, monkeypatch):
    """Files as Linux has them on a machine with three NVIDIA devices of two kinds."""
    cpus = "processor\t: 0\nmodel name\t: Some CPU: 8 cores\nflags\t\t: sse2 avx2\nmodel name\t: Some CPU: 8 cores\n"
    (tmp_path / "cpuinfo").write_text(cpus)
    for number, kind in enumerate(("B 80GB", "A 40GB", "B 80GB")):
        folder = tmp_path / "gpus" / f"0000:{number}"
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t {kind}\nIRQ:   4\n")
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "_GPUS", tmp_path / "gpus")
    return tmp_path


def test_processor_instructions_and_devices_are_those_of_the_systems_files(another_machine):
    assert machine.machine(**CPU) == {"processor": "Some CPU: 8 cores", "threads": "2", "accelerator": "cpu"}
    found = machine.machine(accelerator="gpu", devices=3, strategy="fsdp", threads=2)
    assert (found["device"], found["devices"]) == ("A 40GB, B 80GB", "3, fsdp")
    assert machine.instructions() == "sse2 avx2"


def test_what_the_system_does_not_say_is_unknown_and_never_an_error(another_machine, monkeypatch):
    (another_machine / "cpuinfo").write_text("processor\t: 0\n")
    known_otherwise = platform.processor() or platform.machine()
    assert (machine.machine(**CPU)["processor"], machine.instructions()) == (known_otherwise, "")
    (another_machine / "cpuinfo").unlink()
    assert (machine.machine(**CPU)["processor"], machine.instructions()) == (known_otherwise, "")
    monkeypatch.setattr(machine, "_GPUS", another_machine / "none")
    assert machine.machine(accelerator="mps", devices=1, strategy="ddp", threads=2)["device"] == "unknown"


def test_a_difference_names_what_either_side_has_alone():
    then, here = {"threads": "4", "processor": "one"}, {"threads": "1", "processor": "one", "device": "A"}
    assert machine.difference(then, here) == "threads: 4 then, 1 here; device: none then, A here"
    assert machine.difference(here, here) == ""


def test_where_a_run_computes_is_what_its_trainer_says_and_one_process_by_default():
    assert machine.placed({}, 1) == {"accelerator": "cpu", "devices": 1, "strategy": "ddp", "threads": 0}
    found = machine.placed({"accelerator": "gpu", "threads": 4, "shard_rows": 256}, 2)
    assert found == {"accelerator": "gpu", "devices": 2, "strategy": "ddp", "threads": 4}
