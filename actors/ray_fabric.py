"""Supersteps over Ray actors: one call an actor; messages go from actor to actor."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

from actors.answers import answers
from actors.hosts import group_of
from cluster.machine.node import Report
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.scenario import SimulationSpec
from cluster.wire.commands import Command


class RayFabric:
    """The coordinator's way to the nodes (a `cluster.machine.fabric.Fabric`).

    What an actor sends comes with its answer, if it is little. Otherwise it lies in memory that others of its
    machine can read, and is one object for each group of actors of other machines. The coordinator passes on
    bytes or references; what is in them it never sees.
    """

    def __init__(self, hosts: list[list[int]], actors: list[Any], machines: list[str]) -> None:
        """Of each actor its nodes, its handle, and the machine that it is on."""
        self._hosts = hosts
        self._actors = actors
        self._machines = machines
        self._actor_of = [actor for actor, host in enumerate(hosts) for _ in host]
        self.nodes = len(self._actor_of)
        groups = group_of(len(actors) - 1) + 1
        self._steps = [actor.step.options(num_returns=1 + groups) for actor in actors]
        self._number = 0
        #: By actor: references to what others sent it last, or bytes that unpickle to it.
        self._mail: dict[int, list[Any]] = {}
        self._letters: dict[int, list[bytes]] = {}
        #: The nodes to which something was sent.
        self._addressed: set[int] = set()
        #: Calls by which the actors get their nodes.
        self._taking: list[Any] = []

    def take(self, spec: SimulationSpec, snapshots: Mapping[str, CapturedPages]) -> None:
        """The actors are to have the nodes of a new machine, empty; the next superstep waits for that."""
        import ray

        # Shared, instead of sent to each of them.
        about = ray.put(spec), ray.put(dict(snapshots))
        near: dict[str, list[int]] = {}
        for actor, machine in enumerate(self._machines):
            near.setdefault(machine, []).append(actor)
        self._taking = [
            actor.take.remote(host, self._actor_of, near[machine], *about)
            for host, actor, machine in zip(self._hosts, self._actors, self._machines, strict=True)
        ]

    def superstep(self, command: Command | None) -> list[Report]:
        self._number += 1
        returns: dict[int, list[Any]] = {}
        packed = pickle.dumps(command, 5)
        for actor, host in enumerate(self._hosts):
            to = host if command is not None else [node for node in host if node in self._addressed]
            if to:
                mail, letters = self._mail.get(actor, []), self._letters.get(actor, [])
                returns[actor] = self._steps[actor].remote(self._number, packed, to, letters, *mail)
        answers(self._taking)
        self._taking = []
        answered = answers([refs[0] for refs in returns.values()])
        self._mail, self._letters = {}, {}
        reports: list[Report] = []
        for refs, answer in zip(returns.values(), answered, strict=True):
            of_actor, sent = pickle.loads(answer)
            reports += of_actor
            for other, letter in sent.items():
                if letter is None:
                    self._mail.setdefault(other, []).append(refs[1 + group_of(other)])
                else:
                    self._letters.setdefault(other, []).append(letter)
        self._addressed = {node for report in reports for node in report.to}
        return reports
