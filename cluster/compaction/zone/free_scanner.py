"""The free scanner: targets for a compaction, from the top of its zone downwards (mm/compaction.c)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.movable.targets import BlockLists
from cluster.compaction.pages.buddy import by_order, pages_of
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode
from cluster.compaction.pages.page_map import (
    MAX_BLOCK_PAGES,
    MAX_ORDER,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    TAIL,
    MigrateType,
)
from cluster.compaction.zone import fast_search
from cluster.compaction.zone.compact_control import Control, Trace, pageblock_start
from cluster.compaction.zone.free_pages import FreePages

_NO_PAGES: I64 = np.zeros(0, np.int64)
_MOVABLE = int(MigrateType.MOVABLE)
_LOOK_PAGES = 32 * PAGEBLOCK_PAGES  #: pages looked at together where no other compactor comes in between


class FreeScanner:
    """Targets of one compaction run (`Targets`): a stack, filled when it is empty."""

    def __init__(self, memory: Memory, control: Control, trace: Trace | None) -> None:
        self._memory = memory
        self._control = control
        self._zone = control.zone
        self._trace = trace
        self._stack = _NO_PAGES
        self._top = 0
        self._missing = 0  #: pages still to be fetched, in the middle of a fetch
        self._free: FreePages | None = None
        self._by_order = control.rules.targets_by_order
        #: in place of the stack, where large folios need blocks
        self._lists = BlockLists() if self._by_order and memory.pages.folio_order is not None else None
        self._orders: list[I64] = []  #: of the blocks fetched, as `by_order` takes them
        self._fetched_none = False  #: what the next fetch has come to, if it is made already
        self._alone = False
        self._unmarked: list[I64] = []
        self._watched = -1
        self._near: Callable[[], int] = int
        #: pages of earlier batches that are free as soon as their targets are in use
        self.owed = 0

    def take(self, count: int, owed: int = 0, *, together: bool = False, all_first: bool = False) -> I64:
        """Take from the page fetched last to the first; fetch only if none is left (compaction_alloc)."""
        if self.empty and self._fetched_none:
            self._fetched_none = False
            return _NO_PAGES
        if self.empty:
            self._control.owed = self.owed + owed
            self._fetch(count if together and self._lists is None else 1, all_first=all_first)
            self._control.owed = 0
        if self._lists is not None:
            return self._take_one(self._lists)
        first = max(self._top - count, 0)
        taken = self._stack[first : self._top][::-1]
        self._top = first
        if self._by_order:
            self._control.wanted -= len(taken)
        return taken

    def _take_one(self, lists: BlockLists) -> I64:
        pfn = lists.take(0)
        self._control.wanted -= pfn is not None
        return _NO_PAGES if pfn is None else np.array([pfn])

    def take_block(self, order: int) -> int | None:
        """Take a block of 2^order pages of those fetched; fetch only if there is none of any order."""
        if self._lists is None:
            return None
        if self.empty:
            self._fetch(1, all_first=False)
        pfn = self._lists.take(order)
        self._control.wanted -= 0 if pfn is None else 1 << order
        return pfn

    @property
    def empty(self) -> bool:
        """Return whether the next target has to be fetched."""
        return not self._lists if self._lists is not None else self._top == 0

    def give_back(self, pfns: I64, *, none_left: bool = False) -> None:
        """Take back unused pages; they are the next ones again (compaction_free)."""
        self._fetched_none = none_left
        if self._lists is not None:
            self._lists.give_back(pfns)
        else:
            self._stack = np.concatenate([self._stack[: self._top], pfns[::-1]])
            self._top = len(self._stack)
        if self._by_order:
            self._control.wanted += len(pfns)

    def drain(self) -> I64:
        """Return the targets that are left at the end of the run."""
        self.mark()
        rest = self._stack[: self._top] if self._lists is None else self._lists.pages()
        self._stack, self._top = _NO_PAGES, 0
        return rest

    def begin_alone(self, near: Callable[[], int]) -> None:
        """Begin a time in which no other compactor takes or frees pages, or looks at those taken.

        near: called before free pages near the watched page are merged; frees pages that are owed, and
        returns how many. `end_alone` ends the time.
        """
        self._alone, self._free = True, None
        self._near, self._watched = near, -1

    def watch(self, pfn: int) -> None:
        """Call `near` before coming near this page."""
        self._watched = pfn | (MAX_BLOCK_PAGES - 1)

    def end_alone(self) -> None:
        self.mark()
        self._alone = False
        self._near, self._watched = int, -1

    def mark(self) -> None:
        """Mark the pages taken since `begin_alone` as used; others may follow."""
        self._free = None
        if self._unmarked:
            self._zone.pages.mark_used(np.concatenate(self._unmarked))
            self._unmarked = []

    def _fetch(self, count: int, *, all_first: bool) -> None:
        """Fetch targets for the whole batch, or all that there are (isolate_freepages).

        An optimistic run does less: it searches for one block after the other, until they have `count` pages.
        """
        c = self._control
        fetched: list[I64] = []
        above = _NO_PAGES
        self._missing, self._orders = c.wanted, []
        if c.rules.fast_search and c.request.order > 0:
            optimistic = c.request.optimistic
            found = fast_search.isolate_freepages(c, count if optimistic else 1, all_first=all_first)
            pages = self._take_found(fetched, found)
            if optimistic and self._lists is None and len(pages):
                above = (
                    pages[::-1] if self._by_order else pages_of(found.heads[::-1], 1 << found.orders[::-1])
                )
                if not found.failed:
                    self._stack, self._top = above, len(above)
                    return
                # as they are in use by then, the search that failed begins a fetch of its own
                fetched.clear()
                self._orders.clear()
                self._missing = c.wanted - (len(pages) if self._by_order else 0)
                c.owed += 0 if all_first else len(pages)
            if found.around is not None and self._missing > 0 and not optimistic:
                self._around(fetched, found.around)
        if not fetched:
            self._scan_down(fetched)
        self._fetched_none = len(above) > 0 and not fetched
        self._store(fetched, above)

    def _take_found(self, fetched: list[I64], found: fast_search.Found) -> I64:
        """Take the blocks found by searches; return their pages. int64[n]"""
        pages = pages_of(found.heads, 1 << found.orders)
        self._note_orders(pages)
        self._zone.use_unlisted(pages)
        self._add(fetched, pages, found.scanned)
        return pages

    def _store(self, fetched: list[I64], above: I64) -> None:
        """Lay up what was fetched; the pages `above` are the next ones. int64[n]"""
        if self._lists is not None:
            for pages, orders in zip(fetched, self._orders, strict=True):
                self._lists.add(pages[orders >= 0], orders[orders >= 0])
            return
        stack = fetched[0] if len(fetched) == 1 else np.concatenate([_NO_PAGES, *fetched])
        if self._by_order and fetched:
            stack = by_order(stack, np.concatenate(self._orders))[::-1]
        self._stack = np.concatenate([stack, above]) if len(above) else stack
        self._top = len(self._stack)

    def _add(self, fetched: list[I64], pages: I64, scanned: int) -> None:
        if len(pages):
            fetched.append(pages)
            self._missing -= len(pages)
            self._memory.vmstat.compact_isolated += len(pages)
        self._control.free_scanned += scanned

    def _around(self, fetched: list[I64], pfn: int) -> None:
        """Fetch the rest of the pageblock of a page found by a search (fast_isolate_around)."""
        start = max(pageblock_start(pfn), self._zone.start)
        end = min(pageblock_start(pfn) + PAGEBLOCK_PAGES, self._zone.end)
        if self._block(fetched, start, end, 1) == end:
            self._zone.pages.set_skip(pfn >> PAGEBLOCK_ORDER)

    def _scan_down(self, fetched: list[I64]) -> None:
        """Fetch pageblock by pageblock downwards, upwards inside each; remember where it stopped."""
        c = self._control
        start = c.free_pfn
        block = pageblock_start(start)
        lowest = pageblock_start(c.migrate_pfn) + PAGEBLOCK_PAGES
        largest = c.rules.largest_stride
        stride = largest if c.request.mode == MigrateMode.ASYNC else 1
        while block >= lowest:
            if block <= self._watched:
                self._watched = -1
                c.owed -= self._near()
            before = len(fetched)
            if (run := self._run(start, lowest, stride)) is not None:
                block, start = self._use_run(fetched, start, *run)
                end = block + PAGEBLOCK_PAGES
            elif barren := self._barren(start, lowest):
                stride = self._pass_by(start, barren, stride)
                start = block = block - barren * PAGEBLOCK_PAGES
                continue
            elif self._suitable(block):
                end = min(block + PAGEBLOCK_PAGES, self._zone.end)
                start = self._block(fetched, start, end, stride)
            else:
                start = block = block - PAGEBLOCK_PAGES
                continue
            if start == end:
                self._update_skip(block, block + PAGEBLOCK_PAGES)
            if self._missing <= 0:
                start = block - PAGEBLOCK_PAGES if start >= end else start
                break
            if start < end:
                break
            stride = 1 if len(fetched) > before else min(largest, stride << 1)
            start = block = block - PAGEBLOCK_PAGES
        c.free_pfn = start

    def _barren(self, start: int, lowest: int) -> int:
        """Return how many pageblocks from that of `start` down to `lowest` have no free pages."""
        lowest = max(lowest, self._watched + 1)
        return self._free_pages(start).barren(start, lowest) if self._alone else 0

    def _pass_by(self, start: int, count: int, stride: int) -> int:
        """Pass by `count` pageblocks without free pages from that of `start` on; return the next stride."""
        block = pageblock_start(start)
        pages = block + PAGEBLOCK_PAGES - start
        for number in range(count):
            self._control.free_scanned += self._barren_count(block - number * PAGEBLOCK_PAGES, pages, stride)
            stride = min(self._control.rules.largest_stride, stride << 1)
            pages = PAGEBLOCK_PAGES
        self._update_skip(block - (count - 1) * PAGEBLOCK_PAGES, block + PAGEBLOCK_PAGES)
        return stride

    def _barren_count(self, block: int, pages: int, stride: int) -> int:
        """Return how many pages it looks at in the last `pages` of a pageblock without free ones."""
        page_map = self._zone.pages
        return 1 if page_map.any_huge and page_map.huge[block >> PAGEBLOCK_ORDER] else -(-pages // stride)

    def _run(self, start: int, lowest: int, stride: int) -> tuple[I64, int, int] | None:
        """Return what may be taken at once from `start` down to `lowest`, as FreePages.take_run() does."""
        if stride != 1 or not self._alone or not self._plenty(self._missing + PAGEBLOCK_PAGES):
            return None
        return self._free_pages(start).take_run(start, max(lowest, self._watched + 1), self._missing)

    def _use_run(self, fetched: list[I64], start: int, taken: I64, bottom: int, stop: int) -> tuple[int, int]:
        """Take all free pages from `start` down to those of pageblock `bottom` before `stop`."""
        block = pageblock_start(start)
        self._use(taken)
        self._add(fetched, taken, block - start + block - bottom + stop - bottom)
        if bottom < block:
            self._update_skip(bottom + PAGEBLOCK_PAGES, block + PAGEBLOCK_PAGES)
        return bottom, stop

    def _plenty(self, most: int) -> bool:
        """Return whether `most` pages can be taken without coming near the watermark."""
        zone = self._zone
        free = zone.free_pages + self._control.owed
        return free - most - PAGEBLOCK_PAGES > zone.watermark_min + MAX_BLOCK_PAGES

    def _suitable(self, block: int) -> bool:
        """Return whether pages are taken from this pageblock."""
        pages, number = self._zone.pages, block >> PAGEBLOCK_ORDER
        if pages.stale[block >> MAX_ORDER] and pages.pageblock_type[number] == _MOVABLE:
            pages.merge(block, block + 1)
        return bool(self._suitable_blocks(number, pages.order[max(block, self._zone.start)]))

    def _suitable_blocks(self, blocks: int | slice, order: Any) -> Any:
        """Return which of these MOVABLE pageblocks have no hint, and are not one free block. bool, bool[n].

        order: of the first page of each, int8 or int8[n] (suitable_migration_target).
        """
        pages = self._zone.pages
        suitable = (pages.pageblock_type[blocks] == _MOVABLE) & (order < PAGEBLOCK_ORDER)
        return suitable if self._control.request.ignore_skip_hint else suitable & ~pages.skip[blocks]

    def _update_skip(self, low: int, high: int) -> None:
        self._zone.pages.set_skip(slice(low >> PAGEBLOCK_ORDER, high >> PAGEBLOCK_ORDER))
        low -= PAGEBLOCK_PAGES if self._control.rules.starts_below else 0
        self._zone.cache.free_pfn = min(self._zone.cache.free_pfn, low)

    def _block(self, fetched: list[I64], start: int, end: int, stride: int) -> int:
        """Fetch whole free blocks until there are enough; return the end (isolate_freepages_block)."""
        free = self._free_pages(start)
        first, last = free.span(start, end)
        if first == last:
            stop, scanned, taken = end, self._barren_count(start, end - start, stride), _NO_PAGES
        elif stride == 1 and self._plenty(0) and self._zone.pages.order[start] != TAIL:
            # all of them may be taken
            taken = free.take(first, last, self._missing)
            stop = int(taken[-1]) + 1 if len(taken) >= self._missing else end
            scanned = stop - start
            self._use(taken)
        else:
            stop, scanned, taken = self._block_by_block(start, end, self._missing, stride)
        self._add(fetched, taken, scanned)
        if self._trace is not None:
            self._trace.emit("iso_f", start, stop, scanned, len(taken))
        return stop

    def _use(self, taken: I64) -> None:
        """Take these pages, which are whole free blocks."""
        self._note_orders(taken)
        if self._alone:
            self._zone.unlist(taken)
            self._unmarked.append(taken)
        else:
            self._zone.use(taken)

    def _met_heads(self, free: I64, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield first page and order of free blocks and large folios, ascending; orders of folios below 0."""
        pages = self._zone.pages
        found = zip(free.tolist(), pages.order[free].tolist(), strict=True)
        if pages.folio_order is None:
            yield from found
            return
        folios = pages.folio_order[start:end].nonzero()[0] + start
        yield from sorted([*found, *zip(folios.tolist(), (-pages.folio_order[folios]).tolist(), strict=True)])

    def _note_orders(self, taken: I64) -> None:
        """Remember of which blocks these free pages are."""
        if self._by_order and len(taken):
            self._orders.append(self._zone.pages.order[taken].astype(np.int64))

    def _free_pages(self, start: int) -> FreePages:
        """Return the free pages of the pageblock of `start`, and of some below it."""
        pages = self._zone.pages
        if pages.stale[start >> MAX_ORDER]:
            pages.merge(start, start + 1)
        if self._free is None or start < self._free.low or not self._alone:
            self._free = self._look(start)
        return self._free

    def _look(self, start: int) -> FreePages:
        """Return the free pages of the pageblock; where the scanner is alone, of merged ones below it too."""
        pages, block = self._zone.pages, pageblock_start(start)
        low = block
        if self._alone:
            low = max(block - _LOOK_PAGES, pageblock_start(self._control.migrate_pfn)) + PAGEBLOCK_PAGES
            stale = pages.stale[low >> MAX_ORDER : block >> MAX_ORDER].nonzero()[0]
            low = max(low, ((low >> MAX_ORDER) + int(stale[-1]) + 1) << MAX_ORDER) if len(stale) else low
        high = block + PAGEBLOCK_PAGES
        blocks = slice(low >> PAGEBLOCK_ORDER, high >> PAGEBLOCK_ORDER)
        suitable = self._suitable_blocks(blocks, pages.order[low:high:PAGEBLOCK_PAGES])
        suitable[-1] &= high <= self._zone.end
        return FreePages(pages.order, low, high, suitable)

    def _block_by_block(self, start: int, end: int, wanted: int, stride: int) -> tuple[int, int, I64]:
        """Take free blocks with a stride, or down to the watermark (__isolate_free_page).

        Return where it stopped, the pages scanned, and the pages taken.
        """
        heads = self._zone.heads(start, end)
        if len(heads) == 0:
            return end, -(-(end - start) // stride), _NO_PAGES
        spare = self._control.free_pages - self._zone.watermark_min
        stop, position, scanned, total = end, start, 0, 0
        met: list[tuple[int, int]] = []
        for head, order in self._met_heads(heads, start, end):
            if head < position or (head - position) % stride:
                continue
            size = 1 << abs(order)
            if order < 0:
                scanned += (head - position) // stride + size
                position = head + size - 1 + stride
                continue
            if spare - total <= size:
                stop = head
                break
            met.append((head, size))
            total += size
            scanned += (head - position) // stride + size
            position = head + size - 1 + stride
            if total >= wanted:
                stop = head + size
                break
        taken = pages_of(*np.array(met, np.int64).reshape(-1, 2).T)
        self._note_orders(taken)
        self._zone.use(taken)
        return stop, scanned + max(-(-(stop - position) // stride), 0), taken
