"""A scenario: its start and its passes of ksmd, in simulated time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cluster.arrays.words import I64
from cluster.compaction.scenario.compactor_pool import CompactorPool
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.relocation_result import RelocationResult, node_seconds
from cluster.ksm.advisor import Advisor
from cluster.machine.census import Census
from cluster.machine.coordinator import Machine
from cluster.machine.fabric import Fabric
from cluster.machine.pass_result import PassResult
from cluster.spec.scenario import CostSpec, SimulationSpec
from cluster.spec.statistics import COUNTERS, NODE_NAMES

Columns = dict[str, I64]


class Simulation:
    """A scenario on the nodes that a fabric reaches. The results depend on the spec, not on the fabric."""

    def __init__(self, fabric: Fabric, spec: SimulationSpec, compactor_pool: CompactorPool) -> None:
        """Create the scenario's processes and fill their memory.

        `compactor_pool` drives the compactors of a scenario with [migration].
        """
        self._migration = spec.migration
        self._relocations = spec.relocations
        self._distance = spec.machine.distance
        self._compactor_pool = compactor_pool
        self._machine = Machine(fabric, spec.ksm)
        self._machine.populate(spec.processes)
        self._clock = Clock(spec)
        self._windows = spec.windows_per_pass
        self._writes = spec.writes
        self._passes = 0
        self._all_passes = spec.passes

    def run_pass(self) -> PassResult:
        """Run the next full pass of ksmd, with the writes of the workload meanwhile."""
        clock = self._clock
        before, cpu = clock.columns, clock.cpu_ns.copy()
        for count in self._window_sizes():
            if clock.columns and self._writes:
                self._machine.tick(clock.ticked, clock.seconds)
                clock.ticked = clock.seconds
            ended = self._machine.scan(count)
            clock.advance(self._machine.collect())
            if ended:
                break
        self._passes += 1
        relocated = self._relocate()
        compaction = self._compact()
        nodes = {name: clock.columns[name] for name in NODE_NAMES}
        for counter in COUNTERS:
            nodes[counter.name] = clock.columns[counter.name] - before.get(counter.name, 0)
        nodes["ksmd_cpu_ns"] = (clock.cpu_ns - cpu).round().astype(np.int64)
        pages_to_scan = clock.advisor.pages_to_scan
        if ended:
            clock.end_pass(int(nodes["pages_scanned"].sum()), int(nodes["ksmd_cpu_ns"].sum()))
        full_scans = self._machine.full_scans
        done = self._passes, nodes, full_scans, clock.seconds, pages_to_scan
        return PassResult(*done, wall_seconds=0.0, compaction=compaction, relocated=relocated)

    def census(self) -> Census | None:
        """Return what ksmd has made of each process and mapping, after the last pass; None before."""
        return self._machine.census() if self._passes == self._all_passes else None

    def _relocate(self) -> tuple[RelocationResult, ...]:
        """Carry out the relocations due after this pass; simulated time does not advance."""
        due = [r for r in self._relocations if r.after_pass == self._passes]
        if not due or self._migration is None:
            return ()
        done = []
        for relocation in due:
            moved = self._machine.relocate(relocation, self._distance)
            seconds = node_seconds(self._migration.cost, self._distance, moved, moved)
            done.append(RelocationResult(relocation, moved, moved, seconds))
        self._clock.columns = self._machine.collect()
        return tuple(done)

    def _compact(self) -> tuple[NodeReport, ...]:
        """Compact memory after a pass. kcompactd works beside ksmd, so the clock does not advance."""
        if self._migration is None:
            return ()
        reports = self._machine.compact(self._migration, self._compactor_pool)
        self._clock.columns = self._machine.collect()
        return reports

    def _window_sizes(self) -> Iterator[int | None]:
        """Yield the number of pages of each window of a pass; None stands for the rest of the pass."""
        if self._windows > 1:
            columns = self._clock.columns or self._machine.collect()
            count = max(1, int(columns["pages_mapped"].sum()) // self._windows)
            yield from [count] * (self._windows - 1)
        yield None


class Clock:
    """Simulated time: the cost of ksmd's work, and its sleep in between."""

    def __init__(self, spec: SimulationSpec) -> None:
        self._cost = spec.cost
        self._trees_per_node = not spec.ksm.merge_across_nodes
        self._sleep_millisecs = spec.ksm.sleep_millisecs
        self.advisor = Advisor(spec.ksm)
        self.columns: Columns = {}
        self.cpu_ns = np.zeros(spec.machine.nodes)
        self.seconds = 0.0
        #: Simulated seconds that each thread of ksmd has reached.
        self._threads = np.zeros(spec.machine.nodes if spec.ksm.threads == "per-node" else 1)
        #: Simulated seconds that the workload's writes have reached.
        self.ticked = 0.0

    def advance(self, columns: Columns) -> None:
        """Advance by one window, after which `columns` are the statistics since the start."""
        old = self.columns or {name: np.zeros_like(values) for name, values in columns.items()}
        cpu = ksmd_cpu_ns(self._cost, old, columns, trees_per_node=self._trees_per_node)
        self.cpu_ns += cpu
        scanned = columns["pages_scanned"] - old["pages_scanned"]
        if len(self._threads) == 1:
            cpu, scanned = cpu.sum(keepdims=True), scanned.sum(keepdims=True)
        wakeups = np.ceil(scanned / self.advisor.pages_to_scan)
        self._threads += cpu * 1e-9 + wakeups * self._sleep_millisecs * 1e-3
        # A window may be one node's pages alone: threads do not wait for each other before the pass ends.
        self.seconds = float(self._threads.max())
        self.columns = columns

    def end_pass(self, scanned: int, cpu_ns: int) -> None:
        """End a pass that scanned so many pages with so much CPU time; ksmd has yet to sleep after it."""
        cpu_ms = cpu_ns // 10**6
        slept_ms = scanned // self.advisor.pages_to_scan * self._sleep_millisecs
        self.advisor.end_pass(cpu_ms + slept_ms, cpu_ms)
        # All threads begin the next pass together.
        self._threads[:] = self.seconds


def ksmd_cpu_ns(cost: CostSpec, old: Columns, new: Columns, *, trees_per_node: bool) -> NDArray[np.float64]:
    """Return ksmd's CPU time for the pages of each node between two collections: float64[nodes], nanoseconds.

    A page with an unchanged checksum is looked up in the stable tree and, if it is not merged, in the
    unstable tree; each level of a tree costs one comparison (docs/model.md).
    """

    def done(name: str) -> I64:
        return new[name] - old[name]

    def levels(name: str) -> NDArray[np.float64]:
        tree = new[name] if trees_per_node else new[name].sum(keepdims=True)
        return np.log2(1 + tree)

    searched = done("checksums") - done("changed")
    stable, unstable = levels("pages_shared"), levels("pages_unshared")
    ns: NDArray[np.float64] = (
        cost.visit * done("pages_scanned")
        + cost.checksum * done("checksums")
        + cost.tree_level * (stable * searched + unstable * np.maximum(searched - done("pages_merged"), 0))
        + cost.merge * done("pages_merged")
    )
    return ns
