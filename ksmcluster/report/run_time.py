"""How long a run takes on this host, about: said before it, and after it how it would have been faster."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from actors.placement import node_blocks
from actors.run_options import RunOptions
from ksmcluster.config import Scenario
from ksmcluster.config.memory import pages_mapped
from ksmcluster.report import text

#: Measured on two cores of a server (docs/explanation/performance.md): seconds until Ray is there, CPU time
#: of an actor's start and of its part in a pass, what a run takes without any, and pages that a core scans in
#: a second.
_RAY = 4.0
_ACTOR = 0.85
_ACTOR_PASS = 0.02
_INLINE = 0.5
_PAGES = 1.4e6
#: A way that is not this much faster is not worth telling.
_WORTH = 1.5


def estimated(pages: int, passes: int, actors: int, cores: int) -> float:
    """Return about how many seconds a run takes: passes over so many pages each, by so many actors.

    No actors: all in one process.
    """
    if not actors:
        return _INLINE + (passes + 1) * pages / _PAGES
    start = _RAY + _ACTOR * actors / cores
    return start + passes * (pages / _PAGES / min(actors, cores) + _ACTOR_PASS * actors / cores)


def plan(scenario: Scenario, options: RunOptions, cores: int) -> str:
    """Return a line that says what will happen, and about how long it takes, if that can be known."""
    nodes, passes = scenario.machine.nodes, scenario.simulation.passes
    actors = len(node_blocks(nodes, options.nodes_per_actor)) if options.on_ray else 0
    pages = pages_mapped(scenario)
    captured = any(process.snapshot for process in scenario.process)
    what = [text.counted(nodes, "node")] + ([] if captured else [f"{pages:,} pages"])
    what.append(text.counted(passes, "pass") if passes else "as many passes as it takes")
    where = f"on {text.counted(actors, 'Ray actor')}" if actors else "in this process"
    line = f"{', '.join(what)}, {where}"
    if not passes or captured or scenario.migration is not None or options.cluster is not None:
        return line
    took = estimated(pages, passes, actors, cores)
    line += f": about {text.seconds(math.ceil(took))} on {text.counted(cores, 'core')}"
    inline = estimated(pages, passes, 0, cores)
    if took < _WORTH * inline:
        return line
    return f"{line}, or {text.seconds(math.ceil(inline))} with --engine inline"


class DoneRun(NamedTuple):
    """A run on actors that was carried out: its size, and the time that it took."""

    nodes: int
    actors: int
    cores: int
    #: Mapped pages, of all nodes.
    pages: int
    passes: int
    start_seconds: float
    wall_seconds: float


def faster(run: DoneRun) -> Iterator[str]:
    """Yield options that give the same result in less time, and about how many times as fast.

    The passes' own work is what they took without the part of the actors, or the estimate if that is more:
    the part of the actors is an estimate, too. There is nothing to say if each actor has a core.
    """
    if run.actors <= run.cores:
        return
    actors = run.passes * _ACTOR_PASS / run.cores
    measured = (run.wall_seconds - run.start_seconds - actors * run.actors) * run.cores
    work = max(measured, run.passes * run.pages / _PAGES)
    packed = -(-run.nodes // run.cores)
    ways = {"--engine inline": 0, f"--nodes-per-actor {packed}": len(node_blocks(run.nodes, packed))}
    for option, fewer in ways.items():
        start = estimated(run.pages, 0, fewer, run.cores)
        factor = run.wall_seconds / (start + work / (fewer or 1) + actors * fewer)
        if factor >= _WORTH:
            yield f"{option}: about {factor:.{0 if factor >= 10 else 1}f} times as fast"
