"""The machine as an engine of scripts: names for processes and regions, and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cluster.arrays.words import FRAME_BITS, I64, U64, VPN_BITS, node_of_frame, node_of_mm, private_word
from cluster.machine.coordinator import Machine
from cluster.machine.fabric import Fabric, InlineFabric
from cluster.machine.workload import FIRST_VPN, REGION_STRIDE
from cluster.mm.page_state import HUGE, PTE_HWPOISON, PTE_NONE, PTE_ZERO
from cluster.mm.page_state import KSM as MAPS_KSM
from cluster.script.engine import (
    ANON,
    HUGE_PAGES,
    KSM,
    MAPPED_BY_PMD,
    MAPPED_BY_PTE,
    NO_FRAME,
    SMALL,
    SWAPPED,
    ZERO_PAGE,
    BadAddressError,
    MachineView,
    RegionView,
)
from cluster.script.sysfs import Sysfs
from cluster.spec.content import PAGE_SIZE
from cluster.spec.knobs import RMAP_ITEM_SIZE, Counters, KnobValues, ThpCounters
from cluster.spec.profile import Profile
from cluster.spec.scenario import KsmSpec, MachineSpec, PolicyMode, PolicySpec, SimulationSpec
from cluster.spec.topology import fully_connected
from cluster.wire.commands import NodeDump, ProcessStatistics

#: Number of the first frame of the huge zero page, above those of nodes.
_HUGE_ZERO_PAGE = 1 << FRAME_BITS
#: More than any script can fill.
_FRAMES_PER_NODE = 1 << 22
#: Knobs that the machine obeys; the others are only stored.
_MACHINE_KNOBS = (
    "merge_across_nodes",
    "max_page_sharing",
    "use_zero_pages",
    "smart_scan",
    "stable_node_chains_prune_millisecs",
)


def spec_for(profile: Profile, nodes: int, *, tree_shape: bool = True) -> SimulationSpec:
    """Return the spec of the machine that scripts run on; it has no processes at first."""
    knobs = KnobValues()
    ksm = KsmSpec(kernel=profile.name, **{name: getattr(knobs, name) for name in _MACHINE_KNOBS})
    machine = MachineSpec(nodes, _FRAMES_PER_NODE, fully_connected(nodes), tree_shape=tree_shape)
    return SimulationSpec(machine, ksm, processes=())


@dataclass(slots=True)
class _NamedRegion:
    name: str
    start: int
    #: Whether each page is mapped. bool[pages]
    mapped: NDArray[np.bool_]
    #: Whether it was advised MADV_HUGEPAGE.
    huge: bool = False


@dataclass(slots=True)
class _NamedProcess:
    name: str
    mm: int
    merge_any: bool = False
    regions: list[_NamedRegion] = field(default_factory=list)

    def region(self, name: str) -> _NamedRegion:
        return next(region for region in self.regions if region.name == name)


class ScriptEngine:
    """A machine of many nodes, with or without swap.

    Implements `cluster.script.engine.Engine`, where its methods are documented. Processes start on the nodes
    in turn; memory that is not bound comes from node 0 nevertheless, where scripts expect it.
    """

    def __init__(
        self, profile: Profile, nodes: int = 1, *, swap: bool = False, fabric: Fabric | None = None
    ) -> None:
        spec = spec_for(profile, nodes)
        fabric = fabric or InlineFabric(spec, {})
        self._profile = profile
        self._nodes = nodes
        self._swap = swap
        self._knobs = KnobValues()
        self._machine = Machine(fabric, spec.ksm)
        self._sysfs = Sysfs(profile, self._knobs, self._machine.remove_stable)
        self._processes: dict[str, _NamedProcess] = {}
        self._started = 0

    # sysfs

    def set_knob(self, knob: str, value: str) -> str:
        error = self._sysfs.write(knob, value, self._counters(self._machine.collect()))
        if not error and knob in _MACHINE_KNOBS:
            self._machine.set_knobs(**{knob: getattr(self._knobs, knob)})
        return error

    def knobs(self) -> dict[str, int | str]:
        return self._sysfs.knobs()

    # Processes

    def proc(self, p: str) -> None:
        self._processes[p] = _NamedProcess(p, self._machine.new_process(self._started % self._nodes))
        self._started += 1

    def fork(self, p: str, q: str) -> None:
        parent = self._processes[p]
        child = self._machine.fork(parent.mm)
        regions = [replace(region, mapped=region.mapped.copy()) for region in parent.regions]
        self._processes[q] = _NamedProcess(q, child, self._has_merge_any(parent), regions)

    def exit(self, p: str) -> None:
        self._machine.exit(self._processes.pop(p).mm)

    def exec(self, p: str) -> None:
        old = self._processes[p]
        new = _NamedProcess(p, self._machine.new_process(node_of_mm(old.mm)), self._has_merge_any(old))
        self._processes[p] = new
        if new.merge_any:
            self._machine.merge_any(new.mm, on=True)
        self._machine.exit(old.mm)

    def merge_any(self, p: str, *, on: bool) -> str:
        if not self._profile.merge_any:
            return "EINVAL"
        process = self._processes[p]
        if self._has_merge_any(process) != on:
            process.merge_any = on
            self._machine.merge_any(process.mm, on=on)
        return ""

    def _has_merge_any(self, process: _NamedProcess) -> bool:
        """Return whether the process still has PR_SET_MEMORY_MERGE, which put it into ksmd's list."""
        if self._profile.idle_loses_merge_any and process.mm not in self._machine.slots:
            process.merge_any = False
        return process.merge_any

    # Memory

    def map(self, p: str, r: str, pages: int, node: int | None) -> str:
        process = self._processes[p]
        bad_node = node is not None and not 0 <= node < self._nodes
        start = FIRST_VPN + len(process.regions) * REGION_STRIDE
        process.regions.append(_NamedRegion(r, start, np.ones(pages, np.bool_)))
        policy = PolicySpec(PolicyMode.PREFERRED, (0,))
        if node is not None and not bad_node:
            policy = PolicySpec(PolicyMode.BIND, (node,))
        self._machine.map(process.mm, start, pages, policy)
        if self._has_merge_any(process):
            self._machine.register(process.mm)
        return "EINVAL" if bad_node else ""

    def fill(self, p: str, r: str, pages: I64, contents: U64) -> str:
        region, usable = self._checked(p, r, pages)
        self._machine.write(self._processes[p].mm, region.start + pages[:usable], contents[:usable])
        return "" if usable == len(pages) else "EFAULT"

    def read(self, p: str, r: str, start: int, count: int) -> str:
        region, usable = self._checked(p, r, np.arange(start, start + count))
        self._machine.read(self._processes[p].mm, region.start + start, usable)
        return "" if usable == count else "EFAULT"

    def pin(self, p: str, r: str, start: int, count: int) -> str:
        region, usable = self._checked(p, r, np.arange(start, start + count))
        self._machine.pin(self._processes[p].mm, region.start + start, usable)
        return "" if usable == count else "EFAULT"

    def mergeable(self, p: str, r: str, start: int, count: int) -> str:
        mm, first, error = self._range(p, r, start, count)
        if self._any_mapped(p, r, start, count):
            self._machine.madvise(mm, first, count, mergeable=True)
        return error

    def unmergeable(self, p: str, r: str, start: int, count: int) -> str:
        mm, first, error = self._range(p, r, start, count)
        self._machine.madvise(mm, first, count, mergeable=False)
        return error

    def dontneed(self, p: str, r: str, start: int, count: int) -> str:
        mm, first, error = self._range(p, r, start, count)
        self._machine.dontneed(mm, first, count)
        return error

    def pageout(self, p: str, r: str, start: int, count: int) -> str:
        mm, first, error = self._range(p, r, start, count)
        self._machine.pageout(mm, first, count, swap=self._swap)
        return error

    def unmap(self, p: str, r: str, start: int, count: int) -> str:
        if count == 0:
            return "EINVAL"
        mm, first, _ = self._range(p, r, start, count)
        self._machine.unmap(mm, first, count)
        self._processes[p].region(r).mapped[start : start + count] = False
        return ""

    def huge(self, p: str, r: str, start: int, count: int) -> str:
        mm, first, error = self._range(p, r, start, count)
        self._processes[p].region(r).huge = True
        self._machine.advise_huge(mm, first, count)
        return error

    def collapse(self, p: str, r: str, start: int, count: int) -> str:
        mm, first, error = self._range(p, r, start, count)
        return self._machine.collapse(mm, first, count) or error

    def poison(self, p: str, r: str, start: int, count: int) -> str:
        return self._fail(p, r, start, count, self._machine.memory_failure.poison)

    def soft_offline(self, p: str, r: str, start: int, count: int) -> str:
        return self._fail(p, r, start, count, self._machine.memory_failure.soft_offline)

    def _fail(
        self, p: str, r: str, start: int, count: int, fail: Callable[[int, int, NDArray[np.bool_]], str]
    ) -> str:
        if not self._profile.memory_failure:
            return "EINVAL"
        process = self._processes[p]
        region = process.region(r)
        return fail(process.mm, region.start + start, region.mapped[start : start + count])

    def move(self, p: str, r: str, start: int, count: int, node: int) -> int:
        if not 0 <= node < self._nodes:
            return 0
        mm, first, _ = self._range(p, r, start, count)
        return self._machine.move(mm, first, count, node)

    def _range(self, p: str, r: str, start: int, count: int) -> tuple[int, int, str]:
        """Return the mm, the first page, and the error of madvise(), which skips holes and then fails."""
        process = self._processes[p]
        region = process.region(r)
        whole = region.mapped[start : start + count].all()
        return process.mm, region.start + start, "" if whole else "ENOMEM"

    def _any_mapped(self, p: str, r: str, start: int, count: int) -> bool:
        return bool(self._processes[p].region(r).mapped[start : start + count].any())

    def _checked(self, p: str, r: str, pages: I64) -> tuple[_NamedRegion, int]:
        """Return the region, and how many of these pages come before one whose memory has failed."""
        process = self._processes[p]
        region = process.region(r)
        bad = pages[~region.mapped[pages]]
        if len(bad):
            raise BadAddressError(f"page {int(bad[0])} of {p} {r} is not mapped any more")
        lost = self._machine.memory_failure.lost(process.mm, region.start, len(region.mapped))
        unusable = np.flatnonzero(np.isin(region.start + pages, lost))
        return region, int(unusable[0]) if len(unusable) else len(pages)

    # ksmd

    def unmerge_all(self) -> None:
        self._machine.unmerge_all()

    def scan(self) -> bool:
        return self._machine.scan()

    def batch(self, pages: int) -> None:
        self._machine.scan(pages)

    # What is seen from outside

    def view(self) -> MachineView:
        columns = self._machine.collect()
        dumps = self._machine.dump()
        stats = {mm: of_mm for dump in dumps for mm, of_mm in dump.processes.items()}
        vmstat = {
            "cow_ksm": int(columns["cow_ksm"].sum()),
            "ksm_swpin_copy": int(columns["ksm_swpin_copy"].sum()),
        }
        return MachineView(
            sysfs=self._sysfs.counters(self._counters(columns), self._machine.full_scans),
            vmstat={name: vmstat[name] for name in self._profile.vmstat},
            procs={p: self._process_stats(stats[process.mm]) for p, process in self._processes.items()},
            regions=list(self._views(dumps)),
            thp_vmstat=_thp_vmstat(columns),
        )

    def _counters(self, columns: dict[str, I64]) -> Counters:
        counters = Counters(**{name: int(columns[name].sum()) for name in Counters.__slots__})
        counters.ksm_zero_pages -= int(columns["ksm_zero_pages_missed"].sum())
        return counters

    def _process_stats(self, of_mm: ProcessStatistics) -> dict[str, int | str]:
        merged = of_mm.ksm_merging_pages + of_mm.ksm_zero_pages
        stats: dict[str, int | str] = {
            **of_mm._asdict(),
            "ksm_process_profit": merged * PAGE_SIZE - of_mm.ksm_rmap_items * RMAP_ITEM_SIZE,
            "ksm_merge_any": "yes" if of_mm.ksm_merge_any else "no",
            "ksm_mergeable": "yes" if of_mm.ksm_mergeable else "no",
        }
        return {name: stats[name] for name in self._profile.process_stats}

    def _views(self, dumps: list[NodeDump]) -> Iterator[RegionView]:
        keys = np.concatenate([dump.keys for dump in dumps])
        ptes = np.concatenate([dump.pte for dump in dumps])
        states = np.concatenate([dump.state for dump in dumps])
        pmds = np.concatenate([dump.by_pmd for dump in dumps])
        order = np.argsort(keys)
        keys, ptes, states, pmds = keys[order], ptes[order], states[order], pmds[order]
        for process in self._processes.values():
            for region in process.regions:
                first = (process.mm << VPN_BITS) | region.start
                low, high = np.searchsorted(keys, (first, first + len(region.mapped)))
                pte = np.full(len(region.mapped), PTE_NONE)
                ksm = np.zeros(len(region.mapped), np.bool_)
                pte[keys[low:high] - first] = ptes[low:high]
                ksm[keys[low:high] - first] = (states[low:high] & MAPS_KSM) != 0
                view = _view(process.name, region.name, pte, ksm)
                if region.huge:
                    of = np.where((states[low:high] & HUGE) != 0, MAPPED_BY_PTE, SMALL)
                    thp = np.full(len(region.mapped), SMALL)
                    thp[keys[low:high] - first] = np.where(pmds[low:high], MAPPED_BY_PMD, of)
                    view = _with_huge_pages(view, thp)
                yield view


def _thp_vmstat(columns: dict[str, I64]) -> dict[str, int]:
    """Return the counters of huge pages; nodes allocate huge zero pages, but a machine has one."""
    counts = {name: int(columns[name].sum()) for name in ThpCounters.__slots__}
    counts["thp_zero_page_alloc"] = min(counts["thp_zero_page_alloc"], 1)
    return counts


def _with_huge_pages(view: RegionView, thp: I64) -> RegionView:
    """Return the view with how pages are mapped; each page of the huge zero page is a frame of its own."""
    zero = np.flatnonzero((view.kind == ZERO_PAGE) & (thp == MAPPED_BY_PMD))
    view.frame[zero] = _HUGE_ZERO_PAGE + zero % HUGE_PAGES
    return replace(view, thp=thp)


def _view(p: str, r: str, pte: I64, ksm: NDArray[np.bool_]) -> RegionView:
    present = pte >= 0
    frame = np.where(present, private_word(np.maximum(pte, 0)), pte)
    kind = np.where(ksm, KSM, ANON)
    for value, number, what in (
        (pte == PTE_NONE, NO_FRAME, NO_FRAME),
        (pte == PTE_ZERO, 0, ZERO_PAGE),
        (pte <= PTE_HWPOISON, SWAPPED, SWAPPED),
    ):
        frame[value] = number
        kind[value] = what
    return RegionView(p, r, frame + present, kind, np.where(present, node_of_frame(np.maximum(pte, 0)), -1))
