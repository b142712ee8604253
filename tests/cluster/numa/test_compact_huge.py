"""Huge pages in memory that compaction and relocations work on: blocks of the buddy allocator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.arrays.columns import rows_with
from cluster.arrays.words import HUGE_SIZE, I64, block_of, is_huge_word, pfn_of
from cluster.compaction.internode.drain import NO_ROOM
from cluster.compaction.kernel_rules import COMPACTION_RULES, DEFAULT_RULES
from cluster.compaction.movable.movable_frames import MovableFrames
from cluster.compaction.pages.movable_operations import MigrateMode
from cluster.compaction.pages.page_map import USED, PageKind
from cluster.compaction.pages.validate import validate
from cluster.compaction.scenario.compactor_pool import InlineCompactorPool
from cluster.compaction.scenario.fill import empty_memory
from cluster.compaction.scenario.node_report import blocks_of
from cluster.compaction.zone.block_scan import BlockScan
from cluster.compaction.zone.compact_control import Request, Status
from cluster.compaction.zone.compact_zone import Compaction
from cluster.machine.fabric import InlineFabric
from cluster.machine.node import Node
from cluster.machine.pass_result import PassResult
from cluster.machine.simulation import Simulation
from cluster.mm.page_state import HUGE
from cluster.spec.compaction import CompactionSpec, DriverSpec, RelocationSpec
from cluster.spec.scenario import (
    ContentModel,
    KsmSpec,
    MachineSpec,
    PolicyMode,
    PolicySpec,
    ProcessSpec,
    RegionSpec,
    SimulationSpec,
    WriteSpec,
)
from cluster.spec.topology import fully_connected

BLOCKS = 16
#: Fill three pageblocks of a node in pieces of one page, and give up half of them.
DRIVERS = (DriverSpec("buffers", "gpu", 3 / BLOCKS, 0.5),)
MIGRATION = CompactionSpec(1, BLOCKS * HUGE_SIZE, DRIVERS, attempts=2)
KNOBS = KsmSpec(smart_scan=0)
OWN = RegionSpec("own", 2 * HUGE_SIZE, ContentModel.UNIQUE, huge_pages=1.0)
ON = [PolicySpec(PolicyMode.PREFERRED, (node,)) for node in range(2)]


class Run:
    """A scenario with [migration], pass by pass, with all invariants checked after each."""

    def __init__(
        self,
        *processes: ProcessSpec,
        nodes: int = 1,
        migration: CompactionSpec = MIGRATION,
        relocations: tuple[RelocationSpec, ...] = (),
        knobs: KsmSpec = KNOBS,
    ) -> None:
        machine = MachineSpec(nodes, migration.pages_per_node, fully_connected(nodes))
        spec = SimulationSpec(
            machine,
            knobs,
            processes,
            migration=replace(migration, nodes=nodes),
            relocations=relocations,
            windows_per_pass=2,
        )
        fabric = InlineFabric(spec, {})
        self.simulation = Simulation(fabric, spec, InlineCompactorPool(fabric.host.memories))
        self.nodes = list(fabric.host.nodes.values())
        self.check()

    def run_pass(self) -> PassResult:
        result = self.simulation.run_pass()
        self.check()
        return result

    def frames(self, node: int = 0) -> MovableFrames:
        frames = self.nodes[node].state.frames
        assert isinstance(frames, MovableFrames)
        return frames

    def huge_pages(self, node: int = 0) -> list[int]:
        """First pfns of the huge pages on a node."""
        found: list[int] = (np.flatnonzero(self.frames(node).memory.pages.huge) * HUGE_SIZE).tolist()
        return found

    def check(self) -> None:
        """Every frame is free, a driver's, a process's, or part of a huge page that is in use."""
        mapped = np.concatenate([words(node) for node in self.nodes])
        for number, node in enumerate(self.nodes):
            frames = self.frames(number)
            pages = frames.memory.pages
            validate(frames.memory)
            free = pages.order[: frames.count] != USED
            used = frames.referenced(slice(None))
            in_huge = np.repeat(pages.huge, HUGE_SIZE)[: frames.count]
            of_drivers = ~free & ~used & ~in_huge
            assert not (free & (used | in_huge)).any()
            assert not np.isin(pages.kind[of_drivers], (PageKind.LRU, PageKind.COMPOUND)).any()
            assert frames.free_count == np.count_nonzero(free)
            # What page tables call huge is a huge page here, and none is without a user.
            here = np.unique(mapped[(mapped >> 32) == node.state.id])
            assert np.array_equal(np.unique(pfn_of(here) // HUGE_SIZE), np.flatnonzero(pages.huge))
            assert not (used & in_huge & ~np.isin(np.arange(frames.count), pfn_of(here))).any()


def words(node: Node) -> I64:
    """The words of the frames of huge pages that a node's processes map."""
    table = node.state.table
    found: I64 = table.pte[rows_with(table.state[: table.size], HUGE)]
    assert is_huge_word(found).all()
    blocks, count = np.unique(block_of(np.unique(found)), return_counts=True)
    assert (count <= HUGE_SIZE).all()
    assert len(blocks) == len(np.unique(blocks))
    return found


def test_huge_pages_are_aligned_blocks_that_compaction_passes_over() -> None:
    run = Run(ProcessSpec("p", 1, (OWN,)))
    before = run.huge_pages()
    assert len(before) == 2
    report = run.run_pass().compaction[0]
    assert run.huge_pages() == before
    assert report.by_driver["buffers"].moved > 0
    assert report.by_driver["anon"].isolated == 0


@pytest.mark.parametrize(("kernel", "scanned"), [("6.1", 3), ("6.12", 2 * HUGE_SIZE)])
@pytest.mark.parametrize("mode", list(MigrateMode))
def test_what_the_scanner_counts_of_huge_pages_and_free_blocks(
    mode: MigrateMode, kernel: str, scanned: int
) -> None:
    """Two huge pages, then a free block of two pageblocks; the free scanner has the last pageblock."""
    frames = MovableFrames(empty_memory(4 * HUGE_SIZE), with_bytes=False)
    frames.map_anon(frames.alloc_huge(2), 1)
    run = Compaction(frames.memory, frames.memory.zones[0], Request(mode), rules=COMPACTION_RULES[kernel])
    assert run.run() == Status.COMPLETE
    assert (run.control.migrate_scanned, run.control.free_scanned) == (scanned, 0)


def test_async_direct_compaction_leaves_a_pageblock_that_is_a_huge_page() -> None:
    frames = MovableFrames(empty_memory(8 * HUGE_SIZE), with_bytes=False)
    frames.map_anon(frames.alloc_huge(2), 1)
    request = Request(MigrateMode.ASYNC, order=4, direct=True, whole_zone=False, ignore_skip_hint=False)
    scan = BlockScan(frames.memory, request, 0, DEFAULT_RULES, whole=False)
    while not scan.finished:
        assert len(scan.step(None)) == 0
    assert (scan.low, scan.scanned, scan.isolated) == (HUGE_SIZE, 1, 0)


def test_what_ksmd_splits_moves_and_gives_frames_back() -> None:
    """Each content is in two pages, so half of the pages go, and compaction makes huge blocks of them."""
    kind = ProcessSpec("p", 1, (replace(OWN, pages=4 * HUGE_SIZE, copies=2),))
    run = Run(kind, migration=replace(MIGRATION, drivers=()))
    free = run.frames().free_count
    first, second = run.run_pass(), run.run_pass()
    assert run.huge_pages() == []
    assert (first.nodes["thp_split_page"][0], second.nodes["thp_split_page"][0]) == (0, 4)
    # The visit that splits a huge page for two pages of it does not merge them yet.
    assert run.frames().free_count == free + 2 * HUGE_SIZE - 4
    run.run_pass()
    assert run.frames().free_count == free + 2 * HUGE_SIZE
    report = second.compaction[0]
    assert report.by_driver["ksm"].moved > HUGE_SIZE // 2
    assert blocks_of(report.after, 9) > blocks_of(report.before, 9)


def test_small_pages_take_the_place_of_huge_pages_that_cannot_be_allocated() -> None:
    """Drivers keep half the pages of each pageblock, one by one."""
    everywhere = replace(MIGRATION, drivers=(replace(DRIVERS[0], share=1.0),), trigger="none")
    run = Run(ProcessSpec("p", 1, (OWN,)), migration=everywhere)
    census = run.run_pass().census or run.simulation.census()
    assert run.huge_pages() == []
    assert (census.huge_fallback, census.huge_pages) == (2, 0)


def test_a_frame_that_lost_its_mappings_stays_until_all_of_the_huge_page_goes() -> None:
    """A huge page is one allocation: it comes back as a whole, or when it is split."""
    frames = MovableFrames(empty_memory(4 * HUGE_SIZE), with_bytes=False)
    first = frames.alloc_huge(2)
    assert first.tolist() == [0, HUGE_SIZE]
    pfns = (first[:, None] + np.arange(HUGE_SIZE)).ravel()
    frames.map_anon(pfns, 1)
    frames.put(pfns[:100])
    frames.put(pfns[HUGE_SIZE : HUGE_SIZE + 7])
    assert (frames.free_count, len(frames.in_use())) == (2 * HUGE_SIZE, 2 * HUGE_SIZE - 107)
    assert not np.isin(frames.alloc(HUGE_SIZE), pfns).any()
    frames.split_huge(first[1:])
    assert frames.free_count == HUGE_SIZE + 7
    frames.put(pfns[100:HUGE_SIZE])
    assert frames.free_count == 2 * HUGE_SIZE + 7
    frames.put(pfns[HUGE_SIZE + 7 :])
    assert frames.free_count == 3 * HUGE_SIZE
    validate(frames.memory)


DRAIN = RelocationSpec("drain", nodes=(0,), after_pass=1)
#: No drivers and no compactors.
MEMORY = replace(MIGRATION, drivers=(), trigger="none")
QUIET = replace(OWN, mergeable=False)
#: Leaves one free block and 212 single pages on node 1.
CROWD = RegionSpec("crowd", 14 * HUGE_SIZE + 300, ContentModel.UNIQUE, mergeable=False)


def relocated(run: Run) -> list[list[int]]:
    """Run a pass; return how many frames its relocation moved, from row to column."""
    (relocation,) = run.run_pass().relocated
    pages: list[list[int]] = relocation.pages.tolist()
    return pages


def test_a_drain_moves_huge_pages_as_a_whole() -> None:
    """The drained node has drivers' pages and small pages, too."""
    regions = (QUIET, replace(QUIET, name="small", pages=100, huge_pages=0.0))
    run = Run(ProcessSpec("p", 1, regions, policy=ON[0]), nodes=2, relocations=(DRAIN,))
    assert relocated(run) == [[0, 2 * HUGE_SIZE + 100], [0, 0]]
    assert (len(run.huge_pages(0)), len(run.huge_pages(1))) == (0, 2)
    assert len(run.frames(0).in_use()) == 0
    assert run.simulation.census().huge_split_to_move == 0


def test_a_drain_splits_huge_pages_that_no_node_has_room_for_as_a_whole() -> None:
    kinds = (ProcessSpec("p", 1, (QUIET,), policy=ON[0]), ProcessSpec("q", 1, (CROWD,), policy=ON[1]))
    run = Run(*kinds, nodes=2, migration=MEMORY, relocations=(DRAIN,))
    result = run.run_pass()
    assert result.relocated[0].pages.tolist() == [[0, HUGE_SIZE + 212], [0, 0]]
    assert (run.huge_pages(0), len(run.huge_pages(1))) == ([], 1)
    (stayed,) = result.relocated[0].drained[0].stayed
    assert (stayed.owner, stayed.pages, stayed.why) == ("anon", 300, NO_ROOM)
    assert result.nodes["thp_split_page"].sum() == run.simulation.census().huge_split_to_move == 1


def test_a_drain_splits_no_huge_page_where_there_is_no_room_at_all() -> None:
    full = replace(CROWD, pages=BLOCKS * HUGE_SIZE)
    kinds = (ProcessSpec("p", 1, (QUIET,), policy=ON[0]), ProcessSpec("q", 1, (full,), policy=ON[1]))
    run = Run(*kinds, nodes=2, migration=MEMORY, relocations=(DRAIN,))
    assert relocated(run) == [[0, 0], [0, 0]]
    assert len(run.huge_pages(0)) == 2


def test_zeros_of_a_huge_page_that_a_drain_splits_need_no_room() -> None:
    zeros = replace(QUIET, pages=4 * HUGE_SIZE, model=ContentModel.ZERO)
    kinds = (ProcessSpec("p", 1, (zeros,), policy=ON[0]), ProcessSpec("q", 1, (CROWD,), policy=ON[1]))
    run = Run(*kinds, nodes=2, migration=MEMORY, relocations=(DRAIN,))
    assert relocated(run) == [[0, HUGE_SIZE], [0, 0]]
    assert (run.huge_pages(0), len(run.frames(0).in_use())) == ([], 0)
    assert run.simulation.census().huge_split_to_move == 3


def test_a_limit_counts_the_pages_of_huge_pages() -> None:
    run = Run(
        ProcessSpec("p", 1, (QUIET,), policy=ON[0]),
        nodes=2,
        migration=MEMORY,
        relocations=(replace(DRAIN, most_pages=HUGE_SIZE + 10),),
    )
    assert relocated(run) == [[0, HUGE_SIZE + 10], [0, 0]]


@pytest.mark.parametrize(("held", "moved"), [(4, 2), (3, 1)])
def test_evening_out_splits_nothing(held: int, moved: int) -> None:
    kind = ProcessSpec("p", 1, (replace(QUIET, pages=held * HUGE_SIZE),), policy=ON[0])
    even = RelocationSpec("even-out", after_pass=1)
    run = Run(kind, nodes=2, migration=MEMORY, relocations=(even,))
    assert relocated(run) == [[0, moved * HUGE_SIZE], [0, 0]]
    assert (len(run.huge_pages(0)), len(run.huge_pages(1))) == (held - moved, moved)


@pytest.mark.parametrize(("most", "moved"), [(None, 2), (HUGE_SIZE + 10, 1), (10, 0)])
def test_huge_pages_move_nearer_as_a_whole(most: int | None, moved: int) -> None:
    """The memory of both processes is on node 0; one of them runs on node 1."""
    nearer = RelocationSpec("nearer", after_pass=1, most_pages=most)
    kind = ProcessSpec("p", 2, (QUIET,), policy=ON[0])
    run = Run(kind, nodes=2, migration=MEMORY, relocations=(nearer,))
    assert relocated(run) == [[0, moved * HUGE_SIZE], [0, 0]]
    assert len(run.huge_pages(1)) == moved


def test_huge_pages_stay_where_no_huge_page_is_free_nearer() -> None:
    kinds = (ProcessSpec("q", 1, (CROWD,), policy=ON[1]), ProcessSpec("p", 2, (QUIET,), policy=ON[0]))
    nearer = RelocationSpec("nearer", nodes=(0,), after_pass=1)
    run = Run(*kinds, nodes=2, migration=MEMORY, relocations=(nearer,))
    assert relocated(run) == [[0, HUGE_SIZE], [0, 0]]
    assert (len(run.huge_pages(0)), len(run.huge_pages(1))) == (3, 1)


def test_pinned_huge_pages_are_neither_split_nor_moved() -> None:
    """Both processes have the same contents."""
    pinned = RegionSpec("r", 2 * HUGE_SIZE, ContentModel.REPLICATED, huge_pages=1.0, pinned=True)
    run = Run(ProcessSpec("p", 2, (pinned,), policy=ON[0]), nodes=2, relocations=(DRAIN,))
    before = run.huge_pages(0)
    assert len(before) == 4
    assert relocated(run) == [[0, 0], [0, 0]]
    passes = [run.run_pass() for _ in range(2)]
    assert run.huge_pages(0) == before
    assert [int(result.nodes["thp_split_page"].sum()) for result in passes] == [0, 0]
    assert [int(result.nodes["pages_sharing"].sum()) for result in passes] == [0, 0]


SHARES = st.sampled_from([0.0, 0.4, 1.0])
REGION = st.builds(
    RegionSpec,
    name=st.just("r"),
    pages=st.sampled_from([40, HUGE_SIZE, 3 * HUGE_SIZE + 9]),
    model=st.sampled_from([ContentModel.ZERO, ContentModel.UNIQUE, ContentModel.REPLICATED]),
    copies=st.sampled_from([1, 3]),
    huge_pages=SHARES,
    writes=st.sampled_from([(), (WriteSpec(0.05, 0.1),)]),
)


@settings(max_examples=25, deadline=None)
@given(
    regions=st.lists(REGION, min_size=1, max_size=3),
    workers=st.integers(0, 2),
    share=st.sampled_from([0.0, 0.1, 0.3]),
    unmovable=st.sampled_from([0.0, 0.02]),
    trigger=st.sampled_from(["none", "compact_memory", "direct", "proactive"]),
    kernel=st.sampled_from(["4.8", "6.1"]),
    knobs=st.sampled_from([KsmSpec(), KsmSpec(smart_scan=0, use_zero_pages=1), KsmSpec(kernel="6.18.15")]),
    kinds=st.lists(st.sampled_from(["drain", "even-out", "nearer"]), max_size=3),
    seed=st.integers(0, 99),
)
def test_every_frame_is_accounted_for(
    regions: list[RegionSpec],
    workers: int,
    share: float,
    unmovable: float,
    trigger: str,
    kernel: str,
    knobs: KsmSpec,
    kinds: list[str],
    seed: int,
) -> None:
    """`Run` checks it after each pass; no relocation or compaction changes what ksmd has merged."""
    migration = replace(
        MIGRATION,
        pages_per_node=32 * HUGE_SIZE,
        drivers=(replace(DRIVERS[0], share=share),) if share else (),
        unmovable=unmovable,
        trigger=trigger,
        kernel=kernel,
        seed=seed,
        compactors=2,
    )
    named = tuple(replace(region, name=f"r{i}") for i, region in enumerate(regions))
    relocations = tuple(
        RelocationSpec(kind, nodes=(i % 2,) if kind == "drain" else (), after_pass=1 + i)
        for i, kind in enumerate(kinds)
    )
    processes = ProcessSpec("p", 3, named, workers=workers)
    run = Run(processes, nodes=2, migration=migration, relocations=relocations, knobs=knobs)
    for _ in range(4):
        result = run.run_pass()
        counted = result.nodes["pages_shared"] + result.nodes["pages_sharing"]
        assert counted.sum() <= result.nodes["pages_mapped"].sum()
        assert result.nodes["frames_free"].tolist() == [run.frames(i).free_count for i in range(2)]
