"""Pages that move between nodes: who goes where, how long it takes; nothing is lost, whoever dies."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.arrays.words import I64
from cluster.compaction.drivers.base import NO_PAGE, PageDriver
from cluster.compaction.drivers.checked_driver import CheckedDriver
from cluster.compaction.drivers.faulty import Faulty
from cluster.compaction.internode.drain import Drained, Stayed
from cluster.compaction.internode.flows import evened, flows
from cluster.compaction.internode.node_commands import OpenTransfers, StepResult, TransferStep
from cluster.compaction.internode.relocator import free_dropped
from cluster.compaction.internode.transfer import Transfer
from cluster.compaction.movable.page_movable import clear_page_movable
from cluster.compaction.pages.movable_operations import MigrateMode, PageStateError
from cluster.compaction.pages.page_map import PG_ISOLATED, PG_LOCKED, PG_LRU, USED
from cluster.compaction.scenario.memory_host import MemoryHost, compact_inline
from cluster.compaction.scenario.node_report import NodeReport
from cluster.compaction.scenario.relocation_result import (
    RelocationResult,
    relocation_results,
    simulated_seconds,
)
from cluster.spec import topology
from cluster.spec.compaction import CompactionSpec, DriverSpec, MigrationCostSpec, RelocationSpec

#: Two sockets of two nodes.
FOUR = topology.sockets(4, (2,), (12, 30))
BALLOON = DriverSpec("balloon", "balloon", 0.25, 0.0)
#: Four nodes of 1024 pages: 256 of a balloon on each.
SPEC = CompactionSpec(4, 1024, (BALLOON,), distance=FOUR)


def only(spec: CompactionSpec) -> tuple[RelocationResult, list[NodeReport]]:
    reports = compact_inline(spec)
    (found,) = relocation_results(spec, reports)
    return found, reports


# who sends how many pages to whom


def test_nearest_nodes_first() -> None:
    supply, room = np.array([10, 0, 0, 0]), np.array([0, 3, 2, 9])
    assert flows(supply, room, FOUR).tolist() == [[0, 1, 3], [0, 3, 7]]
    assert flows(supply, room, FOUR, most=4).tolist() == [[0, 1, 3], [0, 3, 1]]
    assert flows(supply, np.array([99, 0, 1, 0]), FOUR).tolist() == [[0, 2, 1]]


def test_a_short_way_is_taken_before_a_long_one() -> None:
    """Node 0 could fill node 3, but that is next to node 2."""
    supply, room = np.array([5, 0, 5, 0]), np.array([0, 0, 0, 6])
    assert flows(supply, room, FOUR).tolist() == [[2, 3, 5], [0, 3, 1]]


@given(
    pages=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=6),
    most=st.one_of(st.none(), st.integers(0, 100)),
)
def test_as_much_as_there_is_and_fits(pages: list[tuple[int, int]], most: int | None) -> None:
    supply, room = np.array(pages).T
    rows = flows(supply, room, topology.ring(len(pages)), most)
    assert (rows[:, 2] > 0).all()
    assert (rows[:, 0] != rows[:, 1]).all()
    sent = np.bincount(rows[:, 0], rows[:, 2], len(pages))
    got = np.bincount(rows[:, 1], rows[:, 2], len(pages))
    assert (sent <= supply).all()
    assert (got <= room).all()
    if most is not None and sent.sum() == most:
        return
    # nobody is left who could still send something to someone else
    could = [(i, j) for i in np.flatnonzero(supply - sent) for j in np.flatnonzero(room - got) if i != j]
    assert not could


def test_evened() -> None:
    assert evened(np.array([7, 1, 2])).tolist() == [4, 3, 3]
    assert evened(np.array([5, 5])).tolist() == [5, 5]


# whole relocations


def test_draining_one_of_two_nodes() -> None:
    """1024 pages a node, 256 of them to move; a copy between the two takes 2.1 times 1000 ns."""
    spec = CompactionSpec(
        2,
        1024,
        (BALLOON,),
        distance=topology.fully_connected(2, 21),
        relocations=(RelocationSpec("drain", (1,)),),
        cost=MigrationCostSpec(scan=0.0, attempt=100.0, copy=1000.0),
    )
    found, reports = only(spec)
    assert found.pages.tolist() == [[0, 0], [256, 0]]
    assert found.node_seconds == pytest.approx([256 * (100 + 2100) / 1e9] * 2)
    assert found.drained == {1: Drained(0, offline=2, pageblocks=2, fixed=256, stayed=())}
    assert reports[1].after.sum() == 0
    assert reports[0].after @ (1 << np.arange(11)) == 1024 - 512
    assert reports[1].by_driver["balloon"].moved_away == 256


def test_draining_fills_the_neighbour_first() -> None:
    """640 pages to move, and room for 384 on each node."""
    drivers = (replace(BALLOON, share=0.625),)
    found, _reports = only(replace(SPEC, drivers=drivers, relocations=(RelocationSpec("drain", (0,)),)))
    assert found.pages[0].tolist() == [0, 384, 256, 0]
    assert found.drained[0].offline == 2


def test_draining_without_room_elsewhere() -> None:
    drivers = (replace(BALLOON, share=0.875),)
    found, reports = only(replace(SPEC, drivers=drivers, relocations=(RelocationSpec("drain", (0,)),)))
    assert found.pages[0].tolist() == [0, 128, 128, 128]
    assert found.drained[0].stayed == (Stayed("balloon", 896 - 384, "no room elsewhere"),)
    assert [report.after.sum() for report in reports[1:]] == [0, 0, 0]


def test_where_pages_go_when_two_nodes_are_drained() -> None:
    """Nodes 0 and 1 are neighbours, but neither takes anything; half goes to each of the others."""
    spec = replace(SPEC, relocations=(RelocationSpec("drain", (0, 1)),))
    found, reports = only(spec)
    assert found.pages.sum() == 512
    assert (found.pages[:2, :2] == 0).all()
    assert [r.by_driver["balloon"].moved_away for r in reports] == [256, 256, 0, 0]
    # nodes 2 and 3 had room for 768 each; node 0 takes that of node 2 first, then node 1 that of node 3
    assert found.pages[0].tolist() == [0, 0, 256, 0]
    assert found.pages[1].tolist() == [0, 0, 0, 256]


def test_unmovable_pages_keep_their_pageblock() -> None:
    spec = replace(SPEC, unmovable=1 / 1024, relocations=(RelocationSpec("drain", (2,)),))
    found, _reports = only(spec)
    assert found.pages[2].tolist() == [0, 0, 0, 256]
    drained = Drained(0, offline=1, pageblocks=2, fixed=257, stayed=(Stayed("unmovable", 1, "cannot move"),))
    assert found.drained == {2: drained}


class Unmarked(PageDriver):
    """A driver of a user that never marks its pages as movable."""

    def make_movable(self, pfns: I64) -> None:
        pass


class Forgetful(PageDriver):
    """A driver that takes the mark from every second page."""

    def allocate(self, count: int) -> I64:
        numbers = super().allocate(count)
        pfns = self.frame_of[numbers[::2]]
        self.memory.pages.lock(pfns)
        clear_page_movable(self.memory, pfns)
        self.memory.pages.unlock(pfns)
        return numbers


@pytest.mark.parametrize("kind", ["pinned", f"{__name__}:Unmarked"])
def test_pages_of_a_driver_that_cannot_move_are_its_own(kind: str) -> None:
    """64 of a driver, 1 of the kernel; those of the balloon leave."""
    fixed = DriverSpec("nic", kind, 1 / 16, 0.0)
    spec = replace(SPEC, drivers=(BALLOON, fixed), unmovable=1 / 1024)
    found, _reports = only(replace(spec, relocations=(RelocationSpec("drain", (2,)),)))
    assert found.pages[2].sum() == 256
    stayed = (Stayed("nic", 64, "cannot move"), Stayed("unmovable", 1, "cannot move"))
    assert found.drained[2].stayed == stayed
    assert found.drained[2].fixed == 256 + 64 + 1


def test_pages_that_are_no_longer_marked_are_their_drivers() -> None:
    """Half of the pages cannot move, the others find no room."""
    spec = CompactionSpec(
        2,
        1024,
        (DriverSpec("odd", f"{__name__}:Forgetful", 1.0, 0.0),),
        distance=topology.fully_connected(2, 21),
        relocations=(RelocationSpec("drain", (1,)),),
    )
    found, _reports = only(spec)
    stayed = (Stayed("odd", 512, "no room elsewhere"), Stayed("odd", 512, "cannot move"))
    assert found.drained[1].stayed == stayed


def test_a_driver_that_refuses_keeps_its_pages() -> None:
    stubborn = DriverSpec("odd", "faulty", 0.25, 0.0, (("refuse", 1.0),))
    spec = replace(SPEC, drivers=(stubborn,), relocations=(RelocationSpec("drain", (2,)),))
    found, reports = only(spec)
    assert not found.pages.any()
    assert found.drained[2].stayed == (Stayed("odd", 256, "refused or failed"),)
    # 5 rounds to move pages, and the compactors' own attempts on top
    assert reports[2].by_driver["odd"].refused >= 5 * 256


def test_evening_out() -> None:
    """Node 3 was drained; then, nodes 0 to 2 have (256, 256, 512) pages, and 1024 = 342 + 341 + 341."""
    spec = replace(
        SPEC, relocations=(RelocationSpec("drain", (3,)), RelocationSpec("even-out", when="after"))
    )
    found = relocation_results(spec, compact_inline(spec))
    assert found[0].pages[3].tolist() == [0, 0, 256, 0]
    # node 2 keeps one more, as it has most
    assert found[1].pages[2].tolist() == [85, 85, 0, 0]
    assert found[1].pages.sum() == 170


def test_evening_out_some_nodes_and_some_pages() -> None:
    spec = replace(
        SPEC,
        relocations=(RelocationSpec("drain", (3,), most_pages=100), RelocationSpec("even-out", (1, 2, 3))),
    )
    found = relocation_results(spec, compact_inline(spec))
    assert found[0].pages.sum() == 100
    assert found[0].drained[3].stayed == (Stayed("balloon", 156, "most_pages have moved"),)
    # (256, 356, 156) on nodes 1 to 3: 256 each
    assert found[1].pages.tolist() == [[0] * 4, [0] * 4, [0, 0, 0, 100], [0] * 4]


def test_time_is_that_of_the_slowest_node_of_each_part() -> None:
    drains = tuple(RelocationSpec("drain", (node,), when) for node, when in ((3, "before"), (2, "during")))
    spec = replace(SPEC, relocations=drains, cost=MigrationCostSpec(0.0, 0.0, 1000.0))
    reports = compact_inline(spec)
    # 256 pages from 3 to 2; then 512 pages from 2 to 0 and 1, which have room for 768
    first, second = 256 * 1200, 512 * 3000
    compaction = max(report.seconds for report in reports)
    assert [r.seconds for r in relocation_results(spec, reports)] == pytest.approx(
        [first / 1e9, second / 1e9]
    )
    assert simulated_seconds(spec, reports) == pytest.approx(first / 1e9 + max(second / 1e9, compaction))


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_same_scenario_same_result(when: str) -> None:
    spec = replace(SPEC, lru=0.2, relocations=(RelocationSpec("drain", (3,), when),), seed=3)
    assert repr(compact_inline(spec)) == repr(compact_inline(spec))


# messages


def test_a_message_that_is_asked_for_again_is_the_same() -> None:
    host = world(SPEC_OF_WORLD)
    host.ask(OpenTransfers((Transfer(0, 0, 0, 1, 700),)))
    step(host, Transfer(0, 0, 0, 1, 700), 0)
    before = host.memories[0].memory.pages.flags.copy()
    offer = host.messages([TransferStep(1, 0, 0, 1)])
    step(host, Transfer(0, 0, 0, 1, 700), 0)
    assert host.messages([TransferStep(1, 0, 0, 1)]) == offer
    assert (host.memories[0].memory.pages.flags == before).all()
    assert np.count_nonzero(before & PG_ISOLATED) == offer[0].count > 0  # type: ignore[union-attr]


def test_a_message_out_of_turn() -> None:
    host = world(SPEC_OF_WORLD)
    transfer = Transfer(0, 0, 0, 1, 700)
    host.ask(OpenTransfers((transfer,)))
    with pytest.raises(PageStateError, match="message 2 cannot answer None"):
        step(host, transfer, 2)


def test_a_page_that_a_compactor_has_locked_is_waited_for() -> None:
    host = world(SPEC_OF_WORLD)
    transfer = Transfer(0, 0, 0, 1, 700)
    host.ask(OpenTransfers((transfer,)))
    assert step(host, transfer, 0).sent
    assert step(host, transfer, 1).sent
    memory = host.memories[0].memory
    page = np.flatnonzero(memory.pages.flags & PG_ISOLATED)[:1]
    memory.pages.lock(page)
    for _ in range(3):
        assert step(host, transfer, 2) == StepResult(sent=False, done=False, moved=0)
    assert memory.vmstat.lock_waits == 1
    memory.pages.unlock(page)
    assert step(host, transfer, 2).moved > 0


# nothing is lost

ODD = DriverSpec("odd", "faulty", 0.3, 0.5)
ZRAM = DriverSpec("swap", "zram", 0.4, 0.7, (("object_size", 1300),))
SPEC_OF_WORLD = CompactionSpec(
    3,
    4 * 512,
    (ODD, ZRAM),
    lru=0.1,
    unmovable=0.02,
    compactors=2,
    batch=5,
    turn=3,
    distance=topology.ring(3),
    # so that there is room for pages of other nodes
    relocations=(RelocationSpec("even-out"),),
)


def world(spec: CompactionSpec) -> MemoryHost:
    """Nodes with memories in which no two pages hold the same."""
    host = MemoryHost(range(spec.nodes), spec)
    for node, memory in host.memories.items():
        pages = memory.memory.pages
        used = np.flatnonzero(pages.refcount)
        pages.content[used] = (node + 1 << 32) + used
    return host


def step(host: MemoryHost, transfer: Transfer, serial: int) -> StepResult:
    """Take the step with this number, or repeat it."""
    ends = (transfer.source, transfer.target)
    node, peer = ends if serial % 2 == 0 else ends[::-1]
    turn = TransferStep(node, peer, transfer.number, serial)
    return host.step(turn, host.messages([turn])[0])


def holdings(host: MemoryHost) -> tuple[dict[tuple[int, int, int], int], list[int], int]:
    """What every driver's pages hold, by node, driver and number, wherever they are; LRU pages; pages in use.

    Nothing is held by the VM, and no page is in two places, or in one that is free.
    """
    guests: dict[int, int] = {}
    lru: list[int] = []
    in_use = 0
    for node in host.memories.values():
        pages, size = node.memory.pages, node.spec.pages_per_node
        used = pages.order[:size] == USED
        assert not (pages.flags & (PG_LOCKED | PG_ISOLATED)).any()
        assert (pages.refcount[:size] == used).all()
        assert node.memory.zones[0].free_pages == np.count_nonzero(~used)
        in_use += np.count_nonzero(used)
        lru += pages.content[: pages.count][pages.flags & PG_LRU != 0].tolist()
        assert node.filled.node_owners is not None
        for name, content in zip(*visitors(node.filled.node_owners.foreign), strict=True):
            assert name not in guests
            guests[name] = content
    found: dict[tuple[int, int, int], int] = {}
    for number, node in host.memories.items():
        size = node.spec.pages_per_node
        assert node.filled.node_owners is not None
        names = node.filled.node_owners.proxies._names
        assert (pages_in_use(node.memory.pages.refcount[size:]) == np.flatnonzero(names >= 0)).all()
        frames: list[int] = []
        for i, driver in enumerate(node.filled.drivers):
            driver = driver.driver if isinstance(driver, CheckedDriver) else driver
            assert isinstance(driver, PageDriver)
            for page in np.flatnonzero(driver.frame_of != NO_PAGE).tolist():
                frame = int(driver.frame_of[page])
                frames.append(frame)
                assert driver.page_at[frame] == page
                away = frame >= size
                held = guests.pop(int(names[frame - size])) if away else int(driver.content[frame])
                found[number, i, page] = held
        assert len(set(frames)) == len(frames)
    assert not guests
    return found, sorted(lru), in_use


def visitors(guests: PageDriver) -> tuple[list[int], list[int]]:
    live = np.flatnonzero(guests.frame_of != NO_PAGE)
    assert (guests.page_at[guests.frame_of[live]] == live).all()
    return guests.names[live].tolist(), guests.content[guests.frame_of[live]].tolist()  # type: ignore[attr-defined]


def pages_in_use(refcount: I64) -> I64:
    return np.flatnonzero(refcount)


class Fickle(PageDriver):
    """Gives up page 0 as soon as another one is moved."""

    def migrate_page(self, newpages: I64, pages: I64, mode: MigrateMode) -> I64:
        if self.page_at[pages[0]] and self.frame_of[0] != NO_PAGE:
            self.free(np.array([0]))
        return super().migrate_page(newpages[:1], pages[:1], mode)


def test_a_page_that_its_driver_gives_up_on_the_way() -> None:
    fickle = DriverSpec("odd", f"{__name__}:Fickle", 0.3, 0.0)
    spec = replace(SPEC_OF_WORLD, drivers=(fickle,))
    host = world(spec)
    before, _lru, used = holdings(host)
    host.ask(OpenTransfers((transfer := Transfer(0, 0, 0, 1, 100),)))
    serial = 0
    while not step(host, transfer, serial).done:
        serial += 1
    free_dropped(host)
    after, _lru, used_after = holdings(host)
    assert after == {page: held for page, held in before.items() if page != (0, 0, 0)}
    assert used_after == used - 1


RATE = st.sampled_from([0.0, 0.05, 0.5])
PAIRS = st.lists(st.sampled_from([(i, j) for i in range(3) for j in range(3) if i != j]), max_size=5)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    refuse=RATE,
    again=RATE,
    fail=RATE,
    no_memory=st.sampled_from([0.0, 0.02]),
    release=st.sampled_from([0.0, 0.5]),
    rounds=st.lists(PAIRS, min_size=1, max_size=3),
    pages=st.sampled_from([1, 40, 600, 5000]),
    kernel=st.sampled_from(["6.1", "6.12", "7.2"]),
)
def test_nothing_is_lost_between_nodes(
    seed: int,
    refuse: float,
    again: float,
    fail: float,
    no_memory: float,
    release: float,
    rounds: list[list[tuple[int, int]]],
    pages: int,
    kernel: str,
) -> None:
    """Transfers and compactors in any order, messages that are repeated, drivers that fail at random."""
    # of its own: what happens takes more choices than hypothesis has for an example
    order = Random(seed)
    rates = {"refuse": refuse, "again": again, "fail": fail, "no_memory": no_memory, "release": release}
    odd = replace(ODD, settings=tuple({**rates, "seed": seed}.items()))
    host = world(replace(SPEC_OF_WORLD, drivers=(odd, ZRAM), seed=seed, kernel=kernel))
    before, lru, used = holdings(host)
    compactors = [(node, c) for node in range(3) for c in range(2)]
    for pairs in rounds:
        transfers = {Transfer(i, 0, *pair, pages): 0 for i, pair in enumerate(pairs)}
        host.ask(OpenTransfers(tuple(transfers)))
        while transfers:
            transfer = order.choice(list(transfers))
            if order.random() < 0.3:
                # a repeated step, or one of a process that has died
                step(host, transfer, order.randint(0, transfers[transfer]))
            else:
                result = step(host, transfer, transfers[transfer])
                transfers[transfer] += result.sent
                if result.done:
                    del transfers[transfer]
            node, compactor = order.choice(compactors)
            host.memories[node].take(compactor)
            if release and order.random() < 0.3:
                free_some(host, order)
        free_dropped(host)
    # In turns: one may wait for a page that another one has locked.
    while compactors:
        compactors = [(node, c) for node, c in compactors if not host.memories[node].take(c)]
    free_dropped(host)
    after, lru_after, used_after = holdings(host)
    released = {
        (number, 0, page)
        for number, node in host.memories.items()
        if isinstance(driver := node.filled.drivers[0], Faulty)
        for page in driver.released
    }
    assert after == {page: held for page, held in before.items() if page not in released}
    assert lru_after == lru
    assert used_after == used - len(released)


def free_some(host: MemoryHost, order: Random) -> None:
    """A driver frees some of its pages, wherever they are, that the VM has not locked."""
    driver = order.choice(list(host.memories.values())).filled.drivers[0]
    assert isinstance(driver, Faulty)
    live = np.flatnonzero(driver.frame_of != NO_PAGE)
    live = live[~driver.memory.pages.locked(driver.frame_of[live])]
    some = live[[order.random() < 0.01 for _ in live]]
    driver.free(some)
    driver.released += some.tolist()
