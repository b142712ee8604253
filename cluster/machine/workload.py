"""The processes of a scenario: what their pages hold at the start, and how they write over time.

All random numbers come from generators keyed by the seed and the names of the process, region and interval.
So they do not depend on which actor draws them, or when.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.arrays.columns import distinct, is_in
from cluster.arrays.words import HUGE_SIZE, I64, U64, Slots, empty, mm_id
from cluster.machine.census import ProcessName
from cluster.mm.faults import Faults
from cluster.mm.node_state import NodeState
from cluster.mm.page_state import ITEM
from cluster.mm.processes import Processes
from cluster.mm.skip_ages import CYCLE, OLDEST
from cluster.mm.vma import Mm
from cluster.spec.captured_pages import CapturedMoment, CapturedPages, CapturedProcess, ReplayStep
from cluster.spec.keyed import content_ids, stream
from cluster.spec.plugin import PageWrites
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

if TYPE_CHECKING:
    from cluster.plugins.workload_model import CheckedModel

#: First page of a process's first region, and the least distance between regions, in pages: as in scripts.
FIRST_VPN = 0x1000000
REGION_STRIDE = 0x40000

#: From this many expected writes per page on, every page of the hot part is written.
_CERTAIN = 30.0


@dataclass(slots=True)
class RegionWorkload:
    """A region of one process of this node."""

    spec: RegionSpec
    #: Index of the process in its kind; for a worker, that of its parent.
    process: int
    #: 0 for a process that is no worker, else the worker's number.
    worker: int
    kind: ProcessSpec
    slot0: int
    #: Writes so far, by which the unique contents that they leave are told apart.
    writes: int = 0

    @property
    def writer(self) -> object:
        """Return what names the process in the keys of its writes."""
        return (self.process, self.worker) if self.worker else self.process


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
    #: The last moment that was replayed.
    moment: int = 0


class _Shared(NamedTuple):
    """Pages that came to map what others map, and pages whose frames are mapped outside; int64[n] each."""

    old: Slots
    new: Slots
    outside: Slots


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
        #: By mm.
        self.names: list[ProcessName] = []
        self._regions: list[RegionWorkload] = []
        #: Workload models of users' packages, by kind, region, process and worker.
        self._models = self._make_models()
        self._replays: list[SnapshotReplay] = []
        #: Processes and the workers that they fork.
        self._forks: list[tuple[Mm, Mm]] = []
        #: What a kind of processes replays when, by name.
        self._steps = {
            kind.name: snapshots[kind.snapshot].steps(kind.replay_interval)
            for kind in spec.processes
            if kind.snapshot
        }
        #: Replays that have begun, and do not share frames yet.
        self._begun: list[SnapshotReplay] = []

    def _make_models(self) -> Mapping[tuple[str, str, int, int], CheckedModel]:
        """Make the models of users' packages for the processes of this node.

        They are there before the processes, so that a checkpoint can give them their state.
        """
        if not any(region.plugin for kind in self._spec.processes for region in kind.regions):
            return {}
        from cluster.plugins.workload_model import make_models

        return make_models(self._spec, self._n.id)

    # At the start.

    def populate(self, command: Populate) -> None:
        """Create this node's processes and write their first contents."""
        mine = np.flatnonzero(command.nodes == self._n.id)
        kinds = command.kinds[mine].tolist()
        first = np.searchsorted(command.kinds, np.arange(len(self._spec.processes)))
        processes = [
            (self._spec.processes[kind], int(i - first[kind])) for kind, i in zip(kinds, mine, strict=True)
        ]
        self.names = [
            ProcessName(kind, index, self._captured_name(spec, index))
            for kind, (spec, index) in zip(kinds, processes, strict=True)
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
            if region.worker == 0 or region.spec.pinned:
                self._fill(region)
        for replay in self._replays:
            self._fill_captured(replay)

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
        """Have processes map the frames that they share when they begin: workers, and captured processes.

        Comes at the start, and whenever captured processes have begun later.
        """
        # Memory is pinned after the fork, which takes frames of one's own.
        own = frozenset(region.slot0 for region in self._regions if region.spec.pinned)
        for parent, child in self._forks:
            self._processes.inherit(parent, child, own)
        replays = {(replay.kind.name, replay.index): replay for replay in self._replays}
        shared = [_Shared(empty(), empty(), empty())]
        shared += [each for replay in self._begun for each in self._share_with(replay, replays)]
        old, new, outside = map(np.concatenate, zip(*shared, strict=True))
        table = self._n.table
        if table.initial_frames is None:
            table.keep_initial_frames(outside)
        else:
            table.add_initial_frames(old, new, outside)
        self._forks.clear()
        self._begun.clear()

    def _share_with(
        self, replay: SnapshotReplay, replays: Mapping[tuple[str, int], SnapshotReplay]
    ) -> Iterator[_Shared]:
        """Have a process that begins map the frames that earlier ones map; yield which pages do."""
        first, kind = replay.index - replay.captured, replay.kind.name
        shared, outside, spaces = replay.process.shared, replay.process.outside, self._n.spaces
        for owner in distinct(shared.owner).tolist():
            of_owner = np.flatnonzero(shared.owner == owner)
            old = spaces.slots(replays[kind, first + owner].mm, shared.owner_vpn[of_owner])
            new = spaces.slots(replay.mm, shared.vpn[of_owner])
            self._processes.share(old, new)
            if replay.kind.huge_pages:
                bases = is_in(shared.vpn[of_owner], replay.process.huge)
                self._processes.share_huge(old[bases], new[bases])
            yield _Shared(old, new, empty())
        mapped = spaces.slots(replay.mm, outside.vpn)
        self._faults.add_outside_mappers(mapped, outside.mappers)
        yield _Shared(empty(), empty(), mapped)

    def pin_pages(self) -> None:
        """Pin the pages of pinned regions, and those of captured processes."""
        for region in self._regions:
            if region.spec.pinned:
                self._faults.pin(region.slot0 + np.arange(region.spec.pages))
        for replay in self._replays:
            self._faults.pin(self._n.spaces.slots(replay.mm, replay.process.pinned))

    def _nr_pages(self, spec: ProcessSpec, index: int) -> int:
        """Return the number of virtual pages of a process."""
        if spec.snapshot is None:
            return sum(region.pages for region in spec.regions)
        processes = self._snapshots[spec.snapshot].processes
        return sum(mapping.pages for mapping in processes[index % len(processes)].mappings)

    def _captured_name(self, spec: ProcessSpec, index: int) -> str:
        """Return the name of the captured process that a process replays; "" if it replays none."""
        if spec.snapshot is None:
            return ""
        processes = self._snapshots[spec.snapshot].processes
        return processes[index % len(processes)].name

    def _map_regions(self, spec: ProcessSpec, index: int, mm: Mm) -> None:
        process, worker = divmod(index, 1 + spec.workers)
        if worker:
            self._forks.append((self._n.spaces.mms[mm.id - worker], mm))
        vpn = FIRST_VPN
        for region in spec.regions:
            policy = region.policy or spec.policy
            vma = self._n.spaces.mmap(
                mm, vpn, region.pages, policy, mergeable=region.mergeable, name=region.name
            )
            vpn += -(-region.pages // REGION_STRIDE) * REGION_STRIDE
            self._regions.append(RegionWorkload(region, process, worker, spec, vma.slot0))

    def _map_snapshot(self, spec: ProcessSpec, index: int, mm: Mm) -> None:
        assert spec.snapshot is not None
        pages = self._snapshots[spec.snapshot]
        captured = index % len(pages.processes)
        process = pages.processes[captured]
        for m in process.mappings:
            mergeable = m.advised or spec.advice is Advice.ALL
            self._n.spaces.mmap(mm, m.start, m.pages, spec.policy, mergeable=mergeable, name=m.name)
        steps = self._steps[spec.name]
        self._replays.append(SnapshotReplay(spec.snapshot, process, spec, index, captured, mm, steps))

    def _fill(self, region: RegionWorkload) -> None:
        if region.spec.model is ContentModel.UNTOUCHED:
            return
        pages = np.arange(region.spec.pages)
        bases = region.slot0 + self._huge_pages(region)
        self._faults.fill(region.slot0 + pages, self._original(region, pages), bases)

    def _huge_pages(self, region: RegionWorkload) -> I64:
        """Return the first pages of a region's huge pages, ascending: drawn from its aligned 512 pages."""
        if not region.spec.huge_pages:
            return empty()
        blocks = region.spec.pages // HUGE_SIZE
        draws = stream("huge", self._spec.seed, region.kind.name, region.process, region.spec.name)
        chosen = draws.choice(blocks, round(blocks * region.spec.huge_pages), replace=False)
        return np.sort(chosen) * HUGE_SIZE

    def _original(self, region: RegionWorkload, pages: I64) -> U64:
        """Return the content ids that the region's model gives to these pages."""
        spec, seed = region.spec, self._spec.seed
        numbers = pages.astype(np.uint64)
        match spec.model:
            case ContentModel.ZERO | ContentModel.UNTOUCHED:
                return np.zeros(len(pages), np.uint64)
            case ContentModel.PLUGIN:
                return self._models[region.kind.name, spec.name, region.process, 0].contents()[pages]
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

    def _pool_ids(self, spec: RegionSpec, draws: NDArray[np.float64]) -> U64:
        """Return content ids of the pool for uniform draws from [0, 1)."""
        if spec.law is Law.ZIPF:
            edges = _zipf_edges(spec.distinct, spec.exponent)
            index = np.minimum(np.searchsorted(edges, draws, "right"), spec.distinct - 1)
        else:
            index = (draws * spec.distinct).astype(np.int64)
        return content_ids("pool", self._spec.seed, spec.pool, numbers=index.astype(np.uint64))

    # Over time.

    def tick(self, command: Tick) -> None:
        """Carry out all writes of an interval of simulated time; the last of several to a page counts."""
        for region in self._regions:
            writes = (self._write(region, index, command) for index in range(len(region.spec.writes)))
            modelled = self._modelled_writes(region, command) if self._models else ()
            self._carry_out(region, [write for write in (*writes, *modelled) if len(write.pages)])
        for replay in self._replays:
            due = bisect_left(replay.steps, command.stop, replay.next, key=attrgetter("time"))
            if due > replay.next:
                self._replay(replay, replay.steps[replay.next : due])

    def _write(self, region: RegionWorkload, index: int, tick: Tick) -> PageWrites:
        """Return what the writes of one table to a region leave in an interval."""
        writes = region.spec.writes[index]
        seconds = seconds_on(writes, tick.start, tick.stop)
        if seconds <= 0.0:
            return PageWrites(empty(), None)
        hot = max(1, round(region.spec.pages * writes.hot_fraction))
        names = (self._spec.seed, region.kind.name, region.writer, region.spec.name, index, tick.start)
        draws = stream("write", *names)
        pages = written_pages(draws, hot, writes.rate * seconds)
        if len(pages) == 0 or writes.content is Rewrite.SAME:
            return PageWrites(pages, None)
        region.writes += 1
        return PageWrites(pages, self._rewritten(region, writes, pages, draws))

    def _modelled_writes(self, region: RegionWorkload, tick: Tick) -> Iterator[PageWrites]:
        """Yield what the model of a user's package writes in an interval, if the region has one."""
        model = self._models.get((region.kind.name, region.spec.name, region.process, region.worker))
        if model is not None:
            yield model.writes(tick.start, tick.stop)

    def _carry_out(self, region: RegionWorkload, writes: list[PageWrites]) -> None:
        """Write to a region; of several writes to a page the last one that changes it counts."""
        writes.sort(key=lambda write: write.ids is not None)
        for nth, (pages, ids) in enumerate(writes, 1):
            if nth < len(writes):
                once = ~np.isin(pages, np.concatenate([other.pages for other in writes[nth:]]))
                self._n.counters["pages_written"] += int(np.count_nonzero(~once))
                pages, ids = pages[once], None if ids is None else ids[once]
            if ids is None:
                self._faults.write_same(region.slot0 + pages)
            else:
                self._faults.write(region.slot0 + pages, ids)

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
            region.writer,
            region.spec.name,
            region.writes,
        )
        return content_ids(*names, numbers=pages.astype(np.uint64))

    def _fill_captured(self, replay: SnapshotReplay) -> None:
        """Write the pages of the first moment, except pages that map the frames of others."""
        now = replay.process.moments[0]
        own = ~is_in(now.vpn, replay.process.shared.vpn)
        self._fill_begun(replay, now.vpn[own], self._held(replay, now)[own])
        if replay.process.first == 0:
            self._begun.append(replay)

    def _fill_begun(self, replay: SnapshotReplay, vpns: I64, held: U64) -> None:
        """Write the first contents of a captured process's own pages, into huge pages where it has such."""
        process, slots = replay.process, self._n.spaces.slots(replay.mm, vpns)
        if not replay.kind.huge_pages or replay.moment != process.first:
            self._faults.fill(slots, held, empty())
            return
        parts = process.huge_parts
        apart = is_in(vpns, parts.vpn)
        own = process.huge[~is_in(process.huge, process.shared.vpn)]
        self._faults.fill(slots[~apart], held[~apart], self._n.spaces.slots(replay.mm, own))
        number = parts.number[is_in(parts.vpn, vpns)]
        self._faults.fill_parts(slots[apart], held[apart], number)

    def _replay(self, replay: SnapshotReplay, steps: Sequence[ReplayStep]) -> None:
        """Carry out the next steps of a replay at once; of several writes to a page the last one counts."""
        moments, spaces = replay.process.moments, self._n.spaces
        before = moments[replay.moment]
        replay.moment = max([replay.moment, *(step.moment for step in steps if not step.between)])
        replay.next += len(steps)
        now = moments[replay.moment]
        written = np.concatenate([written_vpns(replay.process, step) for step in steps])
        begins = replay.moment == replay.process.first != 0
        if begins:
            written = written[~is_in(written, replay.process.shared.vpn)]
            self._begun.append(replay)
        vpns = distinct(written)
        vpns = vpns[is_in(vpns, now.vpn)]
        self._n.counters["pages_written"] += len(written) - len(vpns)
        held = self._held(replay, now)[np.searchsorted(now.vpn, vpns)]
        if steps[-1].between:
            self._draw_between(replay, steps[-1], vpns, held)
        if begins:
            self._n.counters["pages_written"] += len(vpns)
            self._fill_begun(replay, vpns, held)
        else:
            self._faults.write(spaces.slots(replay.mm, vpns), held)
        self._faults.drop(spaces.slots(replay.mm, np.setdiff1d(before.vpn, now.vpn)))

    def _draw_between(self, replay: SnapshotReplay, step: ReplayStep, vpns: I64, held: U64) -> None:
        """Give pages that differ between two moments contents that no other page has, in `held`."""
        before, now = replay.process.moments[step.moment - 1 : step.moment + 1]
        vpn = vpns[is_in(vpns, written_vpns(replay.process, step))]
        old, new = (of.content[np.searchsorted(of.vpn, vpn)] for of in (before, now))
        changed = vpn[old != new]
        names = ("between", self._spec.seed, replay.kind.name, replay.index, step.time)
        held[np.searchsorted(vpns, changed)] = content_ids(*names, numbers=changed.astype(np.uint64))

    def _held(self, replay: SnapshotReplay, moment: CapturedMoment) -> U64:
        """Return the content ids of this clone at a moment.

        Contents that its family alone has get ids of their own for each clone of the family, the first
        included: no other process has these contents, so nothing else changes. Where contents have the order
        of memcmp, the new ones have it, too.
        """
        if replay.kind.clones is Clones.IDENTICAL:
            return moment.content
        first = replay.index - replay.captured + replay.process.family
        own = content_ids("clone", self._spec.seed, replay.kind.name, first, numbers=moment.content)
        if self._spec.ordered_contents:
            kinds = takewhile(lambda kind: kind is not replay.kind, self._spec.processes)
            number = np.uint64(sum(kind.count for kind in kinds) + first + 1)
            own = np.where(moment.content < self._spec.ordered_contents, moment.content + number, own)
        return np.where(moment.own, own, moment.content)


@lru_cache(maxsize=4)
def _zipf_edges(distinct: int, exponent: float) -> NDArray[np.float64]:
    """Return where each content's part of [0, 1) ends under Zipf's law. All regions of a pool share it."""
    edges = np.arange(1, distinct + 1, dtype=np.float64)
    edges **= -exponent
    total = edges.sum()
    np.cumsum(edges, out=edges)
    edges /= total
    return edges


def _visits(draws: np.random.Generator, pages: int, ksm: KsmSpec) -> I64:
    """Return for how many passes pages have been there. int64[pages]"""
    if ksm.history_passes is None:
        return OLDEST + draws.integers(0, CYCLE, pages)
    return draws.integers(0, ksm.history_passes, pages)


def written_vpns(process: CapturedProcess, step: ReplayStep) -> I64:
    """Return the pages that a step of a replay writes, ascending: int64[n].

    A moment writes the pages that are new or changed, or were written with the same bytes. Between two
    moments, pages are written that were written before both.
    """
    before, now = process.moments[step.moment - 1 : step.moment + 1]
    if step.between:
        written = now.vpn[now.written]
        return written[is_in(written, before.vpn[before.written])]
    kept = is_in(now.vpn, before.vpn)
    same = np.zeros(len(now.vpn), np.bool_)
    same[kept] = before.content[np.searchsorted(before.vpn, now.vpn[kept])] == now.content[kept]
    pages: I64 = now.vpn[now.written | ~same]
    return pages


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
