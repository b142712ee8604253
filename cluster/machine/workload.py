"""The processes of a scenario: what their pages hold at the start, and how they write over time.

All random numbers come from generators keyed by the seed and the names of the process, region and interval.
So they do not depend on which actor draws them, or when.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from cluster.arrays.columns import is_in
from cluster.arrays.words import I64, U64, mm_id
from cluster.mm.faults import Faults
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import ITEM
from cluster.mm.processes import Processes
from cluster.mm.skip_ages import CYCLE, OLDEST
from cluster.mm.vma import Mm, Vma
from cluster.spec.captured_pages import CapturedMoment, CapturedPages, CapturedProcess, ReplayStep
from cluster.spec.content import mix
from cluster.spec.scenario import (
    Advice,
    Clones,
    ContentModel,
    KsmSpec,
    Law,
    ProcessSpec,
    RegionSpec,
    Rewrite,
    Scope,
    SimulationSpec,
    WriteSpec,
)
from cluster.wire.commands import Populate, Tick

#: First page of a process's first region, and the least distance between regions, in pages: as in scripts.
FIRST_VPN = 0x1000000
REGION_STRIDE = 0x40000

#: From this many expected writes per page on, every page of the hot part is written.
_CERTAIN = 30.0


def stream(*names: object) -> np.random.Generator:
    """Return a generator that depends on these names alone."""
    key = np.frombuffer(blake3(repr(names).encode()).digest(16), np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def content_ids(*names: object, numbers: U64) -> U64:
    """Return content ids, none of them 0, that depend on these names and numbers alone. uint64[n]."""
    base = np.frombuffer(blake3(repr(names).encode()).digest(8), np.uint64)[0]
    ids = mix(numbers ^ base)
    ids[ids == 0] = 1
    return ids


@dataclass(slots=True)
class RegionWorkload:
    """A region of one process of this node."""

    spec: RegionSpec
    #: Index of the process in its kind.
    process: int
    kind: ProcessSpec
    slot0: int
    #: Writes so far, by which the unique contents that they leave are told apart.
    writes: int = 0


@dataclass(slots=True)
class SnapshotReplay:
    """A process that replays a captured one, and the next moment to apply."""

    snapshot: str
    process: CapturedProcess
    kind: ProcessSpec
    #: Index of the process in its kind, and of the captured process in its snapshot.
    index: int
    captured: int
    mm: Mm
    steps: tuple[ReplayStep, ...]
    next: int = 1


class Workload:
    """The workload of one node: creates its processes, and writes to their pages over time."""

    def __init__(
        self,
        node: NodeState,
        faults: Faults,
        processes: Processes,
        spec: SimulationSpec,
        snapshots: Mapping[str, CapturedPages],
    ) -> None:
        self._n = node
        self._faults = faults
        self._processes = processes
        self._spec = spec
        self._snapshots = snapshots
        self._regions: list[RegionWorkload] = []
        self._replays: list[SnapshotReplay] = []

    # At the start.

    def populate(self, command: Populate) -> None:
        """Create this node's processes and write their first contents."""
        mine = np.flatnonzero(command.nodes == self._n.id)
        kinds = command.kinds[mine].tolist()
        first = np.searchsorted(command.kinds, np.arange(len(self._spec.processes)))
        processes = [
            (self._spec.processes[kind], int(i - first[kind])) for kind, i in zip(kinds, mine, strict=True)
        ]
        # The table grows once: each time it copies all columns, and leaves room that is not needed.
        self._n.table.reserve(sum(self._nr_pages(*process) for process in processes))
        for nth, (spec, index) in enumerate(processes):
            mm = Mm(mm_id(self._n.id, nth))
            self._n.spaces.add(mm)
            if spec.snapshot is None:
                self._map_regions(spec, index, mm)
            else:
                self._map_snapshot(spec, index, mm)
        for region in self._regions:
            self._fill(region)
        for replay in self._replays:
            self._apply(replay, 0)

    def draw_ages(self) -> None:
        """Draw how many passes ago each page came to ksmd that keeps track of it.

        Merged pages have ages, too, which count as soon as they are written: no write makes a page young.
        """
        n, ksm = self._n, self._spec.ksm
        if not n.knobs.smart_scan:
            return
        for mm in n.spaces.mms.values():
            for vma in mm.vmas:
                draws = stream("ages", self._spec.seed, mm.id, vma.start)
                items = np.flatnonzero(n.table.state[vma.slot0 : vma.slot0 + vma.pages] & ITEM)
                n.table.ages.set_visits(vma.slot0 + items, _visits(draws, vma.pages, ksm)[items])

    def share_frames(self) -> None:
        """Have captured processes map the frames that they shared at the first moment."""
        families: dict[tuple[str, int], dict[int, SnapshotReplay]] = {}
        for replay in self._replays:
            first = replay.index - replay.captured
            families.setdefault((replay.kind.name, first), {})[replay.captured] = replay
        for members in families.values():
            self._share_within(members)

    def _share_within(self, members: dict[int, SnapshotReplay]) -> None:
        """Share the frames of one copy of the captured processes, by index; this node may have only some."""
        pages = self._snapshots[next(iter(members.values())).snapshot]
        shared, outside, spaces = pages.shared, pages.outside, self._n.spaces
        for process, replay in members.items():
            rows = slice(*np.searchsorted(shared.process, (process, process + 1)).tolist())
            for owner in np.unique(shared.owner[rows]).tolist():
                of_owner = np.flatnonzero(shared.owner[rows] == owner)
                old = spaces.slots(members[owner].mm, shared.owner_vpn[rows][of_owner])
                self._processes.share(old, spaces.slots(replay.mm, shared.vpn[rows][of_owner]))
            mine = np.flatnonzero(outside.process == process)
            slots = spaces.slots(replay.mm, outside.vpn[mine])
            self._faults.add_outside_mappers(slots, outside.mappers[mine])

    def _nr_pages(self, spec: ProcessSpec, index: int) -> int:
        """Return the number of virtual pages of a process."""
        if spec.snapshot is None:
            return sum(region.pages for region in spec.regions)
        processes = self._snapshots[spec.snapshot].processes
        return sum(mapping.pages for mapping in processes[index % len(processes)].mappings)

    def _map_regions(self, spec: ProcessSpec, index: int, mm: Mm) -> None:
        vpn = FIRST_VPN
        for region in spec.regions:
            vma = self._map(mm, vpn, region.pages, region.mergeable, region.policy, spec)
            vpn += -(-region.pages // REGION_STRIDE) * REGION_STRIDE
            self._regions.append(RegionWorkload(region, index, spec, vma.slot0))

    def _map(self, mm: Mm, vpn: int, pages: int, mergeable: bool, policy: object, spec: ProcessSpec) -> Vma:
        policy = policy or spec.policy
        return self._n.spaces.mmap(mm, vpn, pages, policy, mergeable=mergeable)  # type: ignore[arg-type]

    def _map_snapshot(self, spec: ProcessSpec, index: int, mm: Mm) -> None:
        assert spec.snapshot is not None
        pages = self._snapshots[spec.snapshot]
        captured = index % len(pages.processes)
        process = pages.processes[captured]
        for m in process.mappings:
            self._map(mm, m.start, m.pages, m.advised or spec.advice is Advice.ALL, None, spec)
        steps = pages.steps(spec.replay_interval)
        self._replays.append(SnapshotReplay(spec.snapshot, process, spec, index, captured, mm, steps))

    def _fill(self, region: RegionWorkload) -> None:
        if region.spec.model is ContentModel.UNTOUCHED:
            return
        pages = np.arange(region.spec.pages)
        self._faults.write(region.slot0 + pages, self._original(region, pages))
        # First contents are not writes of the workload.
        self._n.counters["pages_written"] -= region.spec.pages

    def _original(self, region: RegionWorkload, pages: I64) -> U64:
        """Return the content ids that the region's model gives to these pages."""
        spec, seed = region.spec, self._spec.seed
        numbers = pages.astype(np.uint64)
        match spec.model:
            case ContentModel.ZERO | ContentModel.UNTOUCHED:
                return np.zeros(len(pages), np.uint64)
            case ContentModel.REPLICATED:
                scope = self._n.id if spec.scope is Scope.NODE else "machine"
                return content_ids("replicated", seed, region.kind.name, spec.name, scope, numbers=numbers)
            case ContentModel.POOL:
                draws = stream("pool", seed, region.kind.name, region.process, spec.name)
                return self._pool_ids(spec, draws.random(spec.pages)[pages])
            case _:
                return content_ids(
                    "unique",
                    seed,
                    region.kind.name,
                    region.process,
                    spec.name,
                    numbers=numbers // np.uint64(spec.copies),
                )

    def _pool_ids(self, spec: RegionSpec, draws: np.typing.NDArray[np.float64]) -> U64:
        """Return content ids of the pool for uniform draws from [0, 1)."""
        if spec.law is Law.ZIPF:
            weight = np.arange(1, spec.distinct + 1, dtype=np.float64) ** -spec.exponent
            edges = np.cumsum(weight) / weight.sum()
            index = np.minimum(np.searchsorted(edges, draws, "right"), spec.distinct - 1)
        else:
            index = (draws * spec.distinct).astype(np.int64)
        return content_ids("pool", self._spec.seed, spec.pool, numbers=index.astype(np.uint64))

    # Over time.

    def tick(self, command: Tick) -> None:
        """Carry out all writes of an interval of simulated time; the last of several to a page counts."""
        for region in self._regions:
            for index, writes in enumerate(region.spec.writes):
                self._write(region, index, writes, command)
        for replay in self._replays:
            while replay.next < len(replay.steps) and replay.steps[replay.next].time < command.stop:
                step = replay.steps[replay.next]
                if step.between:
                    self._write_between(replay, step)
                else:
                    self._apply(replay, step.moment)
                replay.next += 1

    def _write(self, region: RegionWorkload, index: int, writes: WriteSpec, tick: Tick) -> None:
        seconds = seconds_on(writes, tick.start, tick.stop)
        if seconds <= 0.0:
            return
        hot = max(1, round(region.spec.pages * writes.hot_fraction))
        names = (self._spec.seed, region.kind.name, region.process, region.spec.name, index, tick.start)
        draws = stream("write", *names)
        pages = written_pages(draws, hot, writes.rate * seconds)
        if len(pages) == 0:
            return
        region.writes += 1
        self._faults.write(region.slot0 + pages, self._rewritten(region, writes, pages, draws))

    def _rewritten(
        self, region: RegionWorkload, writes: WriteSpec, pages: I64, draws: np.random.Generator
    ) -> U64:
        if writes.content is Rewrite.ORIGINAL:
            return self._original(region, pages)
        if writes.content is Rewrite.REDRAW and region.spec.model is ContentModel.POOL:
            return self._pool_ids(region.spec, draws.random(len(pages)))
        names = (
            "written",
            self._spec.seed,
            region.kind.name,
            region.process,
            region.spec.name,
            region.writes,
        )
        return content_ids(*names, numbers=pages.astype(np.uint64))

    def _apply(self, replay: SnapshotReplay, moment: int) -> None:
        """Write the contents that are new since the moment before, and drop the pages that are gone."""
        now, spaces = replay.process.moments[moment], self._n.spaces
        vpns, content, held = now.vpn, now.content, self._held(replay, now)
        if moment == 0:
            own = ~is_in(vpns, self._inherited(replay))
            self._faults.write(spaces.slots(replay.mm, vpns[own]), held[own])
            self._n.counters["pages_written"] -= int(np.count_nonzero(own))
            return
        before = replay.process.moments[moment - 1]
        old_vpns, old = before.vpn, before.content
        at = np.minimum(np.searchsorted(old_vpns, vpns), max(len(old_vpns) - 1, 0))
        same = (
            (old_vpns[at] == vpns) & (old[at] == content) if len(old_vpns) else np.zeros(len(vpns), np.bool_)
        )
        same &= ~now.written
        self._faults.write(spaces.slots(replay.mm, vpns[~same]), held[~same])
        self._faults.drop(spaces.slots(replay.mm, np.setdiff1d(old_vpns, vpns)))

    def _write_between(self, replay: SnapshotReplay, step: ReplayStep) -> None:
        """Write the pages again that were written before both moments, with the bytes that they hold.

        Where the two moments differ, a page gets content that no other page has.
        """
        before, now = replay.process.moments[step.moment - 1 : step.moment + 1]
        old = np.flatnonzero(before.written)
        old = old[is_in(before.vpn[old], now.vpn[now.written])]
        vpns = before.vpn[old]
        held = self._held(replay, before)[old]
        changed = before.content[old] != now.content[np.searchsorted(now.vpn, vpns)]
        names = ("between", self._spec.seed, replay.kind.name, replay.index, step.time)
        held[changed] = content_ids(*names, numbers=vpns[changed].astype(np.uint64))
        self._faults.write(self._n.spaces.slots(replay.mm, vpns), held)

    def _inherited(self, replay: SnapshotReplay) -> I64:
        """Return the pages of a captured process that map frames of an earlier one, ascending."""
        shared = self._snapshots[replay.snapshot].shared
        low, high = np.searchsorted(shared.process, (replay.captured, replay.captured + 1))
        return shared.vpn[low:high]

    def _held(self, replay: SnapshotReplay, moment: CapturedMoment) -> U64:
        """Return the content ids of this clone at a moment.

        Contents that its family alone has get ids of their own for each clone of the family, the first
        included: no other process has these contents, so nothing else changes.
        """
        if replay.kind.clones is Clones.IDENTICAL:
            return moment.content
        first = replay.index - replay.captured + replay.process.family
        own = content_ids("clone", self._spec.seed, replay.kind.name, first, numbers=moment.content)
        return np.where(moment.own, own, moment.content)


def _visits(draws: np.random.Generator, pages: int, ksm: KsmSpec) -> I64:
    """Return for how many passes pages have been there. int64[pages]"""
    if ksm.history_passes is None:
        return OLDEST + draws.integers(0, CYCLE, pages)
    return draws.integers(0, ksm.history_passes, pages)


def seconds_on(writes: WriteSpec, start: float, stop: float) -> float:
    """Return the seconds within [start, stop) in which the writes are on."""
    start, stop = max(start, writes.start), min(stop, writes.stop)
    if stop <= start:
        return 0.0
    if writes.period == 0.0:
        return stop - start

    def on_until(t: float) -> float:
        cycles, rest = divmod(t - writes.start, writes.period)
        on = writes.duty * writes.period
        return cycles * on + min(rest, on)

    return on_until(stop) - on_until(start)


def written_pages(draws: np.random.Generator, nr_pages: int, expected: float) -> I64:
    """Return the pages that a Poisson process hits, ascending: int64[n], out of [0, nr_pages).

    `expected` is the expected number of writes per page.
    """
    if expected >= _CERTAIN:
        return np.arange(nr_pages)
    if expected > 0.5:
        return np.flatnonzero(draws.random(nr_pages) < -math.expm1(-expected))
    hits = draws.poisson(expected * nr_pages)
    return np.unique(draws.integers(0, nr_pages, hits))
