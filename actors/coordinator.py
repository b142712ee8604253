"""The actor that runs ksmd's global passes: the scenario's clock, the scan cursor, the supersteps."""

from __future__ import annotations

from typing import Any

import ray

from actors.compaction import RayCrew
from actors.ray_fabric import RayFabric
from cluster.results import PassResult
from cluster.simulation import Simulation
from cluster.spec import SimulationSpec


@ray.remote(num_cpus=0)
class Coordinator:
    """A thin shell around `cluster.simulation.Simulation`."""

    def start(
        self, spec: SimulationSpec, hosts: list[list[int]], actors: list[Any], migration_actors: int
    ) -> None:
        """Fills the machine; `hosts` are the nodes of each actor, `actors` the actors' handles.

        So many migration actors drive its compactors.
        """
        # Ray ends these actors with the one that started them.
        crew = RayCrew(hosts, actors, migration_actors if spec.migration else 0)
        self._simulation = Simulation(RayFabric(hosts, actors), spec, crew)

    def run_pass(self) -> PassResult:
        """Runs one pass of ksmd."""
        return self._simulation.run_pass()
