"""The programs for measuring ksmd's CPU time: each makes some cost terms large and others small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from cluster.arrays.words import U64
from cluster.script.engine import Engine

#: Small pages per huge page.
HUGE = 512


class Program(NamedTuple):
    """Steps on a fresh machine; each scan is measured."""

    name: str
    run: Callable[[Engine], None]
    smart_scan: int = 0
    #: Whether memory consists of huge pages.
    huge: bool = False
    #: Pages after which ksmd sleeps and its caches are cold; 0: a whole pass without sleep.
    pages_to_scan: int = 0


def programs(largest: int) -> Iterator[Program]:
    """Yield all programs; `largest` is the number of pages of the largest."""
    sizes = [size for size in (256, 1024, 4096, 16384, 65536) if size <= largest]
    for size in sizes:
        yield Program(f"unique {size}", partial(_unique, size, 4))
    size = sizes[-3:][0]
    yield Program(f"rewritten {size}", partial(_rewritten, size))
    yield Program(f"forked {size // 4}", partial(_forked, size // 4))
    for group in (2, 16):
        yield Program(f"merged {size} by {group}", partial(merged, size, group))
    yield Program(f"mixed {size}", partial(_mixed, size))
    yield Program(f"skipped {size}", partial(_unique, size, 8), smart_scan=1)
    for pages in (8, 16):
        yield Program(f"huge {pages}", partial(_huge, pages), huge=True)
    yield Program(f"unique {2 * size} in huge pages", partial(_unique, 2 * size, 2), huge=True)
    yield from _with_sleeps(size, largest)


def _with_sleeps(size: int, largest: int) -> Iterator[Program]:
    """Yield programs for ksmd's default way of working: it sleeps after some pages."""
    for pages, at_once in ((largest // 2, 2000), (size // 2, 100), (size // 8, 25)):
        yield Program(f"unique {pages}, {at_once} at once", partial(_unique, pages, 3), pages_to_scan=at_once)
    for pages, group, at_once in ((largest // 2, 4, 2000), (size // 2, 2, 100), (size // 8, 16, 25)):
        name = f"merged {pages} by {group}, {at_once} at once"
        yield Program(name, partial(merged, pages, group), pages_to_scan=at_once)
    yield Program(f"mixed {size}, 400 at once", partial(_mixed, size), pages_to_scan=400)


def _unique(pages: int, passes: int, machine: Engine) -> None:
    """Run with unique pages."""
    _process(machine, "A", _distinct(pages))
    _scan(machine, passes)


def _rewritten(pages: int, machine: Engine) -> None:
    """Run with pages that change between passes: only checksums are computed."""
    _process(machine, "A", _distinct(pages))
    machine.scan()
    for number in range(1, 6):
        machine.fill("A", "x", np.arange(pages), _distinct(pages, number))
        machine.scan()


def _forked(pages: int, machine: Engine) -> None:
    """Run with three children whose pages find their own frames in the unstable tree."""
    _process(machine, "A", _distinct(pages))
    for child in "BCD":
        machine.fork("A", child)
    _scan(machine, 4)


def merged(pages: int, group: int, machine: Engine) -> None:
    """Run with pages that all merge, `group` into one."""
    _process(machine, "A", np.resize(_distinct(pages // group), pages))
    _scan(machine, 4)


def _mixed(pages: int, machine: Engine) -> None:
    """Run with half of the pages unique, so that they are searched in both trees."""
    half = pages // 2
    _process(machine, "A", np.hstack([np.resize(_distinct(half // 4), half), _distinct(half, 1)]))
    _scan(machine, 4)


def _huge(huge_pages: int, machine: Engine) -> None:
    """Run two processes that share the content of one page per huge page; only these pages are scanned."""
    first = np.arange(huge_pages) * HUGE
    for number, p in enumerate("AB"):
        contents = _distinct(huge_pages * HUGE, number)
        contents[first] = _distinct(huge_pages, 2)
        _process(machine, p, contents, mergeable=first.tolist())
    _scan(machine, 3)


def _process(machine: Engine, p: str, contents: U64, mergeable: list[int] | None = None) -> None:
    """Start a process with these contents; all of its pages, or only the given ones, are mergeable."""
    machine.proc(p)
    machine.map(p, "x", len(contents), None)
    machine.fill(p, "x", np.arange(len(contents)), contents)
    if mergeable is None:
        machine.mergeable(p, "x", 0, len(contents))
    else:
        for page in mergeable:
            machine.mergeable(p, "x", page, 1)


def _scan(machine: Engine, passes: int) -> None:
    for _ in range(passes):
        machine.scan()


def _distinct(pages: int, number: int = 0) -> U64:
    """Return distinct contents, different for each `number`: uint64[pages]."""
    return np.arange(1, pages + 1, dtype=np.uint64) + np.uint64((number + 1) << 32)
