"""Benchmark of the host's ksmd on real memory: its CPU time for each pass."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from cluster.arrays.words import U64
from cluster.spec.content import PAGE_SIZE, page_bytes
from ksmcluster.bench.tools.shapes import GROUP
from ksmcluster.system.errors import UserError
from ksmcluster.system.kernel_files import KSM
from ksmcluster.validate.access import check_permission, check_unused
from ksmcluster.validate.knobs import Knobs
from ksmcluster.validate.ksmd import WHOLE_PASS, Ksmd
from ksmcluster.validate.session import left_as_found

#: Equal to that of the simulated scenario.
_KNOBS = {"advisor_mode": "none", "smart_scan": 0, "use_zero_pages": 0, "max_page_sharing": 256}
_PAGES_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class KsmdPasses:
    """CPU seconds by phase, and pages_shared and pages_sharing at the end."""

    seconds: dict[str, float]
    merged: tuple[int, int]


def ksmd_passes(pages: int, steady: int, folder: Path = KSM) -> KsmdPasses:
    """Time two passes and `steady` more over the memory that `shapes.grouped` describes; restore settings.

    Raises UserError if KSM is not available, or if another program uses it meanwhile.
    """
    knobs = Knobs(folder)
    check_permission(folder)
    with knobs.locked():
        check_unused(knobs)
        ksmd = Ksmd(knobs)
        with left_as_found(knobs), _memory(pages) as memory:
            ksmd.start()
            for name, value in _KNOBS.items():
                if knobs.exists(name):
                    knobs.must_set(name, value)
            memory.madvise(mmap.MADV_MERGEABLE)
            first, merging, *rest = [_one_pass(ksmd, knobs, pages) for _ in range(2 + steady)]
            merged = knobs.number("pages_shared"), knobs.number("pages_sharing")
    return KsmdPasses({"first": first, "merging": merging, "steady": fmean(rest)}, merged)


def _one_pass(ksmd: Ksmd, knobs: Knobs, pages: int) -> float:
    scanned, before = knobs.number("pages_scanned"), ksmd.cpu_seconds()
    ksmd.step(WHOLE_PASS)
    after = ksmd.cpu_seconds()
    if (visited := knobs.number("pages_scanned") - scanned) != pages:
        raise UserError(f"ksmd visited {visited} pages, not {pages}: another program uses KSM; try again")
    return after - before


@contextmanager
def _memory(pages: int) -> Iterator[mmap.mmap]:
    """Yield 16 mappings without huge pages: each has one page of each group, then as many unique pages."""
    memory = mmap.mmap(-1, pages * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    ids = _contents(pages)
    for start in range(0, pages, _PAGES_AT_ONCE):
        part = slice(start, start + _PAGES_AT_ONCE)
        memory[start * PAGE_SIZE : (start + len(ids[part])) * PAGE_SIZE] = page_bytes(ids[part]).tobytes()
    try:
        yield memory
    finally:
        memory.close()


def _contents(pages: int) -> U64:
    half = pages // (2 * GROUP)
    shared = np.arange(1, half + 1, dtype=np.uint64)
    unique = np.arange(1, half * GROUP + 1, dtype=np.uint64) + np.uint64(1 << 32)
    return np.hstack([np.tile(shared, (GROUP, 1)), unique.reshape(GROUP, half)]).ravel()
