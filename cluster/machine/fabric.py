"""How the coordinator reaches the nodes: in supersteps of one command, or of none for messages under way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from cluster.arrays.words import U64
from cluster.machine.node import Node, Report
from cluster.spec.scenario import SimulationSpec
from cluster.spec.snapshot_pages import SnapshotPages
from cluster.wire.commands import Command, Populate
from cluster.wire.mailbox import Inbox, Mail, receive
from cluster.wire.messages import Kind

if TYPE_CHECKING:
    from cluster.compaction.scenario.node_memory import NodeMemory


class Fabric(Protocol):
    """Carries commands and messages. Messages sent in one superstep arrive in the next."""

    nodes: int

    def superstep(self, command: Command | None) -> list[Report]:
        """One step of every node that gets a command or messages; their reports, by ascending node."""


#: Messages upon which a node sends nothing. They may come with the next command, and are taken in before it.
QUIET = frozenset(
    {
        Kind.SET_CONTENT,
        Kind.GET,
        Kind.WITHDRAW,
        Kind.STALE,
        Kind.DROPPED,
        Kind.WAIT,
        Kind.REKEY,
        Kind.MAKE_KSM,
        Kind.RECOUNT,
        Kind.WAIT_FRAME,
        Kind.WAIT_CONTENT,
        Kind.FILL,
        Kind.ADDED_TO_STABLE,
        Kind.REMOVED_FROM_TREES,
        Kind.PIN,
        Kind.UNLINKED,
        Kind.LANDED,
        Kind.MAPPED,
        Kind.UNMAPPED,
        Kind.ORPHANED,
    }
)


class Exchange:
    """Commands one after the other: each finds all that those before it have brought about."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._left = QUIET
        #: Of the last superstep.
        self.reports: list[Report] = []

    def run(self, command: Command, *, leave: frozenset[Kind] = QUIET) -> list[Report]:
        """A command and what follows from it, but for messages of kinds that may be left for the next one.

        Returns the reports on the command itself.
        """
        first = self.begin(command)
        self._left = leave
        self.settle()
        return first

    def begin(self, command: Command) -> list[Report]:
        """A command whose messages arrive with the next one if that is `ask`, otherwise before it."""
        self.settle()
        return self._step(command)

    def ask(self, question: Command) -> list[Report]:
        """The answers that there are when all messages have arrived."""
        reports = self._step(question)
        # Even a quiet message may change an answer.
        while any(report.sent for report in reports):
            reports = self._step(question)
        return reports

    def settle(self) -> None:
        """All messages arrive, but those that may be left for the next command."""
        while self._loud:
            self._step(None)

    @property
    def _loud(self) -> bool:
        return any(report.sent - self._left for report in self.reports)

    def _step(self, command: Command | None) -> list[Report]:
        if command is not None:
            self._left = QUIET
        self.reports = self._fabric.superstep(command)
        return self.reports


class MessageMemory(Protocol):
    """Manages the memory that messages take in a process. Results do not depend on it."""

    def reserve(self, tree_keys: list[list[U64]]) -> None:
        """Prepare for the first window; `tree_keys` are the parts of this column of each node."""

    def took(self, inbox: Inbox) -> None:
        """Note that a node is about to take in these messages."""

    def rest(self) -> None:
        """Note that no message of these nodes is under way."""


class Untuned:
    """Leaves memory to the process's allocator."""

    def reserve(self, tree_keys: list[list[U64]]) -> None:
        pass

    def took(self, inbox: Inbox) -> None:
        pass

    def rest(self) -> None:
        pass


UNTUNED = Untuned()


class Host:
    """Some of the nodes, in one process: what an actor wraps."""

    def __init__(
        self,
        nodes: list[int],
        spec: SimulationSpec,
        snapshots: Mapping[str, SnapshotPages],
        memory: MessageMemory = UNTUNED,
    ) -> None:
        self._memory = memory
        self.nodes = {node: Node(node, spec, snapshots) for node in nodes}

    @property
    def memories(self) -> dict[int, NodeMemory]:
        """What compactors work on; SimulationError if the scenario has none."""
        return {number: node.compaction.memory for number, node in self.nodes.items()}

    def step(
        self, command: Command | None, mail: list[Mail], to: list[int]
    ) -> tuple[list[Report], list[Mail]]:
        """One superstep of the nodes `to`, ascending: their reports, and what they sent.

        The list of mail is empty afterwards, so that each inbox goes as soon as it was taken in.
        """
        inboxes = _inboxes(mail, to)
        mail.clear()
        reports, sent = [], []
        for node in to:
            inbox = receive(inboxes.pop(node))
            self._memory.took(inbox)
            report, sends = self.nodes[node].step(command, inbox)
            reports.append(report)
            if sends.tables:
                sent.append(sends)
        if isinstance(command, Populate):
            self._memory.reserve([node.tree_keys() for node in self.nodes.values()])
        if not sent:
            self._memory.rest()
        return reports, sent


def _inboxes(mail: list[Mail], to: list[int]) -> dict[int, list[Inbox]]:
    """What each of the nodes gets, in the order of the senders."""
    inboxes: dict[int, list[Inbox]] = {node: [] for node in to}
    for sent_by in sorted(mail, key=lambda sent_by: sent_by.sender):
        for node, inbox in sent_by.inboxes().items():
            inboxes[node].append(inbox)
    return inboxes


class InlineFabric:
    """All nodes in this process, without Ray."""

    def __init__(
        self,
        spec: SimulationSpec,
        snapshots: Mapping[str, SnapshotPages],
        memory: MessageMemory = UNTUNED,
    ) -> None:
        self.nodes = spec.machine.nodes
        self.host = Host(list(range(self.nodes)), spec, snapshots, memory)
        self._sent: list[Mail] = []

    def superstep(self, command: Command | None) -> list[Report]:
        if command is not None:
            to = list(range(self.nodes))
        else:
            to = sorted({node for mail in self._sent for node in mail.to})
        reports, self._sent = self.host.step(command, self._sent, to)
        return reports
