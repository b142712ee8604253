"""A node's memory with its compactors.

`NodeMemory` owns everything on a node, the state of compactors included. A process that drives a compactor
only says when it takes its next steps, so nothing is lost if that process dies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.compaction.internode.node_transfers import NodeTransfers
from cluster.compaction.kernel_rules import COMPACTION_RULES
from cluster.compaction.movable.counting import Counted, MoveCounts
from cluster.compaction.pages.memory import VmStat
from cluster.compaction.scenario.fill import FilledMemory
from cluster.compaction.scenario.node_report import NodeReport, blocks_of
from cluster.compaction.scenario.random_streams import Purpose, random_stream
from cluster.compaction.scenario.triggers import CompactorRun, Requests, make_run
from cluster.spec.compaction import CompactionSpec

#: Single steps at the end of a turn, at most.
_MOST_STEPS = 3


@dataclass(slots=True)
class _Session:
    """A compactor's run, and what it cost so far: calls for pages, pages moved, mappings walked."""

    run: CompactorRun
    attempts: int = 0
    moved: int = 0
    mappings: int = 0


class NodeMemory:
    """A node's memory, with its drivers and its compactors.

    `begin`, then `take` turn after turn until all compactors are done, then `finish` and `report`.
    """

    def __init__(self, spec: CompactionSpec, node: int, filled: FilledMemory) -> None:
        self.spec = spec
        self.node = node
        self.filled = filled
        self.memory = filled.memory
        self._counted = {name: Counted(self.memory, owner) for name, owner in filled.owners.items()}
        self.transfers = self._transfers()
        self.begin()

    def begin(self) -> None:
        """Begin a compaction of the memory as it is now, with all counters at 0."""
        self.memory.zones[0].drain()
        self.before = self.memory.zones[0].buddyinfo()
        self.after = self.before
        self.obtained = 0
        self.memory.vmstat = VmStat()
        self.requests = Requests(self.spec.attempts)
        self._chance = random_stream(self.spec.seed, Purpose.STEPS, self.node)
        for counted in self._counted.values():
            counted.begin()
        #: Sessions of the compactors that have had a turn.
        self._sessions: dict[int, _Session] = {}

    def _transfers(self) -> NodeTransfers | None:
        """Return the node's side of transfers; None if the scenario has no relocations."""
        spec, owners = self.spec, self.filled.node_owners
        if owners is None:
            return None
        shape, rules = (len(spec.relocations), spec.nodes), COMPACTION_RULES[spec.kernel]
        return NodeTransfers(self.node, shape, owners, self._counted, rules)

    @property
    def counts(self) -> dict[str, MoveCounts]:
        """By name of the driver, then LRU pages and foreign pages."""
        return {name: counted.counts for name, counted in self._counted.items()}

    def take(self, compactor: int) -> bool:
        """Let a compactor take its next steps; return whether it is done."""
        if compactor not in self._sessions:
            self._sessions[compactor] = _Session(make_run(self.memory, self.requests, self.spec))
        session = self._sessions[compactor]
        attempts, moved, mappings = self._work_done()
        self._steps(session.run)
        attempts_now, moved_now, mappings_now = self._work_done()
        session.attempts += attempts_now - attempts
        session.moved += moved_now - moved
        session.mappings += mappings_now - mappings
        return session.run.done

    def _steps(self, run: CompactorRun) -> None:
        """Go through part of the memory at once, then take single steps, so that the turn ends mid-work."""
        if self._chance.integers(2):
            run.advance(self.spec.turn_pages)
        for _ in range(int(self._chance.integers(1, _MOST_STEPS + 1))):
            if run.done:
                break
            run.step()
            if run.waiting:
                break

    def _work_done(self) -> tuple[int, int, int]:
        counted = self._counted.values()
        attempts, moved = sum(c.attempts for c in counted), sum(c.counts.moved for c in counted)
        return attempts, moved, self.filled.lru.walks.mappings

    def finish(self) -> None:
        """End the compaction: note the free blocks, then make the scenario's requests for blocks.

        Compactors of the trigger "direct" have made them already. Otherwise blocks are allocated and freed
        again.
        """
        self.memory.zones[0].drain()
        self.after = self.memory.zones[0].buddyinfo()
        self.obtained = self.requests.obtained if self.spec.trigger == "direct" else self._try_requests()

    def _try_requests(self) -> int:
        taken = [self.memory.alloc(self.spec.order) for _ in range(self.spec.attempts)]
        blocks = [pfn for pfn in taken if pfn is not None]
        for pfn in blocks:
            self.memory.free(np.arange(pfn, pfn + (1 << self.spec.order)))
        return len(blocks)

    def seconds(self) -> float:
        """Return the simulated time until the last compactor was done; compactors work side by side."""
        return max(map(self._ns, self._sessions.values()), default=0) / 1e9

    def _ns(self, session: _Session) -> float:
        cost = self.spec.cost
        moving = session.attempts * cost.attempt + session.moved * cost.copy
        return session.run.scanned * cost.scan + moving + session.mappings * cost.mapping

    def without_drivers(self) -> NodeMemory:
        """Return a copy of this memory as it is now, in which no driver's page can move."""
        return NodeMemory(self.spec, self.node, self.filled.without_drivers())

    def report(self, without_drivers: NodeMemory | None) -> NodeReport:
        """Return what became of the node, beside its copy `without_drivers` from before the compaction.

        Both are finished. There is no copy if there is no driver: it would be the same.
        """
        without_drivers = without_drivers or self
        return NodeReport(
            node=self.node,
            before=self.before,
            after=self.after,
            without=without_drivers.after,
            obtained_before=min(blocks_of(self.before, self.spec.order), self.spec.attempts),
            obtained_after=self.obtained,
            obtained_without=without_drivers.obtained,
            by_driver=self.counts,
            vmstat=self.memory.vmstat.as_dict(),
            seconds=self.seconds(),
            traffic=self.transfers.report() if self.transfers else None,
            walks=self.filled.lru.walks,
        )
