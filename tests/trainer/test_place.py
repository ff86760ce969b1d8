"""Where a process stands among those of its run, as torchrun and srun tell it; by itself where nobody does."""

import json

import pytest

from dlma.trainer import place
from dlma.trainer.place import Place

TORCHRUN = {"RANK": 5, "WORLD_SIZE": 6, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 2}
SRUN = {
    "SLURM_PROCID": 7,
    "SLURM_STEP_NUM_TASKS": 9,
    "SLURM_LOCALID": 1,
    "SLURM_NODEID": 3,
    "SLURM_STEP_TASKS_PER_NODE": "2(x4),1",
    "SLURM_STEP_NODELIST": "gpu[08-12]",
    "SLURM_JOB_ID": 41,
    "SLURM_STEP_ID": 0,
}


@pytest.fixture
def surroundings(monkeypatch):
    def put(values):
        for name in (*TORCHRUN, *SRUN, "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    put({})
    return put


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Place()),
        ({"WORLD_SIZE": 2}, Place()),
        (TORCHRUN, Place(5, 6, 1, 2, 2, "torchrun")),
        (SRUN, Place(7, 9, 1, 2, 3, "srun")),
        (SRUN | {"SLURM_PROCID": 8, "SLURM_LOCALID": 0, "SLURM_NODEID": 4}, Place(8, 9, 0, 1, 4, "srun")),
        (SRUN | TORCHRUN, Place(5, 6, 1, 2, 2, "torchrun")),  # srun starts a torchrun on each machine
        (SRUN | {"SLURM_STEP_NUM_TASKS": 1}, Place()),
        ({"SLURM_NTASKS": 9, "SLURM_PROCID": 0}, Place()),  # a batch script, before any srun
    ],
)
def test_a_place_is_read_from_the_environment(surroundings, values, expected):
    surroundings(values)
    assert place.here() == expected


def test_processes_meet_where_they_are_told_or_on_the_first_machine_of_the_step(surroundings):
    surroundings(SRUN)
    host, port = place.address()
    assert host == "gpu08" and 15_000 <= port < 30_000
    surroundings(SRUN | {"SLURM_STEP_ID": 1})
    assert place.address()[1] != port  # two steps of a job side by side
    surroundings(SRUN | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": 4000})
    assert place.address() == ("10.0.0.7", 4000)


def test_a_reason_is_left_where_torchs_launcher_reads_it(tmp_path, monkeypatch):
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    place.leave_word("error: data.path: has gone")
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=2, error_file=str(path))
    assert failure.message["message"] == failure.message["extraInfo"]["py_callstack"] == "error: data.path: has gone"
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE")
    place.leave_word("nowhere")
    assert "nowhere" not in json.loads(path.read_text())["message"].values()
