"""The free scanner: targets for a compaction, from the top of its zone downwards (mm/compaction.c)."""

from __future__ import annotations

import numpy as np

from cluster.migration import fast_search
from cluster.migration.control import Control, Trace, pageblock_start
from cluster.migration.memory import Memory
from cluster.migration.movable import MigrateMode
from cluster.migration.pages import MAX_BLOCK_PAGES, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, MigrateType, PageMap
from cluster.words import I64

_NO_PAGES: I64 = np.zeros(0, np.int64)


class FreeScanner:
    """Targets of one compaction run (`Targets`): a stack, filled when it is empty."""

    def __init__(self, memory: Memory, control: Control, trace: Trace | None) -> None:
        self._memory = memory
        self._control = control
        self._zone = control.zone
        self._trace = trace
        self._stack = _NO_PAGES
        self._top = 0

    def take(self, count: int) -> I64:
        """compaction_alloc(): from the page fetched last to the first; fetches only if none is left."""
        if self._top == 0:
            self._fetch()
        first = max(self._top - count, 0)
        taken = self._stack[first : self._top][::-1]
        self._top = first
        return taken

    def give_back(self, pfns: I64) -> None:
        """compaction_free(): unused, they are next again."""
        self._top += len(pfns)

    def drain(self) -> I64:
        """What is left at the end of the run."""
        rest = self._stack[: self._top]
        self._stack, self._top = _NO_PAGES, 0
        return rest

    def _fetch(self) -> None:
        """isolate_freepages(): at least as many pages as the batch has, if there are so many."""
        c = self._control
        fetched: list[I64] = []
        if c.rules.fast_search:
            got = fast_search.isolate_freepages(c)
            if got is not None:
                self._add(fetched, got.pages, got.extra)
                if got.around is not None and self._short(fetched) and not c.request.optimistic:
                    self._around(fetched, got.around)
        if not fetched:
            self._scan_down(fetched)
        self._stack = np.concatenate(fetched) if fetched else _NO_PAGES
        self._top = len(self._stack)

    def _add(self, fetched: list[I64], pages: I64, scanned: int) -> None:
        if len(pages):
            fetched.append(pages)
            self._memory.vmstat.compact_isolated += len(pages)
        self._control.free_scanned += scanned

    def _short(self, fetched: list[I64]) -> int:
        """How many pages are still wanted; negative or 0 for none."""
        return max(self._control.wanted - sum(map(len, fetched)), 0)

    def _around(self, fetched: list[I64], pfn: int) -> None:
        """fast_isolate_around(): the rest of the pageblock of a page found by a search."""
        start = max(pageblock_start(pfn), self._zone.start)
        end = min(pageblock_start(pfn) + PAGEBLOCK_PAGES, self._zone.end)
        if self._block(fetched, start, end, 1) == end and self._short(fetched):
            self._zone.pages.skip[pfn >> PAGEBLOCK_ORDER] = True

    def _scan_down(self, fetched: list[I64]) -> None:
        """Pageblock by pageblock downwards, upwards inside each; remembers where it stopped."""
        c = self._control
        start = c.free_pfn
        block = pageblock_start(start)
        lowest = pageblock_start(c.migrate_pfn) + PAGEBLOCK_PAGES
        largest = c.rules.free_stride
        stride = largest if c.request.mode == MigrateMode.ASYNC else 1
        while block >= lowest:
            if self._suitable(block):
                end = min(block + PAGEBLOCK_PAGES, self._zone.end)
                before = len(fetched)
                start = self._block(fetched, start, end, stride)
                if start == end:
                    self._update_skip(block)
                if not self._short(fetched):
                    start = block - PAGEBLOCK_PAGES if start >= end else start
                    break
                if start < end:
                    break
                stride = 1 if len(fetched) > before else min(largest, stride << 1)
            block -= PAGEBLOCK_PAGES
            start = block
        c.free_pfn = start

    def _suitable(self, block: int) -> bool:
        """A MOVABLE pageblock that is not hinted, and does not start a free block of its own size."""
        pages = self._zone.pages
        if pages.pageblock_type[block >> PAGEBLOCK_ORDER] != MigrateType.MOVABLE:
            return False
        pages.merge(block, block + 1)
        free = pages.order[max(block, self._zone.start)] >= PAGEBLOCK_ORDER
        return not free and not self._control.hinted(block)

    def _update_skip(self, block: int) -> None:
        self._zone.pages.skip[block >> PAGEBLOCK_ORDER] = True
        self._zone.cache.free_pfn = min(self._zone.cache.free_pfn, block)

    def _block(self, fetched: list[I64], start: int, end: int, stride: int) -> int:
        """isolate_freepages_block(): whole free blocks until there are enough; where it stopped."""
        pages = self._zone.pages
        heads = self._zone.heads(start, end)
        if stride > 1:
            heads = _on_stride(pages, heads, start, stride)
        sizes = np.int64(1) << pages.order[heads].astype(np.int64)
        total = np.cumsum(sizes)
        wanted = self._short(fetched)
        count = min(int(np.searchsorted(total, wanted)) + 1, len(heads))
        fits = self._above_watermark(sizes[:count], total[:count])
        enough = fits == count and count > 0 and int(total[count - 1]) >= wanted
        heads, sizes, barred = heads[:fits], sizes[:fits], heads[fits:count]
        stop = int(heads[-1] + sizes[-1]) if enough else end
        stop = int(barred[0]) if len(barred) else stop
        scanned = _looked_at(pages, start, min(stop, end), heads, sizes, stride)
        taken = self._take(heads, sizes, contiguous=stride == 1)
        self._add(fetched, taken, scanned)
        if self._trace is not None:
            self._trace.emit("iso_f", start, min(stop, end), scanned, len(taken))
        return min(stop, end)

    def _take(self, heads: I64, sizes: I64, *, contiguous: bool) -> I64:
        if len(heads) == 0:
            return _NO_PAGES
        if contiguous:
            return self._zone.take(int(heads[0]), int(heads[-1] + sizes[-1]))
        spans = zip(heads.tolist(), (heads + sizes).tolist(), strict=True)
        return np.concatenate([self._zone.take(first, last) for first, last in spans])

    def _above_watermark(self, sizes: I64, total: I64) -> int:
        """How many of these blocks may be taken (__isolate_free_page)."""
        zone = self._zone
        if len(sizes) == 0 or zone.free_pages - int(total[-1]) > zone.watermark_min + MAX_BLOCK_PAGES:
            return len(sizes)
        fits = zone.free_pages - (total - sizes) > zone.watermark_min + sizes
        return len(sizes) if fits.all() else int(np.argmin(fits))


def _on_stride(pages: PageMap, heads: I64, start: int, stride: int) -> I64:
    """Those of the free blocks that a scanner with this step lands on."""
    met = []
    position = start
    for head in heads.tolist():
        if head >= position and (head - position) % stride == 0:
            met.append(head)
            position = head + (1 << int(pages.order[head])) - 1 + stride
    return np.array(met, np.int64)


def _looked_at(pages: PageMap, start: int, stop: int, heads: I64, sizes: I64, stride: int) -> int:
    """Pages looked at: those of free blocks count each, compound pages once."""
    if stride == 1:
        compound = pages.compound[start:stop]
        inside = int(((1 << compound[compound > 0].astype(np.int64)) - 1).sum()) if compound.any() else 0
        return stop - start - inside
    count, position = 0, start
    for head, size in zip(heads.tolist(), sizes.tolist(), strict=True):
        count += (head - position) // stride + size
        position = head + size - 1 + stride
    return count + max(-(-(stop - position) // stride), 0)
