"""What the host takes for passes: the simulation itself looks at no clock."""

from __future__ import annotations

import time
from dataclasses import replace

from cluster.machine.pass_result import PassResult
from cluster.machine.simulation import Simulation


def timed_pass(simulation: Simulation) -> PassResult:
    """Runs the next pass."""
    start = time.perf_counter()
    result = simulation.run_pass()
    return replace(result, wall_seconds=time.perf_counter() - start)
