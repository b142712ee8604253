"""The actor that runs ksmd's global passes: the scenario's clock, the scan cursor, the supersteps."""

from __future__ import annotations

from typing import Any

from actors.ray_fabric import RayFabric
from cluster.results import PassResult
from cluster.simulation import Simulation
from cluster.spec import SimulationSpec


class Coordinator:
    """A thin shell around `cluster.simulation.Simulation`."""

    def start(self, spec: SimulationSpec, hosts: list[list[int]], actors: list[Any]) -> None:
        """Fills the machine; `hosts` are the nodes of each actor, `actors` the actors' handles."""
        self._simulation = Simulation(RayFabric(hosts, actors), spec)

    def run_pass(self) -> PassResult:
        """Runs one pass of ksmd."""
        return self._simulation.run_pass()
