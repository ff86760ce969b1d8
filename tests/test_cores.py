"""Control groups are written out as the kernel shows them; what they allow is known by hand."""

import os
import subprocess
import sys

import pytest

from dlma import cores

V1 = "9:name=systemd:/\n4:memory:/other\n3:cpuset:/\n2:cpu,cpuacct:/docker/abc\n"
V2 = "0::/user.slice/job.scope\n"
BOTH = "2:cpu:/\n0::/\n"  # v2 mounted beside v1, at unified


def v1(folder: str, quota: int, period: int) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": str(quota), f"{folder}/cpu.cfs_period_us": str(period)}


def quota(tmp_path, groups: str, files: dict[str, str]) -> float | None:
    (tmp_path / "cgroup").write_text(groups)
    for name, text in files.items():
        file = tmp_path / "fs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return cores.quota(tmp_path / "cgroup", tmp_path / "fs")


@pytest.mark.parametrize(
    ("groups", "files", "wanted"),
    [
        (V2, {"user.slice/job.scope/cpu.max": "150000 100000"}, 1.5),
        (V2, {"user.slice/job.scope/cpu.max": "max 100000"}, None),
        (V2, {"user.slice/job.scope/cpu.max": "max 100000", "user.slice/cpu.max": "400000 100000"}, 4),
        (V2, {"user.slice/job.scope/cpu.max": "600000 100000", "user.slice/cpu.max": "400000 100000"}, 4),
        ("0::/\n", {"cpu.max": "50000 100000"}, 0.5),
        (V2, {"cpu.max": "200000 100000"}, 2),  # the name is the host's: only the mount is seen
        (V2, {"elsewhere/cpu.max": "100000 100000"}, None),
        (V1, v1("cpu,cpuacct/docker/abc", 300000, 100000), 3),
        (V1, v1("cpu,cpuacct/docker/abc", -1, 100000), None),
        (V1, v1("cpu,cpuacct/docker/abc", -1, 100000) | v1("cpu,cpuacct/docker", 200000, 100000), 2),
        (V1, v1("cpu", 25000, 50000), 0.5),  # the mount of a container
        (V1, {"memory/other/cpu.max": "100000 100000"}, None),
        (BOTH, v1("cpu", -1, 100000) | {"unified/cpu.max": "100000 100000"}, 1),
        ("", {"cpu.max": "100000 100000"}, None),
    ],
)  # fmt: skip
def test_a_quota_is_the_least_of_a_group_and_those_above_it(tmp_path, groups, files, wanted):
    assert quota(tmp_path, groups, files) == wanted


@pytest.mark.parametrize(
    ("limit", "own", "variables", "wanted", "expected"),
    [
        (None, 8, {}, 0, (0, "torch's choice on 8 cores")),
        (2.0, 8, {}, 0, (2, "2 of 8 cores by the container's quota")),
        (2.5, 8, {}, 0, (2, "2.5 of 8 cores by the container's quota")),
        (0.5, 8, {}, 0, (1, "0.5 of 8 cores by the container's quota")),
        (6.0, 4, {}, 0, (0, "4 of 8 cores are this process's")),
        (2.0, 8, {}, 3, (3, "trainer.threads")),
        (2.0, 8, {"OMP_NUM_THREADS": "5"}, 0, (0, "OMP_NUM_THREADS")),
        (None, 8, {"MKL_NUM_THREADS": "5"}, 3, (3, "trainer.threads")),
    ],
)
def test_threads_are_what_is_asked_for_else_what_the_machine_lets_this_process_have(
    limit, own, variables, wanted, expected, monkeypatch
):
    for name in cores.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cores, "allowed", lambda: own)
    monkeypatch.setattr(cores, "quota", lambda: limit)
    assert cores.threads(wanted) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_is_counted():
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); from dlma import cores; print(cores.allowed())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1\n"


@pytest.mark.parametrize("said", ["", *cores.WAITING])
def test_threads_wait_briefly_unless_a_variable_says_how_they_wait(said, monkeypatch):
    for name in cores.WAITING:
        monkeypatch.setenv(name, "put back after the test")
        monkeypatch.delenv(name)
    if said:
        monkeypatch.setenv(said, "1")
    cores.wait_briefly()
    found = {name: os.environ[name] for name in cores.WAITING if name in os.environ}
    assert found == ({said: "1"} if said else {"GOMP_SPINCOUNT": "30000"})
