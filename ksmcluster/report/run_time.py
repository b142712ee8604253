"""Estimates the time of a run on this host before it starts; afterwards suggests faster ways to run it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from actors.placement import node_blocks
from actors.run_options import RunOptions
from ksmcluster.config import Scenario
from ksmcluster.config.memory import pages_mapped
from ksmcluster.report import text

#: Measured on two cores of a server (docs/explanation/performance.md): seconds until Ray is ready, CPU time
#: of an actor's start and of its part in a pass, seconds of a run without actors, and pages that a core scans
#: per second.
_RAY = 4.0
_ACTOR = 0.85
_ACTOR_PASS = 0.02
_INLINE = 0.5
_PAGES = 1.4e6
#: Ways that are not faster by this factor are not suggested.
_WORTH = 1.5


def estimated(pages: int, passes: int, actors: int, cores: int) -> float:
    """Return an estimate of the seconds of a run: `passes` passes over `pages` pages each.

    0 actors means that everything runs in one process.
    """
    if not actors:
        return _INLINE + (passes + 1) * pages / _PAGES
    start = _RAY + _ACTOR * actors / cores
    return start + passes * (pages / _PAGES / min(actors, cores) + _ACTOR_PASS * actors / cores)


def _end(scenario: Scenario) -> str:
    """Return when a run ends that has no number of passes."""
    seconds = scenario.simulation.seconds
    return f"until {text.seconds(seconds)} of simulated time" if seconds else "until it has converged"


def plan(scenario: Scenario, options: RunOptions, cores: int, done: int = 0) -> str:
    """Return a line that says what will run after `done` passes and, if it can be estimated, for how long."""
    nodes, passes = scenario.machine.nodes, scenario.simulation.passes
    actors = len(node_blocks(nodes, options.nodes_per_actor)) if options.on_ray else 0
    pages = pages_mapped(scenario)
    captured = any(process.snapshot for process in scenario.process)
    what = [text.counted(nodes, "node")] + ([] if captured else [f"{pages:,} pages"])
    what.append(text.counted(passes, "pass") if passes else _end(scenario))
    if done:
        what.append(f"after pass {done:,}")
    where = f"on {text.counted(actors, 'Ray actor')}" if actors else "in this process"
    line = f"{', '.join(what)}, {where}"
    if not passes or captured or scenario.migration is not None or options.cluster is not None:
        return line
    took = estimated(pages, passes - done, actors, cores)
    line += f": about {text.seconds(math.ceil(took))} on {text.counted(cores, 'core')}"
    inline = estimated(pages, passes - done, 0, cores)
    if took < _WORTH * inline:
        return line
    return f"{line}, or {text.seconds(math.ceil(inline))} with --engine inline"


class DoneRun(NamedTuple):
    """A finished run on actors: its size and its time."""

    nodes: int
    actors: int
    cores: int
    #: Mapped pages of all nodes.
    pages: int
    passes: int
    start_seconds: float
    wall_seconds: float


def faster(run: DoneRun) -> Iterator[str]:
    """Yield options that give the same result faster, with the estimated speed-up.

    The work of the passes is their time minus the estimated overhead of the actors, but at least the
    estimated work. Nothing is suggested if each actor has its own core.
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
