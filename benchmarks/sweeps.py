"""Measures a sweep of the default scenario against its points run one by one.

Prints, for each repetition, the time of the sweep divided by that of the points: at most 1.2 on Ray, and 1.1
inline. Half of the points are run alone before the sweep, the others after it. Inline, the time is CPU time.

On Ray, each point alone has actors of its own, and is measured from when all have started. The sweep has one
point more, and is measured from the end of the first.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from statistics import median

import ksmcluster
from actors.run_options import RunOptions
from actors.runtime import connected
from cluster.machine.pass_result import ActorsStarting, Event
from ksmcluster.config import Overrides, load


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--engine", choices=("ray", "inline"), default="ray")
    arguments.add_argument("--nodes", type=int, default=16)
    arguments.add_argument("--nodes-per-actor", type=int, default=1)
    arguments.add_argument("--points", type=int, default=20)
    arguments.add_argument("--repeat", type=int, default=3)
    given = arguments.parse_args()
    options = RunOptions(given.engine, nodes_per_actor=given.nodes_per_actor)
    with connected(None) if options.on_ray else nullcontext():
        ratios = [repetition(given.nodes, given.points, options) for _ in range(given.repeat)]
    print(f"median {median(ratios):.3f}")


def repetition(nodes: int, points: int, options: RunOptions) -> float:
    """Return the time of the sweep divided by that of its points."""
    values = [1000 + 250 * number for number in range(points)]
    half = points // 2
    alone = sum(seconds_alone(nodes, value, options) for value in values[:half])
    swept = seconds_of_sweep(nodes, [values[0], *values], options)
    alone += sum(seconds_alone(nodes, value, options) for value in values[half:])
    print(f"points {alone:.2f} s, sweep {swept:.2f} s: {swept / alone:.3f}", flush=True)
    return swept / alone


def clock(options: RunOptions) -> float:
    return time.perf_counter() if options.on_ray else time.process_time()


def seconds_alone(nodes: int, pages_to_scan: int, options: RunOptions) -> float:
    """Return the seconds of a run, on Ray since its actors have started."""
    start = clock(options)

    def on_event(event: Event) -> None:
        nonlocal start
        if isinstance(event, ActorsStarting):
            start = clock(options)

    scenario = load("default", Overrides(nodes, settings=(f"ksm.pages_to_scan={pages_to_scan}",)))
    ksmcluster.simulate(scenario, options, progress=on_event)
    return clock(options) - start


def seconds_of_sweep(nodes: int, values: list[int], options: RunOptions) -> float:
    """Return the seconds from the end of the first point to that of the last; points run one by one."""
    ends: list[float] = []
    ksmcluster.sweep(
        "default",
        {"ksm.pages_to_scan": values},
        options,
        overrides=Overrides(nodes),
        jobs=1,
        progress=lambda _done: ends.append(clock(options)),
    )
    return ends[-1] - ends[0]


if __name__ == "__main__":
    main()
