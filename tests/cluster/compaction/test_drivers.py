"""Built-in drivers, and the example of the documentation."""

from __future__ import annotations

import errno
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.compaction.drivers.balloon import Balloon
from cluster.compaction.drivers.base import NO_PAGE, PageDriver
from cluster.compaction.drivers.gpu import Gpu
from cluster.compaction.drivers.registry import BUILT_IN, make_driver
from cluster.compaction.drivers.zsmalloc import Zram, ZsMalloc, class_of
from cluster.compaction.movable.page_movable import set_page_movable
from cluster.compaction.pages.buddy import Zone
from cluster.compaction.pages.memory import Memory
from cluster.compaction.pages.movable_operations import MigrateMode, PageStateError
from cluster.compaction.pages.page_map import PageKind, PageMap
from cluster.compaction.zone.compact_zone import Compaction
from cluster.plugins.loading import PluginError
from tests.paths import DOCS

DOCUMENT = DOCS / "howto" / "drivers.md"
PAGES = 8 * 512


def memory(pages: int = PAGES) -> Memory:
    page_map = PageMap(pages)
    page_map.set_free(np.ones(pages, np.bool_))
    return Memory(page_map, [Zone(page_map, 0, pages)])


def compacted(m: Memory) -> Compaction:
    compaction = Compaction(m, m.zones[0])
    compaction.run()
    return compaction


def half_empty(m: Memory, driver: PageDriver) -> None:
    """Fill all memory with the driver's pages, and free every other one."""
    units = driver.allocate(PAGES)
    driver.discard(units[::2])


@pytest.mark.parametrize("name", ["balloon", "gpu", "zram", "faulty"])
def test_movable_pages_make_room(name: str) -> None:
    m = memory()
    driver = make_driver(name, m, {})
    units = driver.allocate(PAGES)
    driver.discard(units[::2])
    assert m.free_blocks(9) == 0
    assert m.alloc(9) is None
    compacted(m)
    assert m.free_blocks(9) == 3
    assert m.alloc(9) is not None


def test_pinned_pages_do_not() -> None:
    m = memory()
    driver = make_driver("pinned", m, {})
    driver.discard(driver.allocate(PAGES)[::2])
    assert compacted(m).succeeded == 0
    assert m.alloc(1) is None


def test_balloon() -> None:
    m = memory()
    balloon = Balloon(m)
    balloon.inflate(3000)
    assert balloon.deflate(1000) == 1000
    assert balloon.deflate(5000) == 2000
    assert m.zones[0].free_pages == PAGES
    assert balloon.deflate(0) == 0
    half_empty(m, balloon)
    balloon.resizing = True
    assert compacted(m).succeeded == 0


def test_gpu_pages_in_use_stay() -> None:
    m = memory()
    gpu = Gpu(m)
    half_empty(m, gpu)
    pinned = gpu.page_at[100:200]
    pinned = pinned[pinned != NO_PAGE]
    gpu.pin(pinned)
    before = gpu.frame_of[pinned].copy()
    compaction = compacted(m)
    assert compaction.failed == len(pinned) + 1
    assert (gpu.frame_of[pinned] == before).all()
    gpu.unpin(pinned)
    assert compacted(m).succeeded > 0


def test_gpu_busy_now_and_then_moves_in_the_end() -> None:
    results = []
    for grain in (None, 5):
        m = memory()
        gpu = Gpu(m, busy=0.3, seed=3)
        half_empty(m, gpu)
        compaction = Compaction(m, m.zones[0], grain=grain)
        compaction.run()
        assert m.free_blocks(9) >= 2
        assert compaction.succeeded > 700
        results.append(gpu.frame_of.tolist())
    # the same answers whatever the batches
    assert results[0] == results[1]


def test_size_classes() -> None:
    assert class_of(4096) == (1, 1)
    assert class_of(2000) == (1, 2)
    assert class_of(3000) == (3, 4)
    assert class_of(1) == (1, 128)
    with pytest.raises(ValueError, match="an object of 4097 bytes; it must have 1 to 4096"):
        class_of(4097)


def test_zram_needs_its_own_compaction_if_pages_hold_several_objects() -> None:
    m = memory()
    zram = Zram(m, object_size=2000)
    slots = zram.allocate(2 * PAGES)
    assert len(slots) == 2 * PAGES
    rng = np.random.default_rng(2)
    zram.discard(rng.permutation(slots)[:PAGES])
    # a quarter of the pages held two objects that are both gone
    assert zram.pages_used == pytest.approx(0.75 * PAGES, rel=0.02)
    compacted(m)
    assert m.free_blocks(9) == 1
    assert zram.compact() == pytest.approx(0.25 * PAGES, rel=0.05)
    assert zram.pages_used == PAGES // 2
    compacted(m)
    assert m.free_blocks(9) == 3


def test_zsmalloc_under_access() -> None:
    m = memory()
    zs = ZsMalloc(m)
    objects = zs.store(3000, 1000)
    zs.begin_access(objects[:4])
    pages = zs.pages_of(objects[:4])
    assert len(pages) == 3
    assert (zs.answers(pages, MigrateMode.SYNC) == -errno.EAGAIN).all()
    assert zs.answers(zs.pages_of(objects[4:8]), MigrateMode.SYNC) is None
    zs.end_access(objects[:4])
    assert zs.answers(pages, MigrateMode.SYNC) is None


def test_zspages_with_a_locked_page_are_freed_later() -> None:
    m = memory()
    zs = ZsMalloc(m)
    objects = zs.store(4096, 4)
    page = zs.pages_of(objects[:1])
    assert len(m.pages.trylock(page)) == 1
    zs.discard(objects[:2])
    assert zs.pages_used == 3
    m.pages.unlock(page)
    zs.discard(objects[2:3])
    assert zs.pages_used == 1


@settings(max_examples=40)
@given(
    steps=st.lists(st.tuples(st.integers(1, 4096), st.integers(1, 300), st.floats(0, 1)), max_size=8),
    seed=st.integers(0, 99),
)
def test_zsmalloc_keeps_every_object(steps: list[tuple[int, int, float]], seed: int) -> None:
    m = memory()
    zs = ZsMalloc(m)
    rng = np.random.default_rng(seed)
    live: list[int] = []
    for size, count, share in steps:
        live += zs.store(size, count).tolist()
        gone = [number for number in live if rng.random() < share]
        live = [number for number in live if number not in set(gone)]
        zs.discard(np.array(gone, np.int64))
        zs.compact()
        compacted(m)
        frames = zs.frame_of[zs.frame_of != NO_PAGE]
        assert (zs.content[frames] == zs.page_at[frames] + 1).all()
        assert PAGES - m.zones[0].free_pages == len(frames)
        held = np.concatenate([np.zeros(0, np.int64), *(c.slots[c.slots >= 0] for c in zs._classes.values())])
        assert sorted(held.tolist()) == sorted(live)
        if live:
            assert np.isin(zs.pages_of(np.array(live)), frames).all()


def test_the_documented_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "mylab_network.py").write_text(code[1])
    monkeypatch.syspath_prepend(tmp_path)
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 30
    m = memory()
    card = make_driver("mylab_network:NetworkCard", m, {"ring": 128})
    assert isinstance(card, PageDriver)
    half_empty(m, card)
    number = int(card.page_at[1])
    card.receive(number, 1500)  # type: ignore[attr-defined]
    frame = int(card.frame_of[number])
    compacted(m)
    assert card.frame_of[number] == frame
    card.receive(PAGES - 1, 60)  # type: ignore[attr-defined]
    compacted(m)
    assert card.frame_of[number] != frame
    assert card.bytes_at[card.frame_of[number]] == 1500  # type: ignore[attr-defined]
    assert m.free_blocks(9) >= 2
    monkeypatch.delitem(sys.modules, "mylab_network")


def test_every_built_in_driver_is_documented() -> None:
    text = DOCUMENT.read_text()
    assert all(f"| `{name}` |" in text for name in BUILT_IN)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "zramm",
            "no driver 'zramm'; give one of balloon, faulty, gpu, pinned, zram, or PACKAGE.MODULE:CLASS",
        ),
        (
            "no.such:Driver",
            "driver 'no.such:Driver': No module named 'no'; install the package of no, or start in its",
        ),
        (
            "cluster.compaction.movable.counting:Counted",
            "driver 'cluster.compaction.movable.counting:Counted' with settings {}: ",
        ),
        (
            "cluster.compaction.movable.lru_pages:LruPages",
            "driver 'cluster.compaction.movable.lru_pages:LruPages' has no allocate, discard; "
            "PageDriver has them all",
        ),
        (
            "cluster.spec.scenario:Nothing",
            "driver 'cluster.spec.scenario:Nothing': module 'cluster.spec.scenario' has no attribute",
        ),
        ("cluster.spec.content:PAGE_SIZE", "driver 'cluster.spec.content:PAGE_SIZE' is not a class"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(PluginError, match=re.escape(message)):
        make_driver(name, memory(), {})


def test_wrong_settings() -> None:
    with pytest.raises(PluginError, match="driver 'gpu' has no setting 'bussy'; did you mean 'busy'"):
        make_driver("gpu", memory(), {"bussy": 1})


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("gpu", {"busy": 1.5}, "busy: must be a number from 0 to 1, not 1.5"),
        ("gpu", {"seed": 1.5}, "seed: must be a whole number, not 1.5"),
        ("faulty", {"again": "x"}, "again: must be a number from 0 to 1, not 'x'"),
        ("faulty", {"refuse": -1e-308}, "refuse: must be a number from 0 to 1, not -1e-308"),
        ("faulty", {"seed": 1.5}, "seed: must be a whole number, not 1.5"),
        ("zram", {"object_size": 0.5}, "object_size: must be a whole number, not 0.5"),
    ],
)
def test_wrong_values_of_settings(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginError, match=re.escape(message)):
        make_driver(kind, memory(), settings)


def test_the_contract_is_checked() -> None:
    m = memory()
    driver = PageDriver(m)
    page = m.alloc_bulk(1)
    with pytest.raises(PageStateError, match=r"pages not locked: \[0\]"):
        set_page_movable(m, page, driver.owner)

    class GoesOn(PageDriver):
        """Answers for pages after the one that failed."""

        def migrate_page(self, newpages, pages, mode):  # type: ignore[no-untyped-def]
            return np.full(len(pages), -errno.EAGAIN)

    m = memory()
    half_empty(m, GoesOn(m))
    with pytest.raises(PageStateError, match="migrate_page must stop at the first error"):
        compacted(m)

    class Terse(PageDriver):
        """One answer for all pages."""

        def answers(self, pages, mode):  # type: ignore[no-untyped-def]
            return np.zeros(1, np.int64)

    m = memory()
    half_empty(m, Terse(m))
    with pytest.raises(PageStateError, match=r"Terse.answers: 1 answers for \d+ pages; there must be one"):
        compacted(m)


def test_kinds_in_a_map() -> None:
    m = memory(1024)
    Balloon(m).inflate(2)
    assert m.pages.map_bytes()[:3] == bytes([PageKind.BALLOON, PageKind.BALLOON, PageKind.FREE])
