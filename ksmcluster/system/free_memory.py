"""The free memory of each node, read from the texts of files in /proc (mm/vmstat.c).

Zones of a node are added up. Each function raises ValueError, which says what is wrong with the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cluster.compaction.pages.page_map import MAX_ORDER, PAGEBLOCK_ORDER

#: Orders 0 to 10, as of kernels with pages of 4 KiB.
_ORDERS = MAX_ORDER + 1
#: The most characters of a line in a message.
_SHOWN = 60
_ZONE = re.compile(r"Node +(\d{1,4}), +zone +(\w+)((?: +\d{1,13})+)", re.ASCII)
_FREE = re.compile(r"Node +(\d{1,4}), +zone +(\w+), +type +(\w+)((?: +>?\d{1,13})+)", re.ASCII)
_NODE = re.compile(r"Node +(\d{1,4}), +zone +\w+", re.ASCII)
_MANAGED = re.compile(r"managed +(\d{1,13})", re.ASCII)
_WAITING = re.compile(r"count: +(\d{1,13})", re.ASCII)
_BLOCKS = re.compile(r"Number of blocks type((?: +\w+)+)", re.ASCII)
_BLOCK_ORDER = re.compile(r"Page block order: +(\d{1,3})", re.ASCII)
#: Where the columns of types are in a scenario; all other types are taken as unmovable.
_COLUMN = {"Movable": 1, "CMA": 1, "Reclaimable": 2}
#: Free blocks by order, or pageblocks by type (unmovable, movable, reclaimable), of each node.
ByNode = dict[int, list[int]]


class PageTypes(NamedTuple):
    """The free blocks of each type of pageblock, and the pageblocks of each type.

    is_full: whether all free blocks were counted; newer kernels count at most 100,000 of each order.
    """

    unmovable: ByNode
    movable: ByNode
    reclaimable: ByNode
    pageblocks: ByNode
    is_full: bool


def free_blocks(text: str) -> ByNode:
    """Return the free blocks by order of each node in /proc/buddyinfo."""
    found: ByNode = {}
    zones: set[str] = set()
    for number, line in _lines(text):
        if not (match := _ZONE.fullmatch(line)):
            raise ValueError(f"line {number} is no line of /proc/buddyinfo: {line[:_SHOWN]!r}")
        node, zone, counts = match.groups()
        _check_new(f"zone {zone} of node {node}", zones, number)
        _add(found, int(node), _orders(counts, number))
    if not found:
        raise ValueError("is empty; give the text of /proc/buddyinfo")
    if not text.endswith("\n"):
        raise ValueError("may be cut off: the last line has no line break; add one if it is whole")
    return found


def page_types(text: str) -> PageTypes:
    """Return what /proc/pagetypeinfo says."""
    free: tuple[ByNode, ByNode, ByNode] = ({}, {}, {})
    pageblocks: ByNode = {}
    zones: set[str] = set()
    columns: list[str] = []
    for number, line in _lines(text):
        if match := _FREE.fullmatch(line):
            node, zone, kind, counts = match.groups()
            _check_new(f"zone {zone} of node {node}, type {kind},", zones, number)
            _add(free[_COLUMN.get(kind, 0)], int(node), _orders(counts.replace(">", ""), number))
        elif columns and (match := _ZONE.fullmatch(line)):
            node, zone, counts = match.groups()
            _check_new(f"zone {zone} of node {node}", zones, number)
            _add(pageblocks, int(node), _pageblocks(columns, counts, number))
        elif match := _BLOCKS.fullmatch(line):
            columns = match[1].split()
        elif (match := _BLOCK_ORDER.fullmatch(line)) and int(match[1]) != PAGEBLOCK_ORDER:
            raise ValueError(f"has pageblocks of order {match[1]}; order {PAGEBLOCK_ORDER} can be simulated")
        elif line.startswith("Number of mixed blocks"):
            break
    if not pageblocks or any(by_node.keys() != pageblocks.keys() for by_node in free):
        raise ValueError("is not the whole text of /proc/pagetypeinfo")
    return PageTypes(*free, pageblocks, is_full=">" not in text)


def managed_pages(text: str) -> dict[int, int]:
    """Return the pages of each node in /proc/zoneinfo, without those that were reserved at boot."""
    found: dict[int, int] = {}
    node = 0
    for _, line in _lines(text):
        if match := _NODE.fullmatch(line):
            node = int(match[1])
        elif match := _MANAGED.fullmatch(line):
            found[node] = found.get(node, 0) + int(match[1])
    return found


def waiting_pages(text: str) -> int:
    """Return the pages in /proc/zoneinfo that are free, but wait on per-CPU lists (struct per_cpu_pages)."""
    return sum(int(match[1]) for _, line in _lines(text) if (match := _WAITING.fullmatch(line)))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, with their numbers."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def _check_new(zone: str, zones: set[str], number: int) -> None:
    if zone in zones:
        raise ValueError(f"line {number} has {zone} again; give the text of one moment")
    zones.add(zone)


def _orders(counts: str, number: int) -> list[int]:
    numbers = [int(count) for count in counts.split()]
    if len(numbers) != _ORDERS:
        raise ValueError(f"line {number} has {len(numbers)} orders; with pages of 4 KiB there are {_ORDERS}")
    return numbers


def _pageblocks(columns: Sequence[str], counts: str, number: int) -> list[int]:
    """Return the pageblocks of a line by type of the scenario."""
    numbers = [int(count) for count in counts.split()]
    if len(numbers) != len(columns):
        raise ValueError(f"line {number} has {len(numbers)} numbers for {len(columns)} types")
    found = [0, 0, 0]
    for kind, blocks in zip(columns, numbers, strict=True):
        found[_COLUMN.get(kind, 0)] += blocks
    return found


def _add(found: ByNode, node: int, counts: Sequence[int]) -> None:
    before = found.get(node, [0] * len(counts))
    found[node] = [a + b for a, b in zip(before, counts, strict=True)]
