"""Proactive compaction by kcompactd, and large steps of anything that runs several compactions."""

from __future__ import annotations

from typing import Protocol

from cluster.arrays.words import Pfns
from cluster.compaction.kernel_rules import DEFAULT_RULES, CompactionRules
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode
from cluster.compaction.zone.compact_control import Request
from cluster.compaction.zone.compact_zone import Compaction


class Proactive:
    """kcompactd's proactive compaction: whole zones, sync-light, as long as it makes memory less fragmented.

    `step` until `done`. proactiveness: vm.compaction_proactiveness, 0..100.
    """

    def __init__(
        self,
        memory: Memory,
        proactiveness: int,
        rules: CompactionRules = DEFAULT_RULES,
        grain: int | None = None,
    ) -> None:
        self.memory = memory
        self.moves: list[tuple[Pfns, Pfns]] = []
        self.done = proactiveness == 0
        self.running: Compaction | None = None
        self._scanned = 0
        self._rules = rules
        self._grain = grain
        self._low = max(100 - proactiveness, 0 if rules.proactive_to_zero else 5)
        self._high = min(self._low + 10, 100) if self._low else 0
        self._zones: list[Zone] = []
        self._before: int | None = None

    @property
    def waiting(self) -> bool:
        return self.running is not None and self.running.waiting

    @property
    def scanned(self) -> int:
        return self._scanned + (self.running.scanned if self.running is not None else 0)

    def run(self) -> None:
        """Do all of it, without other compactors in between."""
        while not self.done:
            self.step()

    def advance(self, pages: int) -> None:
        """Do many steps, without other compactors in between, as `Compaction.advance` does."""
        advance(self, pages)

    def step(self) -> None:
        """Do the next piece of work."""
        if self.running is not None:
            if not self.running.done:
                self.running.step()
            if self.running.done:
                self.moves += self.running.moves
                self._scanned += self.running.scanned
                self.running = None
        elif self._zones:
            request = Request(MigrateMode.SYNC_LIGHT, good_enough=self._low)
            self.running = Compaction(
                self.memory, self._zones.pop(0), request, rules=self._rules, grain=self._grain
            )
        else:
            self._next_round()

    def _next_round(self) -> None:
        """Begin a round, if memory is fragmented enough and the round before was of use."""
        score = sum(self._weighted(zone) for zone in self.memory.zones)
        useless = self._before is not None and score >= self._before
        if useless or score <= self._high:
            self.done = True
            return
        self._before = score
        self._zones = list(self.memory.zones)

    def _weighted(self, zone: Zone) -> int:
        total = sum(other.end - other.start for other in self.memory.zones)
        return zone.fragmentation_score() * (zone.end - zone.start) // (total + 1)


class CompactionRuns(Protocol):
    """Anything that runs one compaction after the other."""

    @property
    def done(self) -> bool: ...

    @property
    def waiting(self) -> bool: ...

    @property
    def running(self) -> Compaction | None: ...

    def step(self) -> None: ...


def advance(runs: CompactionRuns, pages: int) -> None:
    """Step until the compactions have scanned about `pages` pages or must wait for a lock."""
    while not runs.done and pages > 0:
        run = runs.running
        if run is None or run.done:
            runs.step()
            continue
        before = run.scanned
        run.advance(pages)
        pages -= max(run.scanned - before, 1)
        if runs.waiting:
            return
