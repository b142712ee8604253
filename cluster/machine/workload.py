"""The processes of a scenario: what their pages hold at the start, and how they write over time.

Everything random is drawn from a generator keyed by the seed and the names of the process, region and
interval, so it does not depend on which actor draws it, or when.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from cluster.arrays.words import I64, U64, mm_id
from cluster.mm.faults import Faults
from cluster.mm.node_state import NodeState
from cluster.mm.vma import Mm, Vma
from cluster.spec.captured_pages import CapturedMoment, CapturedPages, CapturedProcess
from cluster.spec.content import mix
from cluster.spec.scenario import (
    Clones,
    ContentModel,
    Law,
    ProcessSpec,
    RegionSpec,
    Rewrite,
    Scope,
    SimulationSpec,
    WriteSpec,
)
from cluster.wire.commands import Populate, Tick

#: Where the regions of a process lie, as in the scenario scripts: one behind the other, 1 GiB apart or more.
FIRST_VPN = 0x1000000
REGION_STRIDE = 0x40000

#: Above so many expected writes per page, every page of the hot part is written.
_SURELY = 30.0


def stream(*names: object) -> np.random.Generator:
    """A generator that depends on nothing but these names."""
    key = np.frombuffer(blake3(repr(names).encode()).digest(16), np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def content_ids(*names: object, number: U64) -> U64:
    """Content ids, never 0, that depend on nothing but these names and the numbers."""
    base = np.frombuffer(blake3(repr(names).encode()).digest(8), np.uint64)[0]
    ids = mix(number ^ base)
    ids[ids == 0] = 1
    return ids


@dataclass(slots=True)
class Region:
    """A region of one process of this node."""

    spec: RegionSpec
    #: Index of the process in its kind, and of the process on the whole machine.
    process: int
    kind: ProcessSpec
    mm: int
    slot0: int
    #: Distinguishes the unique contents that writes leave.
    writes: int = 0


@dataclass(slots=True)
class Replay:
    """A captured process that is replayed: its VMAs, and the next moment to apply."""

    process: CapturedProcess
    kind: ProcessSpec
    #: Index of the process in its kind.
    number: int
    mm: Mm
    times: tuple[float, ...]
    next: int = 1


class Workload:
    def __init__(
        self, node: NodeState, faults: Faults, spec: SimulationSpec, snapshots: Mapping[str, CapturedPages]
    ) -> None:
        self._n = node
        self._faults = faults
        self._spec = spec
        self._snapshots = snapshots
        self._regions: list[Region] = []
        self._replays: list[Replay] = []

    # At the start.

    def populate(self, command: Populate) -> None:
        """Creates this node's processes and touches their pages."""
        mine = np.flatnonzero(command.nodes == self._n.id)
        kinds = command.kinds[mine].tolist()
        first = np.searchsorted(command.kinds, np.arange(len(self._spec.processes)))
        processes = [
            (self._spec.processes[kind], int(i - first[kind])) for kind, i in zip(kinds, mine, strict=True)
        ]
        # Growing copies all that there is, and leaves room that is not needed.
        self._n.table.reserve(sum(self._pages(*process) for process in processes))
        for index, (spec, number) in enumerate(processes):
            mm = Mm(mm_id(self._n.id, index))
            self._n.spaces.mms[mm.id] = mm
            if spec.snapshot is None:
                self._map_regions(spec, number, mm)
            else:
                self._map_snapshot(spec, number, mm)
        for region in self._regions:
            self._fill(region)
        for replay in self._replays:
            self._apply(replay, 0)

    def _pages(self, spec: ProcessSpec, number: int) -> int:
        """Virtual pages of a process."""
        mapped = spec.regions if spec.snapshot is None else self._captured(spec, number).mappings
        return sum(part.pages for part in mapped)

    def _captured(self, spec: ProcessSpec, number: int) -> CapturedProcess:
        assert spec.snapshot is not None
        processes = self._snapshots[spec.snapshot].processes
        return processes[number % len(processes)]

    def _map_regions(self, spec: ProcessSpec, number: int, mm: Mm) -> None:
        vpn = FIRST_VPN
        for region in spec.regions:
            vma = self._map(mm, vpn, region.pages, region.mergeable, region.policy, spec)
            vpn += -(-region.pages // REGION_STRIDE) * REGION_STRIDE
            self._regions.append(Region(region, number, spec, mm.id, vma.slot0))

    def _map(self, mm: Mm, vpn: int, pages: int, mergeable: bool, policy: object, spec: ProcessSpec) -> Vma:
        policy = policy or spec.policy
        return self._n.spaces.mmap(mm, vpn, pages, policy, mergeable=mergeable)  # type: ignore[arg-type]

    def _map_snapshot(self, spec: ProcessSpec, number: int, mm: Mm) -> None:
        assert spec.snapshot is not None
        process = self._captured(spec, number)
        for m in process.mappings:
            self._map(mm, m.start, m.pages, m.mergeable, None, spec)
        times = self._snapshots[spec.snapshot].times(spec.replay_interval)
        self._replays.append(Replay(process, spec, number, mm, times))

    def _fill(self, region: Region) -> None:
        if region.spec.model is ContentModel.UNTOUCHED:
            return
        pages = np.arange(region.spec.pages)
        self._faults.write(region.slot0 + pages, self._original(region, pages))
        # What the start wrote is not the workload's doing.
        self._n.counters["pages_written"] -= region.spec.pages

    def _original(self, region: Region, pages: I64) -> U64:
        """The contents that the region's model gives to these pages."""
        spec, seed = region.spec, self._spec.seed
        number = pages.astype(np.uint64)
        match spec.model:
            case ContentModel.ZERO | ContentModel.UNTOUCHED:
                return np.zeros(len(pages), np.uint64)
            case ContentModel.REPLICATED:
                scope = self._n.id if spec.scope is Scope.NODE else "machine"
                return content_ids("replicated", seed, region.kind.name, spec.name, scope, number=number)
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
                    number=number // np.uint64(spec.copies),
                )

    def _pool_ids(self, spec: RegionSpec, draws: np.typing.NDArray[np.float64]) -> U64:
        """Contents of the pool for uniform draws from [0, 1)."""
        if spec.law is Law.ZIPF:
            weight = np.arange(1, spec.distinct + 1, dtype=np.float64) ** -spec.exponent
            edges = np.cumsum(weight) / weight.sum()
            index = np.minimum(np.searchsorted(edges, draws, "right"), spec.distinct - 1)
        else:
            index = (draws * spec.distinct).astype(np.int64)
        return content_ids("pool", self._spec.seed, spec.pool, number=index.astype(np.uint64))

    # Over time.

    def tick(self, command: Tick) -> None:
        """All writes of an interval of simulated time. Of several writes to a page the last one counts."""
        for region in self._regions:
            for number, writes in enumerate(region.spec.writes):
                self._write(region, number, writes, command)
        for replay in self._replays:
            while replay.next < len(replay.times) and replay.times[replay.next] < command.stop:
                self._apply(replay, replay.next)
                replay.next += 1

    def _write(self, region: Region, number: int, writes: WriteSpec, tick: Tick) -> None:
        seconds = seconds_on(writes, tick.start, tick.stop)
        if seconds <= 0.0:
            return
        hot = max(1, round(region.spec.pages * writes.hot_fraction))
        names = (self._spec.seed, region.kind.name, region.process, region.spec.name, number, tick.start)
        draws = stream("write", *names)
        pages = written_pages(draws, hot, writes.rate * seconds)
        if len(pages) == 0:
            return
        region.writes += 1
        self._faults.write(region.slot0 + pages, self._rewritten(region, writes, pages, draws))

    def _rewritten(self, region: Region, writes: WriteSpec, pages: I64, draws: np.random.Generator) -> U64:
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
        return content_ids(*names, number=pages.astype(np.uint64))

    def _apply(self, replay: Replay, moment: int) -> None:
        """Writes what is new since the moment before, and drops the pages that went."""
        now, spaces = replay.process.moments[moment], self._n.spaces
        vpns, content, held = now.vpn, now.content, self._held(replay, now)
        if moment == 0:
            self._faults.write(spaces.slots(replay.mm, vpns), held)
            self._n.counters["pages_written"] -= len(vpns)
            return
        before = replay.process.moments[moment - 1]
        old_vpns, old = before.vpn, before.content
        at = np.minimum(np.searchsorted(old_vpns, vpns), max(len(old_vpns) - 1, 0))
        same = (
            (old_vpns[at] == vpns) & (old[at] == content) if len(old_vpns) else np.zeros(len(vpns), np.bool_)
        )
        self._faults.write(spaces.slots(replay.mm, vpns[~same]), held[~same])
        self._faults.drop(spaces.slots(replay.mm, np.setdiff1d(old_vpns, vpns)))

    def _held(self, replay: Replay, moment: CapturedMoment) -> U64:
        """The contents that this clone of the captured process holds then, with ids of its own for its own.

        The first clone has them too: as no other process holds those contents, nothing else changes.
        """
        if replay.kind.clones is Clones.IDENTICAL:
            return moment.content
        own = content_ids("clone", self._spec.seed, replay.kind.name, replay.number, number=moment.content)
        return np.where(moment.own, own, moment.content)


def seconds_on(writes: WriteSpec, start: float, stop: float) -> float:
    """How long within [start, stop) the writes are on."""
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


def written_pages(draws: np.random.Generator, pages: int, expected: float) -> I64:
    """Which of `pages` pages a Poisson process with so many expected writes per page hits; ascending."""
    if expected >= _SURELY:
        return np.arange(pages)
    if expected > 0.5:
        return np.flatnonzero(draws.random(pages) < -math.expm1(-expected))
    hits = draws.poisson(expected * pages)
    return np.unique(draws.integers(0, pages, hits))
