"""Compaction over Ray actors: what it gives in one process; and actors that die in the middle of a move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Timer
from typing import Any, TypeVar

import numpy as np
import pytest
import ray

import ksmcluster
from actors.compaction import RayCompactorPool, crew_on_ray, run_compaction
from cluster.compaction.internode.node_commands import StepResult, TransferStep
from cluster.compaction.pages.page_map import PAGEBLOCK_PAGES
from cluster.compaction.scenario.relocation_result import relocation_results
from cluster.compaction.scenario.rounds import drive
from cluster.machine.pass_result import ActorsStarting, Event
from cluster.spec.compaction import CompactionSpec, DriverSpec, RelocationSpec
from cluster.spec.errors import SimulationError
from cluster.spec.topology import ring

DRIVERS = (
    DriverSpec("swap", "zram", 0.6, 0.7, (("object_size", 1300),)),
    DriverSpec("buffers", "gpu", 0.25, 0.5, (("busy", 0.3),)),
)
SPEC = CompactionSpec(
    3, 8 * 512, DRIVERS, lru=0.1, unmovable=0.05, seed=7, attempts=1, compactors=3, batch=8, turn=20
)
T = TypeVar("T")
#: Node 2 is drained, then memory is evened out while it is compacted, then node 1 is drained.
MOVING = replace(
    SPEC,
    distance=ring(3),
    relocations=(
        RelocationSpec("drain", (2,)),
        RelocationSpec("even-out", when="during"),
        RelocationSpec("drain", (1,), when="after"),
    ),
)


def test_ray_gives_what_inline_gives_however_many_actors_there_are(ray_cluster: str) -> None:
    inline = repr(run_compaction(MOVING, engine="inline"))
    events: list[Event] = []
    for nodes_per_actor, migration_actors in ((1, 1), (1, 4), (2, 3)):
        made = run_compaction(
            MOVING,
            address=ray_cluster,
            nodes_per_actor=nodes_per_actor,
            migration_actors=migration_actors,
            on_event=events.append,
        )
        assert repr(made) == inline
    assert events[-1] == ActorsStarting(2, 2)


class Killing:
    """A compactor_pool of which migration actors are killed: before a turn, and while they may be at work."""

    def __init__(self, compactor_pool: RayCompactorPool) -> None:
        self.compactor_pool = compactor_pool
        self.ask = compactor_pool.ask
        self.calls = 0
        self.carries = 0

    def step(self, turns: Sequence[TransferStep]) -> list[StepResult]:
        """Messages 0 to 4 of a transfer, and message 1 of the next batch."""
        self.carries += 1
        if self.carries not in (1, 2, 3, 4, 5, 6):
            return self.compactor_pool.step(turns)
        victim = self.compactor_pool.pool[turns[0].transfer % len(self.compactor_pool.pool)]
        return self._killing(victim, 0.001 * (self.carries % 3), lambda: self.compactor_pool.step(turns))

    def _killing(self, victim: Any, after: float, work: Callable[[], list[T]]) -> list[T]:
        killer = Timer(after, ray.kill, [victim])
        killer.start()
        done = work()
        killer.join()
        return done

    def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
        self.calls += 1
        if self.calls not in (3, 8, 14, 20):
            return self.compactor_pool.take(turns)
        victim = self.compactor_pool.pool[self.calls % len(self.compactor_pool.pool)]
        return self._killing(victim, 0.001 * (self.calls - 3), lambda: self.compactor_pool.take(turns))


def test_nothing_is_lost_with_a_migration_actor(ray_cluster: str) -> None:
    with crew_on_ray(SPEC, 1, 2) as compactor_pool:
        drive(SPEC, range(SPEC.nodes), Killing(compactor_pool))
        assert compactor_pool.deaths >= 2
        reports = compactor_pool.finish()
    sizes = 1 << np.arange(11)
    assert sum(report.abandoned for report in reports) > 0
    for report, whole in zip(reports, run_compaction(SPEC, engine="inline"), strict=True):
        assert (report.before @ sizes) == (report.after @ sizes)
        assert np.array_equal(report.before, whole.before)
        assert report.obtained_after == 1
        for counts in report.by_driver.values():
            assert counts.isolated == counts.moved + counts.put_back


@pytest.mark.parametrize("when", ["before", "after"])
def test_transfers_go_on_when_migration_actors_die(ray_cluster: str, when: str) -> None:
    """Nothing is lost, nothing moves twice: the result is that of a run in which nobody died."""
    spec = replace(MOVING, compactors=1, relocations=(RelocationSpec("drain", (2,), when),))
    with crew_on_ray(spec, 1, 2) as compactor_pool:
        killing = Killing(compactor_pool)
        killing.calls = 100
        drive(spec, range(spec.nodes), killing)
        assert compactor_pool.deaths >= 3
        reports = compactor_pool.finish()
    assert repr(reports) == repr(run_compaction(spec, engine="inline"))


def test_nothing_is_lost_when_actors_die_while_pages_move_everywhere(ray_cluster: str) -> None:
    with crew_on_ray(MOVING, 1, 2) as compactor_pool:
        drive(MOVING, range(MOVING.nodes), Killing(compactor_pool))
        assert compactor_pool.deaths >= 4
        reports = compactor_pool.finish()
    whole = run_compaction(MOVING, engine="inline")
    sizes = 1 << np.arange(11)
    in_use = sum(SPEC.pages_per_node - report.before @ sizes for report in reports)
    offline = [
        drained.offline for moved in relocation_results(MOVING, reports) for drained in moved.drained.values()
    ]
    left = 3 * SPEC.pages_per_node - PAGEBLOCK_PAGES * sum(offline)
    assert all(offline)
    assert left - sum(report.after @ sizes for report in reports) == in_use
    for report, undisturbed in zip(reports, whole, strict=True):
        assert np.array_equal(report.before, undisturbed.before)
        for counts in report.by_driver.values():
            assert counts.isolated == counts.moved + counts.put_back


def test_from_python(ray_cluster: str) -> None:
    config = ksmcluster.load_compaction("compaction-gpu", ksmcluster.Overrides(nodes=2))
    inline = ksmcluster.compact(config, engine="inline")
    made = ksmcluster.compact(config, address=ray_cluster, nodes_per_actor=2, migration_actors=2)
    assert made.timing.start_seconds > 0
    assert {**made.summary, "timing": None} == {**inline.summary, "timing": None}


def test_an_unknown_engine() -> None:
    with pytest.raises(SimulationError, match="no engine 'steam'; there are: ray, inline"):
        run_compaction(SPEC, engine="steam")
