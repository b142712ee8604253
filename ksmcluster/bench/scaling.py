"""Pages a second on more and more nodes, each with as many pages; and on one and several processes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from actors.placement import node_blocks
from actors.run_options import RunOptions
from actors.runtime import connected
from cluster.spec.errors import SimulationError
from ksmcluster.bench.tools.calibration import calibrated
from ksmcluster.bench.tools.clocked import clocked
from ksmcluster.bench.tools.shapes import spread_out
from ksmcluster.report import text
from ksmcluster.report.progress import Tell
from ksmcluster.system.errors import UserError

#: Pages of a node: half of each of its four processes' memory is in groups.
PAGES_MULTIPLE = 8
#: The first pass, the one that merges, and one in which nothing changes; the first two are timed.
_PASSES, _TIMED = 3, 2
#: Machines of such a part of the largest one's nodes are measured so many times in each repetition: their
#: passes take less time than a shared host stays as fast as it is.
_SMALL, _SMALL_TIMES = 16, 3


@dataclass(slots=True)
class Point:
    """A number of nodes and the processes that they run in, measured so many times."""

    nodes: int
    processes: int
    pages: int
    #: Of the timed passes together.
    seconds: list[float] = field(default_factory=list)
    #: Of the first pass, in which nothing is sent: what processes do side by side that need not meet.
    first: list[float] = field(default_factory=list)
    #: Of a calibration loop beside each.
    loops: list[float] = field(default_factory=list)
    #: Sent to other nodes in each pass.
    bytes_sent: list[int] = field(default_factory=list)

    def rates(self) -> tuple[float, ...]:
        """Pages a second in each repetition."""
        return tuple(_TIMED * self.pages / seconds for seconds in self.seconds)

    def rate(self) -> float:
        """Their median."""
        return median(self.rates())

    def core_ns(self, cores: int) -> float:
        """Nanoseconds a page, of all cores that are at work."""
        return min(self.processes, cores) / self.rate() * 1e9


@dataclass(frozen=True, slots=True)
class Scaling:
    """All points by the number of nodes; on several processes also the largest machine in one."""

    engine: str
    cores: int
    weak: tuple[Point, ...]
    alone: Point | None

    def ideal(self, point: Point) -> float:
        """Pages a second if each core were as fast as at its best."""
        return min(point.processes, self.cores) / self.best() * 1e9

    def best(self) -> float:
        """The least core nanoseconds a page."""
        return min(point.core_ns(self.cores) for point in self.weak)


def measure_scaling(
    nodes: Sequence[int],
    pages_per_node: int,
    repeat: int,
    *,
    engine: str,
    processes: int | None,
    tell: Tell,
) -> Scaling:
    """With the engine `ray` on at most `processes` actors, by default one a core; `inline` on one.

    Raises UserError for what the user can mend.
    """
    if pages_per_node < PAGES_MULTIPLE or pages_per_node % PAGES_MULTIPLE:
        raise UserError(f"--pages-per-node {pages_per_node}: give a multiple of {PAGES_MULTIPLE}")
    cores = len(os.sched_getaffinity(0))
    most = 1 if engine == "inline" else processes or cores
    weak = tuple(Point(n, _processes(n, most), n * pages_per_node) for n in sorted(set(nodes)))
    last = weak[-1]
    alone = Point(last.nodes, 1, last.pages) if last.processes > 1 else None
    try:
        with nullcontext() if engine == "inline" else connected(None, last.pages):
            for number in range(1, repeat + 1):
                for point in [*weak, *([alone] if alone else [])]:
                    where = f" in {text.counted(point.processes, 'actor')}" if engine == "ray" else ""
                    tell(f"{number} of {repeat}: {text.counted(point.nodes, 'node')}{where}")
                    for _ in range(_SMALL_TIMES if point.nodes * _SMALL <= last.nodes else 1):
                        _measure(point, engine)
    except SimulationError as error:
        raise UserError(str(error)) from error
    return Scaling(engine, cores, weak, alone)


def _processes(nodes: int, most: int) -> int:
    """Actors that so many nodes are spread over, as evenly as they can be."""
    return len(node_blocks(nodes, -(-nodes // most)))


def _measure(point: Point, engine: str) -> None:
    spec = spread_out(point.nodes, point.pages // point.nodes, _PASSES)
    options = RunOptions(engine, nodes_per_actor=-(-point.nodes // point.processes))
    # In this process, what others do on the host need not count.
    clock = time.process_time if engine == "inline" else time.perf_counter
    run, loop = calibrated(partial(clocked, spec, clock, options), clock)
    point.seconds.append(sum(run.seconds[:_TIMED]))
    point.first.append(run.seconds[0])
    point.loops.append(loop)
    point.bytes_sent = [int(result.nodes["bytes_sent"].sum()) for result in run.results]
