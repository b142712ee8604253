"""A Ray actor that has one NUMA node, or several: a thin shell around `cluster.machine.host.Host`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import ray

from actors.hosts import group_of, ranges
from actors.lean import SlimActor
from actors.numbered_calls import NumberedCalls
from actors.shared_mail import AVAILABLE, Outlet
from cluster.heap import Heap
from cluster.machine.host import Host
from cluster.machine.node import Report
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.scenario import SimulationSpec
from cluster.wire.mailbox import Mail

#: Bytes of messages that an actor's answer brings along. Each object costs Ray more time than so much does.
LITTLE = 1 << 18


class NodeActor(SlimActor):
    """Carries commands and messages to its nodes."""

    def __init__(self) -> None:
        super().__init__()
        self._outlet = Outlet()

    def take(
        self,
        nodes: list[int],
        actor_of: list[int],
        near: list[int],
        spec: SimulationSpec,
        snapshots: Mapping[str, CapturedPages],
    ) -> str:
        """Has these nodes from now on, empty, and no others; returns the Ray node that it runs on.

        `actor_of[n]` is the actor of node n, `near` are the actors of that Ray node, this one included.
        """
        self._host = Host(nodes, spec, snapshots, Heap())
        self._calls = NumberedCalls()
        self._outlet.close()
        self._actor_of = actor_of
        self._actors = ranges(actor_of)
        self._near = set(near if AVAILABLE else ())
        #: low..high-1 have all nodes of those in it, and maybe others.
        self._beside = self._actors[min(near)][0], self._actors[max(near)][1]
        self._groups = ranges([group_of(actor) for actor in actor_of])
        #: Its own nodes are low..high-1.
        self._low, self._high = nodes[0], nodes[-1] + 1
        self._number = 0
        self._last: list[Any] = []
        #: What its nodes sent each other in the last superstep.
        self._kept: list[Mail] = []
        return str(ray.get_runtime_context().get_node_id())

    def take_turns(self, seq: int, turns: Sequence[tuple[int, int]]) -> list[bool]:
        """Turns of (node, compactor) pairs of different nodes; which are done. A repeat changes nothing."""
        memories = self._host.memories
        return [self._calls.once(node, seq, partial(memories[node].take, c)) for node, c in turns]

    def step(
        self, number: int, command: bytes, to: list[int], letters: list[bytes], *mail: list[Mail]
    ) -> list[Any]:
        """Superstep `number` of the nodes `to`; a repeated call gets the answer of the first one.

        `letters` and `mail` are what other actors sent to these nodes in the last superstep, and perhaps to
        others. To be called with so many returns: pickled, the reports, and by actor what is sent to it, or
        None if that is much and goes to another machine; then what goes to each group of actors, if so.
        """
        if number != self._number:
            self._outlet.begin(number)
            self._last = []
            arrived = [sent for part in (*map(pickle.loads, letters), *mail) for sent in part]
            received = self._kept + self._among(arrived, self._low, self._high)
            self._kept = arrived = []
            reports, sent = self._host.step(pickle.loads(command), received, to)
            self._kept = self._among(sent, self._low, self._high)
            self._last = self._answer(number, reports, sent)
            self._number = number
        return self._last

    def _answer(self, number: int, reports: list[Report], sent: list[Mail]) -> list[Any]:
        to = {self._actor_of[node] for report in reports for node in report.to}
        others = sorted(to - {self._actor_of[self._low]})
        letters: dict[int, bytes | None] = dict.fromkeys(others)
        far: set[int] = set()
        if sum(mail.nbytes for mail in sent) <= LITTLE:
            letters = {a: pickle.dumps(self._among(sent, *self._actors[a]), 5) for a in others}
        else:
            near = self._near.intersection(others)
            if near:
                letters |= dict.fromkeys(near, self._outlet.put(number, self._others(sent, *self._beside)))
            far = {group_of(actor) for actor in others if actor not in near}
        groups = (self._others(sent, *of) if g in far else None for g, of in enumerate(self._groups))
        return [pickle.dumps((reports, letters), 5), *groups]

    def _others(self, sent: list[Mail], low: int, high: int) -> list[Mail]:
        """What goes to nodes low..high-1, but for its own."""
        below = self._among(sent, low, min(high, self._low))
        return below + self._among(sent, max(low, self._high), high)

    @staticmethod
    def _among(mail: list[Mail], low: int, high: int) -> list[Mail]:
        parts = [sent.among(low, high) for sent in mail] if low < high else []
        return [part for part in parts if part.tables]
