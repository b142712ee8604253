"""Random workloads on a simulated machine, and what must hold after each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from cluster.arrays.words import (
    NODE_FIELD_SIZE,
    PFN_BITS,
    PFN_MASK,
    VPN_MASK,
    mm_of_key,
    node_of_frame,
    node_of_mm,
    pfn_of,
)
from cluster.compaction.pages.page_map import PG_LRU, USED
from cluster.machine.coordinator import Machine
from cluster.machine.fabric import InlineFabric
from cluster.mm.frames import PAGE_MAPPING_FLAGS, PAGE_MAPPING_KSM
from cluster.mm.page_state import PTE_NONE, PTE_SWAP, PTE_ZERO
from cluster.spec.compaction import CompactionSpec
from cluster.spec.content import page_bytes
from cluster.spec.digest import Contents
from cluster.spec.scenario import KsmSpec, MachineSpec, PolicyMode, PolicySpec, SimulationSpec
from cluster.spec.topology import ring
from cluster.wire.commands import NodeDump

NODES = 3
FRAMES = 300
REGION = 24
REGIONS = 2
FIRST = 1000

POLICIES = st.sampled_from(
    [
        PolicySpec(),
        PolicySpec(PolicyMode.BIND, (1,)),
        PolicySpec(PolicyMode.BIND, (0, 2)),
        PolicySpec(PolicyMode.PREFERRED, (2,)),
        PolicySpec(PolicyMode.INTERLEAVE, (0, 1, 2)),
    ]
)
PART = st.tuples(st.integers(0, REGION - 1), st.integers(1, REGION))

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("process"), st.integers(0, NODES - 1), POLICIES),
        st.tuples(st.just("write"), st.integers(0, 9), PART, st.integers(0, 5), st.integers(1, 4)),
        st.tuples(st.just("write"), st.integers(0, 9), PART, st.integers(0, 5), st.integers(1, 4)),
        st.tuples(st.just("read"), st.integers(0, 9), PART),
        st.tuples(st.just("mergeable"), st.integers(0, 9), PART),
        st.tuples(st.just("unmergeable"), st.integers(0, 9), PART),
        st.tuples(st.just("dontneed"), st.integers(0, 9), PART),
        st.tuples(st.just("unmap"), st.integers(0, 9), PART),
        st.tuples(st.just("move"), st.integers(0, 9), PART, st.integers(0, NODES - 1)),
        st.tuples(st.just("move"), st.integers(0, 9), PART, st.integers(0, NODES - 1)),
        st.tuples(st.just("pageout"), st.integers(0, 9), PART),
        st.tuples(st.just("unmerge_all")),
        st.tuples(st.just("fork"), st.integers(0, 9)),
        st.tuples(st.just("exit"), st.integers(0, 9)),
        st.tuples(st.just("scan"), st.none() | st.integers(1, 40)),
        st.tuples(st.just("scan"), st.none()),
    ),
    min_size=10,
    max_size=40,
)

KNOBS = st.builds(
    KsmSpec,
    merge_across_nodes=st.integers(0, 1),
    max_page_sharing=st.sampled_from([2, 3, 256]),
    use_zero_pages=st.integers(0, 1),
    smart_scan=st.integers(0, 1),
)


@dataclass
class Workload:
    """A machine, and what every page of every process should hold."""

    knobs: KsmSpec
    content: str = "symbolic"
    migration: CompactionSpec | None = None
    machine: Machine = field(init=False)
    fabric: InlineFabric = field(init=False)
    #: By process: content id by virtual page; None for a page that was not touched.
    pages: dict[int, dict[int, int | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frames = self.migration.pages_per_node if self.migration else FRAMES
        machine = MachineSpec(NODES, frames, ring(NODES), self.content)
        spec = SimulationSpec(machine, self.knobs, (), migration=self.migration)
        self.fabric = InlineFabric(spec, {})
        self.machine = Machine(self.fabric, self.knobs)
        for node in (0, 1):
            self._start(node, PolicySpec())
            self._write(min(self.pages), (0, REGION), node, 4)
        self.machine.scan()

    def run(self, step: tuple[Any, ...]) -> None:
        """Carries out a step of STEPS; one that names a process when there is none does nothing."""
        match step:
            case ("process", node, policy):
                if len(self.pages) < 6:
                    self._start(node, policy)
            case ("scan", pages):
                self.machine.scan(pages)
            case ("unmerge_all",):
                self.machine.unmerge_all()
            case (name, index, *rest):
                if self.pages:
                    mm = sorted(self.pages)[index % len(self.pages)]
                    getattr(self, f"_{name}")(mm, *rest)

    def _start(self, node: int, policy: PolicySpec) -> None:
        mm = self.machine.new_process(node)
        self.machine.map(mm, FIRST, REGION, policy)
        self.machine.map(mm, FIRST + 2 * REGION, REGION)
        mapped = [*range(FIRST, FIRST + REGION), *range(FIRST + 2 * REGION, FIRST + 3 * REGION)]
        self.pages[mm] = dict.fromkeys(mapped)
        for start in (FIRST, FIRST + 2 * REGION):
            self.machine.madvise(mm, start, REGION, mergeable=True)

    def _part(self, mm: int, part: tuple[int, int]) -> list[int]:
        """Mapped pages of a part of both regions."""
        start, count = part
        of_both = range(FIRST + start, FIRST + start + count + 2 * REGION)
        return [vpn for vpn in of_both if vpn in self.pages[mm]]

    def _write(self, mm: int, part: tuple[int, int], first: int, contents: int) -> None:
        vpns = self._part(mm, part)
        ids = [first * (first != 5 or i % 2) + i % contents for i in range(len(vpns))]
        self.machine.write(mm, np.array(vpns, np.int64), np.array(ids, np.uint64))
        self.pages[mm].update(zip(vpns, ids, strict=True))

    def _read(self, mm: int, part: tuple[int, int]) -> None:
        for vpn in self._part(mm, part):
            self.machine.read(mm, vpn, 1)
            self.pages[mm][vpn] = self.pages[mm][vpn] or 0

    def _ranges(self, mm: int, part: tuple[int, int]) -> tuple[int, int]:
        start, count = part
        return FIRST + start, count + 2 * REGION

    def _mergeable(self, mm: int, part: tuple[int, int]) -> None:
        self.machine.madvise(mm, *self._ranges(mm, part), mergeable=True)

    def _unmergeable(self, mm: int, part: tuple[int, int]) -> None:
        self.machine.madvise(mm, *self._ranges(mm, part), mergeable=False)

    def _dontneed(self, mm: int, part: tuple[int, int]) -> None:
        self.machine.dontneed(mm, *self._ranges(mm, part))
        self.pages[mm].update(dict.fromkeys(self._part(mm, part)))

    def _unmap(self, mm: int, part: tuple[int, int]) -> None:
        gone = self._part(mm, part)
        self.machine.unmap(mm, *self._ranges(mm, part))
        for vpn in gone:
            del self.pages[mm][vpn]

    def _move(self, mm: int, part: tuple[int, int], node: int) -> None:
        start, count = part
        self.machine.move(mm, FIRST + start, min(count, REGION - start), node)

    def _pageout(self, mm: int, part: tuple[int, int]) -> None:
        self.machine.pageout(mm, *self._ranges(mm, part))

    def _fork(self, mm: int) -> None:
        if len(self.pages) < 6:
            child = self.machine.fork(mm)
            anon_vmas = self.fabric.host.nodes[node_of_mm(mm)].state.spaces.mms[mm].anon_vmas
            # Pages that were only read are not there in the child, if their VMA was only read.
            self.pages[child] = {
                vpn: None if i == 0 and not anon_vmas.needs_copy(vpn) else i
                for vpn, i in self.pages[mm].items()
            }

    def _exit(self, mm: int) -> None:
        self.machine.exit(mm)
        del self.pages[mm]

    def check(self) -> None:
        """Conservation: frames, map counts, contents."""
        nodes = self.machine.dump()
        kinds = [node.mapping & PAGE_MAPPING_FLAGS for node in nodes]
        ksm = [int(np.count_nonzero(kind == PAGE_MAPPING_KSM)) for kind in kinds]
        assert self.machine.collect()["ksm_frames"].tolist() == ksm
        mapped = np.concatenate([node.pte[node.pte >= 0] for node in nodes])
        for number, node in enumerate(nodes):
            assert len(node.frames) + node.free_count == self._frames(number)
            pfns, mappings = np.unique(pfn_of(mapped[node_of_frame(mapped) == number]), return_counts=True)
            # The swap cache refers to frames, too, and may be the last to do so.
            used = np.flatnonzero(node.mapcount)
            assert pfns.tolist() == node.frames[used].tolist()
            assert mappings.tolist() == node.mapcount[used].tolist()
            pinned = node.refcount - node.mapcount
            states = [host.state for host in self.fabric.host.nodes.values()]
            pages = [state.table.pte[state.pinned.slots()] for state in states]
            words = np.concatenate([*(state.swap.cached for state in states), *pages])
            words = pfn_of(words[(words >= 0) & (node_of_frame(words) == number)])
            assert np.repeat(node.frames, pinned).tolist() == sorted(words.tolist())
        found = {}
        for node in nodes:
            for key, pte in zip(node.keys.tolist(), node.pte.tolist(), strict=True):
                mm = int(mm_of_key(key))
                found[mm, key & VPN_MASK] = self._content(nodes, mm, pte)
        digests = self._digests()
        expected = {(mm, vpn): digests[i] for mm, of in self.pages.items() for vpn, i in of.items()}
        assert found == expected

    def check_bytes(self) -> None:
        """The bytes that every page table entry maps are those written there."""
        # What is under way comes with the next command.
        self.machine.collect()
        hosts = self.fabric.host.nodes
        for mm, pages in self.pages.items():
            state = hosts[node_of_mm(mm)].state
            vpns = np.array(list(pages), np.int64)
            ptes = state.table.pte[state.spaces.slots(state.spaces.mms[mm], vpns)]
            for vpn, pte in zip(vpns.tolist(), ptes.tolist(), strict=True):
                if pte >= 0:
                    data = hosts[pte >> PFN_BITS & (NODE_FIELD_SIZE - 1)].state.frames.data
                    assert data is not None
                    expected = page_bytes(np.array([pages[vpn]], np.uint64))[0]
                    assert np.array_equal(data[pte & PFN_MASK], expected)

    def _frames(self, node: int) -> int:
        """Frames that are either free or a process's."""
        if self.migration is None:
            return FRAMES
        pages = self.fabric.host.memories[node].memory.pages
        others = (pages.order[: pages.count] == USED) & (pages.flags & PG_LRU == 0)
        return pages.count - int(np.count_nonzero(others))

    def _content(self, nodes: list[NodeDump], mm: int, pte: int) -> int | None:
        if pte == PTE_NONE:
            return None
        if pte == PTE_ZERO:
            return 0
        if pte <= PTE_SWAP:
            swap = self.fabric.host.nodes[node_of_mm(mm)].state.swap
            return int(swap.read(np.array([pte]))[0][0])
        node = nodes[int(node_of_frame(np.int64(pte)))]  # type: ignore[arg-type]
        return int(node.content[np.searchsorted(node.frames, pfn_of(np.int64(pte)))])  # type: ignore[arg-type]

    def _digests(self) -> dict[int | None, int | None]:
        """What contents are called, by id."""
        ids = sorted({i for of in self.pages.values() for i in of.values() if i is not None})
        contents = Contents(with_bytes=self.content == "bytes")
        return {
            None: None,
            **dict(zip(ids, contents.digests(np.array(ids, np.uint64)).tolist(), strict=True)),
        }
