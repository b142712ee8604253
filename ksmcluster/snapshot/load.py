"""Loads snapshot files as captured pages for the simulated machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby, pairwise
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from cluster.arrays.columns import distinct, is_in
from cluster.arrays.words import I64, U16, U32, VPN_MASK, Bool, Digests, empty
from cluster.spec.captured_pages import (
    ORDER_STEP,
    CapturedMapping,
    CapturedMoment,
    CapturedPages,
    CapturedProcess,
    SharedFrames,
)
from cluster.spec.content import PAGE_SIZE
from cluster.spec.scenario import Advice, CapturedLayout, Clones, ProcessSpec, SimulationSpec
from ksmcluster import snapshot
from ksmcluster.report import text
from ksmcluster.snapshot.contents import CheckedNames, CollectedDigests, ContentNames
from ksmcluster.snapshot.huge_pages import HugePageFinder
from ksmcluster.snapshot.metadata import Mapping as SnapshotMapping
from ksmcluster.snapshot.metadata import Metadata, SnapshotProcess
from ksmcluster.snapshot.order import numbered
from ksmcluster.snapshot.reader import SnapshotPages
from ksmcluster.snapshot.schema import KSM, MERGEABLE, SHARED_ZERO, WRITTEN
from ksmcluster.snapshot.sharing import SharingFinder
from ksmcluster.system.errors import UserError

_NEAR = 8
"""Gaps of up to this many pages in a mapping are loaded as part of it."""


class _Moment(NamedTuple):
    """The stored data of a process's pages at one moment."""

    vpn: I64
    content: Digests
    written: Bool


_NO_PAGES = _Moment(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.bool_))


class _Read(NamedTuple):
    """One snapshot: its mergeable pages by process and moment, and the shared frames."""

    metadata: Metadata
    moments: list[list[_Moment]]
    sharing: SharingFinder
    families: tuple[int, ...]
    #: For processes with pinned pages: the pages that ksmd has not merged at the first moment.
    private: dict[int, I64]
    huge: HugePageFinder


def count_rows(paths: Iterable[str]) -> int:
    """Return the number of rows of snapshots. Raises UserError if a file is not a snapshot."""
    rows = 0
    for path in dict.fromkeys(paths):
        with snapshot.Snapshot.open(path) as found:
            rows += found.rows
    return rows


def load_pages(paths: Iterable[str]) -> dict[str, CapturedPages]:
    """Return all mergeable pages of the snapshots of a scenario, by path.

    The result takes 18 bytes per page and moment; loading takes up to three times as much. Raises UserError
    if a file is not a snapshot, or if the digests have different keys.
    """
    with ExitStack() as stack:
        opened = {path: stack.enter_context(snapshot.Snapshot.open(path)) for path in dict.fromkeys(paths)}
        _check_keys(opened)
        checked = CheckedNames()
        read = _read_all(opened, checked)
        clash = checked.clash()
        if clash:
            del read
            collected = CollectedDigests()
            _read_all(opened, collected)
            read = _read_all(opened, collected.free_names())
        # Contents of several snapshots have no common order, and free names are not part of any order.
        alone = [] if clash or len(read) > 1 else list(read)
        ordered = sum(_put_in_order(read[path], opened[path].order) for path in alone)
    common = _common(list(read.values()))
    return {
        path: CapturedPages(
            tuple(_process(of, index, common) for index in range(len(of.moments))),
            of.metadata.moments,
            of.metadata.interval,
            tuple(note.text for note in of.metadata.notes if note.code != "pinned"),
            of.huge.in_parts,
            ordered,
        )
        for path, of in read.items()
    }


def with_layouts(spec: SimulationSpec, snapshots: Mapping[str, CapturedPages]) -> SimulationSpec:
    """Return the scenario with its captured processes, and with the memory that ksmd scans."""
    return replace(
        spec,
        processes=tuple(_with_layout(kind, snapshots) for kind in spec.processes),
        ordered_contents=max((pages.ordered for pages in snapshots.values()), default=0),
    )


def _with_layout(kind: ProcessSpec, snapshots: Mapping[str, CapturedPages]) -> ProcessSpec:
    if kind.snapshot is None:
        return kind
    pages = snapshots[kind.snapshot]
    processes = pages.processes
    advised = [process.advised for process in processes]
    advice = kind.advice or (Advice.AS_CAPTURED if any(advised) else Advice.ALL)
    mergeable = advised if advice is Advice.AS_CAPTURED else [True] * len(processes)
    steps = pages.steps(kind.replay_interval)
    begin = {step.moment: step.time for step in steps if not step.between}
    layout = CapturedLayout(
        families=tuple(process.family for process in processes),
        mergeable=tuple(mergeable),
        times=tuple(step.time for step in steps),
        begins=tuple(begin[process.first] for process in processes),
        pins=any(len(process.pinned) for process in processes),
        huge=kind.huge_pages and any(process.has_huge_pages for process in processes),
    )
    return replace(kind, advice=advice, layout=layout)


def notes(
    spec: SimulationSpec, snapshots: Mapping[str, CapturedPages], simulated_seconds: float
) -> Iterator[str]:
    """Yield the notes on the snapshots of a result, a line each."""
    for kind in spec.processes:
        if kind.snapshot is None:
            continue
        yield from (f"{kind.name}: {note}" for note in snapshots[kind.snapshot].notes)
        yield from _note_of_pins(kind.name, snapshots[kind.snapshot])
        yield from _note_of_huge_pages(kind, snapshots[kind.snapshot])
        captured = len(snapshots[kind.snapshot].processes)
        clones = sum(other.count for other in spec.processes if other.snapshot == kind.snapshot)
        if captured == 1 < clones and kind.clones is Clones.DISTINCT:
            yield (
                f"{kind.name}: {clones:,} clones of one process, so the content that they share is unknown: "
                'this saving is a lower bound; clones = "identical" gives an upper bound'
            )
        last = snapshots[kind.snapshot].steps(kind.replay_interval)[-1]
        if 0 < last.time < simulated_seconds:
            yield (
                f"{kind.name}: the {last.moment + 1:,} moments end at {text.seconds(last.time)} of "
                f"{text.seconds(simulated_seconds)} of simulated time; after that, memory does not change"
            )


def _note_of_pins(name: str, pages: CapturedPages) -> Iterator[str]:
    pinned = sum(len(process.pinned) for process in pages.processes)
    if pinned:
        yield (
            f"{name}: {pinned:,} captured pages are pinned and never merge; which ones is unknown, so they "
            "are spread evenly over the pages of their processes"
        )


def _note_of_huge_pages(kind: ProcessSpec, pages: CapturedPages) -> Iterator[str]:
    if kind.huge_pages and pages.huge_in_parts:
        yield (
            f"{kind.name}: {text.counted(pages.huge_in_parts, 'captured huge page')} taken as small pages: "
            "it is of another size or pinned"
        )
    elif any(process.has_huge_pages for process in pages.processes) and not kind.huge_pages:
        yield (
            f'{kind.name}: huge_pages = "none", so captured huge pages are small pages here: the savings of '
            "KSM may differ, and the lost huge pages are not counted"
        )


def _check_keys(opened: Mapping[str, snapshot.Snapshot]) -> None:
    """Raise UserError for different keys: equal pages would then have different digests."""
    paths = list(opened)
    for path in paths[1:]:
        if not opened[path].comparable(opened[paths[0]]):
            raise UserError(
                f"{path} and {paths[0]} have digests with different keys, so no page of one would merge with "
                "a page of the other: capture them together, or with the same --key-file"
            )


def _read_all(opened: Mapping[str, snapshot.Snapshot], names: ContentNames) -> dict[str, _Read]:
    read = {}
    for path, found in opened.items():
        found.name_contents = names
        read[path] = _read(path, found)
    return read


def _read(path: str, found: snapshot.Snapshot) -> _Read:
    moments = [[_NO_PAGES] * len(found.moments) for _ in found.processes]
    private: dict[int, I64] = {}
    sharing, huge_pages = SharingFinder(len(moments)), HugePageFinder()
    pieces = found.pieces(("frame", "outside", "huge"))
    for (moment, process), of_process in groupby(pieces, key=itemgetter(0, 1)):
        parts = [_part(*piece, sharing) for piece in of_process]
        vpn, content, flags, frame, huge = map(np.concatenate, zip(*parts, strict=True))
        if len(vpn) and vpn[-1] > VPN_MASK:
            raise UserError(
                f"{path}: process {process} has memory at {int(vpn[-1]) * PAGE_SIZE:#x}; addresses from "
                f"{(VPN_MASK + 1) * PAGE_SIZE:#x} on cannot be simulated"
            )
        huge_pages.add(moment, process, vpn, huge, found.processes[process].mappings)
        del parts
        kept = (flags & MERGEABLE != 0) | _were_zero(found.processes[process], flags)
        if not kept.all():
            vpn, content, flags, frame = vpn[kept], content[kept], flags[kept], frame[kept]
        moments[process][moment] = _Moment(vpn, content, flags & WRITTEN != 0)
        if moment == 0 and found.processes[process].pinned_pages:
            private[process] = vpn[flags & (KSM | SHARED_ZERO) == 0]
        sharing.add(process, vpn, frame)
    sharing.end()
    read = _Read(found.metadata, moments, sharing, _families(sharing.shared), private, huge_pages)
    for process, shared in enumerate(sharing.shared):
        huge_pages.settle(process, shared.vpn, _pinned(read, process))
    return read


def _put_in_order(read: _Read, order: Digests) -> int:
    """Number the contents in memcmp order; return an upper bound of the numbers."""
    for moments in read.moments:
        moments[:] = [moment._replace(content=numbered(moment.content, order)) for moment in moments]
    return (len(order) + 1) * ORDER_STEP if len(order) else 0


def _part(
    moment: int, process: int, pages: SnapshotPages, sharing: SharingFinder
) -> tuple[I64, Digests, U16, U32, I64]:
    """Return vpn, content, flags, frame and huge page of the possibly mergeable pages."""
    pages = pages.where(pages.flags & (MERGEABLE | SHARED_ZERO) != 0)
    return pages.vpn, pages.content, pages.flags, sharing.frames_of(moment, process, pages), pages.huge


def _were_zero(process: SnapshotProcess, flags: U16) -> Bool:
    """Return which pages ksmd mapped to the shared zero page: bool[n].

    ksm_stat has only their number; the pages are chosen evenly among those mapped to it.
    """
    chosen = np.zeros(len(flags), np.bool_)
    there = np.flatnonzero(flags & SHARED_ZERO != 0)
    chosen[there[_spread((process.ksm_stat or {}).get("ksm_zero_pages", 0), len(there))]] = True
    return chosen


def _pinned(read: _Read, process: int) -> I64:
    """Return the pages of a process that are pinned at the start: int64[n], ascending.

    VmPin has only their number; they are spread evenly over the pages with their own frames, because pinning
    gives a page its own frame.
    """
    own = read.private.get(process, empty())
    shared = [read.sharing.shared[process].vpn, read.sharing.outside(process).vpn]
    shared += [of.owner_vpn[of.owner == process] for of in read.sharing.shared]
    own = own[~np.isin(own, np.concatenate(shared))]
    pinned: I64 = own[_spread(read.metadata.processes[process].pinned_pages or 0, len(own))]
    return pinned


def _spread(wanted: int, available: int) -> I64:
    """Return `wanted` evenly spaced indices below `available`, or all if there are fewer."""
    count = min(wanted, available)
    return np.arange(count) * available // max(count, 1)


def _families(shared: Sequence[SharedFrames]) -> tuple[int, ...]:
    """Return the first process of each process's family."""
    family = list(range(len(shared)))

    def root(process: int) -> int:
        while family[process] != process:
            family[process] = process = family[family[process]]
        return process

    for process, frames in enumerate(shared):
        for owner in distinct(frames.owner).tolist():
            low, high = sorted((root(owner), root(process)))
            family[high] = low
    return tuple(root(process) for process in range(len(family)))


def _common(snapshots: list[_Read]) -> Digests:
    """Return zeros and the contents that two or more families hold at any moments, ascending."""
    held = [np.zeros(1, np.uint64)] * 2
    for read in snapshots:
        members: dict[int, list[Digests]] = {}
        for family, moments in zip(read.families, read.moments, strict=True):
            members.setdefault(family, []).extend(moment.content for moment in moments)
        held += [distinct(np.concatenate(contents)) for contents in members.values()]
    if len(held) == 3:  # a single family
        return held[0]
    contents = np.concatenate(held)
    held.clear()
    contents.sort()
    common: Digests = distinct(contents[1:][contents[1:] == contents[:-1]])
    return common


def _process(read: _Read, index: int, common: Digests) -> CapturedProcess:
    process, moments = read.metadata.processes[index], read.moments[index]
    return CapturedProcess(
        name=text.one_line(process.name),
        mappings=tuple(_mappings(process.mappings, [moment.vpn for moment in moments])),
        moments=tuple(
            CapturedMoment(of.vpn, of.content, ~is_in(of.content, common), of.written) for of in moments
        ),
        family=read.families[index],
        shared=read.sharing.shared[index],
        outside=read.sharing.outside(index),
        pinned=_pinned(read, index),
        huge=read.huge.bases(index),
        huge_parts=read.huge.parts(index),
        pid=process.pid,
    )


def _mappings(mappings: Sequence[SnapshotMapping], vpns: list[I64]) -> Iterator[CapturedMapping]:
    """Yield the parts of mappings that have pages at any moment; reserved parts are left out."""
    vpn = vpns[0] if len(vpns) == 1 else distinct(np.concatenate(vpns))
    starts = np.array([mapping.start_vpn for mapping in mappings], np.int64)
    far = np.flatnonzero(np.diff(vpn) > _NEAR) + 1
    breaks = distinct(np.concatenate([far, np.searchsorted(vpn, starts), [0, len(vpn)]]))
    of = (np.searchsorted(starts, vpn[breaks[:-1]], "right") - 1).tolist()
    for index, (low, high) in zip(of, pairwise(breaks.tolist()), strict=True):
        mapping, first = mappings[index], int(vpn[low])
        pages = int(vpn[high - 1]) + 1 - first
        yield CapturedMapping(text.one_line(mapping.name), first, pages, advised=bool(mapping.advised))
