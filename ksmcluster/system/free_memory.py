"""The free memory of a machine as keys of [machine] in a scenario of `compact`.

Reads the texts of /proc/buddyinfo and /proc/pagetypeinfo (mm/vmstat.c). Zones of a node are added up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cluster.spec.content import PAGE_SIZE
from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_TEXT
from ksmcluster.system.errors import UserError

#: Orders 0 to 10, and pageblocks of 2 MiB, as of kernels with pages of 4 KiB.
_ORDERS = 11
_PAGEBLOCK_ORDER = 9
#: The most characters of a line in a message.
_SHOWN = 60
_ZONE = re.compile(r"Node +(\d{1,4}), +zone +(\w+)((?: +\d{1,13})+)", re.ASCII)
_FREE = re.compile(r"Node +(\d{1,4}), +zone +(\w+), +type +(\w+)((?: +>?\d{1,13})+)", re.ASCII)
_BLOCKS = re.compile(r"Number of blocks type((?: +\w+)+)", re.ASCII)
_BLOCK_ORDER = re.compile(r"Page block order: +(\d{1,3})", re.ASCII)
#: Where the columns of types are in a scenario; all other types are taken as unmovable.
_COLUMN = {"Movable": 1, "CMA": 1, "Reclaimable": 2}
T = TypeVar("T")
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


def start_keys(buddyinfo: Path | None, pagetypeinfo: Path | None) -> dict[str, Any]:
    """Return the keys of [machine] that these files say. Raises UserError if they do not say them."""
    free = None if buddyinfo is None else _parsed(buddyinfo, "--buddyinfo", free_blocks)
    if pagetypeinfo is None:
        return {} if free is None else _of_free_blocks(free)
    types = _parsed(pagetypeinfo, "--pagetypeinfo", page_types)
    try:
        return keys_of_types(types, free)
    except ValueError as error:
        raise UserError(f"--pagetypeinfo {pagetypeinfo}: {error}") from None


def _of_free_blocks(free: ByNode) -> dict[str, Any]:
    return {"nodes": len(free), "free_blocks": _lists(free)}


def keys_of_types(types: PageTypes, free: ByNode | None) -> dict[str, Any]:
    """Return the keys that /proc/pagetypeinfo says; `free` is what /proc/buddyinfo says, if known.

    The two texts are of different moments, so each type gets at most what there is. Raises ValueError if they
    are of different machines.
    """
    if free is None:
        if not types.is_full:
            raise ValueError("has more than 100000 blocks of an order, uncounted; give --buddyinfo, too")
        free = {node: [sum(three) for three in _by_order(types, node)] for node in types.pageblocks}
    if free.keys() != types.pageblocks.keys():
        raise ValueError("has other nodes than --buddyinfo; give two files of one machine")
    unmovable, reclaimable = {}, {}
    for node, counts in free.items():
        by_order = list(zip(_by_order(types, node), counts, strict=True))
        unmovable[node] = [min(u, most) for (u, _, _), most in by_order]
        reclaimable[node] = [min(r, most - min(u, most)) for (u, _, r), most in by_order]
    most = max(map(sum, types.pageblocks.values()))
    return {
        **_of_free_blocks(free),
        "memory_per_node": f"{most * PAGE_SIZE << _PAGEBLOCK_ORDER >> 20}MiB",
        "unmovable": 0.0,
        "pageblocks": _lists(types.pageblocks),
        "free_unmovable": _lists(unmovable),
        "free_reclaimable": _lists(reclaimable),
    }


def _by_order(types: PageTypes, node: int) -> Iterator[tuple[int, int, int]]:
    return zip(types.unmovable[node], types.movable[node], types.reclaimable[node], strict=True)


def _lists(of_nodes: Mapping[int, list[int]]) -> list[list[int]]:
    return [of_nodes[node] for node in sorted(of_nodes)]


def free_blocks(text: str) -> ByNode:
    """Return the free blocks by order of each node in /proc/buddyinfo.

    Raises ValueError, which says what is wrong with the text.
    """
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
    return found


def page_types(text: str) -> PageTypes:
    """Return what /proc/pagetypeinfo says. Raises ValueError, which says what is wrong with the text."""
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
        elif (match := _BLOCK_ORDER.fullmatch(line)) and int(match[1]) != _PAGEBLOCK_ORDER:
            raise ValueError(f"has pageblocks of order {match[1]}; order {_PAGEBLOCK_ORDER} can be simulated")
        elif line.startswith("Number of mixed blocks"):
            break
    if not pageblocks or any(by_node.keys() != pageblocks.keys() for by_node in free):
        raise ValueError("is not the whole text of /proc/pagetypeinfo")
    return PageTypes(*free, pageblocks, is_full=">" not in text)


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


def _parsed(file: Path, option: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(read_input(file, MOST_TEXT).decode())
    except OSError as error:
        raise UserError(f"{option} {file}: {error.strerror}; give a file that can be read") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{option} {file}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise UserError(f"{option} {file}: {error}") from None
