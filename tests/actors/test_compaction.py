"""Compaction over Ray actors: what it gives in one process; and actors that die in the middle of a move."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Timer

import numpy as np
import pytest
import ray

import ksmcluster
from actors.compaction import RayCrew, crew_on_ray, run_compaction
from cluster.errors import SimulationError
from cluster.migration.machine import drive
from cluster.migration.spec import CompactionSpec, DriverSpec
from cluster.results import ActorsStarting, Event

DRIVERS = (
    DriverSpec("swap", "zram", 0.6, 0.7, (("object_size", 1300),)),
    DriverSpec("buffers", "gpu", 0.25, 0.5, (("busy", 0.3),)),
)
SPEC = CompactionSpec(
    3, 8 * 512, DRIVERS, lru=0.1, unmovable=0.05, seed=7, attempts=1, compactors=3, batch=8, turn=20
)


def test_ray_gives_what_inline_gives_however_many_actors_there_are(ray_cluster: str) -> None:
    inline = repr(run_compaction(SPEC, engine="inline"))
    events: list[Event] = []
    for nodes_per_actor, migration_actors in ((1, 1), (1, 4), (2, 3)):
        made = run_compaction(
            SPEC,
            address=ray_cluster,
            nodes_per_actor=nodes_per_actor,
            migration_actors=migration_actors,
            on_event=events.append,
        )
        assert repr(made) == inline
    assert events[-1] == ActorsStarting(2, 2)


class Killing:
    """A crew of which migration actors are killed: before a turn, and while they may be at work."""

    def __init__(self, crew: RayCrew) -> None:
        self.crew = crew
        self.calls = 0

    def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
        self.calls += 1
        if self.calls not in (3, 8, 14, 20):
            return self.crew.take(turns)
        victim = self.crew.pool[self.calls % len(self.crew.pool)]
        killer = Timer(0.001 * (self.calls - 3), ray.kill, [victim])
        killer.start()
        done = self.crew.take(turns)
        killer.join()
        return done


def test_nothing_is_lost_with_a_migration_actor(ray_cluster: str) -> None:
    with crew_on_ray(SPEC, 1, 2) as crew:
        drive(SPEC, range(SPEC.nodes), Killing(crew))
        assert crew.deaths >= 2
        reports = crew.reports()
    sizes = 1 << np.arange(11)
    assert sum(report.abandoned for report in reports) > 0
    for report, whole in zip(reports, run_compaction(SPEC, engine="inline"), strict=True):
        assert (report.before @ sizes) == (report.after @ sizes)
        assert np.array_equal(report.before, whole.before)
        assert report.obtained_after == 1
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
