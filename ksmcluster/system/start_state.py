"""The start state of a machine for a scenario of `compact`: keys of [machine], from files or this host."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cluster.compaction.pages.page_map import PAGEBLOCK_ORDER
from cluster.spec.content import PAGE_SIZE
from cluster.spec.input_files import read_input
from cluster.spec.limits import MOST_TEXT
from ksmcluster.system import kernel_files
from ksmcluster.system.errors import UserError
from ksmcluster.system.free_memory import (
    ByNode,
    PageTypes,
    free_blocks,
    managed_pages,
    page_types,
    waiting_pages,
)

#: A part of the memory on per-CPU lists below which they are not worth a note: that of an idle machine.
_FEW_WAITING = 0.01
T = TypeVar("T")


def start_keys(buddyinfo: Path | None, pagetypeinfo: Path | None, *, from_host: bool) -> dict[str, Any]:
    """Return the keys that these files say, or those of this host; none if nothing is asked for.

    Raises UserError if the files are not what they should be.
    """
    if from_host:
        if buddyinfo or pagetypeinfo:
            raise UserError("--from-host: reads the files of this machine; give no other file")
        return _of_host(kernel_files.PROC)
    free = _parsed(buddyinfo, "--buddyinfo", free_blocks) if buddyinfo else None
    if pagetypeinfo:
        return _of_types(pagetypeinfo, "--pagetypeinfo", free)
    return _of_free_blocks(free) if free else {}


def _of_host(proc: Path) -> dict[str, Any]:
    """Return the keys of this machine. /proc/pagetypeinfo is for root alone; without it, less is known."""
    if mmap.PAGESIZE != PAGE_SIZE:
        raise UserError(f"--from-host: pages of {mmap.PAGESIZE} bytes; those of {PAGE_SIZE} can be simulated")
    free = _parsed(proc / "buddyinfo", "--from-host", free_blocks)
    if os.access(proc / "pagetypeinfo", os.R_OK):
        return _of_types(proc / "pagetypeinfo", "--from-host", free)
    managed = _parsed(proc / "zoneinfo", "--from-host", managed_pages)
    most = max((-(-pages >> PAGEBLOCK_ORDER) for pages in managed.values()), default=0)
    return {**_of_free_blocks(free), "memory_per_node": _size(most)}


def host_notes() -> Iterator[str]:
    """Yield what makes the start state of this machine unlike it."""
    text = kernel_files.read(kernel_files.PROC / "zoneinfo") or ""
    waiting, managed = waiting_pages(text), sum(managed_pages(text).values())
    if waiting > _FEW_WAITING * managed:
        yield (
            f"{waiting:,} free pages ({waiting / managed:.0%} of the memory) wait on per-CPU lists and "
            "count as used; compaction by the kernel leaves their pageblocks as they are; better: wait "
            "until the machine has been idle for a minute"
        )


def _of_types(pagetypeinfo: Path, option: str, free: ByNode | None) -> dict[str, Any]:
    types = _parsed(pagetypeinfo, option, page_types)
    try:
        return keys_of_types(types, free)
    except ValueError as error:
        raise UserError(f"{option} {pagetypeinfo}: {error}") from None


def _of_free_blocks(free: ByNode) -> dict[str, Any]:
    """Return the keys of free blocks alone; None replaces what a scenario knows of another machine."""
    unknown = dict.fromkeys(("pageblocks", "free_unmovable", "free_reclaimable"))
    return {"nodes": len(free), "free_blocks": _lists(free), **unknown}


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
    return {
        **_of_free_blocks(free),
        "memory_per_node": _size(max(map(sum, types.pageblocks.values()))),
        "unmovable": 0.0,
        "pageblocks": _lists(types.pageblocks),
        "free_unmovable": _lists(unmovable),
        "free_reclaimable": _lists(reclaimable),
    }


def _by_order(types: PageTypes, node: int) -> Iterator[tuple[int, int, int]]:
    return zip(types.unmovable[node], types.movable[node], types.reclaimable[node], strict=True)


def _lists(of_nodes: ByNode) -> list[list[int]]:
    return [of_nodes[node] for node in sorted(of_nodes)]


def _size(pageblocks: int) -> str:
    return f"{pageblocks * PAGE_SIZE << PAGEBLOCK_ORDER >> 20}MiB"


def _parsed(file: Path, option: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(read_input(file, MOST_TEXT).decode())
    except OSError as error:
        raise UserError(f"{option} {file}: {error.strerror}; give a file that can be read") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{option} {file}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise UserError(f"{option} {file}: {error}") from None
