"""What devices send each other while they train, by rings, and how long that takes.

In a ring of P devices each sends n (P - 1) / P bytes for n that are gathered or scattered, and twice that for n that
are added up in all of them (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009). Where the ring leaves
a node, the node's network carries what one device sends. Nothing is taken to overlap with computing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """So many nodes of so many devices; bytes per second, one way.

    link: from a device to another of its node; network: from a node to the others
    """

    nodes: int
    per_node: int
    link: float
    network: float

    @property
    def devices(self) -> int:
        return self.nodes * self.per_node

    @property
    def rate(self) -> float:
        """Of a ring through all devices: that of its slowest wire."""
        return self.link if self.nodes == 1 else min(self.link, self.network)

    def sent(self, gathered: float) -> float:
        """Bytes that each device sends for so many that are gathered, or scattered."""
        return gathered * (self.devices - 1) / self.devices


@dataclass(frozen=True)
class Exchanged:
    """Of a model, in bytes: the gradients of all that is trained; the layers' weights; the layers' gradients."""

    gradients: int
    layers: int
    layer_gradients: int

    def step(self, cluster: Cluster, passes: int, *, spread: bool) -> float:
        """Bytes that each device sends in an optimizer step of so many passes.

        spread: the layers are spread over the devices (trainer/fsdp.py): each pass gathers them forward and backward
            and scatters their gradients; what is in no layer is added up once a step, like all gradients otherwise
        """
        if not spread:
            return cluster.sent(2 * self.gradients)
        whole = self.gradients - self.layer_gradients
        return cluster.sent(passes * (2 * self.layers + self.layer_gradients) + 2 * whole)
