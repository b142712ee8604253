"""The actor that coordinates ksmd's passes: it keeps the scan cursor and the clock, and calls the nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.compaction.ray_compactor_pool import RayCompactorPool
from actors.simulation.ray_fabric import RayFabric
from actors.simulation.timed import timed_pass
from actors.tuning.slim_actor import SlimActor
from cluster.checkpoint.encode import Encoded
from cluster.machine.census import Census
from cluster.machine.pass_result import PassResult
from cluster.machine.simulation import Simulation
from cluster.spec.scenario import SimulationSpec


class CoordinatorActor(SlimActor):
    """Wraps a `cluster.machine.simulation.Simulation`."""

    _fabric: RayFabric

    def __init__(self) -> None:
        super().__init__()
        self._compactor_pool: RayCompactorPool | None = None

    def start(
        self,
        spec: SimulationSpec,
        snapshots: list[Any],
        nodes_of: list[list[int]],
        actors: list[Any],
        machines: list[str],
        migration_actors: int,
        state: Encoded | None = None,
    ) -> None:
        """Fill the machine, in place of an earlier one; with the state of another run, only make it.

        snapshots: a reference to a Mapping[str, CapturedPages], in a list, so that Ray copies nothing here.
        nodes_of: the nodes of each node actor. actors: their handles; they may still be starting, and each
        fills its nodes as soon as it can. machines: the Ray node of each. migration_actors: how many drive
        the compactors, if the scenario has any.
        """
        # Ray ends the migration actors together with this one, which starts them.
        if self._compactor_pool is not None:
            self._compactor_pool.close()
            self._fabric.end_talks()
        self._fabric = RayFabric(nodes_of, actors, machines)
        # Migration actors call the node actors in the middle of a pass.
        self._fabric.take(spec, *snapshots, lines=spec.migration is None)
        self._compactor_pool = RayCompactorPool(nodes_of, actors, migration_actors if spec.migration else 0)
        if state is not None:
            self._fabric.wait()
        self._simulation = Simulation(self._fabric, spec, self._compactor_pool, state)

    def state(self) -> Encoded:
        """Return its state between two passes. No message is under way then, and actors take calls."""
        state = self._simulation.state()
        self._fabric.end_talks()
        return state

    def census(self) -> Census:
        """Return what ksmd has made of each process and mapping."""
        return self._simulation.census()

    def run_pass(self) -> PassResult | None:
        """Run one pass of ksmd; return its result, or None after the last pass."""
        if self._simulation.ended:
            return None
        before = self._fabric.mail_bytes
        with self._fabric.direct():
            result = timed_pass(self._simulation)
        return replace(result, mail_bytes=self._fabric.mail_bytes - before)
