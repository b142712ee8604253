"""Single rules of migration and compaction, with small memories."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from cluster.compaction.drivers.scripted import ALWAYS, ScriptedDriver
from cluster.compaction.kernel_rules import COMPACTION_RULES, DEFAULT_RULES
from cluster.compaction.movable.isolation import Isolation, Putback
from cluster.compaction.movable.lru_pages import LruPages
from cluster.compaction.movable.migrate_pages import migrate_pages
from cluster.compaction.movable.targets import AllocatedTargets
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode, MigrateMode
from cluster.compaction.pages.page_map import PG_ISOLATED, USED, MigrateType, PageKind, PageMap
from cluster.compaction.pages.validate import validate
from cluster.compaction.zone.compact_control import Request, Status, Trace
from cluster.compaction.zone.compact_zone import Compaction
from cluster.compaction.zone.contig_range import ContigRange
from cluster.compaction.zone.direct_compact import (
    Allocation,
    defer,
    defer_request,
    defer_reset,
    fragmentation_index,
    restarting,
    run_kswapd,
    suitable,
)
from cluster.compaction.zone.offline_pages import Offline, soft_offline_page
from cluster.mm.frames import PAGE_MAPPING_ANON

PAGES = 8 * 512


def setting(used: list[int], pages: int = PAGES) -> tuple[Memory, ScriptedDriver]:
    """Free memory but for these pages of a driver that logs its calls; each pageblock has a stuck page."""
    page_map = PageMap(pages)
    stuck = np.setdiff1d(np.arange(511, pages, 512), used)
    free = np.ones(pages, np.bool_)
    free[[*used, *stuck]] = False
    page_map.set_free(free)
    page_map.kind[stuck] = PageKind.UNMOVABLE
    memory = Memory(page_map, [Zone(page_map, 0, pages)])
    driver = ScriptedDriver(memory, log=True)
    driver.adopt(np.array(used, np.int64))
    return memory, driver


def calls(driver: ScriptedDriver) -> str:
    return " ".join(f"{event.op}{event.page}" for event in driver.scripts.events if event.op != "T")


def fail(driver: ScriptedDriver, page: int, error: int, times: int = ALWAYS) -> None:
    driver.scripts.error[page] = -error
    driver.scripts.failures[page] = times


def test_putback_comes_after_the_batch_since_6_0_and_at_once_before() -> None:
    after = {"4.8": "I0 I1 I2 M2 M1 P1 M0", "6.1": "I0 I1 I2 M2 M1 M0 P1"}
    for release, expected in after.items():
        memory, driver = setting([3, 4, 5])
        fail(driver, 1, errno.EBUSY)
        Compaction(memory, memory.zones[0], rules=COMPACTION_RULES[release]).run()
        assert calls(driver) == expected
        assert (memory.vmstat.pgmigrate_success, memory.vmstat.pgmigrate_fail) == (2, 1)


def test_targets_first_from_6_12_on() -> None:
    """All pages get targets; then 3 passes in async mode, and page by page 7 attempts in the run's mode."""
    memory, driver = setting([3, 4, 5])
    fail(driver, 2, errno.EAGAIN)
    fail(driver, 1, errno.EBUSY, 1)
    Compaction(memory, memory.zones[0], rules=COMPACTION_RULES["6.12"]).run()
    assert calls(driver) == f"I0 I1 I2 M2 M1 M0 M2 M2 M1 {'M2 ' * 7}P2"
    moves = [event for event in driver.scripts.events if event.op == "M"]
    assert [event.mode for event in moves] == [0] * 5 + [2] * 8
    first = moves[0].newpfn
    # targets inside a block go upward; page 2 keeps its target, that of page 1 is free again
    assert [event.newpfn - first for event in moves] == [0, 1, 2, 0, 0, 0, *[1] * 7]
    assert (memory.vmstat.pgmigrate_success, memory.vmstat.pgmigrate_fail) == (2, 1)


def test_a_driver_without_memory_stops_nothing_from_6_12_on() -> None:
    for release, expected in {"6.1": "M2 M1 P1 P0", "6.12": "M2 M1 M0 M1 P1"}.items():
        memory, driver = setting([3, 4, 5])
        fail(driver, 1, errno.ENOMEM)
        Compaction(memory, memory.zones[0], rules=COMPACTION_RULES[release]).run()
        assert calls(driver) == f"I0 I1 I2 {expected}"


def test_a_page_without_target_does_not_stop_those_that_have_one_from_6_12_on() -> None:
    memory, driver = setting([3, 4, 5])
    pages = driver.frame_of.copy()
    isolation = Isolation(memory, pages, IsolateMode.NONE)
    isolation.begin()
    isolation.finish()
    memory.zones[0].watermark_min = memory.zones[0].free_pages - 2
    rules, targets = COMPACTION_RULES["6.12"], AllocatedTargets(memory)
    migration = migrate_pages(memory, pages, targets, MigrateMode.SYNC, rules, grain=1)
    migration.run()
    assert calls(driver) == "I0 I1 I2 M0 M1"
    assert (migration.succeeded, migration.failed, migration.error) == (2, 1, -errno.ENOMEM)
    assert migration.left.tolist() == [5]


@pytest.mark.parametrize(
    ("kernel", "free", "moves"),
    [
        ("6.12", [1536, 1540, 1541, 1542, 1543], [(8, 1540), (4, 1536)]),
        (
            "6.12",
            [1536, 1538, 1540, 1542, 1544, 1546],
            [(4, 1536), (11, 1538), (10, 1540), (9, 1542), (8, 1544)],
        ),
        (
            "6.18",
            [1536, 1538, 1540, 1542, 1544, 1546],
            [(4, 1536), (9, 1538), (10, 1540), (11, 1542), (8, 1544)],
        ),
    ],
)
def test_a_large_folio_moves_whole_or_is_split(
    kernel: str, free: list[int], moves: list[tuple[int, int]]
) -> None:
    """A folio of 4 pages at 8, a page at 4; the free pages above hold a block of 4 pages, or do not."""
    pages = PageMap(2048)
    is_free = np.zeros(2048, np.bool_)
    is_free[[*free, *range(300, 340)]] = True
    pages.set_free(is_free)
    memory = Memory(pages, [Zone(pages, 0, 2048)])
    lru = LruPages(memory)
    lru.adopt_folios(np.array([8]), 2, PAGE_MAPPING_ANON)
    lru.adopt(np.array([4]), PAGE_MAPPING_ANON)
    pages.content[8:12] = [1, 2, 3, 4]
    validate(memory)
    compaction = Compaction(memory, memory.zones[0], rules=COMPACTION_RULES[kernel])
    compaction.run()
    validate(memory)
    assert [
        pair for old, new in compaction.moves for pair in zip(old.tolist(), new.tolist(), strict=True)
    ] == moves
    assert memory.vmstat.pgmigrate_success == 5
    assert (pages.order[[4, 8, 9, 10, 11]] != USED).all()
    where = dict(moves)
    places = [where[8] + k if 9 not in where else where[8 + k] for k in range(4)]
    assert pages.content[places].tolist() == [1, 2, 3, 4]


def test_the_driver_is_asked_for_a_page_that_it_gave_up_from_6_18_on() -> None:
    for release, expected in {"6.12": "I0 I1 R0 M1", "6.18": "I0 I1 R0 M1 m0"}.items():
        memory, driver = setting([3, 4])
        driver.scripts.rel[1], driver.scripts.peer[1] = 3, 0
        Compaction(memory, memory.zones[0], rules=COMPACTION_RULES[release], grain=1).run()
        assert calls(driver) == expected
        assert memory.vmstat.pgmigrate_success == 2
        assert memory.pages.order[3] != USED


def test_a_page_of_a_batch_cannot_be_given_up_from_6_12_on() -> None:
    """While the driver moves a page, the VM holds the locks of all others."""
    for release, expected in {"6.1": "I0 I1 R0 M1", "6.12": "I0 I1 r0 M1 M0"}.items():
        memory, driver = setting([3, 4])
        driver.scripts.rel[1], driver.scripts.peer[1] = 5, 0
        Compaction(memory, memory.zones[0], rules=COMPACTION_RULES[release], grain=1).run()
        assert calls(driver) == expected


def test_an_emptied_pageblock_keeps_its_type_from_6_18_on() -> None:
    for release, after in {"6.12": MigrateType.MOVABLE, "6.18": MigrateType.UNMOVABLE}.items():
        memory, _driver = setting([512, 513])
        memory.pages.order[1023], memory.pages.refcount[1023] = 0, 0
        memory.pages.pageblock_type[1] = MigrateType.UNMOVABLE
        ContigRange(memory, 512, 1024, rules=COMPACTION_RULES[release]).run()
        assert memory.pages.pageblock_type[1] == after


def test_memory_is_emptied_downwards_from_6_12_on() -> None:
    for release, expected in {"6.1": "I0 I1 M0 M1", "6.12": "I0 I1 M1 M0"}.items():
        memory, driver = setting([512, 1023])
        assert Offline(memory, 512, 1024, rules=COMPACTION_RULES[release]).run(1) == 0
        assert calls(driver) == expected


def test_contig_attempts_by_release() -> None:
    for release, attempts in {"4.8": 1, "6.1": 5, "6.12": 10}.items():
        memory, driver = setting([512, 1023])
        fail(driver, 0, errno.EBUSY)
        contig = ContigRange(memory, 512, 1024, rules=COMPACTION_RULES[release])
        assert contig.run() == -errno.EBUSY
        assert calls(driver).count("M0") == attempts
        assert calls(driver).count("P0") == 1


def test_batches_by_release() -> None:
    for release, sizes in {"4.8": [32, 32, 32, 4], "6.1": [32, 68]}.items():
        memory, _driver = setting(list(range(513, 712, 2)))
        trace = Trace()
        Compaction(memory, memory.zones[0], rules=COMPACTION_RULES[release], trace=trace).run()
        assert [event[4] for event in trace.events if event[0] == "iso_m" and event[4]] == sizes


def test_a_target_that_was_refused_is_offered_to_the_next_page() -> None:
    memory, driver = setting([1, 2, 3])
    fail(driver, 2, errno.EAGAIN, 1)
    Compaction(memory, memory.zones[0]).run()
    targets = [(event.page, event.newpfn) for event in driver.scripts.events if event.op == "M"]
    first = targets[0][1]
    assert targets == [(2, first), (1, first), (0, first - 1), (2, first - 2)]


def test_no_target_ends_a_run() -> None:
    memory, driver = setting(list(range(600, 700)))
    memory.pages.pageblock_type[:] = MigrateType.UNMOVABLE
    compaction = Compaction(memory, memory.zones[0])
    # the free scanner came down to the sources, so the scanners met
    assert compaction.run() == Status.COMPLETE
    assert (compaction.succeeded, compaction.failed) == (0, 1)
    assert calls(driver).count("M") == 0
    assert calls(driver).count("I") == calls(driver).count("P") == 32


def test_memory_left_at_the_watermark_is_not_taken() -> None:
    memory, driver = setting([1, 2, 3])
    memory.zones[0].watermark_min = memory.zones[0].free_pages
    assert Compaction(memory, memory.zones[0]).run() == Status.CONTENDED
    assert calls(driver) == "I0 I1 I2 P2 P1 P0"


def test_offline_takes_the_range_away() -> None:
    memory, driver = setting([512, 700, 1023])
    free = memory.zones[0].free_pages
    offline = Offline(memory, 512, 1024)
    assert offline.run(1) == 0
    assert offline.rounds == 1
    assert memory.zones[0].free_pages == free - 512
    assert memory.pages.map_bytes()[512:1024] == b"-" * 512
    assert not np.isin(driver.frame_of, np.arange(512, 1024)).any()


def test_offline_goes_on_until_canceled() -> None:
    memory, driver = setting([512, 1023])
    driver.scripts.refusals[0] = ALWAYS
    offline = Offline(memory, 512, 1024)
    assert offline.run(3) == -errno.EINTR
    assert calls(driver) == "I0 I1 M1 I0 I0 I0"
    assert memory.pages.pageblock_type[1] == MigrateType.MOVABLE


def test_ranges_that_cannot_be_emptied() -> None:
    memory, _driver = setting([512])
    assert Offline(memory, 512, 1024).run(1) == -errno.EBUSY
    assert ContigRange(memory, 512, 1024).run() == -errno.EBUSY
    memory, _driver = setting([512, 1023])
    first, second = Offline(memory, 512, 1024), ContigRange(memory, 512, 1024)
    assert (first.done, second.error) == (False, -errno.EBUSY)
    for wrong in (ContigRange, Offline):
        with pytest.raises(ValueError, match=r"pages 5\.\.512 are not whole pageblocks"):
            wrong(memory, 5, 512)


def test_soft_offline() -> None:
    memory, driver = setting([100, 101])
    assert soft_offline_page(memory, 100) == 0
    assert memory.pages.map_bytes()[100] == PageKind.POISONED
    driver.scripts.refusals[1] = 1
    assert soft_offline_page(memory, 101) == -errno.EBUSY


def test_contention_is_counted() -> None:
    memory, driver = setting([513, 514, 515])
    first = Compaction(memory, memory.zones[0], grain=1)
    while not len(first.migrating):
        first.step()
    Compaction(memory, memory.zones[0]).run()
    assert memory.vmstat.skipped_isolated == 3
    first.run()
    memory, driver = setting([513, 514, 515])
    first = Compaction(memory, memory.zones[0], grain=1)
    while not len(first.isolating):
        first.step()
    Compaction(memory, memory.zones[0]).run()
    assert memory.vmstat.skipped_locked == 1
    first.run()
    assert memory.vmstat.pgmigrate_success == 3
    assert calls(driver).count("I") == 3


def test_a_locked_page_is_tried_again_and_then_waited_for() -> None:
    memory, driver = setting([1, 2])
    both = driver.frame_of.copy()
    isolation = Isolation(memory, both, IsolateMode.NONE)
    isolation.begin()
    isolation.finish()
    assert (memory.pages.flags[both] == PG_ISOLATED).all()
    memory.pages.lock(both[:1])
    rules, targets = COMPACTION_RULES["6.1"], AllocatedTargets(memory)
    migration = migrate_pages(memory, both, targets, MigrateMode.SYNC, rules)
    for _ in range(20):
        migration.step()
    assert not migration.done
    assert migration.waiting
    # put off in three passes, waited for in the fourth
    assert (memory.vmstat.migrate_locked, memory.vmstat.lock_waits) == (3, 1)
    memory.pages.unlock(both[:1])
    migration.run()
    assert migration.succeeded == 2

    memory, driver = setting([1, 2])
    both = driver.frame_of.copy()
    isolation = Isolation(memory, both, IsolateMode.NONE)
    isolation.begin()
    isolation.finish()
    memory.pages.lock(both[:1])
    migration = migrate_pages(memory, both, AllocatedTargets(memory), MigrateMode.ASYNC, rules)
    migration.run()
    assert (migration.succeeded, migration.failed, migration.left.tolist()) == (1, 1, both[:1].tolist())
    putback = Putback(memory, migration.left)
    putback.step()
    assert not putback.done
    memory.pages.unlock(both[:1])
    putback.run()
    assert memory.pages.flags.max() == 0


def meeting(mode: MigrateMode) -> tuple[Memory, Compaction, Compaction]:
    """The first compactor has isolated a page, which the second saw before that, and has locked now."""
    memory, driver = setting([513])
    zone = memory.zones[0]
    first, second = (Compaction(memory, zone, Request(mode), grain=1) for _ in range(2))
    alone, _driver = setting([513])
    shadow = Compaction(alone, alone.zones[0], Request(mode), grain=1)
    # one step more, and the page is locked
    steps = 0
    while not len(shadow.isolating):
        shadow.step()
        steps += 1
    for _ in range(steps - 1):
        second.step()
    while not memory.pages.flags[513] & PG_ISOLATED:
        first.step()
    second.step()
    assert second.isolating.tolist() == driver.frame_of.tolist() == [513]
    return memory, first, second


def test_a_sync_compactor_waits_for_a_page_that_another_one_has_locked() -> None:
    for mode in (MigrateMode.SYNC, MigrateMode.SYNC_LIGHT):
        memory, first, second = meeting(mode)
        for _ in range(40):
            first.step()
        assert first.waiting
        assert not second.waiting
        assert (memory.vmstat.migrate_locked, memory.vmstat.lock_waits) == (3, 1)
        # it sees that the page is isolated, and lets it go
        second.step()
        first.run()
        second.run()
        assert (first.succeeded, second.succeeded, memory.vmstat.lock_waits) == (1, 0, 1)
        assert not memory.pages.flags.any()


def test_an_async_compactor_does_not_wait_to_migrate() -> None:
    memory, first, second = meeting(MigrateMode.ASYNC)
    while not first.waiting:
        first.step()
    # ten attempts put off; putting the page back needs its lock in any mode
    assert (memory.vmstat.migrate_locked, memory.vmstat.lock_waits) == (10, 1)
    assert (first.succeeded, first.failed, memory.vmstat.pgmigrate_fail) == (0, 1, 1)
    second.step()
    first.run()
    assert not memory.pages.flags.any()


def test_direct_compaction_makes_the_block() -> None:
    memory, driver = setting(list(range(0, PAGES, 2)))
    driver.adopt(np.arange(511, PAGES, 512))
    assert memory.free_blocks(9) == 0
    allocation = Allocation(memory, 9, modes=(MigrateMode.SYNC_LIGHT,))
    assert allocation.run() is not None
    assert memory.vmstat.compact_stall == memory.vmstat.compact_success == 1
    # no more than it takes
    assert memory.free_blocks(9) == 0


def test_async_direct_compaction_gives_up_a_block_that_cannot_become_free() -> None:
    used = [*range(0, 200, 2), 300, 301]
    memory, driver = setting(used)
    driver.scripts.refusals[60] = ALWAYS
    request = Request(MigrateMode.ASYNC, 9, whole_zone=False, ignore_skip_hint=False, direct=True)
    # before there were searches, which lead to other pages of the pageblock first
    Compaction(memory, memory.zones[0], request, rules=COMPACTION_RULES["4.8"]).run()
    # the page that nobody can move is the last of the pageblock; the refusal comes before
    words = calls(driver)
    assert "M" not in words[words.index("I60") :]
    assert words.count("I") == words.count("P") + words.count("M") + 1


def test_deferral() -> None:
    memory, _driver = setting([])
    zone = memory.zones[0]
    assert not defer_request(zone, 9)
    defer(zone, 9)
    assert [defer_request(zone, 9) for _ in range(3)] == [True, False, False]
    defer(zone, 9)
    assert [defer_request(zone, 9) for _ in range(4)] == [True, True, True, False]
    defer_reset(zone, 9, allocated=True)
    assert not defer_request(zone, 9)
    for _ in range(9):
        defer(zone, 3)
    assert [defer_request(zone, 9) for _ in range(64)].count(False) == 1
    assert restarting(zone, 9)


def test_when_compaction_is_of_use() -> None:
    memory, _driver = setting([])
    zone = memory.zones[0]
    # stuck pages leave blocks of order 8 and less
    assert fragmentation_index(zone, 8) == -1000
    assert fragmentation_index(zone, 9) > 500
    assert suitable(zone, 9, DEFAULT_RULES) == Status.CONTINUE
    zone.watermark_low = zone.free_pages
    assert suitable(zone, 9, DEFAULT_RULES) == Status.SKIPPED


def test_hints_are_forgotten_when_kswapd_sleeps() -> None:
    memory, _driver = setting([1, 2, 1024])
    memory.pages.skip[:8] = True
    run_kswapd(memory)
    assert memory.pages.skip[:8].all()
    memory.zones[0].cache.blockskip_flush = True
    run_kswapd(memory)
    # the upper half has free pages; in the lower half, the first one needs a page on the LRU lists
    assert memory.pages.skip[:8].tolist() == [True] * 4 + [False] * 4
    memory.zones[0].cache.blockskip_flush = True
    LruPages(memory).adopt(np.array([1024]), PAGE_MAPPING_ANON)
    run_kswapd(memory)
    assert memory.pages.skip[:8].tolist() == [True, True, False, False] + [False] * 4
