"""Time passes on the host's clock; the simulation itself looks at none."""

from __future__ import annotations

import time
from dataclasses import replace

from cluster.machine.pass_result import PassResult
from cluster.machine.simulation import Simulation


def timed_pass(simulation: Simulation) -> PassResult:
    """Run the next pass; return its result with the seconds it took."""
    start = time.perf_counter()
    result = simulation.run_pass()
    return replace(result, wall_seconds=time.perf_counter() - start)
