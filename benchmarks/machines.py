"""Measures the merging pass on three Ray nodes with links between them, against the same on one Ray node.

The Ray nodes are in network namespaces of this host, and share its cores; `tc` gives their links a rate.
Needs root. Prints for each rate the efficiency, the time on one Ray node divided by that on three, and what a
link carries in a run: all of Ray's bytes that a machine sends, and their time on the wire at this rate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.chaos.three_machines import ThreeMachines, three_machines

MACHINES = 3
#: Bits a second of the names that `tc` knows.
RATES = {"10gbit": 10e9, "1gbit": 1e9}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--nodes", type=int, default=48)
    arguments.add_argument("--pages-per-node", type=int, default=131072)
    arguments.add_argument("--rates", nargs="*", choices=RATES, default=list(RATES))
    arguments.add_argument("--repeat", type=int, default=5)
    arguments.add_argument("--join", metavar="ADDRESS", help="measure on this cluster, and print JSON")
    given = arguments.parse_args()
    if given.join:
        print(json.dumps(passes(given.join, given.nodes, given.pages_per_node, given.repeat)))
        return
    first, alone = passes(None, given.nodes, given.pages_per_node, given.repeat)
    print(f"one Ray node: first {first:.3f} s, merging {alone:.3f} s")
    with three_machines(object_store=2 << 30) as cluster:
        for rate in given.rates:
            before = sent(cluster)
            first, merging = on_machines(cluster, rate, given)
            a_run = max(after - at for after, at in zip(sent(cluster), before, strict=True)) / given.repeat
            times = f"first {first:.3f} s, merging {merging:.3f} s, efficiency {alone / merging:.2f}"
            wire = f"{a_run / 1e6:.0f} MB, {a_run * 8 / RATES[rate]:.3f} s on the wire"
            print(f"three, {rate}: {times}; {wire}", flush=True)


def sent(cluster: ThreeMachines) -> list[int]:
    """Return the bytes that each machine has sent since its start."""
    show = ["ip", "-statistics", "-json", "link", "show", "eth0"]
    shown = (subprocess.check_output([*machine.prefix, *show]) for machine in cluster.machines)
    return [int(json.loads(text)[0]["stats64"]["tx"]["bytes"]) for text in shown]


def passes(address: str | None, nodes: int, pages: int, repeat: int) -> tuple[float, float]:
    """Return the medians of the seconds of the first and the merging pass."""
    from actors.run_options import RunOptions
    from actors.runtime import connected
    from ksmcluster.bench.tools.clocked import clocked
    from ksmcluster.bench.tools.shapes import spread_out

    options = RunOptions("ray", nodes_per_actor=-(-nodes // MACHINES))
    with connected(address, nodes * pages):
        runs = [clocked(spread_out(nodes, pages, 3), time.perf_counter, options) for _ in range(repeat)]
    return median(run.seconds[0] for run in runs), median(run.seconds[1] for run in runs)


def on_machines(cluster: ThreeMachines, rate: str, given: argparse.Namespace) -> tuple[float, float]:
    """Return the medians of the seconds of the first and the merging pass on three Ray nodes."""
    for machine in cluster.machines:
        shape = ["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate]
        subprocess.run([*machine.prefix, *shape, "burst", "4mb", "latency", "100ms"], check=True)
    child = [sys.executable, __file__, "--join", cluster.address, "--repeat", str(given.repeat)]
    sizes = ["--nodes", str(given.nodes), "--pages-per-node", str(given.pages_per_node)]
    done = subprocess.run([*cluster.prefix, *child, *sizes], stdout=subprocess.PIPE, text=True, check=True)
    first, merging = json.loads(done.stdout.splitlines()[-1])
    return first, merging


if __name__ == "__main__":
    main()
