"""Some of the nodes in one process: what the inline engine and each node actor hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from cluster.arrays.words import U64
from cluster.checkpoint.encode import Encoded, encode
from cluster.checkpoint.restore import restore, restoring
from cluster.machine.node import Node, Report
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.scenario import SimulationSpec
from cluster.wire.commands import Command, Populate
from cluster.wire.mailbox import Inbox, Mail, deliveries

if TYPE_CHECKING:
    from cluster.compaction.scenario.node_memory import NodeMemory


#: Mail of a node above this size becomes narrow, in bytes: that of all nodes is the larger part of what a
#: merging pass needs beside the simulated memory. To copy less of it takes longer, unless it fills the host.
LARGE_MAIL = 64 << 20


class MessageMemory(Protocol):
    """Manages the memory that messages take in a process. Results do not depend on it."""

    def reserve(self, tree_keys: list[list[U64]]) -> None:
        """Prepare for the first window; `tree_keys` are the parts of this column of each node."""

    def before_step(self, inbox: Inbox) -> None:
        """Note that a node is about to take in these messages."""

    def all_received(self) -> None:
        """Note that no message of these nodes is under way."""


class Untuned:
    """Leaves memory to the process's allocator."""

    def reserve(self, tree_keys: list[list[U64]]) -> None:
        pass

    def before_step(self, inbox: Inbox) -> None:
        pass

    def all_received(self) -> None:
        pass


UNTUNED = Untuned()


class Host:
    """Some of the nodes, in one process."""

    def __init__(
        self,
        nodes: list[int],
        spec: SimulationSpec,
        snapshots: Mapping[str, CapturedPages],
        memory: MessageMemory = UNTUNED,
    ) -> None:
        self._memory = memory
        #: What a node is made of; its state refers to it.
        self._inputs = {"spec": spec, "snapshots": snapshots}
        self._packages = spec.packages
        self.nodes = {node: Node(node, spec, snapshots) for node in nodes}

    @property
    def memories(self) -> dict[int, NodeMemory]:
        """The memory that compactors work on, by node; empty if the scenario has no [migration]."""
        return {node: host.compaction.memory for node, host in self.nodes.items() if host.compaction}

    def state(self, node: int) -> Encoded:
        """Return the state of a node, while no message is under way. The arrays are the node's own."""
        return encode(self.nodes[node], self._inputs, self._packages)

    def restore(self, states: Iterable[tuple[int, Encoded]]) -> None:
        """Give each of these nodes the state that it had in another host; nodes take over the arrays.

        Raises DecodeError if a state is not one of such a node.
        """
        for node, state in states:
            restore(self.nodes[node], state, self._inputs, self._packages)
        with restoring():
            self._prepare()

    def step(
        self, command: Command | None, mail: list[Mail], to: list[int]
    ) -> tuple[list[Report], list[Mail]]:
        """Run one superstep of the nodes `to`, ascending; return their reports, and the mail they send.

        Empties `mail`, so that each inbox is freed as soon as its node has taken it in.
        """
        reports, sent = [], []
        for node, inbox in zip(to, deliveries(mail, to), strict=True):
            self._memory.before_step(inbox)
            report, sends = self.nodes[node].step(command, inbox)
            reports.append(report)
            if sends.tables:
                sent.append(sends.narrowed() if sends.nbytes > LARGE_MAIL else sends)
        if isinstance(command, Populate):
            self._prepare()
        if not sent:
            self._memory.all_received()
        return reports, sent

    def _prepare(self) -> None:
        """Prepare for the first window, after all memory is there."""
        self._memory.reserve([node.tree_keys() for node in self.nodes.values()])
