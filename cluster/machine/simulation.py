"""A scenario: its start and its passes of ksmd, in simulated time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cluster.checkpoint.encode import Encoded, encode
from cluster.checkpoint.restore import restore
from cluster.compaction.scenario.compactor_pool import CompactorPool
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.relocation_result import RelocationResult, node_seconds
from cluster.machine.census import Census
from cluster.machine.clock import Clock
from cluster.machine.coordinator import Machine, WindowEnd
from cluster.machine.fabric import Fabric
from cluster.machine.pass_result import PassResult
from cluster.machine.run_end import RunEnd
from cluster.spec.errors import SimulationError
from cluster.spec.limits import MOST_PASSES
from cluster.spec.scenario import SimulationSpec
from cluster.spec.statistics import COUNTERS, NODE_NAMES

#: Windows in the time in which a page is written once, where processes write what may merge again. With
#: sixteen, about 3 % of such pages are counted as they were before a write that they have had.
_WINDOWS_PER_WRITE = 16
#: More windows cost more time than they are worth.
_MOST_WINDOWS = 64
#: CPU time of ksmd in all passes: a sum of rounded parts then stays below 2^63.
_MOST_CPU_NS = 2.0**62


class Simulation:
    """A scenario on the nodes that a fabric reaches. The results depend on the spec, not on the fabric."""

    def __init__(
        self,
        fabric: Fabric,
        spec: SimulationSpec,
        compactor_pool: CompactorPool,
        state: Encoded | None = None,
    ) -> None:
        """Create the scenario's processes and fill their memory.

        `compactor_pool` drives the compactors of a scenario with [migration]. With the `state` of another
        simulation of this scenario, whose nodes the fabric's nodes have been restored from, go on from there;
        raise DecodeError if it is not one.
        """
        #: What the simulation is made of; its state refers to it.
        self._inputs = {"spec": spec, "fabric": fabric, "compactor_pool": compactor_pool}
        self._migration = spec.migration
        self._relocations = spec.relocations
        self._distance = spec.machine.distance
        self._compactor_pool = compactor_pool
        self._machine = Machine(fabric, spec.ksm)
        self._clock = Clock(spec)
        self._spec = spec
        self._passes = 0
        self._end = RunEnd(spec)
        #: Whether the last pass has been run.
        self.ended = False
        if state is None:
            self._fill()
        else:
            restore(self, state, self._inputs)

    def _fill(self) -> None:
        self._machine.populate(self._spec.processes)
        if self._spec.ksm.history == "steady":
            self._machine.reach_steady_state()
            self._clock.columns = self._machine.collect()

    def state(self) -> Encoded:
        """Return the state between two passes, when all messages have arrived; nodes have theirs."""
        self._machine.settle()
        return encode(self, self._inputs)

    def run_pass(self) -> PassResult:
        """Run the next full pass of ksmd, with the writes of the workload meanwhile."""
        if self._passes == MOST_PASSES:
            raise SimulationError(f"simulation.seconds: the run has not ended after {MOST_PASSES:,} passes")
        clock = self._clock
        before, cpu = clock.columns, clock.cpu_ns.copy()
        pages_to_scan = clock.advisor.pages_to_scan
        windows = self._scan()
        self._passes += 1
        relocated = self._relocate()
        compaction = self._compact()
        nodes = {name: clock.columns[name] for name in NODE_NAMES}
        for counter in COUNTERS:
            nodes[counter.name] = clock.columns[counter.name] - before.get(counter.name, 0)
        if clock.cpu_ns.sum() >= _MOST_CPU_NS:
            raise SimulationError(
                f"in pass {self._passes}, ksmd has used 2^62 ns of CPU time, which is the most: lower [cost]"
            )
        nodes["ksmd_cpu_ns"] = (clock.cpu_ns - cpu).round().astype(np.int64)
        if windows:
            clock.end_pass(int(nodes["ksmd_cpu_ns"].sum()))
        result = PassResult(
            number=self._passes,
            nodes=nodes,
            full_scans=self._machine.full_scans,
            simulated_seconds=clock.seconds,
            pages_to_scan=pages_to_scan,
            windows=windows,
            wall_seconds=0.0,
            compaction=compaction,
            relocated=relocated,
        )
        self.ended = self._end.is_last(result)
        return replace(result, is_last=True) if self.ended else result

    def _scan(self) -> int:
        """Run ksmd once over all memory, and the workload's writes; return the number of windows."""
        clock, machine = self._clock, self._machine
        self._write_until(clock.seconds)
        if not machine.ksmd_should_run:
            clock.stand_by(machine.collect())
            self._end_scan(clock.seconds)
            return 0
        windows = self._windows()
        for number, high in enumerate(windows):
            self._write_until(clock.seconds)
            machine.now_ms = int(clock.seconds * 1000)
            machine.searches = clock.searches if number else 0.0
            ended = machine.scan_to(high)
            clock.advance(machine.collect(), ended=ended)
        self._end_scan(clock.last_page_seconds)
        return len(windows)

    def _end_scan(self, seconds: float) -> None:
        """Carry out the writes until the last page is scanned: the statistics of a pass are those of then."""
        if self._write_until(seconds):
            self._clock.columns = self._machine.collect()

    def _write_until(self, seconds: float) -> bool:
        """Carry out the writes since the last ones; return whether there was any time for them."""
        clock = self._clock
        if not self._spec.writes or clock.ticked >= seconds:
            return False
        self._machine.tick(clock.ticked, seconds)
        clock.ticked = seconds
        return True

    def _windows(self) -> list[WindowEnd | None]:
        """Plan the windows of a pass: as many as the scenario says, or as its writes need."""
        spec, machine = self._spec, self._machine
        fixed = spec.windows_per_pass
        if fixed == 1 or (fixed is None and not any(kind.may_merge_again for kind in spec.processes)):
            return [None]
        return machine.plan_windows(self._windows_needed if fixed is None else lambda _pages: fixed)

    def _windows_needed(self, pages: int) -> int:
        """Return how many windows a pass over `pages` pages needs, so that writes fall into it.

        At most one for each wake-up of ksmd: hardly a write falls into the time in which it works.
        """
        clock = self._clock
        wakeups = max(-(-pages // clock.advisor.pages_to_scan), 1)
        end = clock.seconds + clock.sleep_seconds(wakeups)
        writes = max(kind.writes_within(clock.seconds, end) for kind in self._spec.processes)
        return max(min(math.ceil(_WINDOWS_PER_WRITE * writes), wakeups, _MOST_WINDOWS), 1)

    def census(self) -> Census:
        """Return what ksmd has made of each process and mapping."""
        return self._machine.census()

    def _relocate(self) -> tuple[RelocationResult, ...]:
        """Carry out the relocations due after this pass; simulated time does not advance."""
        due = [r for r in self._relocations if r.after_pass == self._passes]
        if not due or self._migration is None:
            return ()
        done = []
        for relocation in due:
            moved = self._machine.relocate(relocation, self._distance)
            pages, cost = moved.pages, self._migration.cost
            seconds = node_seconds(cost, self._distance, pages, pages, moved.mappings)
            drained = self._machine.drained(relocation)
            done.append(RelocationResult(relocation, pages, pages, seconds, drained, moved.walks))
        self._clock.columns = self._machine.collect()
        return tuple(done)

    def _compact(self) -> tuple[NodeReport, ...]:
        """Compact memory after a pass. kcompactd works beside ksmd, so the clock does not advance."""
        if self._migration is None:
            return ()
        reports = self._machine.compact(self._migration, self._compactor_pool)
        self._clock.columns = self._machine.collect()
        return reports
