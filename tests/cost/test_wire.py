"""What devices send each other: counted as a ring that is played through, and by hand."""

import re

import pytest
from source_tree import ROOT

from dlma.cost.wire import Cluster, Exchanged


def played(devices, parts_each):
    """Parts that one device sends to the next until all have added up all parts: scattered, then gathered."""
    parts = [[{(device, part)} for part in range(devices * parts_each)] for device in range(devices)]
    sent = 0
    for gathers in (False, True):
        for step in range(devices - 1):
            moving = []
            for device in range(devices):
                turn = (device - step + gathers) % devices
                moving.append([(part, parts[device][part]) for part in range(turn, devices * parts_each, devices)])
            for device, given in enumerate(moving):
                for part, held in given:
                    parts[(device + 1) % devices][part] = held | parts[(device + 1) % devices][part]
            sent += len(moving[0])
    whole = [{(device, part) for device in range(devices)} for part in range(devices * parts_each)]
    assert parts == [whole] * devices
    return sent


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_gradients_are_added_up_with_as_many_bytes_as_a_ring_that_is_played_through(devices):
    cluster = Cluster(1, devices, link=1.0, network=1.0)
    size = 4 * devices
    assert Exchanged(size, 0, 0).step(cluster, passes=3, spread=False) == played(devices, 4)


def test_the_page_counts_the_gradients_of_two_hosts_as_the_plan_does():
    """docs/scale.md says, of so many steps and float32 weights, how many MB both hosts send."""
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    said = re.search(r"the gradients of (\d+) steps of a model of ([\d,]+) weights are (\d+) MB", text)
    steps, weights, megabytes = (int(word.replace(",", "")) for word in said.groups())
    each = Exchanged(4 * weights, 0, 0).step(Cluster(2, 1, link=1.0, network=1.0), 1, spread=False)
    assert round(2 * steps * each / 1e6) == megabytes


def test_spread_layers_are_gathered_twice_a_pass_and_their_gradients_scattered_once():
    cluster = Cluster(2, 2, link=1.0, network=1.0)
    found = Exchanged(gradients=100, layers=800, layer_gradients=60).step(cluster, passes=3, spread=True)
    assert found == 0.75 * (3 * (800 + 800 + 60) + 2 * 40)
    assert Exchanged(100, 800, 60).step(Cluster(1, 1, 1.0, 1.0), passes=3, spread=True) == 0


@pytest.mark.parametrize(("nodes", "rate"), [(1, 300.0), (2, 50.0)])
def test_a_ring_that_leaves_a_node_is_as_fast_as_the_slower_wire(nodes, rate):
    assert Cluster(nodes, 4, link=300.0, network=50.0).rate == rate
    assert Cluster(nodes, 4, link=30.0, network=50.0).rate == 30.0
