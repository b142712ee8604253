"""Migration actors killed wherever a compaction may be: nothing is lost, locked or left isolated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Timer
from typing import Any

import numpy as np
import pytest
import ray

from actors.answers import answers
from actors.compaction import RayCompactorPool, crew_on_ray
from cluster.compaction.scenario.node_memory import MemoryHost, drive
from cluster.spec.compaction import CompactionSpec, DriverSpec
from tests.cluster.compaction.test_node_memory import holdings

NODES = 2
CHECKED = "tests.cluster.compaction.test_interleavings:Checked"
#: `Checked` fails if a page is isolated twice, or moved or put back without being isolated.
DRIVERS = (
    DriverSpec("swap", "zram", 0.5, 0.7, (("object_size", 1300),)),
    DriverSpec("odd", CHECKED, 0.3, 0.5, (("refuse", 0.05), ("again", 0.1), ("fail", 0.05))),
)


def spec_of(seed: int, trigger: str) -> CompactionSpec:
    return CompactionSpec(
        NODES,
        8 * 512,
        DRIVERS,
        lru=0.1,
        unmovable=0.05,
        seed=seed,
        trigger=trigger,
        attempts=2,
        order=8,
        compactors=3,
        batch=8,
        turn=200,
    )


def on_owners(compactor_pool: RayCompactorPool, look: Callable[[MemoryHost], Any]) -> list[Any]:
    """What there is to be seen where the memories are."""
    found: list[Any] = answers(
        [owner.__ray_call__.remote(lambda actor: look(actor._host)) for owner in compactor_pool._owners]
    )
    return found


def holding(host: MemoryHost) -> list[list[object]]:
    return [holdings(node) for node in host.memories.values()]


class Killing:
    """Kills migration actors before their turn or while they are at work, sometimes several in a row."""

    def __init__(self, compactor_pool: RayCompactorPool, seed: int) -> None:
        self.compactor_pool = compactor_pool
        self.rng = np.random.default_rng(seed)

    def take(self, turns: Sequence[tuple[int, int]]) -> list[bool]:
        if not turns or self.compactor_pool.deaths > 25 or self.rng.random() > 0.25:
            return self.compactor_pool.take(turns)
        times = int(self.rng.integers(1, 4))
        for _ in range(times):
            victim = (turns[0][0] + turns[0][1]) % len(self.compactor_pool.pool)
            killer = Timer(
                float(self.rng.choice([0, 0.0005, 0.002, 0.01])), ray.kill, [self.compactor_pool.pool[victim]]
            )
            killer.start()
            if self.rng.random() < 0.5:
                killer.join()
            done = self.compactor_pool.take(turns)
            killer.join()
        return done


@pytest.mark.parametrize("trigger", ["compact_memory", "direct"])
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_whenever_migration_actors_die(ray_cluster: str, seed: int, trigger: str) -> None:
    spec = spec_of(seed, trigger)
    with crew_on_ray(spec, 1, 2) as compactor_pool:
        before = on_owners(compactor_pool, holding)
        drive(spec, range(NODES), Killing(compactor_pool, seed))
        after = on_owners(compactor_pool, holding)
        deaths, reports = compactor_pool.deaths, compactor_pool.reports()
    assert deaths > 0
    assert after == before
    assert sum(report.abandoned for report in reports) > 0
    for report in reports:
        for name, counts in report.by_driver.items():
            assert counts.isolated == counts.moved + counts.put_back, name
