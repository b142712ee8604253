"""Measures the memory of a simulation, as a separate program, so that its processes hold nothing else.

Arguments: nodes, pages of each, the engine, nodes that share an actor. Prints a JSON object; sizes in bytes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from actors.run_options import RunOptions
from actors.simulation.run_passes import run_passes
from ksmcluster.bench.tools.shapes import spread_out
from ksmcluster.system.descendants import family
from ksmcluster.system.kernel_files import PROC

#: The first, the merging and two steady passes.
PASSES = 4


@dataclass(slots=True)
class Footprint:
    """Sums over the processes: of their peaks, and of the memory that they hold at the end."""

    pages: int
    peak: int = 0
    steady: int = 0
    #: Seconds until the first pass began, and of all passes.
    start_seconds: float = 0.0
    pass_seconds: float = 0.0


def footprint(nodes: int, pages_per_node: int, options: RunOptions) -> Footprint:
    """Simulate, and measure the processes after the last pass."""
    found = Footprint(nodes * pages_per_node)
    start = time.perf_counter()
    spec = spread_out(nodes, pages_per_node, PASSES)
    for result in run_passes(spec, options):
        found.pass_seconds += result.wall_seconds
        if result.number == PASSES:  # the nodes still hold all their memory
            found.start_seconds = time.perf_counter() - start - found.pass_seconds
            found.peak, found.steady = resident()
    return found


def resident() -> tuple[int, int]:
    """Return the resident memory of this process and its descendants: sum of peaks, and current sum."""
    sizes = [_sizes(pid) for pid in family(os.getpid())]
    return sum(peak for peak, _ in sizes), sum(now for _, now in sizes)


def _sizes(pid: int) -> tuple[int, int]:
    lines = dict(line.split(":", 1) for line in _read(PROC / str(pid) / "status").splitlines())
    if "VmHWM" not in lines:
        return 0, 0  # it has ended
    return int(lines["VmHWM"].split()[0]) << 10, int(lines["VmRSS"].split()[0]) << 10


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


if __name__ == "__main__":
    nodes, pages_per_node, engine, nodes_per_actor = sys.argv[1:]
    options = RunOptions(engine, nodes_per_actor=int(nodes_per_actor))
    print(json.dumps(asdict(footprint(int(nodes), int(pages_per_node), options))))
