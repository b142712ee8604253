"""Many compactors at once, in any order of their steps, with drivers that fail at random: nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.arrays.words import I64, Bool
from cluster.compaction.drivers.base import NO_PAGE
from cluster.compaction.drivers.faulty import Faulty
from cluster.compaction.kernel_rules import COMPACTION_RULES
from cluster.compaction.movable.lru_pages import LruPages
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import IsolateMode, MigrateMode
from cluster.compaction.pages.page_map import (
    OWNER_SHIFT,
    PG_ISOLATED,
    PG_LOCKED,
    PG_LRU,
    USED,
    PageKind,
    PageMap,
)
from cluster.compaction.pages.validate import validate
from cluster.compaction.zone.compact_control import Request
from cluster.compaction.zone.compact_zone import Compaction
from cluster.compaction.zone.contig_range import ContigRange
from cluster.compaction.zone.direct_compact import Allocation
from cluster.compaction.zone.kcompactd import Proactive
from cluster.compaction.zone.offline_pages import Offline
from cluster.mm.frames import PAGE_MAPPING_ANON

PAGES = 6 * 512


class Checked(Faulty):
    """Counts pages that the VM has, and fails if it takes one twice, or moves or puts back one it has not."""

    def __init__(self, memory: Memory, **rates: float) -> None:
        super().__init__(memory, **rates)  # type: ignore[arg-type]
        self.isolated: set[int] = set()

    def isolate_page(self, pages: I64, mode: IsolateMode) -> Bool:
        self._must_be_locked(pages)
        granted = super().isolate_page(pages, mode)
        numbers = set(self.page_at[pages[granted]].tolist())
        assert not numbers & self.isolated, "isolated twice"
        self.isolated |= numbers
        return granted

    def migrate_page(self, newpages: I64, pages: I64, mode: MigrateMode) -> I64:
        self._must_be_locked(pages)
        self._must_be_locked(newpages)
        numbers = self.page_at[pages].tolist()
        assert set(numbers) <= self.isolated
        answers = super().migrate_page(newpages, pages, mode)
        moved = len(answers) - bool(answers[-1])
        self.isolated -= set(numbers[:moved])
        return answers

    def putback_page(self, pages: I64) -> None:
        self._must_be_locked(pages)
        numbers = set(self.page_at[pages].tolist())
        assert numbers <= self.isolated, "put back, but not isolated"
        self.isolated -= numbers
        super().putback_page(pages)

    def free(self, numbers: I64) -> None:
        self.isolated -= set(numbers.tolist())
        super().free(numbers)

    def _must_be_locked(self, pages: I64) -> None:
        assert self.memory.pages.locked(pages).all()


class Worker(Protocol):
    """Anything that moves pages step by step."""

    @property
    def done(self) -> bool: ...

    def step(self) -> None: ...


@dataclass
class World:
    """A small memory: two drivers' pages, LRU pages and pages that cannot move, half of it free."""

    memory: Memory
    drivers: list[Checked]
    lru: LruPages
    used: int = field(init=False)

    def __post_init__(self) -> None:
        self.used = int(np.count_nonzero(self.memory.pages.order[:PAGES] == USED))
        self.lru_pages = int(np.count_nonzero(self.memory.pages.flags & PG_LRU))

    def check(self) -> None:
        """After everything: what there was is there, and nobody holds anything."""
        pages = self.memory.pages
        for zone in self.memory.zones:
            zone.drain()
        assert not (pages.flags & (PG_LOCKED | PG_ISOLATED)).any()
        used = pages.order[:PAGES] == USED
        assert ((pages.refcount == 1) == used)[pages.kind != PageKind.HOLE].all()
        for zone in self.memory.zones:
            assert zone.free_pages == np.count_nonzero(~used[zone.start : zone.end])
        frames = [driver.frame_of[driver.frame_of != NO_PAGE] for driver in self.drivers]
        everywhere = np.concatenate(frames)
        assert len(np.unique(everywhere)) == len(everywhere)
        assert used[everywhere].all()
        for driver, mine in zip(self.drivers, frames, strict=True):
            numbers = driver.page_at[mine]
            assert (driver.frame_of[numbers] == mine).all()
            assert (driver.content[mine] == numbers + 1).all()
            assert (pages.mapping[mine] >> OWNER_SHIFT == driver.owner).all()
            assert len(driver.frame_of) - len(mine) == len(driver.released)
            assert not driver.isolated
        assert np.count_nonzero(pages.flags & PG_LRU) == self.lru_pages

    def lost(self) -> int:
        """Pages that are neither free nor anybody's, as far as this world knows."""
        released = sum(len(driver.released) for driver in self.drivers)
        return self.used - released - int(np.count_nonzero(self.memory.pages.order[:PAGES] == USED))


def world(seed: int, rates: dict[str, float]) -> World:
    pages = PageMap(PAGES)
    pages.set_free(np.ones(PAGES, np.bool_))
    memory = Memory(pages, [Zone(pages, 0, 1024), Zone(pages, 1024, PAGES)])
    drivers = [Checked(memory, seed=seed, **rates), Checked(memory, seed=seed + 1)]
    lru = LruPages(memory)
    rng = np.random.default_rng(seed)
    everything = memory.alloc_bulk(PAGES)
    kinds = rng.choice(5, PAGES, p=[0.3, 0.1, 0.08, 0.02, 0.5])
    drivers[0].adopt(everything[kinds == 0])
    drivers[1].adopt(everything[kinds == 1])
    pages.kind[everything[kinds == 2]] = PageKind.LRU
    lru.adopt(everything[kinds == 2], PAGE_MAPPING_ANON)
    pages.kind[everything[kinds == 3]] = PageKind.UNMOVABLE
    memory.free(everything[kinds == 4])
    return World(memory, drivers, lru)


#: compactions of a zone: which, mode and kernel
COMPACTIONS = {
    "low": (0, MigrateMode.SYNC, "6.1"),
    "high": (1, MigrateMode.SYNC, "6.1"),
    "old": (1, MigrateMode.SYNC, "4.8"),
    "light": (1, MigrateMode.SYNC_LIGHT, "6.1"),
    "async": (1, MigrateMode.ASYNC, "6.1"),
    "targets-first": (1, MigrateMode.SYNC, "6.12"),
    "targets-first-light": (1, MigrateMode.SYNC_LIGHT, "6.18"),
    "targets-first-async": (0, MigrateMode.ASYNC, "7.2"),
}
NEWEST = COMPACTION_RULES["7.2"]
OTHERS: dict[str, Callable[[Memory, int | None], Worker]] = {
    "kcompactd": lambda memory, grain: Proactive(memory, 80, grain=grain),
    "alloc": lambda memory, grain: Allocation(memory, 5, grain=grain),
    "contig": lambda memory, grain: ContigRange(memory, 1536, 2048, grain=grain),
    "offline": lambda memory, grain: Offline(memory, 512, 1024, grain=grain),
    "new-contig": lambda memory, grain: ContigRange(memory, 1536, 2048, rules=NEWEST, grain=grain),
    "new-offline": lambda memory, grain: Offline(memory, 512, 1024, rules=NEWEST, grain=grain),
}


def begun(memory: Memory, name: str, grain: int | None) -> Worker:
    if name in OTHERS:
        return OTHERS[name](memory, grain)
    zone, mode, kernel = COMPACTIONS[name]
    return Compaction(memory, memory.zones[zone], Request(mode), rules=COMPACTION_RULES[kernel], grain=grain)


def take_turn(active: Worker, chance: Random) -> None:
    """A step; compactors go on for longer at times."""
    if isinstance(active, Compaction | Proactive) and chance.random() < 0.04:
        active.advance(chance.choice([1, 300, 2000]))
    if not active.done:
        active.step()


NAMES = st.lists(st.sampled_from([*COMPACTIONS, "high", *OTHERS]), min_size=1, max_size=8)
RATE = st.sampled_from([0.0, 0.05, 0.5])
RATES = st.fixed_dictionaries(
    {
        "refuse": RATE,
        "again": RATE,
        "fail": RATE,
        "no_memory": st.sampled_from([0.0, 0.02]),
        "release": st.sampled_from([0.0, 0.1]),
    }
)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    rates=RATES,
    names=NAMES,
    grain=st.sampled_from([None, 1, 3, 16]),
    order=st.randoms(use_true_random=False),
)
def test_nothing_is_lost(
    seed: int, rates: dict[str, float], names: list[str], grain: int | None, order
) -> None:  # type: ignore[no-untyped-def]
    w = world(seed, rates)
    active = [begun(w.memory, name, grain) for name in names]
    everyone = list(active)
    steps = 0
    while active := [one for one in active if not one.done]:
        take_turn(order.choice(active), order)
        validate(w.memory)
        steps += 1
        assert steps < 300_000
        for worker in active:
            if isinstance(worker, Offline) and worker.rounds > 20:
                worker.cancel()
    taken = sum(
        512
        for worker in everyone
        if isinstance(worker, ContigRange | Offline) and worker.error == 0 and worker.done
    )
    taken += sum(32 for worker in everyone if isinstance(worker, Allocation) and worker.pfn is not None)
    w.check()
    assert w.lost() == -taken


@pytest.mark.parametrize("kernel", ["6.1", "7.2"])
@pytest.mark.parametrize("grain", [1, 7])
def test_grain_changes_nothing_for_one_alone(grain: int, kernel: str) -> None:
    """Without anybody else, steps of any size give the same moves."""
    moves = []
    for size in (None, grain):
        w = world(5, {})
        compaction = Compaction(w.memory, w.memory.zones[1], rules=COMPACTION_RULES[kernel], grain=size)
        compaction.run()
        moves.append(np.concatenate([np.column_stack(pair) for pair in compaction.moves]))
    assert len(moves[0]) > 100
    assert np.array_equal(*moves)
