"""Runs that have the same actors, one after the other, give what each gives alone."""

from __future__ import annotations

from contextlib import closing

import ksmcluster
from actors.run_options import INLINE, RunOptions
from actors.simulation.actor_pool import ActorPool
from actors.simulation.run_passes import run_passes
from cluster.machine.pass_result import PassResult
from ksmcluster.config import Overrides, load, to_spec

COMPACTED = to_spec(load("ksm-compaction", Overrides(nodes=3, passes=2)))
SPECS = {
    "four nodes": to_spec(load("tiny", Overrides(nodes=4))),
    "with compaction": COMPACTED,
    "fewer nodes": to_spec(load("tiny", Overrides(nodes=2, seed=7))),
    "with compaction, again": COMPACTED,
}


def outcome(results: list[PassResult]) -> list[object]:
    return [
        ({name: column.tolist() for name, column in r.nodes.items()}, r.simulated_seconds, repr(r.compaction))
        for r in results
    ]


def test_runs_with_the_same_actors_give_what_inline_gives(ray_cluster: str) -> None:
    options = RunOptions(address=ray_cluster)
    with closing(ActorPool()) as pool:
        coordinators = set()
        for spec in SPECS.values():
            made = list(run_passes(spec, options, pool=pool))
            assert outcome(made) == outcome(list(run_passes(spec, INLINE)))
            coordinators.add(pool.coordinator())
            handles = pool.actors(4)
            assert pool.actors(2) == handles[:2]
        assert len(coordinators) == 1
        assert len(pool.machines(100)) == 4


def test_a_run_that_is_given_up_leaves_the_pool_usable(ray_cluster: str) -> None:
    options = RunOptions(address=ray_cluster)
    spec = SPECS["four nodes"]
    with closing(ActorPool()) as pool:
        passes = run_passes(spec, options, pool=pool)
        next(passes)
        passes.close()  # type: ignore[attr-defined]
        assert pool.machines(100) == []
        made = list(run_passes(spec, options, pool=pool))
        assert outcome(made) == outcome(list(run_passes(spec, INLINE)))


def test_a_sweep_on_ray_gives_what_it_gives_inline(ray_cluster: str) -> None:
    vary = {"nodes": [2, 3], "ksm.max_page_sharing": [2, 256]}
    inline = ksmcluster.sweep("tiny", vary)
    on_ray = ksmcluster.sweep("tiny", vary, engine="ray", address=ray_cluster)
    assert on_ray.to_arrow().equals(inline.to_arrow())
    both = ksmcluster.sweep("tiny", {"engine": ["inline", "ray"]}, address=ray_cluster)
    first, second = both.records
    assert first.figures == second.figures


def test_compact_on_ray(ray_cluster: str) -> None:
    small = Overrides(2, settings=("machine.memory_per_node=16MiB",))
    vary = {"migration.mode": ["async", "sync"]}
    inline = ksmcluster.sweep("compaction-zram", vary, overrides=small)
    on_ray = ksmcluster.sweep("compaction-zram", vary, overrides=small, engine="ray", address=ray_cluster)
    assert on_ray.failed == []
    assert on_ray.to_arrow().equals(inline.to_arrow())
