"""Benchmark of `simulate` with the default scenario, compared with Ray alone and as many empty actors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from rich.table import Table

from ksmcluster.bench.tools.measure import BenchOutcome, Measure, spread
from ksmcluster.bench.tools.programs import own_ray, run_program
from ksmcluster.report import text
from ksmcluster.report.console import plain_table
from ksmcluster.report.progress import Tell


def bench_startup(nodes: int, nodes_per_actor: Sequence[int], repeat: int, tell: Tell) -> BenchOutcome:
    """Time whole commands alternately, from process start to end. Raises UserError if one fails."""
    alone: list[float] = []
    ours: dict[int, list[float]] = {packed: [] for packed in nodes_per_actor}
    for number in range(1, repeat + 1):
        tell(f"{number} of {repeat}: Ray alone, {text.counted(nodes, 'actor')}")
        alone.append(_seconds("ksmcluster.bench.tools.ray_alone", str(nodes)))
        for packed, seconds in ours.items():
            tell(f"{number} of {repeat}: simulate, {text.counted(packed, 'node')} an actor")
            options = f"simulate --nodes {nodes} --nodes-per-actor {packed} --quiet --json"
            seconds.append(_seconds("ksmcluster.cli", *options.split()))
    return BenchOutcome(tuple(measures_of(nodes, alone, ours)), (_table(nodes, alone, ours),))


def _seconds(module: str, *arguments: str) -> float:
    environment = own_ray()
    start = time.perf_counter()
    run_program(module, *arguments, environment=environment)
    return time.perf_counter() - start


def measures_of(nodes: int, alone: list[float], ours: dict[int, list[float]]) -> list[Measure]:
    """Return ratios to Ray alone and to the first packing, per repetition; `ours` is by nodes per actor."""
    measures = []
    first = next(iter(ours))
    for packed, seconds in ours.items():
        name = f"startup, {text.counted(nodes, 'node')}, {packed} an actor"
        measures.append(Measure(f"{name}: against Ray alone", "x", _ratios(alone, seconds), _shown(seconds)))
        if packed != first:
            against = f"{name}: against {first} an actor"
            measures.append(Measure(against, "x", _ratios(ours[first], seconds), _shown(seconds)))
    return measures


def _ratios(others: list[float], seconds: list[float]) -> tuple[float, ...]:
    return tuple(other / mine for other, mine in zip(others, seconds, strict=True))


def _shown(seconds: list[float]) -> str:
    return f"{median(seconds):.1f} s"


def _table(nodes: int, alone: list[float], ours: dict[int, list[float]]) -> tuple[str, Table]:
    shown = plain_table("", "seconds", "from to", "of Ray alone")
    rows = {"Ray alone, empty actors": alone}
    rows |= {
        f"simulate, {text.counted(packed, 'node')} an actor": seconds for packed, seconds in ours.items()
    }
    for what, seconds in rows.items():
        share = median(_ratios(seconds, alone))
        shown.add_row(f"  {what}", f"{median(seconds):.1f}", spread(tuple(seconds)), f"{share:.2f}")
    return f"Whole commands, {text.counted(nodes, 'node')}; medians of {len(alone)}", shown
