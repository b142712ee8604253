"""A Ray actor with one NUMA node or several. It wraps a `cluster.machine.host.Host`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence, Set
from functools import partial
from typing import Any

from actors.checkpoint.node_states import SavedNodes
from actors.compaction.numbered_calls import NumberedCalls
from actors.placement import node_ranges
from actors.simulation.direct_lines import LineAddress, open_line
from actors.simulation.shared_mail import SharedMail, read_mail
from actors.tuning.heap import Heap
from actors.tuning.slim_actor import SlimActor
from cluster.arrays.words import NODE_FIELD_SIZE
from cluster.machine.host import Host
from cluster.machine.node import Report
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.scenario import SimulationSpec
from cluster.wire.mailbox import Mail, merged

#: Mail up to this size comes with an actor's answer, in bytes: each object costs Ray more time.
LITTLE_MAIL = 1 << 18


class NodeActor(SavedNodes[Host], SlimActor):
    """Passes commands and mail to its nodes, and sorts what they send by receiving actor."""

    def __init__(self) -> None:
        super().__init__()
        self._shared_mail = SharedMail()

    def take(
        self,
        nodes: list[int],
        actor_of: list[int],
        near: list[int],
        group_of: list[int],
        spec: SimulationSpec,
        snapshots: Mapping[str, CapturedPages],
        coordinator: LineAddress | None = None,
    ) -> bool:
        """Replace the actor's nodes by these, empty; return whether it has a line to the coordinator.

        `nodes` are in a row, `actor_of[n]` is the actor of node n, `near` are the actors on the same Ray
        node, this one included, and `group_of[a]` is the group of actor a.
        """
        self._host = Host(nodes, spec, snapshots, Heap())
        self._calls = NumberedCalls()
        self._shared_mail.close()
        self._actor_of = actor_of
        self._nodes_of = node_ranges(actor_of)
        self._near = set(near)
        #: The range low..high-1 that holds all nodes of near actors, and maybe others.
        self._near_nodes = self._nodes_of[min(near)][0], self._nodes_of[max(near)][1]
        self._group_of = group_of
        self._groups = node_ranges([group_of[actor] for actor in actor_of])
        #: Its own nodes are low..high-1.
        self._low, self._high = nodes[0], nodes[-1] + 1
        self._seq = 0
        self._last_answer: list[Any] = []
        #: The mail that its nodes sent to each other in the last superstep.
        self._kept: list[Mail] = []
        self._line = open_line(coordinator, actor_of[self._low]) if coordinator else None
        return self._line is not None

    def take_turns(self, seq: int, turns: Sequence[tuple[int, int]]) -> list[bool]:
        """Let a compactor of each (node, compactor) pair take a turn; return which are done.

        The nodes differ. A repeated call changes nothing.
        """
        memories = self._host.memories
        return [self._calls.once(node, seq, partial(memories[node].take, c)) for node, c in turns]

    def step(
        self, seq: int, command: bytes, to: list[int], pickled_mail: Mapping[int, bytes], *mail: list[Mail]
    ) -> list[Any]:
        """Run superstep `seq` of the nodes `to`; a repeated call returns the first one's answer.

        `pickled_mail`, by actor, and `mail` come from other actors; rows for nodes of other actors are
        ignored. Returns 1 + groups objects. The first one is pickled: the reports; for each receiving actor
        its mail in bytes, or None if it is in the object of the actor's group; how many bytes all this mail
        has. Or instead, a list of the senders whose mail it cannot read, if there are any: nothing is done
        then. Then the mail for each group of actors on other machines, or None if it gets none this way.
        """
        if seq != self._seq:
            self._shared_mail.begin(seq)
            self._last_answer = []
            read, unreadable = read_mail(pickled_mail)
            if unreadable:
                return [pickle.dumps(unreadable, 5), *(None for _ in self._groups)]
            arrived = [sent for part in (read, *mail) for sent in part]
            received = self._kept + self._among(arrived, self._low, self._high)
            self._kept = read = arrived = []
            reports, sent = self._host.step(pickle.loads(command), received, to)
            self._kept = self._among(sent, self._low, self._high)
            below, above = (0, self._low), (self._high, NODE_FIELD_SIZE)
            others = merged(self._among(sent, *below) + self._among(sent, *above))
            self._last_answer = self._answer(seq, reports, others)
            self._seq = seq
        return self._last_answer

    def talk(self, request: bytes) -> None:
        """Run the superstep of this request, then those of requests on the line, until b"" comes.

        A request is the pickled arguments of `step`. The answer on the line is the first object that `step`
        returns, or b"" if it returns more: then the coordinator calls `step`.
        """
        line = self._line
        assert line is not None
        while request:
            try:
                answer, *others = self.step(*pickle.loads(request))
            except BaseException:
                # The coordinator waits for the line, and looks at this call when it ends.
                line.close()
                raise
            try:
                line.send_bytes(answer if others == [None] * len(others) else b"")
                request = line.recv_bytes()
            except (EOFError, OSError):  # the coordinator has died, or its run has failed
                return

    def send_again(self, seq: int, readers: Set[int]) -> list[Mail]:
        """Return the mail of superstep `seq` to near actors, some of which could not read it.

        From now on, it sends no mail to those readers in shared memory.
        """
        self._near -= readers
        return self._shared_mail.take_back(seq)

    def _answer(self, seq: int, reports: list[Report], sent: list[Mail]) -> list[Any]:
        """Return what `step` does; `sent` is the mail to nodes of other actors."""
        to = {self._actor_of[node] for report in reports for node in report.to}
        receivers = sorted(to - {self._actor_of[self._low]})
        pickled: dict[int, bytes | None] = dict.fromkeys(receivers)
        far_groups: set[int] = set()
        mail_bytes = _bytes_of(sent)
        if mail_bytes <= LITTLE_MAIL:
            pickled = {a: pickle.dumps(self._among(sent, *self._nodes_of[a]), 5) for a in receivers}
        else:
            sent = [mail.narrowed() for mail in sent]
            mail_bytes = _bytes_of(sent)
            near = self._near.intersection(receivers)
            shared = self._shared_mail.put(seq, self._among(sent, *self._near_nodes)) if near else None
            pickled |= dict.fromkeys(near, shared)
            far_groups = {self._group_of[actor] for actor in receivers if pickled[actor] is None}
        groups = (
            self._among(sent, *nodes) if g in far_groups else None for g, nodes in enumerate(self._groups)
        )
        return [pickle.dumps((reports, pickled, mail_bytes), 5), *groups]

    @staticmethod
    def _among(mail: list[Mail], low: int, high: int) -> list[Mail]:
        """Return the mail to nodes low..high-1."""
        parts = [sent.among(low, high) for sent in mail] if low < high else []
        return [part for part in parts if part.tables]


def _bytes_of(mail: list[Mail]) -> int:
    return sum(sent.nbytes for sent in mail)
