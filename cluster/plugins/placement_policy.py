"""Placement policies: the node from which a page gets its frame when it faults."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cluster.arrays.words import I64
from cluster.plugins.answers import check_array, check_range
from cluster.plugins.loading import call, make
from cluster.spec.scenario import PolicySpec, SimulationSpec


class PolicyNode(NamedTuple):
    """The node for whose processes a placement policy works."""

    node: int
    #: The nodes of the machine, and the frames of each.
    nodes: int
    frames: int
    #: int64[nodes, nodes], SLIT units: 10 on the diagonal, larger is farther.
    distance: I64
    #: `simulation.seed`.
    seed: int


class PageFaults(NamedTuple):
    """Pages of one process that fault at once, in one region or mapping."""

    #: Name of the region or mapping.
    region: str
    #: Number of the process among those of its node, workers included: 0, 1, ...
    process: int
    #: int64[n]: numbers of the pages in the region, each once; of a huge page, that of its first page.
    pages: I64
    #: Free frames of the process's node, before any of these pages gets one.
    free: int


class PlacementPolicy:
    """The base class of placement policies. There is one object on each node for each policy of a scenario.

    Answers must depend on the arguments and on earlier calls of the object alone.
    """

    def __init__(self, node: PolicyNode) -> None:
        self.node = node

    def nodes_for(self, faults: PageFaults) -> I64:
        """Return the node from which each page is to get its frame. int64[n].

        If that node has no free frame, the page gets one of the nearest node to the process that has one; the
        policy is not asked again.
        """
        raise NotImplementedError


class CheckedPolicy:
    """A placement policy, whose answers are checked. Raises PluginError."""

    def __init__(self, spec: PolicySpec, node: PolicyNode) -> None:
        assert spec.plugin is not None
        self._who = f"placement policy {spec.plugin.name!r}"
        self._nodes = node.nodes
        self.policy = make("placement policy", spec.plugin, PlacementPolicy, node)

    def nodes_for(self, faults: PageFaults) -> I64:
        """Return the node from which each page is to get its frame. int64[n]."""
        found, who = call(self._who, self.policy.nodes_for, faults), f"{self._who}: nodes_for()"
        check_array(who, found, np.int64, len(faults.pages))
        check_range(who, found, self._nodes)
        return found


def make_policies(spec: SimulationSpec, node: int) -> dict[PolicySpec, CheckedPolicy]:
    """Return the policies of users' packages that a scenario names, for a node."""
    machine = spec.machine
    of_node = PolicyNode(node, machine.nodes, machine.frames_per_node, machine.distance, spec.seed)
    named = dict.fromkeys(policy for kind in spec.processes for policy in kind.policies if policy.plugin)
    return {policy: CheckedPolicy(policy, of_node) for policy in named}
