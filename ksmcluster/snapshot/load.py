"""From snapshot files to what the simulated machine is filled with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cluster.arrays.words import I64, U64
from cluster.spec.captured_pages import (
    CapturedMapping,
    CapturedMoment,
    CapturedPages,
    CapturedProcess,
    OutsideMappers,
    SharedFrames,
)
from cluster.spec.scenario import Advice, CapturedLayout, Clones, ProcessSpec, SimulationSpec
from ksmcluster import snapshot
from ksmcluster.errors import UserError
from ksmcluster.report import text
from ksmcluster.snapshot.metadata import Mapping as SnapshotMapping
from ksmcluster.snapshot.metadata import SnapshotProcess
from ksmcluster.snapshot.reader import SnapshotPages
from ksmcluster.snapshot.schema import KSM, MERGEABLE, SHARED_ZERO, UNKNOWN, WRITTEN

_NEAR = 8
"""Pages of a mapping that are not farther apart are loaded with those between them."""


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """One snapshot, its mergeable pages by process and moment, and who shares frames."""

    found: snapshot.Snapshot
    moments: list[list[SnapshotPages]]
    shared: SharedFrames
    outside: OutsideMappers
    families: tuple[int, ...]


def load_pages(paths: Iterable[str]) -> dict[str, CapturedPages]:
    """Return all mergeable pages of the snapshots of a scenario, by path.

    Raises UserError if a file is no snapshot, or their digests have different keys.
    """
    with ExitStack() as stack:
        opened = {path: stack.enter_context(snapshot.Snapshot.open(path)) for path in dict.fromkeys(paths)}
        _check_keys(opened)
        read = {path: _read(found) for path, found in opened.items()}
    common = _common(list(read.values()))
    return {
        path: CapturedPages(
            tuple(_process(of, index, common) for index in range(len(of.found.processes))),
            of.found.moments,
            of.shared,
            of.outside,
            of.found.metadata.interval,
            tuple(note.text for note in of.found.metadata.notes if note.code != "pinned"),
        )
        for path, of in read.items()
    }


def with_layouts(spec: SimulationSpec, snapshots: Mapping[str, CapturedPages]) -> SimulationSpec:
    """Return the scenario with what its snapshots tell of their processes, and which memory ksmd scans."""
    return replace(spec, processes=tuple(_with_layout(kind, snapshots) for kind in spec.processes))


def _with_layout(kind: ProcessSpec, snapshots: Mapping[str, CapturedPages]) -> ProcessSpec:
    if kind.snapshot is None:
        return kind
    pages = snapshots[kind.snapshot]
    processes = pages.processes
    advised = [process.advised for process in processes]
    advice = kind.advice or (Advice.AS_CAPTURED if any(advised) else Advice.ALL)
    mergeable = advised if advice is Advice.AS_CAPTURED else [True] * len(processes)
    pins = any(len(process.pinned) for process in processes)
    layout = CapturedLayout(
        families=tuple(process.family for process in processes),
        mergeable=tuple(mergeable),
        times=tuple(step.time for step in pages.steps(kind.replay_interval)),
        pins=pins,
    )
    return replace(kind, advice=advice, layout=layout)


def notes(
    spec: SimulationSpec, snapshots: Mapping[str, CapturedPages], simulated_seconds: float
) -> Iterator[str]:
    """What a reader of the result has to know of the snapshots, a line each."""
    for kind in spec.processes:
        if kind.snapshot is None:
            continue
        yield from (f"{kind.name}: {note}" for note in snapshots[kind.snapshot].notes)
        yield from _note_of_pins(kind.name, snapshots[kind.snapshot])
        captured = len(snapshots[kind.snapshot].processes)
        clones = sum(other.count for other in spec.processes if other.snapshot == kind.snapshot)
        if captured == 1 < clones and kind.clones is Clones.DISTINCT:
            yield (
                f"{kind.name}: {clones:,} clones of one process, so what they share is unknown: this "
                'saving is a lower bound, and that with clones = "identical" an upper one'
            )
        last = snapshots[kind.snapshot].steps(kind.replay_interval)[-1]
        if 0 < last.time < simulated_seconds:
            yield (
                f"{kind.name}: {last.moment + 1:,} moments end at {text.seconds(last.time)} of "
                f"{text.seconds(simulated_seconds)} simulated; then memory stands still"
            )


def _note_of_pins(name: str, pages: CapturedPages) -> Iterator[str]:
    pinned = sum(len(process.pinned) for process in pages.processes)
    if pinned:
        yield (
            f"{name}: {pinned:,} captured pages are pinned and never merge; which ones cannot be seen, so "
            "they are spread evenly over the pages of their processes"
        )


def _check_keys(opened: Mapping[str, snapshot.Snapshot]) -> None:
    """Pages whose digests have different keys would never be equal, whatever they held."""
    paths = list(opened)
    for path in paths[1:]:
        if not opened[path].comparable(opened[paths[0]]):
            raise UserError(
                f"{path} and {paths[0]} have digests of different keys, so that no page of one would merge "
                "with one of the other: capture them together, or both with the same --key-file"
            )


def _read(found: snapshot.Snapshot) -> _Read:
    none = SnapshotPages.empty()
    moments = [[none] * len(found.moments) for _ in found.processes]
    for moment, process, pages in found.blocks():
        kept = pages.where((pages.flags & MERGEABLE != 0) | _were_zero(found.processes[process], pages))
        moments[process][moment] = kept
    first = [of_process[0] for of_process in moments]
    shared, outside = _frames(first)
    return _Read(found, moments, shared, outside, _families(len(first), shared))


def _were_zero(process: SnapshotProcess, pages: SnapshotPages) -> NDArray[np.bool_]:
    """Return which pages ksmd mapped to the shared zero page: bool[n].

    ksm_stat has their number alone; which pages they are is drawn, evenly over those mapped there.
    """
    chosen = np.zeros(len(pages.vpn), np.bool_)
    there = np.flatnonzero(pages.flags & SHARED_ZERO != 0)
    chosen[there[_spread((process.ksm_stat or {}).get("ksm_zero_pages", 0), len(there))]] = True
    return chosen


def _pinned(read: _Read, process: int) -> I64:
    """Return the pages of a process that are pinned: int64[n], ascending.

    VmPin has their number alone; they are spread evenly over the pages that have frames of their own, as
    pinning gives a page such a frame.
    """
    pages, shared, outside = read.moments[process][0], read.shared, read.outside
    of_several = (
        shared.owner_vpn[shared.owner == process],
        shared.vpn[shared.process == process],
        outside.vpn[outside.process == process],
    )
    own = pages.vpn[pages.flags & (KSM | SHARED_ZERO) == 0]
    own = own[~np.isin(own, np.concatenate(of_several))]
    pinned: I64 = own[_spread(read.found.processes[process].pinned_pages or 0, len(own))]
    return pinned


def _spread(wanted: int, available: int) -> I64:
    """Return `wanted` indices out of `available`, or all if these are fewer, at even distances."""
    count = min(wanted, available)
    return np.arange(count) * available // max(count, 1)


def _frames(first: Sequence[SnapshotPages]) -> tuple[SharedFrames, OutsideMappers]:
    """Return who maps whose frames at the first moment, as it would be if ksmd had merged nothing."""
    process = np.repeat(np.arange(len(first)), [len(pages.vpn) for pages in first])
    names = ("vpn", "frame", "outside", "flags")
    vpn, frame, outside, flags = (np.concatenate([getattr(pages, name) for pages in first]) for name in names)
    known = np.flatnonzero((frame != UNKNOWN) & (flags & (KSM | SHARED_ZERO) == 0))
    order = known[np.argsort(frame[known], kind="stable")]
    starts = np.ones(len(order), np.bool_)
    starts[1:] = frame[order[1:]] != frame[order[:-1]]
    owner = order[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    sharer = np.flatnonzero(~starts)
    by_page = sharer[np.argsort(order[sharer])]
    rows, owners = order[by_page], owner[by_page]
    shared = SharedFrames(process[owners], vpn[owners], process[rows], vpn[rows])
    mapped = np.sort(order[starts & (outside[order] > 0)])
    return shared, OutsideMappers(process[mapped], vpn[mapped], outside[mapped])


def _families(processes: int, shared: SharedFrames) -> tuple[int, ...]:
    """Return the first process of each process's family."""
    family = list(range(processes))
    pairs = np.unique(np.stack([shared.owner, shared.process]), axis=1).T.tolist()
    for owner, process in pairs:
        roots = sorted({family[owner], family[process]})
        family = [roots[0] if of in roots else of for of in family]
    return tuple(family)


def _common(snapshots: list[_Read]) -> U64:
    """Return the contents that two or more families hold, at whatever moments, and zeros; ascending."""
    held = []
    for read in snapshots:
        for family in sorted(set(read.families)):
            members = [m for m, of in zip(read.moments, read.families, strict=True) if of == family]
            held.append(np.unique(np.concatenate([pages.content for m in members for pages in m])))
    contents, holders = np.unique(np.concatenate([*held, np.zeros(1, np.uint64)]), return_counts=True)
    common: U64 = contents[(holders > 1) | (contents == 0)]
    return common


def _process(read: _Read, index: int, common: U64) -> CapturedProcess:
    process, moments = read.found.processes[index], read.moments[index]
    return CapturedProcess(
        name=process.name,
        mappings=tuple(_mappings(process.mappings, [pages.vpn for pages in moments])),
        moments=tuple(
            CapturedMoment(
                pages.vpn, pages.content, ~np.isin(pages.content, common), pages.flags & WRITTEN != 0
            )
            for pages in moments
        ),
        family=read.families[index],
        pinned=_pinned(read, index),
        pid=process.pid,
    )


def _mappings(mappings: Sequence[SnapshotMapping], vpns: list[I64]) -> Iterator[CapturedMapping]:
    """Yield the parts of mappings that have pages at any moment: what is reserved alone costs nothing."""
    vpn = np.unique(np.concatenate(vpns))
    starts = np.array([mapping.start_vpn for mapping in mappings], np.int64)
    of = np.searchsorted(starts, vpn, "right") - 1
    breaks = np.flatnonzero((np.diff(vpn) > _NEAR) | (np.diff(of) != 0)) + 1
    for low, high in zip([0, *breaks.tolist()], [*breaks.tolist(), len(vpn)], strict=True):
        if low < high:
            mapping, first = mappings[of[low]], int(vpn[low])
            pages = int(vpn[high - 1]) + 1 - first
            yield CapturedMapping(mapping.name, first, pages, advised=bool(mapping.advised))
