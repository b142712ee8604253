"""Supersteps over Ray actors: one call an actor; messages go from actor to actor through the object store."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.answers import answers
from cluster.commands import Command
from cluster.node import Report


class RayFabric:
    """The coordinator's way to the nodes (a `cluster.fabric.Fabric`).

    It passes on references to what nodes sent, and only to actors to which rows are addressed; what is in
    them it never sees.
    """

    def __init__(self, hosts: list[list[int]], actors: list[Any]) -> None:
        self._hosts = hosts
        self._actors = actors
        self.nodes = sum(len(host) for host in hosts)
        self._number = 0
        #: By actor: reference to what it sent last.
        self._sent: dict[int, Any] = {}
        #: Rows sent last by nodes of actor a to node n: bool[actors, nodes].
        self._to = np.zeros((len(hosts), self.nodes), np.bool_)

    def superstep(self, command: Command | None) -> list[Report]:
        self._number += 1
        report_refs, sent = {}, {}
        for actor, host in enumerate(self._hosts):
            from_actors = np.flatnonzero(self._to[:, host].any(axis=1)).tolist()
            to = host if command is not None else [n for n in host if self._to[:, n].any()]
            if to:
                parts = [self._sent[source] for source in from_actors]
                report_refs[actor], sent[actor] = self._actors[actor].step.remote(
                    self._number, command, to, *parts
                )
        reports: list[dict[int, Report]] = answers(list(report_refs.values()))
        self._sent = sent
        self._to[:] = False
        for actor, answer in zip(report_refs, reports, strict=True):
            for report in answer.values():
                self._to[actor] |= report.to
        return [report for answer in reports for report in answer.values()]
