"""The actor that runs ksmd's global passes: the scenario's clock, the scan cursor, the supersteps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.compactor_pool import RayCompactorPool
from actors.lean import SlimActor
from actors.ray_fabric import RayFabric
from actors.timed import timed_pass
from cluster.machine.pass_result import PassResult
from cluster.machine.simulation import Simulation
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.scenario import SimulationSpec


class Coordinator(SlimActor):
    """A thin shell around `cluster.machine.simulation.Simulation`."""

    def start(
        self,
        spec: SimulationSpec,
        snapshots: Mapping[str, CapturedPages],
        hosts: list[list[int]],
        actors: list[Any],
        machines: list[str],
        migration_actors: int,
    ) -> None:
        """Fills the machine.

        `hosts` are the nodes of each actor, `actors` the actors' handles, `machines` where they are. The
        actors may still be starting: each fills its nodes as soon as it can. So many migration actors drive
        the compactors, if there are any.
        """
        fabric = RayFabric(hosts, actors, machines)
        fabric.take(spec, snapshots)
        # Ray ends these actors with the one that started them.
        compactor_pool = RayCompactorPool(hosts, actors, migration_actors if spec.migration else 0)
        self._simulation = Simulation(fabric, spec, compactor_pool)

    def run_pass(self) -> PassResult:
        """Runs one pass of ksmd."""
        return timed_pass(self._simulation)
