"""Compaction of a zone (mm/compaction.c), many batches at once where other compactors cannot come in between.

Records of real kernels reproduce to the single move, with any size of steps.
"""

from __future__ import annotations

from cluster.compaction.movable.isolation import Isolation
from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER, PAGEBLOCK_PAGES
from cluster.compaction.zone.block_scan import BlockScan
from cluster.compaction.zone.compact_control import (
    COMPACT_CLUSTER_MAX,
    WHOLE_ZONE_ORDER,
    block_end,
    pageblock_start,
)
from cluster.compaction.zone.compact_steps import NO_PAGES, CompactionSteps
from cluster.compaction.zone.predicted_batches import PredictedBatches
from cluster.compaction.zone.predicted_sources import PredictedSources, predict_sources

_PREDICTED_PAGES = 32 * PAGEBLOCK_PAGES  #: pages whose sources are predicted together


class Compaction(CompactionSteps):
    """One run of compact_zone(). `step` until `done`; then read `status`, `moves` and the counters.

    grain None: a step is a batch, or as many batches as can be predicted. grain n: a step is a lock or a
    driver call for at most n pages, so that any interleaving of several runs on the same zone can be played.
    A step that needs a page locked by another compactor, and has to wait for it, changes nothing: the run is
    `waiting`.
    """

    _batches: PredictedBatches | None = None  #: under way in this step
    _until: int | None = None  #: where `advance` stops the migrate scanner

    def advance(self, pages: int) -> None:
        """Step until the migrate scanner is `pages` pages further, or a lock has to be waited for.

        Other compactors do not come in between, so steps are as large as they can be.
        """
        grain, self._until = self.grain, self.control.migrate_pfn + pages
        self._set_grain(None)
        if self._migration is not None and self._batches_allowed and self._migration.withdraw():
            self._migration = None
        while not self.done and self.control.migrate_pfn < self._until:
            self.step()
            if self.waiting:
                break
        self._set_grain(grain)
        self._until = None

    def _set_grain(self, grain: int | None) -> None:
        self.grain = grain
        if self._migration is not None:
            self._migration.grain = grain

    def step(self) -> None:
        if self._putback is None and self._migration is None and self._batches_allowed:
            self._step_batches()
        else:
            super().step()

    @property
    def _batches_allowed(self) -> bool:
        """Batches can go together: they are not observed, none ends the run, and none changes free lists."""
        request = self.request
        whole = request.order == WHOLE_ZONE_ORDER and request.good_enough is None and not request.optimistic
        observed = self._trace is not None or self.memory.on_isolate is not None
        alone = self.grain is None and self.zone.lists is None and self.memory.pages.folio_order is None
        return alone and whole and not observed

    def _step_batches(self) -> None:
        """Collect batch after batch, as long as their outcome can be predicted; carry them out."""
        until = self.zone.end if self._until is None else self._until
        batches = self._batches = PredictedBatches(self.memory, self._targets, self.request, self._rules)
        self._targets.begin_alone(lambda: self._carry_out(batches, 1))
        begun = self._scan
        if self._scan is None and len(self._isolated):
            self._migrate()
        while not (self.done or self._migration or self._putback or batches.full):
            if self.control.migrate_pfn >= until:
                break
            scan = self._scan
            if scan is None:
                if not self._add_sources(batches, until):
                    self._carry_out(batches)
                    self._choose_block()
            # one begun before leaves its batch to the next step, if it ends beyond `until`
            elif (scan is begun and scan.end >= until) or not self._add_scan(batches, scan):
                self._step_scan(scan)
            elif scan is begun:
                batches.watch_first()
        self._carry_out(batches)
        self._targets.end_alone()
        self._batches = None

    def _add_sources(self, batches: PredictedBatches, until: int) -> bool:
        """Add the batches of the next pageblocks; False, and no change, if they cannot be predicted."""
        c, sources = self.control, self._sources
        stop = block_end(min(until, c.migrate_pfn + _PREDICTED_PAGES) - 1, PAGEBLOCK_ORDER)
        stop = min(stop, pageblock_start(c.free_pfn))
        if stop <= c.migrate_pfn or self._canceled or sources.hinted(c.migrate_pfn):
            return False
        predicted = self._predict(c.migrate_pfn, stop)
        if predicted is None:
            return False
        first, stop = 0, min(until, predicted.stop)
        while c.migrate_pfn < stop and block_end(c.migrate_pfn, PAGEBLOCK_ORDER) <= c.free_pfn:
            if batches.full or self._migration is not None or sources.hinted(c.migrate_pfn):
                break
            sources.begin_iteration()
            first = self._add_batch(batches, predicted, first, c.migrate_pfn, c.migrate_pfn)
        return True

    def _add_scan(self, batches: PredictedBatches, scan: BlockScan) -> bool:
        """Add the next batch of a scan that has isolated nothing so far; False if it cannot be predicted."""
        if not scan.untouched:
            return False
        predicted = self._predict(scan.low, scan.end)
        if predicted is None:
            self._carry_out(batches)
            return False
        self._scan = None
        self.control.migrate_scanned += scan.scanned
        self._add_batch(batches, predicted, 0, scan.start, scan.low)
        return True

    def _predict(self, start: int, stop: int) -> PredictedSources | None:
        return predict_sources(self.memory, start, stop, self.request, self._rules)

    def _add_batch(
        self, batches: PredictedBatches, predicted: PredictedSources, first: int, start: int, low: int
    ) -> int:
        """Add the batch from predicted.pfns[first] on, in a scan from `start` that is at `low`.

        Return the index in predicted.pfns of the next batch.
        """
        c, sources, end = self.control, self._sources, block_end(low, PAGEBLOCK_ORDER)
        last, stop, rescan = predicted.end_of(low), end, sources.rescan
        if not rescan and last - first >= COMPACT_CLUSTER_MAX:
            last = first + COMPACT_CLUSTER_MAX
            stop = int(predicted.pfns[last - 1]) + 1
        c.migrate_pfn = stop
        c.migrate_scanned += predicted.scanned(low, stop, c.free_pfn)
        self.memory.vmstat.skipped_isolated += predicted.isolated(low, stop)
        self.memory.vmstat.compact_isolated += last - first
        if stop == end and (rescan or first == last):
            sources.exhausted(start, end)
        if first == last:
            sources.isolated_nothing()
            return last
        sources.isolated_some(last - first)
        if not batches.add(*predicted.batch(first, last)):
            # there are too few targets: the batch is moved page by page
            self._carry_out(batches)
            isolation = Isolation(self.memory, predicted.pfns[first:last], self.request.isolate_mode)
            isolation.begin()
            isolation.finish()
            self._isolated = isolation.asked[::-1]
            super()._migrate()
        return last

    def _migrate(self) -> None:
        """Add what is isolated to the batches, if the step goes on; else begin a migration of its own."""
        goes_on = self._until is None or self.control.migrate_pfn < self._until
        if self._batches is not None and goes_on and self._batches.add_isolated(self._isolated):
            self._isolated = NO_PAGES
        else:
            super()._migrate()

    def _carry_out(self, batches: PredictedBatches, most: int | None = None) -> int:
        """Carry out the batches, or the first `most` of them; return the number of pages moved."""
        old, new, failed = batches.carry_out(most)
        if len(old):
            self.moves.append((old, new))
        self.succeeded += len(old)
        self.failed += failed
        return len(old)
