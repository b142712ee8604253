"""Benchmark of the pages that compaction moves per second of CPU time, in this process."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from actors.tuning.heap import keep_free_memory
from cluster.compaction.scenario.memory_host import MemoryHost, run_compactors
from cluster.compaction.scenario.node_memory import NodeMemory
from ksmcluster.bench.tools.calibration import calibrated
from ksmcluster.bench.tools.measure import BenchOutcome, Measure, spread
from ksmcluster.config import Overrides, load_compaction
from ksmcluster.config.compaction import not_pageblocks, to_compaction_spec
from ksmcluster.config.sizes import format_size
from ksmcluster.report import text
from ksmcluster.report.console import plain_table
from ksmcluster.report.progress import Tell
from ksmcluster.system.errors import UserError


def bench_compaction(config: str, nodes: int, pages_per_node: int, repeat: int, tell: Tell) -> BenchOutcome:
    """Time the compactors of `nodes` nodes of a scenario, without the time to fill the memory.

    Raises UserError if the scenario does not exist, the size is invalid, or no page can be moved.
    """
    if problem := not_pageblocks(pages_per_node):
        raise UserError(f"--pages-per-node: {problem}")
    size = format_size(pages_per_node)
    spec = replace(
        to_compaction_spec(load_compaction(config, Overrides(nodes))), pages_per_node=pages_per_node
    )
    keep_free_memory()
    seconds, loops, moved = [], [], 0
    for number in range(1, repeat + 1):
        tell(f"{number} of {repeat}: {text.counted(nodes, 'node')}")
        memories = list(MemoryHost(range(nodes), spec).memories.values())
        taken, loop = calibrated(partial(_run, memories), time.process_time)
        seconds.append(taken)
        loops.append(loop)
        moved = sum(memory.memory.vmstat.as_dict()["pgmigrate_success"] for memory in memories)
    if not moved:
        raise UserError(f"{config}: no pages were moved; give a scenario whose drivers can move pages")
    rates = tuple(moved / taken for taken in seconds)
    calibrated_rates = tuple(rate * loop for rate, loop in zip(rates, loops, strict=True))
    name = f"compaction, {config}, {text.counted(nodes, 'node')} of {size}"
    measures = (
        Measure(f"{name}: moves", "moves/calibration", calibrated_rates),
        Measure(f"{name}: moves a second", "moves/s", rates),
    )
    shown = plain_table("nodes", "memory of each", "pages moved", "moves/s of CPU", "from to")
    shown.add_row(f"  {nodes}", size, f"{moved:,}", f"{measures[1].value:,.0f}", spread(rates))
    return BenchOutcome(measures, ((f"Compaction of {config}; medians of {repeat}", shown),))


def _run(memories: list[NodeMemory]) -> float:
    start = time.process_time()
    for memory in memories:
        run_compactors(memory)
    return time.process_time() - start
