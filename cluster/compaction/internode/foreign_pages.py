"""Pages of one node that lie in frames of another one.

A driver has its pages in page frame numbers of its own node. One that has left is, for its driver, in a
*proxy*: a page frame number above the node's memory, as a device's private memory has them. The frame itself
belongs to the *guests* of the node where it is, under a name; there it moves like any page that can, without
anybody's knowing at home. Proxy and guest find each other by the name alone, and only when the page is freed.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, U8
from cluster.compaction.drivers.base import NO_PAGE, PageDriver
from cluster.compaction.pages.memory import Memory

NO_NAME = -1
_SERIAL_BITS = 40  #: names are `node << 40 | serial number`
_NO_PAGES: I64 = np.zeros(0, np.int64)


class Proxies:
    """Page frame numbers first..count-1 of a node's page map, for its pages that are elsewhere."""

    def __init__(self, memory: Memory, node: int, first: int) -> None:
        pages = memory.pages
        pages.refcount[first:] = 0
        self._pages = pages
        self._first = first
        self._names: I64 = np.full(pages.count - first, NO_NAME)
        self._next = node << _SERIAL_BITS
        #: names of pages that were freed here, and may still be somebody's guests
        self.dropped: I64 = _NO_PAGES
        memory.proxies = self

    def name(self, pfns: I64) -> I64:
        """New names for the pages in these proxies. int64[n] -> int64[n]."""
        names = np.arange(self._next, self._next + len(pfns))
        self._next += len(pfns)
        self._names[pfns - self._first] = names
        return names

    def spare(self, count: int) -> I64:
        """At most `count` proxies that nobody uses. int64[0..count]."""
        unused = np.flatnonzero(self._pages.refcount[self._first :] == 0)
        return unused[:count] + self._first

    def free(self, pfns: I64) -> I64:
        """Of these freed pages, proxies are used no longer; the others. int64[n] -> int64[0..n]."""
        if len(pfns) == 0 or pfns.max() < self._first:
            return pfns
        mine = pfns[pfns >= self._first]
        names = self._names[mine - self._first]
        self.dropped = np.concatenate([self.dropped, names[names != NO_NAME]])
        self._names[mine - self._first] = NO_NAME
        for array in (self._pages.mapping, self._pages.flags, self._pages.refcount):
            array[mine] = 0
        return pfns[pfns < self._first]


class ProxyTargets:
    """New pages (`migrate.Targets`) for pages that leave the node: at most `count` proxies."""

    def __init__(self, memory: Memory, proxies: Proxies, count: int) -> None:
        self._refcount = memory.pages.refcount
        self._spare = proxies.spare(count)
        self._used = 0

    def take(self, count: int, owed: int = 0) -> I64:
        taken = self._spare[self._used : self._used + count]
        self._used += len(taken)
        self._refcount[taken] = 1
        return taken

    def give_back(self, pfns: I64) -> None:
        self._used -= len(pfns)
        self._refcount[pfns] = 0


class ForeignPages(PageDriver):
    """Pages of other nodes' drivers in frames of this one. names int64[pages]: by page number."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.names: I64 = _NO_PAGES

    def admit(self, pfns: I64, names: I64, kinds: U8) -> None:
        """These frames, in use by nobody else, hold pages with these names and kinds. int64[n], uint8[n]."""
        self.adopt(pfns)
        self.memory.pages.kind[pfns] = kinds
        self.names = np.concatenate([self.names, names])

    def leave(self, pfns: I64) -> I64:
        """The guests in these proxies live on other nodes from now on; their names. int64[n] -> int64[n]."""
        names = self.names[self.page_at[pfns]]
        self._forget(pfns)
        self.memory.put(pfns)
        return names

    def drop(self, names: I64) -> I64:
        """Pages with these names were freed by their drivers, and so are those that are here. int64[n].

        Returns the names of those that the VM has locked, to be dropped again later. int64[0..n].
        """
        numbers = np.flatnonzero(self.frame_of != NO_PAGE)
        numbers = numbers[np.isin(self.names[numbers], names)]
        locked = self.memory.pages.locked(self.frame_of[numbers])
        self.free(numbers[~locked])
        later: I64 = self.names[numbers[locked]]
        return later
