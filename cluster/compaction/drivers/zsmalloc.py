"""zsmalloc and zram: objects of any size packed into pages that can move (mm/zsmalloc.c).

A size class has zspages of one to four pages, which need not lie side by side; an object may cross from one
page to the next. Migration copies a member page whole, and leaves its objects alone. While an object is
accessed, the members of its zspage answer -EAGAIN.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

import numpy as np

from cluster.arrays.words import I64
from cluster.compaction.drivers.base import NO_PAGE, PageDriver
from cluster.compaction.drivers.chance import check_whole
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode
from cluster.compaction.pages.page_map import PageKind
from cluster.spec.content import PAGE_SIZE

MAX_PAGES_PER_ZSPAGE = 4
CLASS_STEP = 16  #: bytes between two size classes
MIN_SIZE = 32
NO_OBJECT = -1


def pages_per_zspage(size: int) -> int:
    """Return the number of pages of a zspage for objects of this size: the one that wastes least."""

    def used(pages: int) -> int:
        total = pages * PAGE_SIZE
        return total // size * size * 100 // total

    return max(range(MAX_PAGES_PER_ZSPAGE, 0, -1), key=lambda pages: (used(pages), -pages))


def class_of(size: int) -> tuple[int, int]:
    """Return (pages, objects) of a zspage of the class for this size; classes with equal pairs are one.

    Raises ValueError for a size that does not fit a page.
    """
    if not 0 < size <= PAGE_SIZE:
        raise ValueError(f"an object of {size} bytes; it must have 1 to {PAGE_SIZE}")
    rounded = max(-(-size // CLASS_STEP) * CLASS_STEP, MIN_SIZE)
    pages = pages_per_zspage(rounded)
    return pages, pages * PAGE_SIZE // rounded


@dataclass(slots=True)
class _SizeClass:
    """members int64[zspages, pages]: page numbers; slots int64[zspages, objects]: objects, or NO_OBJECT.

    A zspage that was freed has NO_PAGE for members and is used again.
    """

    members: I64
    slots: I64
    accessed: I64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def inuse(self) -> I64:
        counts: I64 = np.count_nonzero(self.slots != NO_OBJECT, axis=1)
        return counts

    def grow(self, count: int) -> None:
        """Add room for `count` zspages."""
        more = np.full((count, self.members.shape[1]), NO_PAGE)
        self.members = np.concatenate([self.members, more])
        self.slots = np.concatenate([self.slots, np.full((count, self.slots.shape[1]), NO_OBJECT)])
        self.accessed = np.concatenate([self.accessed, np.zeros(count, np.int64)])


class ZsMalloc(PageDriver):
    """Objects 0, 1, ... in size classes."""

    kind = PageKind.ZSMALLOC
    steady = True

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self._classes: dict[tuple[int, int], _SizeClass] = {}
        # by page number: the zspage and the class it is a member of
        self._zspage: I64 = np.zeros(0, np.int64)
        self._page_class: I64 = np.zeros(0, np.int64)
        self._class_keys: list[tuple[int, int]] = []
        # by object number: class, zspage and slot
        self._place: I64 = np.zeros((0, 3), np.int64)
        self._unfreed: I64 = np.zeros(0, np.int64)
        self._accesses = 0  #: under way now, to objects of any class

    @property
    def pages_used(self) -> int:
        return int(np.count_nonzero(self.frame_of != NO_PAGE))

    def store(self, size: int, count: int) -> I64:
        """Store at most `count` objects of `size` bytes, as memory allows (zs_malloc); return their numbers.

        int64[0..count]. Raises ValueError for a size that does not fit a page.
        """
        key = class_of(size)
        index = self._class_index(key)
        c = self._classes[key]
        room = np.argwhere((c.slots == NO_OBJECT) & (c.members[:, :1] != NO_PAGE))
        missing = -(-max(count - len(room), 0) // key[1])
        if missing and (fresh := self._new_zspages(index, missing)):
            zspages = np.repeat(np.array(fresh), key[1])
            slots = np.tile(np.arange(key[1]), len(fresh))
            room = np.concatenate([room, np.column_stack([zspages, slots])])
        room = room[:count]
        numbers = np.arange(len(self._place), len(self._place) + len(room))
        c.slots[room[:, 0], room[:, 1]] = numbers
        places = np.column_stack([np.full(len(room), index), room])
        self._place = np.concatenate([self._place, places])
        return numbers

    def _class_index(self, key: tuple[int, int]) -> int:
        if key not in self._classes:
            pages, objects = key
            self._classes[key] = _SizeClass(np.zeros((0, pages), np.int64), np.zeros((0, objects), np.int64))
            self._class_keys.append(key)
        return self._class_keys.index(key)

    def _new_zspages(self, index: int, count: int) -> list[int]:
        """Make at most `count` zspages of new pages; return their numbers in the class."""
        key = self._class_keys[index]
        c = self._classes[key]
        pfns = self.memory.alloc_bulk(count * key[0], self.migratetype)
        whole = len(pfns) // key[0]
        self.memory.put(pfns[whole * key[0] :])
        numbers = self.adopt(pfns[: whole * key[0]])
        self.content[pfns[: len(numbers)]] = numbers + 1
        first = len(c.members)
        c.grow(whole)
        c.members[first:] = numbers.reshape(whole, key[0])
        self._zspage = np.concatenate([self._zspage, np.repeat(np.arange(first, first + whole), key[0])])
        self._page_class = np.concatenate([self._page_class, np.full(len(numbers), index)])
        return list(range(first, first + whole))

    def discard(self, units: I64) -> None:
        """Free these objects, and zspages that are empty then (zs_free). int64[n], each once."""
        self._discard(units)

    def _discard(self, objects: I64) -> None:
        for index, key in enumerate(self._class_keys):
            c = self._classes[key]
            places = self._place[objects]
            places = places[places[:, 0] == index]
            c.slots[places[:, 1], places[:, 2]] = NO_OBJECT
            self._free_empty(c)
        self._place[objects] = NO_PAGE

    def _free_empty(self, c: _SizeClass) -> None:
        empty = np.flatnonzero((c.inuse() == 0) & (c.members[:, 0] != NO_PAGE))
        pages = np.concatenate([self._unfreed, c.members[empty].reshape(-1)])
        c.members[empty] = NO_PAGE
        # a page that the VM has locked is freed later
        locked = self.memory.pages.locked(self.frame_of[pages])
        self._unfreed = pages[locked]
        self.free(pages[~locked])

    def begin_access(self, objects: I64) -> None:
        """Keep the pages of these objects from moving until `end_access` (zs_map_object). int64[n]."""
        self._change_accesses(objects, 1)

    def end_access(self, objects: I64) -> None:
        """End what `begin_access` began (zs_unmap_object)."""
        self._change_accesses(objects, -1)

    def _change_accesses(self, objects: I64, step: int) -> None:
        self._accesses += step * len(objects)
        places = self._place[objects]
        for index, key in enumerate(self._class_keys):
            np.add.at(self._classes[key].accessed, places[places[:, 0] == index, 1], step)

    def pages_of(self, objects: I64) -> I64:
        """Return the frames of all members of these objects' zspages, ascending, each once. int64[n]."""
        places = self._place[objects]
        frames = [
            self.frame_of[self._classes[key].members[places[places[:, 0] == index, 1]]].reshape(-1)
            for index, key in enumerate(self._class_keys)
        ]
        return np.unique(np.concatenate(frames)) if frames else np.zeros(0, np.int64)

    def compact(self) -> int:
        """Fill the fullest zspages with objects of the emptiest (zs_compact); return the pages freed."""
        before = self.pages_used
        for index, key in enumerate(self._class_keys):
            self._compact_class(index, self._classes[key])
            self._free_empty(self._classes[key])
        return before - self.pages_used

    def _compact_class(self, index: int, c: _SizeClass) -> None:
        inuse = np.where(c.accessed > 0, 0, c.inuse())
        live = np.flatnonzero(inuse)
        live = live[np.argsort(-inuse[live], kind="stable")]
        keep = -(-int(inuse[live].sum()) // c.slots.shape[1])
        kept, emptied = live[:keep], live[keep:]
        rows, columns = np.nonzero(c.slots[kept] == NO_OBJECT)
        from_rows, from_columns = np.nonzero(c.slots[emptied] != NO_OBJECT)
        to_zspage, to_slot = kept[rows[: len(from_rows)]], columns[: len(from_rows)]
        objects = c.slots[emptied[from_rows], from_columns]
        c.slots[emptied[from_rows], from_columns] = NO_OBJECT
        c.slots[to_zspage, to_slot] = objects
        self._place[objects] = np.column_stack([np.full(len(objects), index), to_zspage, to_slot])

    # migration

    def answers(self, pages: I64, mode: MigrateMode) -> I64 | None:
        if not self._accesses:
            return None
        numbers = self.page_at[pages]
        busy = np.zeros(len(pages), np.bool_)
        for index, key in enumerate(self._class_keys):
            if (accessed := self._classes[key].accessed).any():
                mine = self._page_class[numbers] == index
                busy[mine] = accessed[self._zspage[numbers[mine]]] > 0
        return np.where(busy, -errno.EAGAIN, 0) if busy.any() else None


class Zram(ZsMalloc):
    """A compressed RAM disk of slots 0, 1, ..., each a page of `object_size` bytes after compression."""

    def __init__(self, memory: Memory, *, object_size: int = PAGE_SIZE) -> None:
        super().__init__(memory)
        check_whole("object_size", object_size)
        self._size = object_size
        self.object_of: I64 = np.zeros(0, np.int64)

    def allocate(self, count: int) -> I64:
        """Write at most `count` new slots, as memory allows; return their numbers. int64[0..count]."""
        objects = self.store(self._size, count)
        first = len(self.object_of)
        self.object_of = np.concatenate([self.object_of, objects])
        return np.arange(first, len(self.object_of))

    def discard(self, units: I64) -> None:
        """Discard slots that were written. int64[n], each once."""
        self._discard(self.object_of[units])
        self.object_of[units] = NO_OBJECT
