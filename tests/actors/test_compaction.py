"""Compaction over Ray actors gives what it gives in one process."""

from __future__ import annotations

from dataclasses import replace

import pytest

import ksmcluster
from actors.compaction.run_compaction import run_compaction
from actors.run_options import INLINE, RunOptions
from cluster.machine.pass_result import ActorsStarting, Event
from cluster.spec.compaction import CompactionSpec, DriverSpec, RelocationSpec, StartSpec
from cluster.spec.errors import SimulationError
from cluster.spec.topology import ring

DRIVERS = (
    DriverSpec("swap", "zram", 0.6, 0.7, (("object_size", 1300),)),
    DriverSpec("buffers", "gpu", 0.25, 0.5, (("busy", 0.3),)),
)
SPEC = CompactionSpec(
    3, 8 * 512, DRIVERS, lru=0.1, unmovable=0.05, seed=7, attempts=1, compactors=3, batch=8, turn=20
)
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
#: Free blocks by order, as /proc/buddyinfo has them.
STARTS = tuple(StartSpec((99 + node, 80, 70, 60, 9, 8, 7, 2, 1, 1, 1)) for node in range(3))


def test_ray_gives_what_inline_gives_however_many_actors_there_are(ray_cluster: str) -> None:
    inline = repr(run_compaction(MOVING, INLINE))
    events: list[Event] = []
    for nodes_per_actor, migration_actors in ((1, 1), (1, 4), (2, 3)):
        made = run_compaction(
            MOVING,
            RunOptions(
                address=ray_cluster, nodes_per_actor=nodes_per_actor, migration_actors=migration_actors
            ),
            on_event=events.append,
        )
        assert repr(made) == inline
    assert events[-1] == ActorsStarting(2, 2)


@pytest.mark.parametrize("drivers", [(), DRIVERS])
def test_start_states(ray_cluster: str, drivers: tuple[DriverSpec, ...]) -> None:
    spec = replace(MOVING, drivers=drivers, start=STARTS)
    inline = run_compaction(spec, INLINE)
    made = run_compaction(spec, RunOptions(address=ray_cluster, nodes_per_actor=2, migration_actors=2))
    assert repr(made) == repr(inline)


def test_from_python(ray_cluster: str) -> None:
    config = ksmcluster.load_compaction("compaction-gpu", ksmcluster.Overrides(nodes=2))
    inline = ksmcluster.compact(config, engine="inline")
    made = ksmcluster.compact(config, address=ray_cluster, nodes_per_actor=2, migration_actors=2)
    assert made.provenance["timing"]["start_seconds"] > 0
    assert made.summary == inline.summary


def test_an_unknown_engine() -> None:
    with pytest.raises(SimulationError, match="no engine 'steam'; there are: ray, inline"):
        run_compaction(SPEC, RunOptions(engine="steam"))
