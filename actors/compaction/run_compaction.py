"""Run a scenario of `ksmcluster compact` on Ray actors, or in this process. The result is the same.

Migration actor (n + c) modulo their number drives compactor c of node n; actor t modulo their number drives
transfer t between nodes. In each superstep at most one of them works on a node, in the order of
`cluster.compaction.scenario.rounds.drive`; different nodes work at the same time. On a node they interleave:
a turn may end while pages are isolated or locked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from actors.answers import answers
from actors.checkpoint.directory import Checkpoint
from actors.checkpoint.keeper import CheckpointKeeper
from actors.checkpoint.node_states import read_nodes, write_nodes
from actors.checkpoint.recovery import recovered
from actors.checkpoint.state_files import SavedFile, write_state
from actors.compaction.ray_compactor_pool import RayCompactorPool
from actors.placement import node_blocks
from actors.run_options import ON_RAY, RunOptions
from actors.runtime import connected
from actors.starting import placements, wait_until_ready
from actors.tuning.heap import keep_free_memory
from cluster.compaction.scenario.compactor_pool import CompactorPool, InlineCompactorPool
from cluster.compaction.scenario.memory_host import MemoryHost
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.rounds import Rounds
from cluster.machine.pass_result import Event
from cluster.spec.compaction import CompactionSpec

#: The name of the state of the rounds in a checkpoint.
_ROUNDS = "rounds"


class CompactionRun(CompactorPool, Protocol):
    """The memories of all nodes, filled, and what drives their compactors."""

    def save(self, folder: Path) -> list[SavedFile]:
        """Write the memories' states between two rounds into a folder; return the files.

        Raises EncodeError, and UnwritableError.
        """

    def restore(self, checkpoint: Checkpoint) -> None:
        """Give the memories their states of a checkpoint. Raises DamagedError."""

    def finish(self) -> list[NodeReport]:
        """End the compaction; return the report of each node, in their order."""


class InlineCompaction(InlineCompactorPool):
    """A `CompactionRun` in this process."""

    def __init__(self, spec: CompactionSpec) -> None:
        self._all = MemoryHost(range(spec.nodes), spec)
        super().__init__(self._all.memories)

    def save(self, folder: Path) -> list[SavedFile]:
        return write_nodes(self._all, folder)

    def restore(self, checkpoint: Checkpoint) -> None:
        read_nodes(self._all, checkpoint)

    def finish(self) -> list[NodeReport]:
        self._all.finish()
        return self._all.reports()


def run_compaction(
    spec: CompactionSpec,
    options: RunOptions = ON_RAY,
    *,
    on_event: Callable[[Event], None] = lambda _event: None,
    checkpoints: CheckpointKeeper | None = None,
) -> list[NodeReport]:
    """Run a scenario and return the report of each node; `options` do not change it.

    `on_event` is called when actors start. With `checkpoints`, the run goes on from the last one, and writes
    more. If a memory actor dies, the run goes on from the last checkpoint, or else starts again; migration
    actors are replaced.

    Raises SimulationError if the scenario cannot be carried out; LostError after more than
    `options.max_failures` deaths, and if Ray does not start or loses its head.
    """
    run = partial(_run, spec, options, on_event, checkpoints)
    return list(recovered(run, checkpoints, options.max_failures, on_event))


def _run(
    spec: CompactionSpec,
    options: RunOptions,
    on_event: Callable[[Event], None],
    checkpoints: CheckpointKeeper | None,
    checkpoint: Checkpoint | None,
) -> Iterator[NodeReport]:
    with _started(spec, options, on_event) as run:
        rounds = Rounds(spec, range(spec.nodes), run)
        if checkpoint is not None:
            run.restore(checkpoint)
            rounds.restore(checkpoint.read(_ROUNDS))
        while rounds.run_round():
            if checkpoints and checkpoints.is_due(rounds.done):
                checkpoints.write(rounds.done, partial(_save, run, rounds), on_event)
        yield from run.finish()


def _save(run: CompactionRun, rounds: Rounds, folder: Path) -> list[SavedFile]:
    return write_state(folder, _ROUNDS, rounds.state()) + run.save(folder)


@contextmanager
def _started(
    spec: CompactionSpec, options: RunOptions, on_event: Callable[[Event], None]
) -> Iterator[CompactionRun]:
    if not options.on_ray:
        keep_free_memory()
        yield InlineCompaction(spec)
        return
    with (
        connected(options.cluster, timeout=options.connect_timeout, stall=options.stall_timeout),
        compactor_pool_on_ray(spec, options, on_event) as compactor_pool,
    ):
        yield compactor_pool


@contextmanager
def compactor_pool_on_ray(
    spec: CompactionSpec,
    options: RunOptions,
    on_event: Callable[[Event], None] = lambda _event: None,
) -> Iterator[RayCompactorPool]:
    """Start memory actors and a pool of migration actors; end them when the context is left."""
    import ray

    from actors.compaction.memory_actor import MemoryActor

    nodes_of = node_blocks(spec.nodes, options.nodes_per_actor)
    owners = [
        MemoryActor.options(scheduling_strategy=placement).remote()  # type: ignore[attr-defined]
        for placement in placements(len(nodes_of))
    ]
    filling = [owner.fill.remote(nodes, spec) for owner, nodes in zip(owners, nodes_of, strict=True)]
    compactor_pool = RayCompactorPool(nodes_of, owners, options.migration_actors)
    try:
        wait_until_ready(owners, on_event)
        answers(filling)
        yield compactor_pool
    finally:
        compactor_pool.close()
        for owner in owners:
            ray.kill(owner)
