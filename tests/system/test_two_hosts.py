"""A run over two hosts of which one vanishes ends with the reason, and goes on to the bytes of one process."""

import pytest
import two_hosts
from two_hosts import SAMPLING, TRAINING, WITHIN, Host

REASON = two_hosts.impossible()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(REASON), reason=REASON or "there can be two"),
]


@pytest.fixture(scope="module")
def hosts():
    with two_hosts.two_hosts() as both:
        yield both


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return two_hosts.one_process(tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize(("lost", "stage"), [(1, SAMPLING), (1, TRAINING), (0, SAMPLING), (0, TRAINING)])
def test_a_host_that_vanishes_ends_the_run_which_is_taken_up_again(one, hosts: list[Host], tmp_path, lost, stage):
    options = ["hydra.run.dir=run", "store.root=store"]
    seconds, said = two_hosts.lose(hosts, lost, tmp_path, stage, *options)
    assert seconds < WITHIN
    if lost == 1:  # the first process, which speaks, was on the other host
        (reason,) = two_hosts.reasons(said)
        assert reason == "error: process 1 of the run, on host1, ended: nothing was heard of it for 15 s"
    two_hosts.finish(hosts, tmp_path, *options)
    assert two_hosts.differences(one, tmp_path / "run") == []


def test_nothing_is_left_of_two_hosts():
    with two_hosts.two_hosts() as both:
        spaces = [host.space for host in both]
        assert all(space in two_hosts.ip("netns", "list") for space in spaces)
        assert both[0].call("ip", "route", "get", both[1].address).split()[2] == two_hosts.WIRE
    assert not any(space in two_hosts.ip("netns", "list") for space in spaces)
