"""Foreign pages: pages of one node's driver that lie in frames of another node.

A driver has its pages in page frame numbers of its own node. A page that has left is, for its driver, in a
*proxy*: a page frame number above the node's memory, like those of a device's private memory. Its frame is
owned by `ForeignPages` of the node where it lies, under a name; there it moves like any movable page, and the
home node does not learn of it. Proxy and foreign page share only the name, which is used when the page is
freed.
"""

from __future__ import annotations

import numpy as np

from cluster.arrays.words import I64, U8, Pfns
from cluster.compaction.drivers.base import NO_PAGE, PageDriver
from cluster.compaction.pages.memory import Memory

NO_NAME = -1
_SERIAL_BITS = 40  #: names are `node << 40 | serial number`
_NO_PAGES: I64 = np.zeros(0, np.int64)


class Proxies:
    """The proxies of a node's pages on other nodes: page frame numbers first..count-1 of its page map."""

    def __init__(self, memory: Memory, node: int, first: int) -> None:
        pages = memory.pages
        pages.mark_hole(first, pages.count)
        self._pages = pages
        self._first = first
        self._names: I64 = np.full(pages.count - first, NO_NAME)
        self._next = node << _SERIAL_BITS
        self._dropped: I64 = _NO_PAGES
        memory.proxies = self

    def assign_names(self, pfns: Pfns) -> I64:
        """Give the pages in these proxies new names; return them. int64[n] -> int64[n]."""
        names = np.arange(self._next, self._next + len(pfns))
        self._next += len(pfns)
        self._names[pfns - self._first] = names
        return names

    def spare(self, count: int) -> Pfns:
        """Return at most `count` unused proxies. int64[0..count]."""
        unused = np.flatnonzero(self._pages.refcount[self._first :] == 0)
        return unused[:count] + self._first

    def free(self, pfns: Pfns) -> Pfns:
        """Free the proxies among these freed pages; return the other pages. int64[n] -> int64[0..n]."""
        if len(pfns) == 0 or pfns.max() < self._first:
            return pfns
        proxies = pfns[pfns >= self._first]
        names = self._names[proxies - self._first]
        self.add_dropped(names[names != NO_NAME])
        self._names[proxies - self._first] = NO_NAME
        self._pages.reset(proxies)
        return pfns[pfns < self._first]

    def add_dropped(self, names: I64) -> None:
        """Remember names of freed pages, whose frames on other nodes are not free yet. int64[n]."""
        self._dropped = np.concatenate([self._dropped, names])

    def take_dropped(self) -> I64:
        """Return the remembered names, and forget them. int64[n]."""
        names, self._dropped = self._dropped, self._dropped[:0]
        return names


class ProxyTargets:
    """Targets (`migrate_pages.Targets`) for pages that leave the node: at most `count` proxies."""

    def __init__(self, memory: Memory, proxies: Proxies, count: int) -> None:
        self._pages = memory.pages
        self._spare = proxies.spare(count)

    def take(self, count: int, owed: int = 0, *, together: bool = False, all_first: bool = False) -> Pfns:
        taken, self._spare = self._spare[:count], self._spare[count:]
        self._pages.get(taken)
        return taken

    def give_back(self, pfns: Pfns, *, none_left: bool = False) -> None:
        self._spare = np.concatenate([pfns, self._spare])
        self._pages.put(pfns)

    def take_block(self, order: int) -> None:
        """Return None: large folios do not move between nodes."""


class ForeignPages(PageDriver):
    """Pages of other nodes' drivers in frames of this node. names int64[pages]: by page number."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.names: I64 = _NO_PAGES

    def admit(self, pfns: Pfns, names: I64, kinds: U8) -> None:
        """Adopt frames that hold pages with these names and kinds. int64[n], int64[n], uint8[n]."""
        self.adopt(pfns)
        self.memory.pages.set_kind(pfns, kinds)
        self.names = np.concatenate([self.names, names])

    def leave(self, pfns: Pfns) -> I64:
        """Give up the foreign pages in these proxies, which go to other nodes; return their names.

        int64[n] -> int64[n].
        """
        names = self.names[self.page_at[pfns]]
        self._forget(pfns)
        self.memory.put(pfns)
        return names

    def drop(self, names: I64) -> I64:
        """Free the pages with these names that are on this node, as their drivers have freed them. int64[n].

        Returns the names of pages that the VM has locked; drop them again later. int64[0..n].
        """
        numbers = np.flatnonzero(self.frame_of != NO_PAGE)
        numbers = numbers[np.isin(self.names[numbers], names)]
        locked = self.memory.pages.locked(self.frame_of[numbers])
        self.free(numbers[~locked])
        later: I64 = self.names[numbers[locked]]
        return later
