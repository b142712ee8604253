"""A Ray actor that has one NUMA node, or several: a thin shell around `cluster.fabric.Host`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray

from actors.hosts import group_of, ranges
from actors.lean import Lean
from cluster.fabric import Host
from cluster.mailbox import Mail
from cluster.node import Report
from cluster.snapshot_pages import SnapshotPages
from cluster.spec import SimulationSpec

if TYPE_CHECKING:
    from cluster.migration.machine import Memories, Turn


#: Bytes of messages that an actor's answer brings along. Each object costs Ray more time than so much does.
LITTLE = 1 << 18


class NodeActor(Lean):
    """Carries commands and messages to its nodes."""

    def take(
        self,
        nodes: list[int],
        actor_of: list[int],
        spec: SimulationSpec,
        snapshots: Mapping[str, SnapshotPages],
    ) -> str:
        """Has these nodes from now on, empty, and no others; returns the Ray node that it runs on.

        `actor_of[n]` is the actor of node n.
        """
        self._host = Host(nodes, spec, snapshots)
        self._actor_of = actor_of
        self._actors = ranges(actor_of)
        self._groups = ranges([group_of(actor) for actor in actor_of])
        #: Its own nodes are low..high-1.
        self._low, self._high = nodes[0], nodes[-1] + 1
        self._number = 0
        self._last: list[Any] = []
        #: What its nodes sent each other in the last superstep.
        self._kept: list[Mail] = []
        return str(ray.get_runtime_context().get_node_id())

    # A turn that Ray repeats would be another one.
    @ray.method(max_task_retries=0)
    def take_turns(self, turns: Sequence[Turn]) -> list[bool]:
        """Turns of compactors of its nodes; which are done."""
        return self._memories().take(turns)

    def abandon(self, turns: Sequence[Turn]) -> None:
        """Whoever drove these compactors is gone; they are of these generations from now on."""
        self._memories().abandon(turns)

    def _memories(self) -> Memories:
        # Only some scenarios have compactors; without their modules an actor starts sooner.
        from cluster.migration.machine import Memories

        return Memories(self._host.memories)

    def step(
        self, number: int, command: bytes, to: list[int], little: list[bytes], *mail: list[Mail]
    ) -> list[Any]:
        """Superstep `number` of the nodes `to`; a repeated call gets the answer of the first one.

        `little` and `mail` are what other actors sent to these nodes in the last superstep, and perhaps to
        others. To be called with so many returns: pickled, the reports, and by actor what is sent to it, or
        None if all is much; then what goes to each group of actors, if it is much.
        """
        if number != self._number:
            self._last = []
            arrived = [sent for part in (*map(pickle.loads, little), *mail) for sent in part]
            received = self._kept + self._among(arrived, self._low, self._high)
            self._kept = arrived = []
            reports, sent = self._host.step(pickle.loads(command), received, to)
            self._kept = self._among(sent, self._low, self._high)
            self._last = self._answer(reports, sent)
            self._number = number
        return self._last

    def _answer(self, reports: list[Report], sent: list[Mail]) -> list[Any]:
        to = {self._actor_of[node] for report in reports for node in report.to}
        others = sorted(to - {self._actor_of[self._low]})
        much = sum(mail.nbytes for mail in sent) > LITTLE
        little = {a: None if much else pickle.dumps(self._among(sent, *self._actors[a]), 5) for a in others}
        groups = (self._others(sent, *group) if much else None for group in self._groups)
        return [pickle.dumps((reports, little), 5), *groups]

    def _others(self, sent: list[Mail], low: int, high: int) -> list[Mail]:
        """What goes to nodes low..high-1, but for its own."""
        below = self._among(sent, low, min(high, self._low))
        return below + self._among(sent, max(low, self._high), high)

    @staticmethod
    def _among(mail: list[Mail], low: int, high: int) -> list[Mail]:
        parts = [sent.among(low, high) for sent in mail] if low < high else []
        return [part for part in parts if part.tables]
