"""What starts compactors on a node: writes to compact_memory, allocations that fail, kcompactd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cluster.compaction.kernel_rules import COMPACTION_RULES
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode
from cluster.compaction.zone.compact_control import Request
from cluster.compaction.zone.compact_zone import Compaction
from cluster.compaction.zone.direct_compact import Allocation
from cluster.compaction.zone.kcompactd import Proactive, advance
from cluster.spec.compaction import CompactionSpec

MODES = {"async": MigrateMode.ASYNC, "sync-light": MigrateMode.SYNC_LIGHT, "sync": MigrateMode.SYNC}


class CompactorRun(Protocol):
    """One run of a compactor, step by step. Steps of several runs on one memory may come in any order."""

    @property
    def done(self) -> bool: ...

    @property
    def waiting(self) -> bool:
        """Return whether the next step needs a page that another run has locked."""

    @property
    def scanned(self) -> int:
        """How many pages its scanners have looked at so far."""

    def step(self) -> None:
        """Do the next piece of work."""

    def advance(self, pages: int) -> None:
        """Take steps until about `pages` pages are scanned or a lock is met."""


@dataclass(slots=True)
class Requests:
    """Requests for blocks on a node: how many are left to make, and how many got a block."""

    left: int
    obtained: int = 0


class DirectCompactor:
    """Allocates blocks of the scenario's order as long as `requests` are left, and keeps them."""

    def __init__(self, memory: Memory, requests: Requests, spec: CompactionSpec) -> None:
        self.done = False
        self.scanned = 0
        self._memory = memory
        self._requests = requests
        self._spec = spec
        self._current: Allocation | None = None

    @property
    def waiting(self) -> bool:
        return self.running is not None and self.running.waiting

    @property
    def running(self) -> Compaction | None:
        """The compaction for the current request."""
        return self._current.running if self._current is not None else None

    def step(self) -> None:
        if self._current is not None:
            self._current.step()
        elif self._requests.left:
            self._requests.left -= 1
            self._current = self._begin()
        else:
            self.done = True
        if self._current is not None and self._current.done:
            self._end(self._current)

    def _begin(self) -> Allocation:
        second = MigrateMode.ASYNC if self._spec.mode == "async" else MigrateMode.SYNC_LIGHT
        modes, rules = (MigrateMode.ASYNC, second), COMPACTION_RULES[self._spec.kernel]
        return Allocation(self._memory, self._spec.order, modes=modes, rules=rules, grain=self._spec.batch)

    def _end(self, allocation: Allocation) -> None:
        self._requests.obtained += allocation.pfn is not None
        self.scanned += allocation.scanned
        self._current = None

    def advance(self, pages: int) -> None:
        advance(self, pages)


def make_run(memory: Memory, requests: Requests, spec: CompactionSpec) -> CompactorRun:
    """Return a new run of a compactor, for the scenario's trigger. All runs on a node share `requests`."""
    match spec.trigger:
        case "direct":
            return DirectCompactor(memory, requests, spec)
        case "proactive":
            return Proactive(memory, spec.proactiveness, COMPACTION_RULES[spec.kernel], spec.batch)
        case _:
            request = Request(MODES[spec.mode])
            return Compaction(
                memory, memory.zones[0], request, rules=COMPACTION_RULES[spec.kernel], grain=spec.batch
            )
