"""The actor that runs ksmd's global passes: the scenario's clock, the scan cursor, the supersteps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ray

from actors.ray_fabric import RayFabric
from cluster.results import PassResult
from cluster.simulation import simulate
from cluster.spec import SimulationSpec


@ray.remote(num_cpus=0)
class Coordinator:
    """A thin shell around `cluster.simulation.simulate`."""

    def __init__(self, spec: SimulationSpec) -> None:
        self._spec = spec
        self._passes: Iterator[PassResult] = iter(())

    def start(self, hosts: list[list[int]], actors: list[Any]) -> None:
        """The nodes of each actor, and the actors' handles."""
        self._passes = simulate(RayFabric(hosts, actors), self._spec)

    def next_pass(self) -> PassResult:
        """Runs one pass of ksmd."""
        return next(self._passes)
