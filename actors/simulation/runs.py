"""A run of a simulation on one engine: its passes, its census, and its state in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from actors.answers import answers
from actors.checkpoint.directory import Checkpoint
from actors.checkpoint.node_states import read_nodes, restore_actors, save_actors, write_nodes
from actors.checkpoint.state_files import SavedFile, write_state
from actors.placement import node_blocks
from actors.run_options import RunOptions
from actors.runtime import connected
from actors.simulation.actor_pool import ActorPool
from actors.simulation.timed import timed_pass
from actors.starting import wait_until_ready
from actors.tuning.heap import Heap
from cluster.compaction.scenario.compactor_pool import InlineCompactorPool
from cluster.machine.census import Census
from cluster.machine.fabric import InlineFabric
from cluster.machine.pass_result import Event, PassResult
from cluster.machine.simulation import Simulation
from cluster.spec.captured_pages import CapturedPages
from cluster.spec.scenario import SimulationSpec

#: The name of the coordinator's state in a checkpoint.
_SIMULATION = "simulation"


class Run(Protocol):
    """A run that has started, from its beginning or from a checkpoint."""

    def run_pass(self, *, ahead: bool) -> PassResult:
        """Run the next pass. `ahead`: another one follows at once, and may begin before this one is told."""

    def census(self) -> Census:
        """Return what ksmd has made of each process and mapping."""

    def save(self, folder: Path) -> list[SavedFile]:
        """Write its state between two passes into a folder; return the files. Raises UnwritableError."""


class InlineRun:
    """All in this process."""

    def __init__(
        self, spec: SimulationSpec, snapshots: Mapping[str, CapturedPages], checkpoint: Checkpoint | None
    ) -> None:
        fabric = InlineFabric(spec, snapshots, Heap())
        self._host = fabric.host
        state = None
        if checkpoint is not None:
            read_nodes(self._host, checkpoint)
            state = checkpoint.read(_SIMULATION)
        self._simulation = Simulation(fabric, spec, InlineCompactorPool(self._host.memories), state)

    def run_pass(self, *, ahead: bool) -> PassResult:
        return timed_pass(self._simulation)

    def census(self) -> Census:
        return self._simulation.census()

    def save(self, folder: Path) -> list[SavedFile]:
        return write_state(folder, _SIMULATION, self._simulation.state()) + write_nodes(self._host, folder)


class RayRun:
    """A coordinator and node actors."""

    def __init__(
        self,
        spec: SimulationSpec,
        options: RunOptions,
        on_event: Callable[[Event], None],
        snapshots: Mapping[str, CapturedPages],
        pool: ActorPool,
        checkpoint: Checkpoint | None,
    ) -> None:
        import ray

        self._coordinator = pool.coordinator()
        nodes_of = node_blocks(spec.machine.nodes, options.nodes_per_actor)
        self._actors, machines = pool.actors(len(nodes_of)), pool.machines(len(nodes_of))
        captured = [ray.put(dict(snapshots))]
        state = checkpoint.read(_SIMULATION) if checkpoint is not None else None
        started = self._coordinator.start.remote(
            spec, captured, nodes_of, self._actors, machines, options.migration_actors, state
        )
        wait_until_ready(self._actors, on_event)
        answers(started)
        if checkpoint is not None:
            restore_actors(self._actors, nodes_of, checkpoint)
        #: The pass that has been requested already.
        self._requested: Any = None

    def run_pass(self, *, ahead: bool) -> PassResult:
        due = self._requested or self._coordinator.run_pass.remote()
        # The coordinator carries out no pass after the last.
        self._requested = self._coordinator.run_pass.remote() if ahead else None
        result: PassResult = answers(due)
        return result

    def census(self) -> Census:
        census: Census = answers(self._coordinator.census.remote())
        return census

    def save(self, folder: Path) -> list[SavedFile]:
        files = write_state(folder, _SIMULATION, answers(self._coordinator.state.remote()))
        return files + save_actors(self._actors, folder)


@contextmanager
def started(
    spec: SimulationSpec,
    options: RunOptions,
    on_event: Callable[[Event], None],
    snapshots: Mapping[str, CapturedPages],
    kept: ActorPool | None,
    checkpoint: Checkpoint | None,
) -> Iterator[Run]:
    """Start a run on the engine of the options, from a checkpoint if one is given.

    The engine `ray` takes the actors of the pool `kept` and leaves them there; without one it starts some of
    its own, and ends them.
    """
    if not options.on_ray:
        yield InlineRun(spec, snapshots, checkpoint)
        return
    frames = spec.machine.nodes * spec.machine.frames_per_node
    ray = connected(options.cluster, frames, options.connect_timeout, options.stall_timeout)
    with ray, _actors(kept) as pool, pool.naming(node_blocks(spec.machine.nodes, options.nodes_per_actor)):
        yield RayRun(spec, options, on_event, snapshots, pool, checkpoint)


@contextmanager
def _actors(kept: ActorPool | None) -> Iterator[ActorPool]:
    """Provide actors for a run: those kept from earlier runs, or some of its own.

    A run that does not reach its end ends the actors, too: they may still be at work.
    """
    pool = kept or ActorPool()
    try:
        yield pool
    except BaseException:
        pool.close()
        raise
    if kept is None:
        pool.close()
