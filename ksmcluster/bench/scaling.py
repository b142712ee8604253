"""Benchmark of pages per second for a growing number of nodes, and for one and several processes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from threading import Barrier

from actors.placement import node_blocks
from actors.run_options import RunOptions
from actors.runtime import connected
from ksmcluster.api.running import one_line
from ksmcluster.bench.tools.calibration import calibrated
from ksmcluster.bench.tools.clocked import Clocked, clocked
from ksmcluster.bench.tools.shapes import spread_out
from ksmcluster.report import text
from ksmcluster.report.progress import Tell
from ksmcluster.system.errors import UserError

#: Pages of a node are a multiple of this: it has four processes, each with half of its memory in groups.
PAGES_MULTIPLE = 8
#: The first, the merging and a steady pass; the first two are timed.
_PASSES, _TIMED = 3, 2
#: Small machines, up to this fraction of the largest one, are measured several times per repetition: their
#: passes are so short that changes in the speed of a shared host would matter.
_SMALL, _SMALL_TIMES = 16, 3


@dataclass(slots=True)
class Point:
    """Measurements of one number of nodes in a number of processes."""

    nodes: int
    processes: int
    pages: int
    #: Seconds of the timed passes together.
    seconds: list[float] = field(default_factory=list)
    #: Seconds of the first pass, in which nothing is sent: parallel work without synchronization.
    first: list[float] = field(default_factory=list)
    #: Seconds of a calibration loop beside each.
    loops: list[float] = field(default_factory=list)
    #: Bytes sent to other nodes in each pass.
    bytes_sent: list[int] = field(default_factory=list)
    #: Bytes of mail to nodes of other processes, in all passes.
    mail_bytes: int = 0

    def rates(self) -> tuple[float, ...]:
        """Return the pages per second of each repetition."""
        return tuple(_TIMED * self.pages / seconds for seconds in self.seconds)

    def rate(self) -> float:
        """Return the median of the rates."""
        return median(self.rates())

    def mail_per_page(self) -> float:
        """Return the bytes of mail for each page whose messages go to another process."""
        others = 1 - 1 / self.processes
        return self.mail_bytes / (others * self.pages) if others else 0.0

    def core_ns(self, cores: int) -> float:
        """Return core nanoseconds per page, over all cores in use."""
        return min(self.processes, cores) / self.rate() * 1e9


@dataclass(frozen=True, slots=True)
class Scaling:
    """All points by the number of nodes; with several processes, also the largest machine in a single one.

    `apart` are as many processes at the same time, each with an equal part of its nodes as a machine of its
    own: what the cores, caches and memory bus of this host give without any message. None if no equal parts.
    """

    engine: str
    cores: int
    weak: tuple[Point, ...]
    alone: Point | None
    apart: Point | None

    def ideal(self, point: Point) -> float:
        """Return the pages per second if every core ran at its best speed."""
        return min(point.processes, self.cores) / self.best() * 1e9

    def best(self) -> float:
        """Return the lowest core nanoseconds per page."""
        return min(point.core_ns(self.cores) for point in self.weak)


def ratios(more: Sequence[float], less: Sequence[float]) -> tuple[float, ...]:
    """Return how many times as long each repetition took as its pair."""
    return tuple(m / n for m, n in zip(more, less, strict=True))


def measure_scaling(
    nodes: Sequence[int],
    pages_per_node: int,
    repeat: int,
    *,
    engine: str,
    processes: int | None,
    tell: Tell,
) -> Scaling:
    """Measure the engine `ray` on at most `processes` actors (default: one per core), or `inline` on one.

    Raises UserError for errors that the user can fix, RunFailedError if Ray does not start or an actor dies.
    """
    if pages_per_node < PAGES_MULTIPLE or pages_per_node % PAGES_MULTIPLE:
        raise UserError(f"--pages-per-node {pages_per_node}: give a multiple of {PAGES_MULTIPLE}")
    cores = len(os.sched_getaffinity(0))
    most = 1 if engine == "inline" else processes or cores
    weak = tuple(Point(n, _processes(n, most), n * pages_per_node) for n in sorted(set(nodes)))
    last = weak[-1]
    alone = Point(last.nodes, 1, last.pages) if last.processes > 1 else None
    apart = (
        Point(last.nodes, last.processes, last.pages) if alone and last.nodes % last.processes == 0 else None
    )
    with one_line(), nullcontext() if engine == "inline" else connected(None, last.pages):
        for number in range(1, repeat + 1):
            for point in [*weak, *([alone] if alone else [])]:
                where = f" in {text.counted(point.processes, 'actor')}" if engine == "ray" else ""
                tell(f"{number} of {repeat}: {text.counted(point.nodes, 'node')}{where}")
                for _ in range(_SMALL_TIMES if point.nodes * _SMALL <= last.nodes else 1):
                    _measure(point, engine)
            if apart:
                tell(f"{number} of {repeat}: {text.counted(apart.processes, 'machine')} at the same time")
                _measure_apart(apart)
    return Scaling(engine, cores, weak, alone, apart)


def _processes(nodes: int, most: int) -> int:
    """Return the number of actors over which `nodes` nodes are spread as evenly as possible."""
    return len(node_blocks(nodes, -(-nodes // most)))


def _measure(point: Point, engine: str) -> None:
    spec = spread_out(point.nodes, point.pages // point.nodes, _PASSES)
    options = RunOptions(engine, nodes_per_actor=-(-point.nodes // point.processes))
    # In this process, CPU time leaves out the work of other programs.
    clock = time.process_time if engine == "inline" else time.perf_counter
    run, loop = calibrated(partial(clocked, spec, clock, options), clock)
    point.seconds.append(sum(run.seconds[:_TIMED]))
    point.first.append(run.seconds[0])
    point.loops.append(loop)
    point.bytes_sent = [int(result.nodes["bytes_sent"].sum()) for result in run.results]
    point.mail_bytes = sum(result.mail_bytes for result in run.results)


def _measure_apart(point: Point) -> None:
    """Run a machine of an equal part of the nodes in each process; all begin their first pass together."""
    nodes = point.nodes // point.processes
    spec = spread_out(nodes, point.pages // point.nodes, _PASSES)
    begin = Barrier(point.processes)

    def run(_process: int) -> Clocked:
        try:
            return clocked(spec, time.perf_counter, RunOptions("ray", nodes_per_actor=nodes), begin.wait)
        except BaseException:
            begin.abort()
            raise

    with ThreadPoolExecutor(point.processes) as threads:
        runs = list(threads.map(run, range(point.processes)))
    point.seconds.append(max(sum(run.seconds[:_TIMED]) for run in runs))
    point.first.append(max(run.seconds[0] for run in runs))
